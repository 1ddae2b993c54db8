//! BLAKE3 digests.

use std::{fmt, str::FromStr};

use blake3::{
    Hasher,
    hazmat::{ContextKey, HasherExt, hash_derive_key_context},
};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{JobId, SecretKey};

/// A 32-byte BLAKE3 digest; text form is 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Digest of raw bytes (a bundle, an input, an output).
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Digest of a value's canonical encoding under a `tag`, so that equal bytes of different kinds never collide.
    pub fn of_value<T: BorshSerialize>(tag: &str, value: &T) -> Self {
        Self::keyed(&hash_derive_key_context(tag), value)
    }

    /// [`Self::of_value`] with the tag hashed before. The encoding is hashed in one piece: many small pieces take longer.
    pub(crate) fn keyed<T: BorshSerialize>(tag: &ContextKey, value: &T) -> Self {
        let mut bytes = Vec::with_capacity(512);
        borsh::to_writer(&mut bytes, value).expect("a vector accepts every byte");
        Self(*Hasher::new_from_context_key(tag).update(&bytes).finalize().as_bytes())
    }
}

/// What the digests of one job's input and output are made with before they are shown to all on the ledger: without it nobody
/// can find out by trying whether a job had a certain input or output. Its developer has it, and whoever the developer gives
/// it to can check them.
#[derive(Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Salt(pub [u8; 32]);

impl Salt {
    /// The job's salt at the controller with this key. Nothing needs to be remembered.
    pub fn of_job(key: &SecretKey, job: JobId) -> Self {
        let secret = blake3::derive_key("piecework 2026 salt of a job", &key.to_seed());
        Self(*blake3::keyed_hash(&secret, &job.0).as_bytes())
    }
}

impl fmt::Display for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}

impl Digest {
    /// The digest under a salt: BLAKE3 of these 32 bytes, keyed with it. Without one it stays as it is.
    pub fn salted(self, salt: Option<&Salt>) -> Self {
        match salt {
            Some(salt) => Self(*blake3::keyed_hash(&salt.0, &self.0).as_bytes()),
            None => self,
        }
    }
}

/// The digest of bytes that come in parts: the same as [`Digest::of`] all of them in one piece.
#[derive(Clone, Default)]
pub struct DigestStream(Hasher);

impl DigestStream {
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// Of what has come so far.
    pub fn digest(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for DigestStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DigestStream").field(&self.digest()).finish()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", hex::encode(&self.0[..6]))
    }
}

impl FromStr for Digest {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: String = Deserialize::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
