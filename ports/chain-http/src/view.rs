//! Blocks as the HTTP interface shows them.

use jiff::Timestamp;
use piecework_api::ledger::{BlockView, JobProofPart, JobProofView, ProofView};
use piecework_chain::FinalBlock;
use piecework_model::{JobId, NetworkId};
use piecework_proof::{Entry, Evidence, JobProof, Proof, ValueProof};

/// A block without its transactions.
pub fn block_view(block: &FinalBlock) -> BlockView {
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let rejected = block.outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    let proposed_ms = i64::try_from(block.timestamp_ms).ok().filter(|ms| *ms > 0);
    BlockView {
        height: block.height,
        digest: block.digest,
        parent: block.parent,
        state_root: block.state_root,
        proposed_at: proposed_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        proposer: None,
        transactions: count(block.transactions.len()),
        rejected: count(rejected),
    }
}

/// A job's proof with what it says.
pub fn job_proof_view(job: JobId, proof: JobProof) -> JobProofView {
    JobProofView {
        job,
        parts: proof.parts.iter().filter_map(part).collect(),
        proof: view(
            proof.network,
            proof.parts.iter().map(|part| part.block.height).max(),
            &Proof::Job(proof),
        ),
    }
}

fn part(part: &Evidence) -> Option<JobProofPart> {
    let Entry::Job(entry) = &part.entry.entry else {
        return None;
    };
    Some(JobProofPart {
        height: part.block.height,
        at: timestamp(part.block.timestamp_ms),
        entry: serde_json::to_value(entry).unwrap_or_default(),
    })
}

/// The proof of a value of the state.
pub fn value_proof_view(proof: ValueProof) -> ProofView {
    view(proof.network, Some(proof.block.height), &Proof::Value(Box::new(proof)))
}

fn view(network: NetworkId, height: Option<u64>, proof: &Proof) -> ProofView {
    let bytes = proof.to_bytes();
    ProofView {
        network,
        proven_height: height.unwrap_or(0),
        bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        proof: hex::encode(bytes),
    }
}

fn timestamp(unix_ms: u64) -> Timestamp {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}
