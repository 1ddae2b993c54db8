//! Ed25519 keys and signatures bound to a domain and a network.

use std::{fmt, str::FromStr};

use borsh::{BorshDeserialize, BorshSerialize};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::NetworkId;

/// What kind of message a signature covers: a signature of one kind is never valid as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    Transaction,
    Tickets,
    Receipts,
    Acks,
    Login,
    Owner,
    Sponsor,
    Request,
    /// The handshake of a link between a provider and a controller.
    Link,
}

impl Domain {
    fn tag(self) -> &'static [u8] {
        match self {
            Self::Transaction => b"piecework/1/transaction\0",
            Self::Tickets => b"piecework/1/tickets\0",
            Self::Receipts => b"piecework/1/receipts\0",
            Self::Acks => b"piecework/1/acks\0",
            Self::Login => b"piecework/1/login\0",
            Self::Owner => b"piecework/1/owner\0",
            Self::Sponsor => b"piecework/1/sponsor\0",
            Self::Request => b"piecework/1/request\0",
            Self::Link => b"piecework/1/link\0",
        }
    }
}

/// The bytes an Ed25519 signature covers: domain tag, network id, canonical encoding.
fn message<T: BorshSerialize>(domain: Domain, network: &NetworkId, value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(domain.tag());
    bytes.extend_from_slice(&network.0);
    borsh::to_writer(&mut bytes, value).expect("a vector accepts every byte");
    bytes
}

/// A public Ed25519 key; text form is 64 hex digits. May hold bytes that are no point of the curve: then nothing verifies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize, Default)]
pub struct PublicKey(pub [u8; 32]);

/// 64 signature bytes as they travel; checked only by [`PublicKey::verify`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Signature(pub [u8; 64]);

/// Somebody else signed, or something else was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature is invalid")]
pub struct SignatureInvalid;

/// A key's text is not 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key must be 64 hex digits")]
pub struct BadKey;

impl PublicKey {
    /// Strict verification (no small-order keys, canonical encodings only), so that all peers agree.
    pub fn verify<T: BorshSerialize>(
        &self,
        domain: Domain,
        network: &NetworkId,
        value: &T,
        signature: &Signature,
    ) -> Result<(), SignatureInvalid> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| SignatureInvalid)?;
        key.verify_strict(
            &message(domain, network, value),
            &ed25519_dalek::Signature::from_bytes(&signature.0),
        )
        .map_err(|_| SignatureInvalid)
    }
}

/// Verifies each of several signatures of one kind; the first failure's index is returned.
pub fn verify_all<T: BorshSerialize>(
    domain: Domain,
    network: &NetworkId,
    signed: &[(PublicKey, T, Signature)],
) -> Result<(), usize> {
    for (index, (key, value, signature)) in signed.iter().enumerate() {
        key.verify(domain, network, value, signature).map_err(|_| index)?;
    }
    Ok(())
}

/// A secret key: never printed, wiped when dropped.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// From 32 bytes of a cryptographic random source.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The 32 bytes to keep in a file of mode 0600; treat like a password.
    pub fn to_seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    pub fn sign<T: BorshSerialize>(&self, domain: Domain, network: &NetworkId, value: &T) -> Signature {
        Signature(self.0.sign(&message(domain, network, value)).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..6]))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..6]))
    }
}

impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| BadKey)?;
        Ok(Self(bytes))
    }
}

impl FromStr for Signature {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let mut bytes = [0; 64];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| BadKey)?;
        Ok(Self(bytes))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: String = Deserialize::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: String = Deserialize::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
