//! What an account may be on the network, and what a token of it allows.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::{Code, Rejection};

/// A role of an account on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Developer,
    Provider,
    Peer,
    Controller,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Developer, Self::Provider, Self::Peer, Self::Controller];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Developer => "developer",
            Self::Provider => "provider",
            Self::Peer => "peer",
            Self::Controller => "controller",
        }
    }
}

/// The roles that an account has.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
pub struct Roles {
    pub developer: bool,
    pub provider: bool,
    pub peer: bool,
    pub controller: bool,
}

impl Roles {
    pub fn has(&self, role: Role) -> bool {
        match role {
            Role::Developer => self.developer,
            Role::Provider => self.provider,
            Role::Peer => self.peer,
            Role::Controller => self.controller,
        }
    }

    pub fn list(&self) -> Vec<Role> {
        Role::ALL.into_iter().filter(|role| self.has(*role)).collect()
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        let mut all = Self::default();
        for role in roles {
            match role {
                Role::Developer => all.developer = true,
                Role::Provider => all.provider = true,
                Role::Peer => all.peer = true,
                Role::Controller => all.controller = true,
            }
        }
        all
    }
}

/// What a token allows. Scopes do not include one another, except that `admin` includes all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Create, change and delete functions.
    Deploy,
    /// Run functions and cancel jobs.
    Invoke,
    /// Read functions, jobs, logs, metrics and the statement.
    View,
    /// Everything, including tokens, transfers and invites.
    Admin,
}

impl Scope {
    pub const ALL: [Self; 4] = [Self::Deploy, Self::Invoke, Self::View, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Invoke => "invoke",
            Self::View => "view",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        named.ok_or_else(|| {
            Rejection::new(Code::TokenBadScope, format!("`{text}` is not a token scope"))
                .hint("use deploy, invoke, view or admin")
                .field("scopes")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_typed_and_in_json() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
            assert_eq!(serde_json::to_value(scope).expect("JSON"), scope.as_str());
        }
        for role in Role::ALL {
            assert_eq!(serde_json::to_value(role).expect("JSON"), role.as_str());
            assert_eq!(Roles::from_iter([role]).list(), [role]);
        }
        assert_eq!(Roles::from_iter(Role::ALL).list(), Role::ALL);
    }
}
