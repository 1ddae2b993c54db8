//! `/accounts`, `/sessions`, `/tokens`, `/invites`: identity, and what a token allows.

use borsh::BorshSerialize;
use jiff::Timestamp;
use piecework_model::{AccountId, Credits, Domain, NetworkId, PublicKey, SecretKey, Signature, SignatureInvalid};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub use piecework_model::{Role, Scope};

use crate::{
    ledger::ProofView,
    schemas::{RoleName, ScopeName, Ucr},
};

/// `POST /accounts`. Either `password` (the controller keeps the key) or `public_key` with `registration`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAccount {
    #[schema(min_length = 1, max_length = 30)]
    pub name: String,
    /// 10 to 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// 64 hex digits; the holder of the secret key owns the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub public_key: Option<PublicKey>,
    /// With `public_key`: the signed Register transaction in the ledger's encoding, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<String>,
    /// `developer` if absent.
    #[serde(default)]
    #[schema(value_type = Vec<RoleName>)]
    pub roles: Vec<Role>,
    /// Required unless the network is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<String>,
}

/// An account on the ledger. Fields that only its owner and admins can see are absent for others.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountView {
    #[schema(value_type = String)]
    pub id: AccountId,
    pub name: String,
    #[schema(value_type = String)]
    pub key: PublicKey,
    #[schema(value_type = Vec<RoleName>)]
    pub roles: Vec<Role>,
    /// Credits owned; below zero if the account uses its sponsor's loan.
    #[schema(value_type = Ucr)]
    pub posted_ucr: Credits,
    /// Held for open leases.
    #[schema(value_type = Ucr)]
    pub held_ucr: Credits,
    /// How far below zero the balance may go.
    #[schema(value_type = Ucr)]
    pub limit_ucr: Credits,
    /// posted + limit - held: the amount that can be spent or held.
    #[schema(value_type = Ucr)]
    pub available_ucr: Credits,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sponsor: Option<String>,
    /// The account that owns this one: jobs between accounts of one owner pay no commission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Number of its results that contradict another provider's, as recorded on the ledger.
    #[serde(default)]
    pub mismatches: u32,
    /// Nonce of the next transaction.
    pub nonce: u64,
    /// Block at which this was read.
    pub height: u64,
    /// Present with `?proof=true`: id, key and balances as proven, possibly at another block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofView>,
}

/// `GET /accounts/{name}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AccountQuery {
    /// Include a proof of the balances.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub proof: bool,
}

/// `PUT /accounts/{name}/loan`: sets how far below zero the account may go.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLoan {
    #[schema(value_type = Ucr)]
    pub limit_ucr: Credits,
}

/// `POST /accounts/{name}/loan/payments`: the sponsor pays part of the account's debt.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PayLoan {
    #[schema(value_type = Ucr)]
    pub amount_ucr: Credits,
}

/// `POST /account/providers`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnProvider {
    /// Public key of a computer that is not registered yet.
    #[schema(value_type = String)]
    pub public_key: PublicKey,
}

/// The caller's signed statement, for the ledger, that an account belongs to it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct OwnerView {
    #[schema(value_type = String)]
    pub owner: AccountId,
    #[schema(value_type = String)]
    pub signature: Signature,
}

/// `POST /sessions`: a password, or a signed challenge.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// From `POST /sessions/challenges`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// 128 hex digits: see [`sign_login`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub signature: Option<Signature>,
}

/// `POST /sessions/challenges`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateChallenge {
    pub name: String,
}

/// Sign it once, soon. Unknown names get one too, so it does not reveal which accounts exist.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChallengeView {
    pub challenge: String,
    #[schema(value_type = String)]
    pub network: NetworkId,
    pub expires_at: Timestamp,
}

#[derive(BorshSerialize)]
struct Login<'a> {
    name: &'a str,
    challenge: &'a str,
}

/// The signature that logs `name` in on `network`.
pub fn sign_login(key: &SecretKey, network: &NetworkId, name: &str, challenge: &str) -> Signature {
    key.sign(Domain::Login, network, &Login { name, challenge })
}

/// Whether `key` signed this login.
pub fn verify_login(
    key: &PublicKey,
    network: &NetworkId,
    name: &str,
    challenge: &str,
    signature: &Signature,
) -> Result<(), SignatureInvalid> {
    key.verify(Domain::Login, network, &Login { name, challenge }, signature)
}

/// 201 of `POST /sessions` and `POST /tokens`: the only time the token is shown.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// Send it as `Authorization: Bearer ...`.
    pub token: String,
    #[serde(flatten)]
    pub view: TokenView,
}

impl std::fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCreated")
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}

/// A token, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Identifies it for `DELETE /tokens/{id}`; not a secret.
    pub id: String,
    pub account: String,
    /// The owner's note about its purpose.
    pub label: String,
    #[schema(value_type = Vec<ScopeName>)]
    pub scopes: Vec<Scope>,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Accurate to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
}

/// `POST /tokens`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    #[serde(default)]
    #[schema(max_length = 100)]
    pub label: String,
    /// At least one; only scopes that the requesting token has.
    #[schema(value_type = Vec<ScopeName>)]
    pub scopes: Vec<Scope>,
    /// 60 s to a year; 90 days if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 60, maximum = 31_536_000)]
    pub expires_in_s: Option<u64>,
}

/// `POST /invites`: lets one account register.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateInvite {
    /// Roles of the new account; `developer` if empty.
    #[serde(default)]
    #[schema(value_type = Vec<RoleName>)]
    pub roles: Vec<Role>,
    /// Credits that the new account gets from the inviter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Ucr>)]
    pub grant_ucr: Option<Credits>,
    /// How far below zero the new account may go; the inviter's account holds this amount meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Ucr>)]
    pub lend_ucr: Option<Credits>,
    /// A week if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 60, maximum = 31_536_000)]
    pub expires_in_s: Option<u64>,
}

/// `POST /invites/accept`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptInvite {
    /// The code of the invite.
    pub invite: String,
}

/// 201 of `POST /invites`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InviteCreated {
    pub code: String,
    #[schema(value_type = Vec<RoleName>)]
    pub roles: Vec<Role>,
    #[schema(value_type = Option<Ucr>)]
    pub grant_ucr: Option<Credits>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Ucr>)]
    pub lend_ucr: Option<Credits>,
    pub expires_at: Timestamp,
}
