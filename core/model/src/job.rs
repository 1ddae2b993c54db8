//! Where a job is in its life, and where its result is.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::{Code, Rejection};

/// ```text
/// queued -> running -> succeeded | failed | timed_out
///    |         `-----> cancelled
///    `-> cancelled | expired
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum JobState {
    Queued = 0,
    Running = 1,
    Succeeded = 2,
    Failed = 3,
    TimedOut = 4,
    Cancelled = 5,
    /// Its deadline passed before any provider started it.
    Expired = 6,
}

impl JobState {
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::Expired,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Whether nothing but payment can follow.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::TimedOut | Self::Cancelled | Self::Expired => true,
        }
    }

    /// Whether it counts as an error in metrics; a cancelled job does not.
    pub fn is_error(self) -> bool {
        match self {
            Self::Failed | Self::TimedOut | Self::Expired => true,
            Self::Queued | Self::Running | Self::Succeeded | Self::Cancelled => false,
        }
    }

    /// As it is kept.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as i64 == code)
    }
}

impl std::str::FromStr for JobState {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|state| state.as_str() == text);
        named.ok_or_else(|| {
            Rejection::new(Code::JobBadState, format!("`{text}` is not a job state"))
                .hint("use queued, running, succeeded, failed, timed_out, cancelled or expired")
                .field("state")
        })
    }
}

/// ```text
/// kept ------------------------------------------> expired
/// delivering -> delivered | undelivered ---------> expired (undelivered alone)
/// any but delivered and expired -----------------> dropped
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum ResultState {
    /// Kept with the job until it expires.
    Kept = 0,
    /// On its way to the function's sink; kept with the job until it is delivered.
    Delivering = 1,
    /// Delivered to the sink and no longer kept with the job.
    Delivered = 2,
    /// Not accepted by the sink; kept with the job until it expires.
    Undelivered = 3,
    Expired = 4,
    /// Not kept: the account's stored outputs took more room than they may, and this was the oldest.
    Dropped = 5,
}

impl ResultState {
    pub const ALL: [Self; 6] = [
        Self::Kept,
        Self::Delivering,
        Self::Delivered,
        Self::Undelivered,
        Self::Expired,
        Self::Dropped,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Delivering => "delivering",
            Self::Delivered => "delivered",
            Self::Undelivered => "undelivered",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
        }
    }

    /// As it is kept.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as i64 == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_those_that_were_always_written() {
        for (code, state) in (0..).zip(JobState::ALL) {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).expect("JSON"), state.as_str());
            assert_eq!(borsh::to_vec(&state).expect("a byte"), [code]);
            assert_eq!(JobState::from_code(code.into()), Some(state));
        }
        for (code, state) in (0..).zip(ResultState::ALL) {
            assert_eq!(serde_json::to_value(state).expect("JSON"), state.as_str());
            assert_eq!(borsh::to_vec(&state).expect("a byte"), [code]);
            assert_eq!(ResultState::from_code(code.into()), Some(state));
        }
        assert_eq!((JobState::from_code(7), ResultState::from_code(-1)), (None, None));
    }
}
