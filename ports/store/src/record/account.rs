//! Users and their tokens.

use std::collections::BTreeSet;

use piecework_model::{AccountId, Digest, OwnerName, PublicKey, Role, Roles, Scope};

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
    /// Whether it may do what only operators of this network may.
    pub operator: bool,
    pub created_at_ms: u64,
}

/// After those of the roles.
const OPERATOR_BIT: u32 = 4;

impl User {
    /// Roles, and whether it is an operator, as they are kept.
    pub(crate) fn role_bits(&self) -> i64 {
        let roles = (0..)
            .zip(Role::ALL)
            .map(|(bit, role)| i64::from(self.roles.has(role)) << bit);
        roles.sum::<i64>() | i64::from(self.operator) << OPERATOR_BIT
    }

    pub(crate) fn of_role_bits(bits: i64) -> (Roles, bool) {
        let is_set = |bit: u32| bits & (1 << bit) != 0;
        let held = (0..).zip(Role::ALL).filter(|(bit, _)| is_set(*bit));
        (held.map(|(_, role)| role).collect(), is_set(OPERATOR_BIT))
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("account", &self.account)
            .field("name", &self.name)
            .field("roles", &self.roles)
            .field("operator", &self.operator)
            .finish_non_exhaustive()
    }
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
