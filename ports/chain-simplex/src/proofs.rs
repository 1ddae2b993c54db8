//! Proofs of values, from the engine's form to the one that is checked without it.

use commonware_cryptography::blake3::Digest as EngineDigest;
use commonware_runtime::Spawner;
use commonware_storage::{
    Context as StorageContext, mmr,
    qmdb::{Error as StateError, current::ordered::proof::constant::KeyValueProof},
};
use piecework_ledger::{Key, Value};
use piecework_model::Digest;
use piecework_proof::StateProof;

use crate::{
    ChainFailure,
    state::{self, Database},
};

type EngineProof = KeyValueProof<mmr::Family, EngineDigest, EngineDigest, 32>;

/// The value of a key with its proof against the database's root; `None` where the key has none.
pub(crate) async fn prove<E: Spawner + StorageContext>(
    database: &Database<E>,
    key: &Key,
) -> Result<Option<(Value, StateProof)>, ChainFailure> {
    let failed = |error: StateError<mmr::Family>| ChainFailure::Stopped {
        detail: format!("a proof from the state failed: {error}"),
    };
    let place = state::place(key);
    let stored = database.get(&place).await.map_err(failed)?;
    let value = state::decode(key, stored).map_err(|error| ChainFailure::Stopped {
        detail: error.to_string(),
    })?;
    let Some(value) = value else { return Ok(None) };
    let proof = database.key_value_proof(place).await.map_err(failed)?;
    Ok(Some((value, plain(&proof))))
}

/// The engine lists, after the peaks, the siblings as a walk from the peak meets them: left ones downward, then right ones
/// upward.
fn plain(proof: &EngineProof) -> StateProof {
    let (location, range) = (*proof.proof.loc, &proof.proof.range_proof);
    let (leaves, digests) = (*range.proof.leaves, &range.proof.digests);
    let height = peak_height(location, leaves);
    let (peaks, walk) = digests.split_at(digests.len().saturating_sub(height as usize));
    let stands_left = |level: u32| location >> level & 1 == 1;
    let lefts = (0..height).filter(|level| stands_left(*level)).count();
    let (down, up) = walk.split_at(lefts);
    let (mut down, mut up) = (down.iter().rev(), up.iter());
    let siblings = (0..height).filter_map(|level| match stands_left(level) {
        true => down.next(),
        false => up.next(),
    });
    StateProof {
        location,
        leaves,
        inactive_peaks: range.proof.inactive_peaks as u64,
        next_place: Digest(proof.next_key.0),
        chunk: proof.proof.chunk,
        siblings: siblings.map(|digest| Digest(digest.0)).collect(),
        peaks: peaks.iter().map(|digest| Digest(digest.0)).collect(),
        partial: range.partial_chunk_digest.map(|digest| Digest(digest.0)),
    }
}

/// Of the mountain that covers the leaf.
fn peak_height(location: u64, leaves: u64) -> u32 {
    let mut first = 0;
    for height in (0..u64::BITS).rev().filter(|height| leaves >> height & 1 == 1) {
        first += 1 << height;
        if location < first {
            return height;
        }
    }
    0
}
