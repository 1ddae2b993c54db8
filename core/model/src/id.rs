//! Identifiers: fixed-size bytes on the wire, short prefixed text for people.

use std::{fmt, str::FromStr};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Code, Digest, PublicKey, Rejection};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize, Default)]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut digits = [0; $bytes * 2];
                hex::encode_to_slice(self.0, &mut digits).expect("two digits a byte");
                f.write_str($prefix)?;
                f.write_str(std::str::from_utf8(&digits).expect("hex digits are ASCII"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = Rejection;

            fn from_str(text: &str) -> Result<Self, Rejection> {
                let mut bytes = [0; $bytes];
                let digits = text.strip_prefix($prefix).unwrap_or(text);
                hex::decode_to_slice(digits, &mut bytes).map_err(|_| {
                    Rejection::new(Code::IdMalformed, format!("`{}` is not an id; it must have the form {}<{} hex digits>", text, $prefix, $bytes * 2))
                })?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text: String = Deserialize::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A key's account on the ledger: made from the first key, it outlives key rotation.
    AccountId, 20, "acc_"
);
id!(
    /// A function; one id for all its versions.
    FunctionId, 12, "fn_"
);
id!(
    /// One invocation of a function. The first 6 bytes are the creation time in Unix milliseconds (big-endian), so ids sort by age.
    JobId, 16, "job_"
);
id!(
    /// A lease: made from the opening account and its nonce.
    LeaseId, 20, "lease_"
);
id!(
    /// One ledger network: the digest of its genesis.
    NetworkId, 32, "net_"
);

impl AccountId {
    pub fn of(key: &PublicKey) -> Self {
        Self::truncate(Digest::of_value("piecework 2026 account id", key))
    }

    fn truncate(digest: Digest) -> Self {
        Self(digest.0[..20].try_into().expect("20 of 32 bytes"))
    }
}

impl LeaseId {
    /// The lease that `developer` opens with the transaction of this `nonce`.
    pub fn of(developer: AccountId, nonce: u64) -> Self {
        let digest = Digest::of_value("piecework 2026 lease id", &(developer, nonce));
        Self(digest.0[..20].try_into().expect("20 of 32 bytes"))
    }
}

impl JobId {
    /// `random` must come from a cryptographic source: an id is unguessable, not secret.
    pub fn new(unix_ms: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        Self(bytes)
    }

    pub fn created_at_ms(&self) -> u64 {
        let mut time = [0; 8];
        time[2..].copy_from_slice(&self.0[..6]);
        u64::from_be_bytes(time)
    }
}
