//! What people and programs ask of the ledger.

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::{
    AccountId, Counters, Credits, Digest, Domain, JobId, JobStatus, LeaseId, NetworkId, OwnerName, Prices, PublicKey,
    SecretKey, Signature, SignatureInvalid,
};
use serde::{Deserialize, Serialize};

use crate::state::{Roles, Subject};

/// The digest of a signed transaction's bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
pub struct TransactionId(pub Digest);

/// One request to the ledger, before it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Transaction {
    /// Who asks. For `Register` the account that comes to be; for `Settle` and `OpenJobs` a payer key's account is not
    /// needed: the signature must be of a payer key of the lease and the nonce is not used (lane sequences guard replays).
    pub sender: AccountId,
    /// The sender's next nonce (0 where the action does not use it: `OpenJobs`, `Settle`, `ExpireLease`). `Register` is an
    /// account's transaction 0, so the next is 1; an account of the genesis begins with 0. A rejected transaction does not
    /// use up its nonce: it may still enter later, unless another takes its place.
    pub nonce: u64,
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Register(Register),
    RotateKey(RotateKey),
    Transfer(Transfer),
    PutOffer(PutOffer),
    DropOffer(DropOffer),
    OpenLease(OpenLease),
    TopUp(TopUp),
    DelegatePayer(DelegatePayer),
    OpenJobs(OpenJobs),
    Settle(Settle),
    CloseLease(CloseLease),
    ExpireLease(ExpireLease),
}

/// A transaction with its signature; `key` must be the sender's, or a payer key of the lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct SignedTransaction {
    pub transaction: Transaction,
    pub key: PublicKey,
    pub signature: Signature,
}

impl SignedTransaction {
    pub fn sign(transaction: Transaction, key: &SecretKey, network: &NetworkId) -> Self {
        let signature = key.sign(Domain::Transaction, network, &transaction);
        Self {
            transaction,
            key: key.public(),
            signature,
        }
    }

    pub fn verify(&self, network: &NetworkId) -> Result<(), SignatureInvalid> {
        self.key
            .verify(Domain::Transaction, network, &self.transaction, &self.signature)
    }

    pub fn id(&self) -> TransactionId {
        TransactionId(Digest::of_value("piecework 2026 transaction id", self))
    }
}

/// A new account. Its id is made from the signing key. Starts with nothing; a sponsor may lend it a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Register {
    pub name: OwnerName,
    pub roles: Roles,
    /// The sponsor's account, key's signature ([`Domain::Sponsor`]) over `(new account, limit)`, and the limit it lends.
    pub sponsor: Option<(AccountId, Credits, Signature)>,
    /// The owner's account and its signature ([`Domain::Owner`]) over the new account's id.
    pub owner: Option<(AccountId, Signature)>,
}

/// A new key for the account; the id stays. Receipts that the old key sealed and that are not settled yet are refused from
/// then on (`settle.bad_receipts`): settle, or have them sealed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct RotateKey {
    pub new_key: PublicKey,
    /// By the new key ([`Domain::Owner`]) over the account id: it is really held.
    pub proof: Signature,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Transfer {
    pub to: AccountId,
    pub amount: Credits,
}

/// What a provider's machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Resources {
    pub cores: u32,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub slots: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct PutOffer {
    pub prices: Prices,
    pub resources: Resources,
    pub backends: Vec<String>,
    pub region: String,
    pub labels: Vec<String>,
    pub expires_at_height: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct DropOffer {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct OpenLease {
    pub subject: Subject,
    pub provider: Option<AccountId>,
    pub controller: AccountId,
    pub price_caps: Prices,
    pub budget: Credits,
    pub payer_keys: Vec<PublicKey>,
    pub mailboxes: Vec<PublicKey>,
    pub exposure_ucr: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct TopUp {
    pub lease: LeaseId,
    pub amount: Credits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct DelegatePayer {
    pub lease: LeaseId,
    pub key: PublicKey,
    /// Adds the key, or takes it away.
    pub add: bool,
}

/// A ticket recorded ahead of its run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct OpenTicket {
    pub sequence: u64,
    pub job: JobId,
    pub code: Digest,
    pub input: Digest,
    pub price_max_ucr: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct OpenJobs {
    pub lease: LeaseId,
    pub provider: AccountId,
    pub tickets: Vec<OpenTicket>,
}

/// The part of a receipt that is not in its ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Metered {
    pub output: Digest,
    pub status: JobStatus,
    pub counters: Counters,
    pub price_ucr: u64,
    pub duration_us: u64,
}

/// One job of a settlement. With both papers it is paid at once; with one it waits as an open job for the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct SettledJob {
    pub sequence: u64,
    pub job: JobId,
    /// Index into [`Settle::codes`].
    pub code: u16,
    pub input: Digest,
    pub price_max_ucr: u64,
    pub metered: Option<Metered>,
    /// The ack's time, if the result arrived.
    pub received_at_ms: Option<u64>,
}

/// Receipts and acks of one lane, by a payer key of the lease, whose signature also stands for the tickets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Settle {
    pub lease: LeaseId,
    pub provider: AccountId,
    /// The function versions that ran.
    pub codes: Vec<Digest>,
    /// Strictly ascending sequences. One that the lane has already taken (and that is not open) is skipped: a no-op.
    pub jobs: Vec<SettledJob>,
    /// The provider's seal ([`Domain::Receipts`]) over the leaves of the receipts in order of `jobs`; `None` only where no
    /// job carries one.
    pub receipts: Option<Signature>,
    /// A mailbox's seal ([`Domain::Acks`]) over the leaves of the acks in order of `jobs`; `None` where the payer key that
    /// signs the transaction is itself a mailbox of the lease.
    /// An ack covers the output, which only the receipt tells: a sealed ack travels with its receipt or after it.
    pub acks: Option<(PublicKey, Signature)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct CloseLease {
    pub lease: LeaseId,
}

/// Frees what is left of a lease whose drain is over. Anybody may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct ExpireLease {
    pub lease: LeaseId,
}
