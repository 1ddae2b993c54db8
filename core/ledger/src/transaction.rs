//! What people and programs ask of the ledger.

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::{
    AccountId, Counters, Credits, Digest, Domain, JobId, JobStatus, LeaseId, NetworkId, OwnerName, Prices, PublicKey,
    Receipt, Roles, Sealed, SecretKey, Signature, SignatureInvalid, Ticket,
};
use serde::{Deserialize, Serialize};

use crate::state::{Params, Subject};

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
    /// The sender's next nonce (0 where the action does not use it, see [`Action::takes_nonce`]). `Register` is an
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
    Claim(Claim),
    PayClaims(PayClaims),
    Challenge(Challenge),
    ReportMismatch(Box<ReportMismatch>),
    SetLimit(SetLimit),
    CoverDebt(CoverDebt),
    Propose(Propose),
    Vote(Vote),
    PayPeers(PayPeers),
    ReleaseJobs(ReleaseJobs),
}

impl Action {
    /// Whether the action takes its sender's next nonce. The others are guarded otherwise: by lane sequences, or because
    /// they work only once; and they need no account.
    pub fn takes_nonce(&self) -> bool {
        match self {
            Self::OpenJobs(_)
            | Self::Settle(_)
            | Self::ExpireLease(_)
            | Self::PayClaims(_)
            | Self::Challenge(_)
            | Self::ReportMismatch(_)
            | Self::ReleaseJobs(_) => false,
            Self::Register(_)
            | Self::RotateKey(_)
            | Self::Transfer(_)
            | Self::PutOffer(_)
            | Self::DropOffer(_)
            | Self::OpenLease(_)
            | Self::TopUp(_)
            | Self::DelegatePayer(_)
            | Self::CloseLease(_)
            | Self::Claim(_)
            | Self::SetLimit(_)
            | Self::CoverDebt(_)
            | Self::Propose(_)
            | Self::Vote(_)
            | Self::PayPeers(_) => true,
        }
    }
}

impl Action {
    /// The name under which people and logs know it: that of its JSON form.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Register(_) => "register",
            Self::RotateKey(_) => "rotate_key",
            Self::Transfer(_) => "transfer",
            Self::PutOffer(_) => "put_offer",
            Self::DropOffer(_) => "drop_offer",
            Self::OpenLease(_) => "open_lease",
            Self::TopUp(_) => "top_up",
            Self::DelegatePayer(_) => "delegate_payer",
            Self::OpenJobs(_) => "open_jobs",
            Self::Settle(_) => "settle",
            Self::CloseLease(_) => "close_lease",
            Self::ExpireLease(_) => "expire_lease",
            Self::Claim(_) => "claim",
            Self::PayClaims(_) => "pay_claims",
            Self::Challenge(_) => "challenge",
            Self::ReportMismatch(_) => "report_mismatch",
            Self::SetLimit(_) => "set_limit",
            Self::CoverDebt(_) => "cover_debt",
            Self::Propose(_) => "propose",
            Self::Vote(_) => "vote",
            Self::PayPeers(_) => "pay_peers",
            Self::ReleaseJobs(_) => "release_jobs",
        }
    }
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
    /// Adds the key, or takes it away. What a key sealed before it went can be claimed for another window.
    pub add: bool,
    /// The key becomes a mailbox of the lease too, or is one no longer: a controller that takes a lost one's place acks as
    /// well as it pays.
    pub mailbox: bool,
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

/// Opened jobs of one lane that came to nothing: what is kept aside for them is free again, and they are never paid. By a
/// payer key of the lease, for jobs without any paper, once the lease's window is over since they were opened: a provider
/// that ran one has had that time to claim it, and what it has claimed stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct ReleaseJobs {
    pub lease: LeaseId,
    pub provider: AccountId,
    /// Strictly ascending. One that has a paper, or is done with, is skipped.
    pub sequences: Vec<u64>,
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

/// Jobs of the sender's lane, without the payer: their tickets as a payer key sealed them, and what the provider says of
/// them, under its signature of this transaction. Each is recorded with its price reserved, and is due when the lease's
/// window is over ([`PayClaims`]), unless a payer key refutes it ([`Challenge`]) or settles it before.
///
/// A job that is done with, or claimed already, is skipped. An ack is not needed: it keeps a claim from being refuted by
/// the job's replacement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Claim {
    pub lease: LeaseId,
    /// The claimed jobs' sequences ascend strictly, from batch to batch.
    pub batches: Vec<TicketBatch>,
    /// A mailbox's seal ([`Domain::Acks`]) over the leaves of the acks in order of the jobs.
    pub acks: Option<(PublicKey, Signature)>,
}

/// Tickets that one signature covers, in the order of their leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct TicketBatch {
    /// A payer key of the lease, or one that was taken away less than a window ago.
    pub payer: PublicKey,
    pub signature: Signature,
    pub tickets: Vec<BatchTicket>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchTicket {
    Claimed(Box<ClaimedJob>),
    /// The leaf of a ticket that is not claimed here.
    Other(Digest),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct ClaimedJob {
    pub ticket: Ticket,
    pub metered: Metered,
    /// The ack's time, if the provider holds one.
    pub received_at_ms: Option<u64>,
}

/// Pays claims of one lane whose window is over. Anybody may ask: what is paid to whom is on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct PayClaims {
    pub lease: LeaseId,
    pub provider: AccountId,
    /// Strictly ascending. One that is not claimed (any more) is skipped.
    pub sequences: Vec<u64>,
}

/// Refutes one claim, by a payer key of the lease, before its window is over: the record goes and nothing is paid, now or
/// ever. What only the payer says is no evidence. A settlement of the job needs no challenge: it takes the claim's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Challenge {
    pub lease: LeaseId,
    pub provider: AccountId,
    pub sequence: u64,
    pub evidence: Evidence,
}

/// What shows that a claim is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Another receipt of the same sequence that the provider sealed, which says something else.
    OtherReceipt(Box<Sealed<Receipt>>),
    /// The job was done and paid under another ticket of the lease: that ticket's receipt, by whichever provider. No answer
    /// to a claim whose result was acked. The ticket itself need not be shown: the payer could sign one at any time.
    Replaced(Box<Sealed<Receipt>>),
}

/// Two providers of one lease say that the same code made different outputs of the same input: recorded, and counted in
/// the first one's account. By a payer key of the lease. The ledger cannot know which of them is right, nor whether the
/// function is deterministic: who reads the count weighs whose leases it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct ReportMismatch {
    pub lease: LeaseId,
    /// The result in doubt: a receipt counts once.
    pub receipt: Sealed<Receipt>,
    /// Of the run that it was compared with, by another provider.
    pub rerun: Sealed<Receipt>,
}

/// The sponsor of an account lends it more or less; an account may also give back what it was lent. Zero ends the
/// sponsorship; an account without a sponsor takes the one that lends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct SetLimit {
    pub account: AccountId,
    /// Not by how much: how much altogether.
    pub limit: Credits,
}

/// The sponsor pays what an account of its owes, out of what it holds for it: debt and limit shrink by the amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct CoverDebt {
    pub account: AccountId,
    pub amount: Credits,
}

/// Puts a change to the peers' vote; the sender's own peers vote for it at once. A second proposal of the same sender
/// takes the place of the first, votes and all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Propose {
    pub change: Change,
}

/// What peers can change. Peers change with the epoch after the next ([`crate::Committee`]), parameters at once, rules at
/// the height that the change names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    AddPeer(AddPeer),
    RemovePeer(PublicKey),
    SetParams(Params),
    SetRules(SetRules),
}

impl Change {
    /// What a [`Vote`] names.
    pub fn digest(&self) -> Digest {
        Digest::of_value("piecework 2026 change", self)
    }
}

/// Other rules from a height on. Takes the place of a switch that was carried before and whose height has not come; the
/// number in force calls that one off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct SetRules {
    /// The number after the one in force, so that a build that knows it is made and spread first.
    pub rules: u32,
    /// The first block under them. Not before the epoch after the next, seen from the block that carries the change: so
    /// it has been final for a whole epoch by then.
    pub from_height: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct AddPeer {
    pub key: PublicKey,
    pub owner: AccountId,
    /// `host:port` of its peer-to-peer listener.
    pub address: String,
    /// By the peer's key ([`Domain::Owner`]) over the owner's account id: it is really held, and for this owner.
    pub proof: Signature,
}

/// Votes for a proposal with all peers that the sender owns. The change is carried when more than two thirds of the
/// present peers are for it, counted at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    pub proposer: AccountId,
    /// [`Change::digest`]: a proposal that was exchanged meanwhile is not voted for.
    pub change: Digest,
}

/// Shares out what the peers have earned: the same to each present peer's owner, for each of its peers. What does not
/// divide stays in the pool. Any account may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct PayPeers {}
