//! Binary Merkle trees over digests: one signature covers a batch, a short path proves one member.

use std::sync::LazyLock;

use blake3::{
    Hasher,
    hazmat::{ContextKey, HasherExt, hash_derive_key_context},
};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::Digest;

/// The leaf of a value: leaves and inner nodes are hashed under different tags, so neither passes for the other.
pub fn leaf<T: BorshSerialize>(value: &T) -> Digest {
    static TAG: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context("piecework 2026 merkle leaf"));
    Digest::keyed(&TAG, value)
}

fn node(left: &Digest, right: &Digest) -> Digest {
    static TAG: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context("piecework 2026 merkle node"));
    let mut hasher = Hasher::new_from_context_key(&TAG);
    hasher.update(&left.0).update(&right.0);
    Digest(*hasher.finalize().as_bytes())
}

/// The root over `leaves` in order; an odd last node moves up unchanged. The root of nothing is the zero digest.
pub fn merkle_root(leaves: &[Digest]) -> Digest {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = parents(&level);
    }
    level.first().copied().unwrap_or_default()
}

fn parents(level: &[Digest]) -> Vec<Digest> {
    level
        .chunks(2)
        .map(|pair| match pair {
            [left, right] => node(left, right),
            [odd] => *odd,
            _ => unreachable!("chunks of two hold one or two"),
        })
        .collect()
}

/// One sibling on the way from a leaf to the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct ProofStep {
    pub sibling: Digest,
    /// Whether the sibling stands to the left of the path.
    pub sibling_is_left: bool,
}

/// The path from one leaf to the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct MerkleProof {
    pub steps: Vec<ProofStep>,
}

impl MerkleProof {
    /// The root that this path leads to from `leaf`; compare it with the signed one.
    pub fn root_from(&self, leaf: Digest) -> Digest {
        self.steps.iter().fold(leaf, |at, step| {
            if step.sibling_is_left {
                node(&step.sibling, &at)
            } else {
                node(&at, &step.sibling)
            }
        })
    }
}

/// The path of the leaf at `index`, or `None` past the end.
pub fn merkle_proof(leaves: &[Digest], index: usize) -> Option<MerkleProof> {
    if index >= leaves.len() {
        return None;
    }
    let (mut level, mut at, mut steps) = (leaves.to_vec(), index, Vec::new());
    while level.len() > 1 {
        let sibling = at ^ 1;
        if let Some(digest) = level.get(sibling) {
            steps.push(ProofStep {
                sibling: *digest,
                sibling_is_left: sibling < at,
            });
        }
        level = parents(&level);
        at /= 2;
    }
    Some(MerkleProof { steps })
}
