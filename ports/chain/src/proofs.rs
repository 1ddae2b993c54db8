//! Proofs put together from final blocks; `piecework_proof` checks them.

use std::time::Duration;

use futures::StreamExt as _;
use piecework_ledger::{Event, Key, Value};
use piecework_model::{AccountId, JobId};
use piecework_proof::{Entry, EntryProof, Evidence, Finality, Finalization, JobProof, ValueProof};
use tokio::sync::Mutex;

use crate::{Chain, ChainFailure, FinalBlock};

/// A block without a certificate of its own is followed by one that has one, at the latest with the next heartbeat.
const CERTIFIED_WITHIN: Duration = Duration::from_secs(15);

/// What shows that a block is final: its own certificate, or the first one after it. `None` where none comes in time.
pub async fn finality(chain: &dyn Chain, block: &FinalBlock) -> Result<Option<Finality>, ChainFailure> {
    let mut descendants = Vec::new();
    if let Some(finality) = certified(block, &mut descendants)? {
        return Ok(Some(finality));
    }
    let mut later = chain.blocks_from(block.height + 1);
    let search = async {
        while let Some(next) = later.next().await {
            descendants.push(next.header.clone());
            if let Some(finality) = certified(&next, &mut descendants)? {
                return Ok(Some(finality));
            }
        }
        Ok(None)
    };
    tokio::time::timeout(CERTIFIED_WITHIN, search).await.unwrap_or(Ok(None))
}

fn certified(
    block: &FinalBlock,
    descendants: &mut Vec<piecework_proof::Header>,
) -> Result<Option<Finality>, ChainFailure> {
    if block.certificate.is_empty() {
        return Ok(None);
    }
    let read = Finalization::from_engine(&block.certificate).ok_or_else(|| ChainFailure::Stopped {
        detail: format!("the certificate of block {} has an unknown format", block.height),
    })?;
    Ok(Some(Finality {
        descendants: std::mem::take(descendants),
        certificate: read.certificate,
    }))
}

/// What a block did, as far as it is `wanted`, each with its proof.
async fn evidence(
    chain: &dyn Chain,
    height: u64,
    wanted: impl Fn(&Entry) -> bool,
) -> Result<Vec<Evidence>, ChainFailure> {
    let Some(block) = chain.block(height).await? else {
        return Ok(Vec::new());
    };
    let found = EntryProof::find(&block.transactions, &block.outcomes, wanted);
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let Some(finality) = finality(chain, &block).await? else {
        return Ok(Vec::new());
    };
    let shown = |entry| Evidence {
        entry,
        block: block.header.summary(),
        finality: finality.clone(),
    };
    Ok(found.into_iter().map(shown).collect())
}

/// In which blocks a change of the peers was carried: read from the history when it is first needed, and remembered.
#[derive(Default)]
pub struct PeerChanges(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// All blocks up to here are read.
    read: u64,
    /// Ascending.
    heights: Vec<u64>,
}

impl PeerChanges {
    /// The proofs of all changes up to the block at `height`. A network whose peers never changed reads no history.
    async fn proven(&self, chain: &dyn Chain, height: u64) -> Result<Vec<Evidence>, ChainFailure> {
        let changed = match chain.get(&Key::Committee).await? {
            Some(Value::Committee(committee)) => committee.next.is_some(),
            Some(_) | None => false,
        };
        if !changed {
            return Ok(Vec::new());
        }
        let mut changes = Vec::new();
        for at in self
            .heights(chain, height)
            .await?
            .into_iter()
            .filter(|at| *at <= height)
        {
            changes.extend(evidence(chain, at, is_change).await?);
        }
        Ok(changes)
    }

    async fn heights(&self, chain: &dyn Chain, up_to: u64) -> Result<Vec<u64>, ChainFailure> {
        let mut known = self.0.lock().await;
        let (mut found, mut height) = (Vec::new(), up_to);
        while height > known.read {
            let Some(block) = chain.block(height).await? else { break };
            let mut events = block
                .outcomes
                .iter()
                .filter_map(|outcome| outcome.result.as_ref().ok())
                .flatten();
            if events.any(|event| matches!(event, Event::PeersChanged { .. })) {
                found.push(height);
            }
            height = block.previous_busy;
        }
        known.heights.extend(found.into_iter().rev());
        known.read = known.read.max(up_to);
        Ok(known.heights.clone())
    }
}

fn is_change(entry: &Entry) -> bool {
    matches!(entry, Entry::Event(Event::PeersChanged { .. }))
}

/// The proof of what the blocks at `heights` did to a job; `None` where they say nothing of it, or are not certified yet.
pub async fn job_proof(
    chain: &dyn Chain,
    job: JobId,
    heights: &[u64],
    peers: &PeerChanges,
) -> Result<Option<JobProof>, ChainFailure> {
    let mut parts = Vec::new();
    for height in heights {
        let is_job = |entry: &Entry| matches!(entry, Entry::Job(entry) if entry.job == job);
        parts.extend(evidence(chain, *height, is_job).await?);
    }
    // A job opened ahead of its run is proven by what came of it.
    let of_result = |part: &Evidence| match &part.entry.entry {
        Entry::Job(entry) => entry.metering.is_some() || entry.paid().is_some(),
        Entry::Event(_) => false,
    };
    if parts.iter().any(of_result) {
        parts.retain(of_result);
    }
    let Some(last) = parts
        .iter()
        .map(|part| last_height(&part.finality, part.block.height))
        .max()
    else {
        return Ok(None);
    };
    Ok(Some(JobProof {
        network: chain.network(),
        changes: peers.proven(chain, last).await?,
        parts,
    }))
}

/// The block that the certificate is of.
fn last_height(finality: &Finality, height: u64) -> u64 {
    finality.descendants.last().map_or(height, |last| last.height)
}

/// The proof of an account's balances; `None` where there is no such account, or its block is not certified yet.
pub async fn account_proof(
    chain: &dyn Chain,
    account: AccountId,
    peers: &PeerChanges,
) -> Result<Option<ValueProof>, ChainFailure> {
    let key = Key::Account(account);
    let proven = chain.prove(std::slice::from_ref(&key)).await?;
    let Some((value, state)) = proven.values.into_iter().next().flatten() else {
        return Ok(None);
    };
    let Some(block) = chain.block(proven.height).await? else {
        return Ok(None);
    };
    let Some(finality) = finality(chain, &block).await? else {
        return Ok(None);
    };
    Ok(Some(ValueProof {
        network: chain.network(),
        changes: peers.proven(chain, last_height(&finality, block.height)).await?,
        key,
        value,
        state,
        block: block.header.clone(),
        finality,
    }))
}
