//! Checks the ledger for what this provider is owed, and claims it if the payer does not settle.
//!
//! Losing sight of the ledger changes nothing: the papers stay until it shows that they are paid. They are written to
//! disk only once some have waited for [`WRITTEN_AFTER_MS`]: a payer that settles within a second costs no writing, and
//! a crash of this provider then loses nothing either, since that payer has the receipts as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use borsh::BorshDeserialize as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use piecework_chain::{Chain, ChainFailure, SubmitError};
use piecework_ledger::{Action, Key, LeaseState, SignedTransaction, Transaction, Value};
use piecework_model::{
    AccountId, Code, Format, LeaseId, NetworkId, PublicKey, Receipt, Rejection, Seal, SecretKey, Ticket,
};
use tokio_util::sync::CancellationToken;

use crate::{
    claims::{Owed, Papers, Patience, Shown},
    journal::newer,
    leases::Leases,
    now_ms,
};

/// Begins to look at the ledger; asked when something waits, and again after a failure.
pub type Ledger = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Chain>, ChainFailure>> + Send + Sync>;

/// How a provider gets paid without its payer.
#[derive(Clone)]
pub struct Claiming {
    pub network: NetworkId,
    pub ledger: Ledger,
    /// How long a job may be unpaid before it is claimed. Settlements take seconds: [`Claiming::AFTER`] is for a
    /// controller that restarts or moves. A claim costs a payer that comes back nothing: its settlement goes first.
    pub after: Duration,
    /// Leases with a shorter window are not worked for, see [`crate::leases::WINDOW_BLOCKS_MIN`].
    pub window_blocks_min: u32,
    /// A file for the papers of jobs that have waited; created when needed.
    pub papers: PathBuf,
}

impl Claiming {
    pub const AFTER: Duration = Duration::from_secs(120);
}

const EVERY: Duration = Duration::from_secs(1);
/// A lease is looked at when its first job has waited so long: what is settled within seconds costs a question a
/// minute.
const LOOKED_AT_AFTER_MS: u64 = 30_000;
const WRITTEN_AFTER_MS: u64 = 10_000;
/// What the ledger says of the content of a claim. Any other refusal is of its place in the order of transactions.
const OF_CONTENT: [Code; 26] = [
    Code::ClaimBadAcks,
    Code::ClaimBadTickets,
    Code::ClaimJobMismatch,
    Code::ClaimNone,
    Code::ClaimNotDue,
    Code::ClaimOtherLane,
    Code::ClaimPriceAboveTicket,
    Code::ClaimTooLate,
    Code::LeaseClosed,
    Code::LeaseUnknown,
    Code::SettleAckWithoutReceipt,
    Code::SettleBadAcks,
    Code::SettleBadCode,
    Code::SettleBadReceipts,
    Code::SettleBudget,
    Code::SettleEmpty,
    Code::SettleJobMismatch,
    Code::SettleNoPaper,
    Code::SettleNotAscending,
    Code::SettleNotPayer,
    Code::SettleOtherProvider,
    Code::SettlePriceAboveCaps,
    Code::SettlePriceAboveTicket,
    Code::SettleTooManyGaps,
    Code::SettleTooManyOpen,
    Code::TransactionTooLarge,
];
/// Of the file with all of them. Version 1 was marked by the words below, and has the papers of version 2.
const PAPERS: Format = Format::new("file of the papers of unpaid jobs", 2);
const VERSION_1: &[u8] = b"papers 1";

/// The provider's papers, shared between those who run jobs and the one who looks after them.
pub struct Collector {
    key: SecretKey,
    account: AccountId,
    claiming: Claiming,
    leases: Leases,
    papers: Mutex<Papers>,
}

impl Collector {
    /// Takes up the papers of an earlier run. Fails with `InvalidData` where the file is not one.
    pub fn open(key: SecretKey, account: AccountId, claiming: Claiming) -> io::Result<Self> {
        Ok(Self {
            papers: Mutex::new(read(&claiming.papers)?),
            leases: Leases::new(claiming.ledger.clone(), claiming.window_blocks_min),
            key,
            account,
            claiming,
        })
    }

    pub fn owed(&self) -> Owed {
        self.papers.lock().owed()
    }

    /// See [`Leases::admit`].
    pub async fn admit(&self, ticket: &Ticket, payer: &PublicKey) -> Result<(), Rejection> {
        self.leases.admit(ticket, payer).await
    }

    /// See [`Papers::ran`].
    pub fn ran(&self, ticket: &Ticket, payer: PublicKey, seal: Option<&Seal>, receipt: &Receipt) {
        self.papers.lock().ran(ticket, payer, seal, receipt, now_ms());
    }

    /// See [`Papers::sealed`].
    pub fn sealed(&self, seal: &Seal, sequences: &[u64]) {
        self.papers.lock().sealed(seal, sequences, &self.claiming.network);
    }

    /// Looks after the papers until `shutdown`; they are on disk when it returns.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut chain = None;
        let mut written = Written {
            revision: 0,
            holds_any: self.papers.lock().oldest_ms().is_some(),
        };
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(EVERY) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.look_around(&mut chain) => {}
            }
            self.keep(&mut written, WRITTEN_AFTER_MS).await;
        }
        self.keep(&mut written, 0).await;
    }

    /// The ledger is followed only as long as something waits.
    async fn look_around(&self, seen: &mut Option<Arc<dyn Chain>>) {
        let waits_ms = LOOKED_AT_AFTER_MS.min(self.claim_after_ms());
        let leases = self
            .papers
            .lock()
            .leases_waiting_since(now_ms().saturating_sub(waits_ms));
        let chain = match seen.take() {
            _ if leases.is_empty() => return,
            Some(chain) => chain,
            None => match (self.claiming.ledger)().await {
                Ok(chain) => chain,
                Err(failure) => {
                    tracing::warn!(%failure, "the ledger is not reachable; unpaid jobs wait");
                    return;
                }
            },
        };
        for lease in leases {
            if let Err(failure) = self.look(&*chain, lease).await {
                tracing::warn!(%lease, %failure, "reading paid jobs from the ledger failed");
            }
        }
        *seen = Some(chain);
    }

    fn claim_after_ms(&self) -> u64 {
        u64::try_from(self.claiming.after.as_millis()).unwrap_or(u64::MAX)
    }

    /// One look at one lease, and what follows from it.
    async fn look(&self, chain: &dyn Chain, lease: LeaseId) -> Result<(), ChainFailure> {
        let height = chain.status().height;
        let Some(Value::Account(account)) = chain.get(&Key::Account(self.account)).await? else {
            return Ok(());
        };
        let lane = match chain.get(&Key::Lane(lease, self.account)).await? {
            Some(Value::Lane(lane)) => Some(lane),
            Some(_) | None => None,
        };
        let Some(Value::Lease(record)) = chain.get(&Key::Lease(lease)).await? else {
            return Ok(());
        };
        let taken = |sequence: &u64| lane.as_ref().is_some_and(|lane| lane.has_taken(*sequence));
        let (mut open, mut pressing) = (BTreeMap::new(), BTreeSet::new());
        let half_window = u64::from(record.window_blocks / 2);
        if record.open_jobs > 0 {
            let unpaid = self.papers.lock().unpaid(lease);
            for sequence in unpaid.into_iter().filter(taken) {
                if let Some(Value::OpenJob(job)) = chain.get(&Key::OpenJob(lease, self.account, sequence)).await? {
                    open.insert(sequence, job.claimed_until);
                    if job.metered.is_none() && job.opened_at_height.saturating_add(half_window) <= height {
                        pressing.insert(sequence);
                    }
                }
            }
        }
        let shown = Shown {
            height,
            lease: record.state,
            lane: lane.as_ref(),
            open,
            pressing,
        };
        self.act(chain, (lease, account.nonce), &shown).await
    }

    async fn act(
        &self,
        chain: &dyn Chain,
        (lease, nonce): (LeaseId, u64),
        shown: &Shown<'_>,
    ) -> Result<(), ChainFailure> {
        let patience = Patience {
            now_ms: now_ms(),
            claim_after_ms: self.claim_after_ms(),
        };
        let steps = self.papers.lock().next((lease, self.account), shown, patience);
        for action in steps.actions() {
            let nonce = if action.takes_nonce() { nonce } else { 0 };
            let transaction = Transaction {
                sender: self.account,
                nonce,
                action: action.clone(),
            };
            let signed = SignedTransaction::sign(transaction, &self.key, &self.claiming.network);
            match chain.submit_and_wait(signed).await {
                Ok(_) => self.taken(&action, shown.lease),
                Err(SubmitError::Rejected(rejection)) => self.refused(&action, &rejection),
                Err(SubmitError::Failed(failure)) => return Err(failure),
            }
        }
        Ok(())
    }

    fn taken(&self, action: &Action, state: LeaseState) {
        if let Action::Claim(claim) = action {
            let jobs = crate::claims::claimed(claim).count();
            tracing::warn!(lease = %claim.lease, jobs, ?state, "the payer has not settled; claiming jobs on the ledger");
            self.papers.lock().accepted(claim.lease);
        }
    }

    /// Either what is in the claim was refused, or only its place in the order of transactions: then it is sent again.
    fn refused(&self, action: &Action, rejection: &Rejection) {
        tracing::warn!(%rejection, "the ledger refused a claim");
        let Action::Claim(claim) = action else { return };
        if !rejection.code.is_one_of(&OF_CONTENT) {
            return;
        }
        if let Some(receipt) = self.papers.lock().refused(claim) {
            tracing::error!(job = %receipt.job, price_ucr = receipt.price_ucr, code = %rejection.code, "a job will not be paid");
        }
    }

    /// Writes the papers if some have waited so long, or if what is on disk is no longer so.
    async fn keep(&self, written: &mut Written, waited_ms: u64) {
        let (revision, waits, bytes) = {
            let papers = self.papers.lock();
            let oldest = papers.oldest_ms();
            let waits = oldest.is_some_and(|oldest| oldest.saturating_add(waited_ms) <= now_ms());
            let is_due = (waits || written.holds_any) && papers.revision() != written.revision;
            (papers.revision(), waits, is_due.then(|| encode(&papers)))
        };
        let Some(bytes) = bytes else { return };
        let path = self.claiming.papers.clone();
        let done = tokio::task::spawn_blocking(move || write(&path, &bytes)).await;
        match done.map_err(io::Error::other).flatten() {
            Ok(()) => {
                *written = Written {
                    revision,
                    holds_any: waits,
                };
            }
            Err(error) => tracing::error!(%error, "writing the evidence for unpaid jobs failed"),
        }
    }
}

/// What the file holds.
struct Written {
    revision: u64,
    holds_any: bool,
}

fn encode(papers: &Papers) -> Vec<u8> {
    let mut bytes = PAPERS.prefix().to_vec();
    borsh::to_writer(&mut bytes, papers).expect("memory does not fail");
    bytes
}

fn read(path: &Path) -> io::Result<Papers> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Papers::default()),
        Err(error) => return Err(error),
    };
    let papers = match PAPERS.split(&bytes).map_err(newer)? {
        (0, unmarked) => unmarked.strip_prefix(VERSION_1),
        (_, papers) => Some(papers),
    };
    let papers = papers.map(Papers::try_from_slice);
    papers.and_then(Result::ok).ok_or_else(|| {
        let says = format!("{} does not hold the papers of unpaid jobs", path.display());
        io::Error::new(io::ErrorKind::InvalidData, says)
    })
}

/// Whether this build reads the papers at `path`, if there are any. Writes nothing.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    read(path).map(drop)
}

/// A crash leaves the file before or the one after.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn papers_of_version_1_are_read_and_newer_ones_left_as_they_are() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("papers");
        let papers = Papers::default();
        let written = encode(&papers);
        let (_, body) = PAPERS.split(&written).expect("our own");
        for bytes in [written.clone(), [VERSION_1, body].concat()] {
            fs::write(&path, bytes).expect("writes");
            assert_eq!(read(&path).expect("reads").owed(), papers.owed());
        }
        for (bytes, says) in [
            (
                [&[piecework_model::MARK, PAPERS.newest() + 1], body].concat(),
                "version 3",
            ),
            ([b"papers 0", body].concat(), "does not hold"),
        ] {
            fs::write(&path, &bytes).expect("writes");
            let refused = read(&path).map(drop).expect_err("not ours");
            assert!(refused.to_string().contains(says), "{refused}");
            assert_eq!(fs::read(&path).expect("reads"), bytes);
        }
    }
}
