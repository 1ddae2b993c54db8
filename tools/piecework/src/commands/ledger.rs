//! `piecework ledger`: blocks and transactions.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use piecework_api::{
    Client,
    ledger::{BlockView, PeerView, RulesView, TransactionView},
};
use serde_json::json;

use super::verify::{self, Trusted};
use crate::{failure::Failure, session, show};

/// Inspect the ledger
#[derive(Debug, clap::Args)]
pub struct Ledger {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show height, head and peers
    Status,
    /// List blocks, newest first
    Blocks {
        #[command(flatten)]
        page: super::Page,
    },
    /// Show a block and its transactions
    Block {
        /// Height of the block
        height: u64,
    },
    /// Show a transaction
    Transaction {
        /// Transaction id, 64 hex digits
        id: String,
    },
    /// Export the whole ledger to a file that anyone can verify
    Export {
        /// Output file
        file: PathBuf,
    },
    /// Verify an export or a saved proof with the genesis file alone: signatures, paths, certificates; executes every
    /// block again
    Verify {
        /// File written by `ledger export`, `job --proof -o` or `account --proof -o`
        #[arg(required_unless_present = "url", conflicts_with = "url")]
        file: Option<PathBuf>,
        /// Read the ledger from this peer or controller instead of a file
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        trusted: Trusted,
    },
}

impl Ledger {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        if let Action::Verify { file, url, trusted } = &self.action {
            return match (file, url) {
                (Some(file), _) => verify::file(file, trusted, json).await,
                (None, url) => verify_url(url.as_deref().unwrap_or_default(), trusted, json).await,
            };
        }
        let client = session::connect()?;
        match self.action {
            Action::Verify { .. } => Ok(()),
            Action::Export { file } => export(&client, &file, json).await,
            Action::Status => status(&client, json).await,
            Action::Blocks { page } => blocks(&client, &page, json).await,
            Action::Block { height } => block(&client, height, json).await,
            Action::Transaction { id } => show::json(&client.transaction(&id).await?),
        }
    }
}

async fn export(client: &Client, file: &Path, json: bool) -> Result<(), Failure> {
    let genesis = verify::genesis_of(client).await?;
    let network = genesis.network_id();
    let done = verify::write_export(client, genesis, file).await?;
    if json {
        return show::json(&json!({
            "file": file, "network": network, "blocks": done.blocks, "values": done.values, "head": done.head,
        }));
    }
    show::fields(&[
        ("file", file.display().to_string()),
        ("blocks", done.blocks.to_string()),
        ("balances", done.values.to_string()),
        ("head", done.head.to_string()),
        ("network", network.to_string()),
    ])
}

async fn verify_url(url: &str, trusted: &Trusted, json: bool) -> Result<(), Failure> {
    let client = Client::new(url, None)?;
    let ground = trusted.ground(Some(&client)).await?;
    let folder = tempfile::tempdir().context("not enough space for the export")?;
    let path = folder.path().join("ledger");
    verify::write_export(&client, ground.genesis.clone(), &path).await?;
    verify::export(path, Some(ground), json).await
}

async fn status(client: &Client, json: bool) -> Result<(), Failure> {
    let status = client.ledger_status().await?;
    if json {
        return show::json(&status);
    }
    let mut rows = vec![
        ("network", status.network.to_string()),
        ("height", status.height.to_string()),
        ("head", status.head.to_string()),
        ("state root", status.state_root.to_string()),
        ("final at", show::or_dash(status.finalized_at.map(show::time))),
        ("peers", status.peer_count.to_string()),
        (
            "commission",
            format!(
                "{}.{} %",
                status.commission_permille / 10,
                status.commission_permille % 10
            ),
        ),
        (
            "to the peers",
            format!("{} waiting to be paid out", show::ucr_long(status.peers_pool_ucr)),
        ),
        ("transactions waiting", status.queued.to_string()),
    ];
    if let Some(silent_ms) = status.silent_ms.filter(|_| status.stalled) {
        let needed = status.peer_count * 2 / 3 + 1;
        rows.push((
            "stalled",
            format!(
                "no block for {} s; transactions wait until {needed} of {} peers answer",
                silent_ms / 1_000,
                status.peer_count
            ),
        ));
    }
    if let Some(rules) = &status.rules {
        rows.push(("rules", rules_text(rules)));
    }
    rows.extend(status.peers.iter().map(|peer| {
        let owner = peer.owner.as_deref().unwrap_or("-");
        let here = if peer.here { ", answers you" } else { "" };
        let last = last_block(status.height, status.peer_count, peer);
        (
            "peer",
            format!("{} of {owner}, since block {}{last}{here}", peer.key, peer.since_height),
        )
    }));
    show::fields(&rows)
}

/// What a peer proposed last, and whether that is so long ago that it seems to be gone: all propose in turn.
fn last_block(height: u64, peers: u32, peer: &PeerView) -> String {
    let Some(last) = peer.last_proposed_height else {
        return String::new();
    };
    let behind = height.saturating_sub(last);
    let silent = if behind > u64::from(peers) * TURNS_MISSED {
        "; SILENT"
    } else {
        ""
    };
    let at = peer
        .last_proposed_at
        .map(|at| format!(", {}", show::time(at)))
        .unwrap_or_default();
    format!(", last block {last} ({behind} behind{at}{silent})")
}

/// Turns that a peer may miss by chance.
const TURNS_MISSED: u64 = 5;

fn rules_text(rules: &RulesView) -> String {
    match &rules.next {
        Some(next) => format!(
            "{}, and {} from block {} on",
            rules.number, next.number, next.from_height
        ),
        None => rules.number.to_string(),
    }
}

async fn blocks(client: &Client, page: &super::Page, json: bool) -> Result<(), Failure> {
    let list = client.blocks(&page.query()).await?;
    if json {
        return show::json(&list);
    }
    show::table(BLOCK, list.items.iter().map(block_row).collect(), "no blocks yet")?;
    super::more(list.next.as_deref());
    Ok(())
}

const BLOCK: [&str; 5] = ["BLOCK", "TRANSACTIONS", "REJECTED", "PROPOSED", "DIGEST"];

fn block_row(block: &BlockView) -> [String; 5] {
    [
        block.height.to_string(),
        block.transactions.to_string(),
        block.rejected.to_string(),
        show::or_dash(block.proposed_at.map(show::time)),
        block.digest.to_string(),
    ]
}

async fn block(client: &Client, height: u64, json: bool) -> Result<(), Failure> {
    let detail = client.block(height).await?;
    if json {
        return show::json(&detail);
    }
    let block = &detail.block;
    show::fields(&[
        ("height", block.height.to_string()),
        ("digest", block.digest.to_string()),
        ("parent", block.parent.to_string()),
        ("state root", block.state_root.to_string()),
        ("proposed", show::or_dash(block.proposed_at.map(show::time))),
        ("proposer", show::or_dash(block.proposer)),
    ])?;
    show::text("\n")?;
    let rows = detail.items.iter().map(transaction_row).collect();
    show::table(
        ["KIND", "SENDER", "RESULT", "WHAT", "ID"],
        rows,
        "no transactions in it",
    )
}

fn transaction_row(transaction: &TransactionView) -> [String; 5] {
    [
        transaction.kind.clone(),
        transaction.sender.clone(),
        transaction
            .rejection
            .as_ref()
            .map_or_else(|| "ok".to_owned(), |rejection| rejection.code.to_string()),
        transaction.summary.clone(),
        transaction.id.to_string(),
    ]
}
