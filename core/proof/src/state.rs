//! Proof that a key of the state has a value, checked against a block's state root without the storage engine.
//!
//! The state is a log of operations (commonware's QMDB, ordered, `current`): each write of a key is an operation, and a
//! bitmap says which operations still hold. Leaves of a Merkle mountain range are the operations; where a subtree
//! covers 256 of them, the 256 bits of their status are hashed in. docs/ledger-format.md has the layout.

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_ledger::{Key, Value};
use piecework_model::Digest;
use serde::{Deserialize, Serialize};

use crate::certificate::put_varint;

/// The height of the subtrees whose status is hashed in: 2^8 operations, 32 bytes of bits.
const CHUNK_HEIGHT: u32 = 8;
/// A log of 2^48 operations is beyond any disk.
const LEAVES_MAX: u64 = 1 << 48;
/// Opens the encoding of a write.
const UPDATE: u8 = 0xD2;
/// Before a root: a mountain range, whose peaks are folded from the newest to the oldest.
const ROOT_DOMAIN: [u8; 2] = [0, 1];

/// From a write of the state to its root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct StateProof {
    /// Which operation of the log wrote the value.
    pub location: u64,
    /// How many operations the log has.
    pub leaves: u64,
    /// How many of the oldest peaks hold nothing that still counts; they are folded by themselves.
    pub inactive_peaks: u64,
    /// The place of the next key in order, which the operation names as well.
    pub next_place: Digest,
    /// The status bits of the 256 operations around this one.
    pub chunk: [u8; 32],
    /// Of the path within the peak, from the leaf up.
    pub siblings: Vec<Digest>,
    /// What is folded with this operation's peak: the inactive peaks before it as one, active ones before it, inactive
    /// ones after it, the active ones after it as one.
    pub peaks: Vec<Digest>,
    /// Of the bits of the last, incomplete 256.
    pub partial: Option<Digest>,
}

/// Position of a key in the state.
pub fn place(key: &Key) -> Digest {
    Digest::of_value("piecework 2026 state key", key)
}

fn hash(parts: &[&[u8]]) -> Digest {
    Digest::of(&parts.concat())
}

/// Position of the leaf among all nodes of the range.
fn position(location: u64) -> u64 {
    2 * location - u64::from(location.count_ones())
}

impl StateProof {
    /// Whether `key` has this very value in the state of a block with these roots.
    pub fn verify(&self, key: &Key, value: &Value, state_root: Digest, operations_root: Digest) -> bool {
        self.root(key, value, operations_root) == Some(state_root)
    }

    fn root(&self, key: &Key, value: &Value, operations_root: Digest) -> Option<Digest> {
        if self.leaves > LEAVES_MAX || self.location >= self.leaves || !self.is_active() {
            return None;
        }
        let peak = Peak::of(self.location, self.leaves)?;
        let digest = self.climb(&peak, self.leaf(key, value))?;
        let folded = self.fold(&peak, digest)?;
        let leaves = self.leaves.to_be_bytes();
        let grafted = match self.inactive_peaks {
            0 => hash(&[&ROOT_DOMAIN, &leaves, &folded.0]),
            inactive => hash(&[&ROOT_DOMAIN, &leaves, &inactive.to_be_bytes(), &folded.0]),
        };
        let next_bit = self.leaves % (1 << CHUNK_HEIGHT);
        match (next_bit, self.partial) {
            (0, None) => Some(hash(&[&operations_root.0, &grafted.0])),
            (0, Some(_)) | (_, None) => None,
            (_, Some(partial)) => Some(hash(&[
                &operations_root.0,
                &grafted.0,
                &next_bit.to_be_bytes(),
                &partial.0,
            ])),
        }
    }

    fn is_active(&self) -> bool {
        let bit = self.location % (1 << CHUNK_HEIGHT);
        self.chunk[(bit / 8) as usize] >> (bit % 8) & 1 == 1
    }

    fn leaf(&self, key: &Key, value: &Value) -> Digest {
        let value = borsh::to_vec(value).expect("a vector accepts every byte");
        let mut bytes = position(self.location).to_be_bytes().to_vec();
        bytes.push(UPDATE);
        bytes.extend_from_slice(&place(key).0);
        put_varint(&mut bytes, value.len() as u64);
        bytes.extend_from_slice(&value);
        bytes.extend_from_slice(&self.next_place.0);
        Digest::of(&bytes)
    }

    /// From the leaf to the peak; the status bits come in where they belong.
    fn climb(&self, peak: &Peak, leaf: Digest) -> Option<Digest> {
        if self.siblings.len() != peak.height as usize {
            return None;
        }
        let mut at = leaf;
        for (height, sibling) in (1..).zip(&self.siblings) {
            let first = self.location >> height << height;
            let node = (position(first) + (2 << height) - 2).to_be_bytes();
            at = match self.location >> (height - 1) & 1 {
                0 => hash(&[&node, &at.0, &sibling.0]),
                _ => hash(&[&node, &sibling.0, &at.0]),
            };
            if height == CHUNK_HEIGHT {
                at = hash(&[&self.chunk, &at.0]);
            }
        }
        // Below that height the operation is one of the last, incomplete 256.
        let covered = peak.height >= CHUNK_HEIGHT || self.partial == Some(Digest::of(&self.chunk));
        covered.then_some(at)
    }

    /// Inactive peaks forward, from the oldest; active ones backward, from the newest; then the two.
    fn fold(&self, peak: &Peak, digest: Digest) -> Option<Digest> {
        let inactive = usize::try_from(self.inactive_peaks).ok()?;
        if inactive > peak.count {
            return None;
        }
        let folded_before = inactive.min(peak.index);
        let own = usize::from(folded_before > 0) + peak.index - folded_before;
        let inactive_after = inactive.saturating_sub(peak.index + 1);
        let active_after = peak.count - (peak.index + 1) - inactive_after;
        if self.peaks.len() != own + inactive_after + usize::from(active_after > 0) {
            return None;
        }
        let mut peaks = self.peaks.clone();
        peaks.insert(own, digest);
        let forward = match folded_before {
            0 => inactive,
            folded => inactive - folded + 1,
        };
        let (first, active) = peaks.split_at(forward.max(1));
        let pair = |left: Digest, right: Digest| hash(&[&left.0, &right.0]);
        let head = first.iter().copied().reduce(pair)?;
        let tail = active.iter().rev().copied().reduce(|tail, peak| pair(peak, tail));
        Some(tail.map_or(head, |tail| pair(head, tail)))
    }
}

/// The peak of the range that covers an operation.
struct Peak {
    height: u32,
    /// From the oldest.
    index: usize,
    /// Of all peaks.
    count: usize,
}

impl Peak {
    fn of(location: u64, leaves: u64) -> Option<Self> {
        let mut first = 0;
        let heights = (0..u64::BITS).rev().filter(|height| leaves >> height & 1 == 1);
        for (index, height) in heights.enumerate() {
            first += 1 << height;
            if location < first {
                let count = leaves.count_ones() as usize;
                return Some(Self { height, index, count });
            }
        }
        None
    }
}
