//! What the waiting room is told and what it answers.

use piecework_model::{AccountId, FunctionId};

/// Whether a provider takes jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Open,
    /// It takes none now and may be back in a moment.
    Returning,
    Closed,
}

/// Who wants a slot, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub developer: AccountId,
    pub weight: u32,
    /// The function and how many of its calls may run at once; none for runs beside that limit.
    pub function: Option<(FunctionId, u32)>,
    /// Memory that the provider sets aside for it.
    pub memory_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The slot is taken.
    Taken,
    /// The provider has none free.
    Full,
    /// As many calls of the function run as may.
    AtLimit,
}

/// Which bound of the room is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowded {
    Function,
    Developer,
    All,
}

/// How many calls may wait that somebody waits for. Others (patient ones) are bounded where they were accepted.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For each call of the function that may run at once.
    pub function_per_slot: u32,
    pub developer: u32,
    pub all: u32,
}

/// A call in its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(super) developer: AccountId,
    /// Its place in order of arrival. A call that has to wait again keeps it.
    pub arrival: u64,
}

/// A call that wants to wait. `label` says which line, together with the claim; `able` which providers can take it.
pub struct Arrival<L, T> {
    pub claim: Claim,
    pub label: L,
    /// Handed out with the slot, or when nobody can take the call.
    pub word: T,
    /// Whether it waits as long as it takes, even where no provider is there.
    pub patient: bool,
    /// Of a call that has waited before.
    pub again: Option<u64>,
}

/// A slot for a call that waited.
#[derive(Debug)]
pub struct Grant<T> {
    pub provider: usize,
    pub claim: Claim,
    pub word: T,
}
