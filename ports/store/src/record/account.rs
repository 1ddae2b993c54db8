//! Users and their tokens.

use std::collections::BTreeSet;

use piecework_model::{AccountId, Digest, OwnerName, PublicKey};
use serde::{Deserialize, Serialize};

/// What a user may be on this network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Roles {
    pub developer: bool,
    pub provider: bool,
    pub peer: bool,
    pub controller: bool,
    pub operator: bool,
}

impl Roles {
    pub(crate) fn to_bits(self) -> i64 {
        let flags = [self.developer, self.provider, self.peer, self.controller, self.operator];
        flags.iter().enumerate().map(|(bit, set)| i64::from(*set) << bit).sum()
    }

    pub(crate) fn from_bits(bits: i64) -> Self {
        let flag = |bit: u32| bits & (1 << bit) != 0;
        Self {
            developer: flag(0),
            provider: flag(1),
            peer: flag(2),
            controller: flag(3),
            operator: flag(4),
        }
    }
}

/// A person or an organisation known to this controller.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub account: AccountId,
    pub name: OwnerName,
    pub public_key: PublicKey,
    /// Argon2 in PHC form; `None` for who logs in by key.
    pub password_hash: Option<String>,
    /// The secret key kept for the user, sealed; `None` for who keeps it himself.
    pub sealed_key: Option<Vec<u8>>,
    pub roles: Roles,
    pub created_at_ms: u64,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("account", &self.account)
            .field("name", &self.name)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Deploy,
    Invoke,
    View,
    Admin,
}

/// A bearer token; its text is shown once and kept only as a hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    /// [`Token::hash_of`] the opaque text.
    pub hash: [u8; 32],
    pub account: AccountId,
    pub scopes: BTreeSet<Scope>,
    pub label: String,
    pub created_at_ms: u64,
    pub expires_at_ms: Option<u64>,
    /// The id of the token that it was made with.
    pub parent: Option<String>,
}

impl Token {
    /// BLAKE3 of the text; enough without salt because the text is 256 random bits.
    pub fn hash_of(text: &str) -> [u8; 32] {
        Digest::of(text.as_bytes()).0
    }

    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|expires| expires <= now_ms)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("account", &self.account)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}
