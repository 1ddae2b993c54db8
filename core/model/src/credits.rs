//! Money: micro-credits with checked arithmetic.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount of micro-credits (`ucr`); a million make one credit. May be negative where an account owes.
///
/// In JSON a number below 2^53 in size and a decimal string above, so that JavaScript reads it exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Credits(pub i128);

/// An amount left the range of 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an amount of credits is out of range")]
pub struct CreditsOverflow;

impl Credits {
    pub const ZERO: Self = Self(0);
    /// One credit in ucr.
    pub const ONE: Self = Self(1_000_000);
    const JSON_NUMBER_MAX: u128 = (1 << 53) - 1;

    pub fn checked_add(self, other: Self) -> Result<Self, CreditsOverflow> {
        self.0.checked_add(other.0).map(Self).ok_or(CreditsOverflow)
    }

    pub fn checked_sub(self, other: Self) -> Result<Self, CreditsOverflow> {
        self.0.checked_sub(other.0).map(Self).ok_or(CreditsOverflow)
    }

    pub fn is_positive(self) -> bool {
        self.0 > 0
    }

    pub fn is_negative(self) -> bool {
        self.0 < 0
    }
}

impl From<u64> for Credits {
    fn from(ucr: u64) -> Self {
        Self(i128::from(ucr))
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for Credits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.unsigned_abs() <= Self::JSON_NUMBER_MAX {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.collect_str(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Credits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Amount {
            Number(i64),
            Text(String),
        }
        match Amount::deserialize(deserializer)? {
            Amount::Number(ucr) => Ok(Self(i128::from(ucr))),
            Amount::Text(text) => text.parse().map(Self).map_err(serde::de::Error::custom),
        }
    }
}
