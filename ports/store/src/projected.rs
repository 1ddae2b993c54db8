//! What a block of the ledger changes in a controller's memory: written whole, with the place in the ledger, or not at all.

use piecework_model::JobId;

use crate::{Change, JobStep, Payment};

/// All that one block changes here. See [`crate::Jobs::project`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projected {
    /// The ledger was read up to this block.
    pub height: u64,
    pub payments: Vec<Payment>,
    /// Steps of jobs that the block noted. The first height of a step stands.
    pub steps: Vec<(JobId, JobStep)>,
    /// Values added or replaced. Of several for one key the last stands.
    pub puts: Vec<Put>,
    /// Values removed, after the others were put.
    pub takes: Vec<Take>,
}

/// A small value by name, as [`crate::Values::put_value`] takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    pub space: String,
    pub key: String,
    pub value: Vec<u8>,
}

/// A value that goes, and what is recorded of it, once, if it was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    pub space: String,
    pub key: String,
    pub change: Option<Change>,
}

impl Projected {
    /// Nothing yet, of the block at `height`.
    pub fn at(height: u64) -> Self {
        Self {
            height,
            ..Self::default()
        }
    }

    /// Whether the block changes nothing but the place in the ledger.
    pub fn is_empty(&self) -> bool {
        self.payments.is_empty() && self.steps.is_empty() && self.puts.is_empty() && self.takes.is_empty()
    }
}
