//! What the journal says, and how one entry lies in a segment as a frame.
//!
//! A frame is 24 bytes of header and a borsh payload: magic with the version of the entry, payload length (u32), the position that was known to be on
//! disk when it was written (u64), CRC-32 of the payload, CRC-32 of the header with the frame's own position; integers are
//! little-endian. The position in the checksum makes a frame valid only where it was written; the synced position tells
//! damage from what a power cut may take.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::{AccountId, Format, JobId, LeaseId, UnknownVersion};

use crate::{AcceptedJob, Job, JobState, ResultNote, StoreFailure};

pub(crate) const HEADER_BYTES: usize = 24;
/// A digit follows it: the version of the entry.
const MAGIC: [u8; 3] = *b"PWf";
const ENTRY: Format = Format::new("entry of the job journal", 1);
/// Two outputs of the largest size and then some: a longer length is damage.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 32 << 20;

#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub(crate) enum Entry {
    Accepted(Arc<AcceptedJob>),
    Progressed {
        job: JobId,
        state: JobState,
        provider: Option<AccountId>,
    },
    Finished(Arc<Job>),
    Reserved {
        lease: LeaseId,
        provider: AccountId,
        up_to: u64,
    },
    Result(ResultNote),
}

impl Entry {
    /// Roughly the memory it holds.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Accepted(job) => 512 + job.input.len() + job.parameters.len(),
            Self::Finished(job) => job.weight(),
            Self::Result(note) => 128 + note.detail.len(),
            Self::Progressed { .. } | Self::Reserved { .. } => 128,
        }
    }
}

/// An encoded entry that waits for its position.
pub(crate) struct Frame(Vec<u8>);

impl Frame {
    /// The costly part, to be done outside of any lock.
    pub(crate) fn encode(entry: &Entry) -> Result<Self, StoreFailure> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + entry.weight());
        bytes.resize(HEADER_BYTES, 0);
        borsh::to_writer(&mut bytes, entry).expect("a vector accepts every byte");
        let length = bytes.len() - HEADER_BYTES;
        if length > PAYLOAD_BYTES_MAX {
            return Err(StoreFailure::TooLarge {
                bytes: length,
                limit: PAYLOAD_BYTES_MAX,
            });
        }
        let checksum = crc32fast::hash(&bytes[HEADER_BYTES..]);
        bytes[..3].copy_from_slice(&MAGIC);
        bytes[3] = b'0' + ENTRY.newest();
        bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
        Ok(Self(bytes))
    }

    /// The bytes as they were last placed.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Completes the header and gives the bytes to write at `position`.
    pub(crate) fn place(&mut self, position: u64, synced: u64) -> &[u8] {
        self.0[8..16].copy_from_slice(&synced.to_le_bytes());
        let checksum = header_checksum(&self.0[..20], position);
        self.0[20..24].copy_from_slice(&checksum.to_le_bytes());
        &self.0
    }
}

fn header_checksum(header: &[u8], position: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&position.to_le_bytes());
    hasher.update(header);
    hasher.finalize()
}

/// A frame that was found whole.
pub(crate) struct Found<'a> {
    version: u32,
    pub(crate) payload: &'a [u8],
    pub(crate) synced: u64,
}

impl Found<'_> {
    pub(crate) fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    /// `None` where the payload is no entry.
    pub(crate) fn entry(&self) -> Result<Option<Entry>, UnknownVersion> {
        ENTRY.check(self.version)?;
        Ok(borsh::from_slice(self.payload).ok())
    }
}

/// The frame at the beginning of `bytes`, if one was written at `position` and is whole.
pub(crate) fn find(bytes: &[u8], position: u64) -> Option<Found<'_>> {
    let header = bytes.get(..HEADER_BYTES)?;
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if header[..3] != MAGIC || header_checksum(&header[..20], position) != number(20) {
        return None;
    }
    let payload = bytes[HEADER_BYTES..].get(..number(4) as usize)?;
    (crc32fast::hash(payload) == number(16)).then_some(Found {
        version: u32::from(header[3].wrapping_sub(b'0')),
        payload,
        synced: u64::from_le_bytes(header[8..16].try_into().expect("eight bytes")),
    })
}

/// The highest synced position that any whole frame after the beginning of `bytes` was written with.
pub(crate) fn synced_beyond(bytes: &[u8], position: u64) -> u64 {
    let mut highest = 0;
    for (index, window) in bytes.windows(MAGIC.len()).enumerate() {
        if window == MAGIC
            && let Some(found) = find(&bytes[index..], position + index as u64)
        {
            highest = highest.max(found.synced);
        }
    }
    highest
}
