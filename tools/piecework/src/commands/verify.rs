//! Proofs and exports, checked on this machine: what is trusted, what was checked, what failed.

use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use piecework_api::{Client, errors::Refusal, ledger::ProofView};
use piecework_chain::{Chain, ChainFailure, ExportFailure};
use piecework_ledger::Genesis;
use piecework_model::PublicKey;
use piecework_proof::{
    Anchor, Checker, EXPORT_MAGIC, Frame, Invalid, JobProof, PROOF_MAGIC, Proof, ProvenEntry, ReadFailure, ValueProof,
    Verified, read_frames,
};
use serde_json::json;

use crate::{failure::Failure, places, session, show};

/// What to trust.
#[derive(Debug, clap::Args)]
pub struct Trusted {
    /// Genesis file of the network [default: that of the peer on this machine, else the one the server shows]
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// Key of a peer, from a source that you trust; may be repeated. Certificates must then be signed by these peers;
    /// what a proof says about changes of the peers is ignored
    #[arg(long = "peer", value_name = "KEY", value_parser = key)]
    peers: Vec<PublicKey>,
}

fn key(text: &str) -> Result<PublicKey, String> {
    text.parse().map_err(|_| "the key must be 64 hex digits".to_owned())
}

/// The basis of a check, and where it came from.
pub struct Ground {
    pub genesis: Genesis,
    source: String,
    peers: Vec<PublicKey>,
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::Refused {
            refusal: Box::new(Refusal::new(invalid.code(), invalid.to_string())),
            retry_after: None,
        }
    }
}

impl From<ReadFailure> for Failure {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Invalid(invalid) => invalid.into(),
            ReadFailure::Io(error) => Self::Local(anyhow::Error::new(error).context("cannot read the file")),
        }
    }
}

impl From<ChainFailure> for Failure {
    fn from(failure: ChainFailure) -> Self {
        Self::NoConnection {
            url: String::new(),
            reason: failure.to_string(),
        }
    }
}

impl From<ExportFailure> for Failure {
    fn from(failure: ExportFailure) -> Self {
        match failure {
            ExportFailure::Chain(failure) => failure.into(),
            ExportFailure::Write(_) | ExportFailure::Ended => Self::Local(failure.into()),
        }
    }
}

fn read_genesis(path: &Path) -> Result<Genesis, Failure> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::usage(format!("{} is not a genesis file: {error}", path.display())))
}

/// As the server shows it.
pub async fn genesis_of(client: &Client) -> Result<Genesis, Failure> {
    let shown = client.genesis().await?;
    serde_json::from_str(shown.get())
        .map_err(|error| Failure::usage(format!("the server did not send a valid genesis file: {error}")))
}

impl Trusted {
    /// `client` is asked if this machine has no genesis file.
    pub async fn ground(&self, client: Option<&Client>) -> Result<Ground, Failure> {
        let own = places::default_data_dir()?.join("peer/genesis.json");
        let file = self.genesis.clone().or_else(|| own.exists().then_some(own));
        let (genesis, source) = match (file, client) {
            (Some(path), _) => (read_genesis(&path)?, path.display().to_string()),
            (None, Some(client)) => (genesis_of(client).await?, format!("shown by {}", client.base())),
            (None, None) => return Err(Failure::usage("no genesis file known; add --genesis FILE")),
        };
        let peers = self.peers.clone();
        Ok(Ground { genesis, source, peers })
    }
}

impl Ground {
    fn anchor(&self) -> Anchor {
        match self.peers.is_empty() {
            true => Anchor::genesis(&self.genesis),
            false => Anchor::peers(self.genesis.network_id(), self.peers.clone()),
        }
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("network", self.genesis.network_id().to_string()),
            ("genesis", self.source.clone()),
        ]
    }

    /// Whose signatures were counted, as a sentence.
    fn peers_row(&self, changes: usize) -> String {
        match (self.peers.is_empty(), changes) {
            (false, _) => format!("the {} given with --peer", self.peers.len()),
            (true, 0) => "those in the genesis".to_owned(),
            (true, changes) => format!(
                "those in the genesis, then {changes} changes, each approved by the set before it. This can be trusted unless more \
                 than two thirds of a former set sign another history; to rely on peers you know, use --peer KEY"
            ),
        }
    }
}

/// The proof that a server shows, kept in a file where one is named: before it is checked, so that it can be looked at.
pub fn read(shown: &ProofView, keep: Option<&Path>) -> Result<Proof, Failure> {
    let bytes = hex::decode(&shown.proof).map_err(|_| Invalid::Malformed("it is not in hex"))?;
    if let Some(path) = keep {
        fs::write(path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(Proof::from_bytes(&bytes)?)
}

/// Checks a job's proof and shows what it says.
pub fn job(ground: &Ground, proof: &JobProof, job: piecework_model::JobId, json: bool) -> Result<(), Failure> {
    let mut anchor = ground.anchor();
    if ground.peers.is_empty() {
        anchor.follow(&proof.changes)?;
    }
    let proven = proof.verify_with(&anchor, job)?;
    let bytes = Proof::Job(proof.clone()).to_bytes().len();
    if json {
        return show::json(&json!({
            "verified": true, "job": job, "network": proof.network, "bytes": bytes, "entries": proven.entries,
        }));
    }
    let mut rows = vec![("job", job.to_string())];
    for entry in &proven.entries {
        rows.extend(entry_rows(entry));
    }
    rows.push((
        "checked",
        "Merkle paths, and certificates of more than two thirds of the peers".to_owned(),
    ));
    rows.push(("peers", ground.peers_row(anchor.changes())));
    rows.extend(ground.rows());
    rows.push(("proof", format!("{bytes} bytes")));
    show::fields(&rows)
}

fn entry_rows(proven: &ProvenEntry) -> Vec<(&'static str, String)> {
    let entry = &proven.entry;
    let at = i64::try_from(proven.timestamp_ms).ok();
    let at = at.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let block = format!("{}, {}", proven.height, show::or_dash(at.map(show::time)));
    let mut rows = vec![("in block", block), ("provider", entry.provider.to_string())];
    if let Some(receipt) = entry.receipt() {
        let used = format!(
            "{:?}, {} us of cpu, {} byte ms, {} bytes sent",
            receipt.status, receipt.counters.cpu_us, receipt.counters.memory_byte_ms, receipt.counters.egress_bytes
        );
        rows.push(("receipt", used));
        rows.push(("output", receipt.output.to_string()));
    }
    if let Some((price, commission)) = entry.paid() {
        let paid = format!(
            "{}, of it commission {}",
            show::ucr_long(price.into()),
            show::ucr(commission.into())
        );
        rows.push(("paid", paid));
    }
    rows
}

/// Checks an account's proof and shows what it says.
pub fn account(ground: &Ground, proof: &ValueProof, name: &str, json: bool) -> Result<(), Failure> {
    match proof.account() {
        Some((id, account)) if account.name.to_string() == name || id.to_string() == name => value(ground, proof, json),
        found => Err(Invalid::Other {
            found: found.map_or_else(|| "no account".to_owned(), |(_, account)| account.name.to_string()),
            expected: name.to_owned(),
        }
        .into()),
    }
}

fn value(ground: &Ground, proof: &ValueProof, json: bool) -> Result<(), Failure> {
    let mut anchor = ground.anchor();
    if ground.peers.is_empty() {
        anchor.follow(&proof.changes)?;
    }
    proof.verify_with(&anchor)?;
    let Some((id, account)) = proof.account() else {
        return Err(Invalid::Malformed("the proof is not for an account").into());
    };
    if json {
        return show::json(&json!({
            "verified": true, "account": id, "network": proof.network, "height": proof.block.height,
            "state": account,
        }));
    }
    let mut rows = vec![
        ("account", format!("{} ({id})", account.name)),
        ("posted", show::ucr_long(account.posted)),
        ("held", show::ucr_long(account.held)),
        ("in block", proof.block.height.to_string()),
        (
            "checked",
            "path to the state root, and a certificate of more than two thirds of the peers".to_owned(),
        ),
        ("peers", ground.peers_row(anchor.changes())),
    ];
    rows.extend(ground.rows());
    show::fields(&rows)
}

/// Checks a file: a saved proof, or an export of the whole ledger.
pub async fn file(path: &Path, trusted: &Trusted, json: bool) -> Result<(), Failure> {
    let begin = beginning(path)?;
    let client = session::connect().ok();
    if begin == PROOF_MAGIC {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let proof = Proof::from_bytes(&bytes)?;
        let ground = trusted.ground(client.as_ref()).await?;
        return match proof {
            Proof::Job(proof) => {
                let id = proof.job().ok_or(Invalid::Malformed("the proof is not for a job"))?;
                job(&ground, &proof, id, json)
            }
            Proof::Value(proof) => value(&ground, &proof, json),
        };
    }
    if begin != EXPORT_MAGIC {
        return Err(Invalid::Malformed("it begins like neither").into());
    }
    // An export brings its genesis; a file that was named says which it must be.
    let ground = match &trusted.genesis {
        Some(_) => Some(trusted.ground(None).await?),
        None => None,
    };
    export(path.to_owned(), ground, json).await
}

fn beginning(path: &Path) -> Result<[u8; 8], Failure> {
    use std::io::Read as _;
    let mut begin = [0; 8];
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    match file.read_exact(&mut begin) {
        Ok(()) => Ok(begin),
        Err(_) => Err(Invalid::Malformed("it has fewer than 8 bytes").into()),
    }
}

/// Executes every block of an export again.
#[cfg(target_os = "linux")]
pub async fn export(path: PathBuf, ground: Option<Ground>, json: bool) -> Result<(), Failure> {
    let expected = ground.as_ref().map(|ground| ground.genesis.network_id());
    let check = tokio::task::spawn_blocking(move || -> Result<Verified, Failure> {
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let folder = tempfile::tempdir().context("not enough space for a copy of the state")?;
        let mut checker = Checker::new(crate::compose::replica(folder.path())?);
        for frame in read_frames(BufReader::new(file))? {
            let frame = frame?;
            if let (Frame::Genesis(genesis), Some(expected)) = (&frame, expected) {
                let found = genesis.network_id();
                if found != expected {
                    return Err(Invalid::OtherNetwork { found, expected }.into());
                }
            }
            checker.frame(frame)?;
        }
        Ok(checker.finish()?)
    });
    let verified = check.await.context("the check stopped early")??;
    show_verified(&verified, ground.as_ref(), json)
}

#[cfg(not(target_os = "linux"))]
pub async fn export(_: PathBuf, _: Option<Ground>, _: bool) -> Result<(), Failure> {
    Err(Failure::usage(
        "an export is executed again on Linux only\n  a peer's proofs are checked here too: `--url URL`",
    ))
}

fn show_verified(verified: &Verified, ground: Option<&Ground>, json: bool) -> Result<(), Failure> {
    if json {
        return show::json(&json!({ "verified": true, "ledger": verified }));
    }
    let Verified {
        blocks,
        transactions,
        refused,
        ..
    } = verified;
    let genesis = match ground {
        Some(ground) => format!("{}, same as in the export", ground.source),
        None => "from the export; compare it with --genesis FILE, or compare the network id yourself".to_owned(),
    };
    show::fields(&[
        (
            "blocks",
            format!("{blocks}, executed again with the same outcomes and state roots"),
        ),
        (
            "transactions",
            format!("{transactions}, of which {refused} refused, as the blocks say"),
        ),
        (
            "certificates",
            format!(
                "{} with {} signatures, by the peers of their time ({} changes of the peers)",
                verified.certificates, verified.certificate_signatures, verified.peer_changes
            ),
        ),
        (
            "balances",
            format!("{} values match the blocks and the state root", verified.values),
        ),
        ("head", verified.head.to_string()),
        ("state root", verified.state_root.to_string()),
        ("network", verified.network.to_string()),
        ("genesis", genesis),
    ])
}

/// The ledger that the server shows, block by block.
pub async fn follow(client: &Client, genesis: Genesis) -> Result<Arc<dyn Chain>, Failure> {
    let options = piecework_chain_http::remote::Options::new(vec![client.base().to_owned()], genesis);
    Ok(piecework_chain_http::remote::connect(options).await?)
}

/// On standard error, where that is a terminal.
fn progress(blocks: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} blocks, {eta}").expect("a fine template");
    ProgressBar::new(blocks).with_style(style)
}

/// Writes all blocks to a file.
pub async fn write_export(client: &Client, genesis: Genesis, path: &Path) -> Result<piecework_chain::Export, Failure> {
    let chain = follow(client, genesis.clone()).await?;
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let head = chain.status().height;
    let bar = progress(head);
    let out = std::io::BufWriter::new(file);
    let done = piecework_chain::export(&*chain, &genesis, out, |height| bar.set_position(height.min(head))).await;
    bar.finish_and_clear();
    Ok(done?)
}
