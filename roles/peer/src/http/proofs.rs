//! `/jobs/{id}/proof`, and proofs of values as programs read them.

use axum::{Json, extract::State, response::Response};
use piecework_api::{
    errors::ErrorBody,
    ledger::{JobProofQuery, JobProofView, ProofView},
    routes,
    server::{HttpResult, Path, Query, refuse},
};
use piecework_chain::{account_proof, job_proof, wire};
use piecework_chain_http::view;
use piecework_ledger::Key;
use piecework_model::{AccountId, Code, JobId};

use super::{Explorer, Shared, blocks::raw_answer, failed, jobs};

/// Keys of one answer: a name is at most 32 bytes, an address bar holds some thousands.
const KEYS_MAX: usize = 64;
const KEYS_HEX_MAX: usize = 8 << 10;
/// Blocks that can speak of one job, each in its own: opened, metered, received, paid, and a claim's.
const BLOCKS_MAX: usize = 8;

/// Returns a proof that the ledger metered and paid this job. Anyone with the genesis file can check it.
#[utoipa::path(get, path = routes::JOB_PROOF, tag = "ledger", params(("id" = String, Path), JobProofQuery), security(()), responses(
    (status = 200, body = JobProofView), (status = "default", body = ErrorBody)))]
pub(super) async fn job(
    State(explorer): Shared,
    Path(text): Path<String>,
    Query(query): Query<JobProofQuery>,
) -> HttpResult<Json<JobProofView>> {
    let Ok(id) = text.parse::<JobId>() else {
        return Err(jobs::missing(&text));
    };
    let heights = match &query.blocks {
        Some(blocks) => heights(blocks)?,
        None => explorer
            .index
            .leases_of(id)
            .into_iter()
            .next()
            .map_or_else(Vec::new, |(_, heights)| heights),
    };
    let proof = job_proof(&*explorer.chain, id, &heights, &explorer.peer_changes).await;
    match proof.map_err(failed)? {
        Some(proof) => Ok(Json(view::job_proof_view(id, proof))),
        None => Err(jobs::missing(&text)),
    }
}

fn heights(blocks: &str) -> HttpResult<Vec<u64>> {
    let heights: Result<Vec<u64>, _> = blocks.split(',').take(BLOCKS_MAX + 1).map(str::parse).collect();
    match heights {
        Ok(heights) if heights.len() <= BLOCKS_MAX => Ok(heights),
        Ok(_) | Err(_) => Ok(refuse(
            Code::BlockBadHeight,
            format!("`blocks` must be at most {BLOCKS_MAX} heights, separated by commas"),
        )?),
    }
}

pub(super) async fn of_account(explorer: &Explorer, account: AccountId) -> HttpResult<ProofView> {
    let proof = account_proof(&*explorer.chain, account, &explorer.peer_changes).await;
    match proof.map_err(failed)? {
        Some(proof) => Ok(view::value_proof_view(proof)),
        None => Ok(refuse(
            Code::LedgerUnavailable,
            "the block of this state has no certificate yet; retry in a moment",
        )?),
    }
}

/// Returns values of one state, each with its proof, in borsh; `keys` is a list of keys in the ledger's encoding, in
/// hex.
#[utoipa::path(get, path = routes::LEDGER_RAW_PROOFS, tag = "ledger", params(("keys" = String, Path)), security(()),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
    (status = "default", body = ErrorBody)))]
pub(super) async fn raw(State(explorer): Shared, Path(keys): Path<String>) -> HttpResult<Response> {
    let bytes = (keys.len() <= KEYS_HEX_MAX).then(|| hex::decode(&keys).ok()).flatten();
    let keys = bytes.and_then(|bytes| borsh::from_slice::<Vec<Key>>(&bytes).ok());
    let Some(keys) = keys.filter(|keys| keys.len() <= KEYS_MAX) else {
        return Ok(refuse(
            Code::ValueBadKey,
            "`keys` must be a list of at most 64 keys in the ledger's encoding, in hex",
        )?);
    };
    let proven = explorer.chain.prove(&keys).await.map_err(failed)?;
    Ok(raw_answer(&wire::ProvenValues {
        network: explorer.chain.network(),
        height: proven.height,
        values: proven.values,
    }))
}
