//! The digests by which images name their parts.

use std::{fmt, str::FromStr};

use piecework_model::Rejection;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use sha2::Digest as _;

use crate::bad;

/// Written as `sha256:` and 64 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    pub fn of(bytes: &[u8]) -> Self {
        let mut stream = Sha256Stream::default();
        stream.update(bytes);
        stream.finish()
    }
}

/// The digest of bytes that come in pieces.
#[derive(Clone, Default)]
pub struct Sha256Stream(sha2::Sha256);

impl Sha256Stream {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> Sha256 {
        Sha256(self.0.finalize().into())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl FromStr for Sha256 {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Rejection> {
        let shown = || text.chars().take(80).collect::<String>();
        let mut bytes = [0; 32];
        let digits = text.strip_prefix("sha256:");
        match digits.filter(|digits| hex::decode_to_slice(digits, &mut bytes).is_ok()) {
            Some(_) => Ok(Self(bytes)),
            None => Err(bad(format!("`{}` is not a digest of the form sha256:HEX", shown()))),
        }
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
