//! `/ledger`, `/transfers`, `/statement`, `/offers`, `/providers`, `/leases`: the explorer's data and money.

use jiff::Timestamp;
use piecework_model::{AccountId, Credits, Digest, JobId, LeaseId, NetworkId, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::{errors::Refusal, functions::PricesView, page::PageQuery, schemas::Ucr};

/// `GET /ledger/status`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LedgerStatus {
    #[schema(value_type = String)]
    pub network: NetworkId,
    /// Of the newest final block.
    pub height: u64,
    #[schema(value_type = String)]
    pub head: Digest,
    #[schema(value_type = String)]
    pub state_root: Digest,
    /// When this peer saw it final.
    pub finalized_at: Option<Timestamp>,
    pub peers: Vec<PeerView>,
    /// Peers that vote.
    pub peer_count: u32,
    /// Commission that is kept for the peers and the insurance pool.
    #[schema(value_type = Ucr)]
    pub pools_ucr: Credits,
    /// Of that, what waits to be paid out to the peers' owners.
    #[serde(default)]
    #[schema(value_type = Ucr)]
    pub peers_pool_ucr: Credits,
    pub commission_permille: u32,
    /// Transactions that wait here for a block.
    pub queued: u32,
    /// Absent from a peer of an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<RulesView>,
}

/// By which rules blocks are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RulesView {
    /// Of the next block.
    pub number: u32,
    /// The switch that the peers have voted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextRulesView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NextRulesView {
    pub number: u32,
    /// The first block made by them.
    pub from_height: u64,
}

/// A ledger peer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PeerView {
    #[schema(value_type = String)]
    pub key: PublicKey,
    pub owner: Option<String>,
    pub address: Option<String>,
    pub since_height: u64,
    /// Absent while it holds; the first block that it makes, where it waits for its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_height: Option<u64>,
    /// Whether this is the peer that answers.
    pub here: bool,
}

/// A block in `GET /ledger/blocks`, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BlockView {
    pub height: u64,
    #[schema(value_type = String)]
    pub digest: Digest,
    #[schema(value_type = String)]
    pub parent: Digest,
    #[schema(value_type = String)]
    pub state_root: Digest,
    /// The proposer's word, in milliseconds; nothing on the ledger depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposed_at: Option<Timestamp>,
    #[schema(value_type = Option<String>)]
    pub proposer: Option<PublicKey>,
    pub transactions: u32,
    /// How many of them were rejected.
    pub rejected: u32,
}

/// `GET /ledger/blocks/{height}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BlockDetail {
    #[serde(flatten)]
    pub block: BlockView,
    pub items: Vec<TransactionView>,
}

/// A transaction and what became of it: `GET /ledger/transactions/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TransactionView {
    #[schema(value_type = String)]
    pub id: Digest,
    /// `register`, `transfer`, `open_lease`, `settle`, ...
    pub kind: String,
    pub height: u64,
    /// Its place in the block.
    pub index: u32,
    /// The signing account.
    pub sender: String,
    pub nonce: Option<u64>,
    /// Absent where it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<Refusal>,
    /// A sentence for people.
    pub summary: String,
    /// Its fields.
    #[schema(value_type = Value)]
    pub body: Value,
}

/// `POST /transfers`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTransfer {
    /// Name or id of the account that receives.
    pub to: String,
    /// More than zero.
    #[schema(value_type = Ucr)]
    pub amount_ucr: Credits,
    /// At most 100 characters, none of them control characters. In the statements of both sides, as long as this controller
    /// keeps them; not on the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100)]
    pub memo: Option<String>,
}

/// 201 of `POST /transfers`: final on the ledger.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TransferView {
    #[schema(value_type = String)]
    pub transaction: Digest,
    pub height: u64,
    pub from: String,
    pub to: String,
    #[schema(value_type = Ucr)]
    pub amount_ucr: Credits,
    /// What the sender owns now.
    #[schema(value_type = Ucr)]
    pub posted_ucr: Credits,
}

/// `GET /statement`: the caller's account.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct StatementQuery {
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// RFC 3339, not included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One movement on the account, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StatementLine {
    pub at: Timestamp,
    pub height: u64,
    /// `genesis`, `transfer`, `jobs_paid`, `jobs_earned`, `commission`, ...
    pub kind: String,
    /// The other side, where there is one.
    pub counterparty: Option<String>,
    /// The memo of a transfer.
    pub detail: Option<String>,
    /// How many jobs it pays for.
    pub jobs: u32,
    /// Below zero for money that left.
    #[schema(value_type = Ucr)]
    pub amount_ucr: Credits,
    /// What was owned afterwards.
    #[schema(value_type = Ucr)]
    pub posted_ucr: Credits,
    #[schema(value_type = Option<String>)]
    pub transaction: Option<Digest>,
}

/// An offer on the ledger.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OfferView {
    #[schema(value_type = String)]
    pub provider_id: AccountId,
    pub provider: String,
    pub prices: PricesView,
    pub cores: u32,
    pub memory_bytes: u64,
    /// For the code of functions.
    pub disk_bytes: u64,
    pub backends: Vec<String>,
    pub region: String,
    pub labels: Vec<String>,
    pub expires_at_height: u64,
    #[schema(value_type = Ucr)]
    pub deposit_ucr: Credits,
}

/// Whether a provider takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProviderState {
    Ready,
    /// Ends what it runs, takes nothing new.
    Draining,
    /// Its owner's work comes first at the moment.
    Paused,
    /// No link is up: it gets no jobs until it comes back.
    Gone,
}

/// A provider as the controller sees it: `GET /providers`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProviderView {
    #[schema(value_type = String)]
    pub id: AccountId,
    pub name: String,
    pub state: ProviderState,
    /// In its owner's words.
    pub region: String,
    pub labels: Vec<String>,
    pub backends: Vec<String>,
    /// Jobs it runs at one time.
    pub slots: u32,
    pub running: u32,
    pub warm_instances: u32,
    pub jobs_done: u64,
    #[schema(value_type = Ucr)]
    pub earned_ucr: Credits,
    pub last_seen_at: Option<Timestamp>,
    pub prices: Option<PricesView>,
    #[serde(default)]
    pub standing: StandingView,
}

/// What came of a provider's results wherever somebody could check them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct StandingView {
    /// `suspended`, `new`, `known` or `trusted`.
    pub trust: String,
    /// Of 1000.
    pub score: u32,
    pub right: u64,
    pub wrong: u64,
    /// Receipts refused for claiming more than was ordered or seen.
    pub overclaimed: u64,
    /// CPU microseconds for a unit of the reference job: lower is faster.
    pub cpu_us_per_unit: Option<u32>,
}

/// A lease: `GET /leases`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LeaseView {
    #[schema(value_type = String)]
    pub id: LeaseId,
    pub developer: String,
    /// The one function it is for; all of the developer's where absent.
    pub function: Option<String>,
    /// The one provider it is with; the network where absent.
    pub provider: Option<String>,
    #[schema(value_type = Ucr)]
    pub budget_ucr: Credits,
    #[schema(value_type = Ucr)]
    pub used_ucr: Credits,
    /// For jobs on their way.
    #[schema(value_type = Ucr)]
    pub reserved_ucr: Credits,
    /// `open`, `draining` or `closed`.
    pub state: String,
    pub opened_at_height: Option<u64>,
    /// Of a draining one: what is not spent is free again after this block.
    pub expires_at_height: Option<u64>,
    /// Blocks that it drains for.
    pub window_blocks: Option<u32>,
    /// Whose tickets and settlements it pays: controllers.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub payer_keys: Vec<PublicKey>,
}

/// `GET /leases/terms`: what a lease says that this controller runs jobs from, for developers who sign theirs themselves.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LeaseTerms {
    #[schema(value_type = String)]
    pub controller: AccountId,
    /// The controller's key: it signs tickets and acks.
    #[schema(value_type = String)]
    pub payer_key: PublicKey,
    /// The dearest prices that a job may be given.
    pub price_caps: PricesView,
    /// What may be at stake on one provider before it is sealed.
    pub exposure_ucr: u64,
    /// What the controller holds at a time for those whose keys it keeps.
    pub budget_ucr: u64,
}

/// `POST /leases/{id}/payers`: another controller pays from the lease, and acks, from now on.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddPayer {
    /// The controller's public key.
    #[schema(value_type = String)]
    pub key: PublicKey,
}

/// Which of the jobs of one id.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LedgerJobQuery {
    /// Of this lease; of the first that named the id if absent.
    pub lease: Option<String>,
}

/// `GET /ledger/jobs/{id}`: what the ledger itself has of a job.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LedgerJob {
    #[schema(value_type = String)]
    pub id: JobId,
    #[schema(value_type = Option<String>)]
    pub lease: Option<LeaseId>,
    /// Other leases whose payers have said the same id, in the order in which the ledger saw them: jobs of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub other_leases: Vec<LeaseId>,
    pub developer: Option<String>,
    pub provider: Option<String>,
    pub paid: bool,
    /// What a settlement said of it: code, input, counters, output, price.
    #[schema(value_type = Option<Value>)]
    pub settled: Option<Value>,
    /// In the order of the ledger.
    pub events: Vec<LedgerJobEvent>,
}

/// `GET /jobs/{id}/proof`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct JobProofQuery {
    /// Heights of the blocks that speak of the job, with commas between, at most 8: for a job so old that this peer remembers
    /// no block of it. `/jobs/{id}/history` names them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<String>,
}

/// `GET /jobs/{id}/proof`: what can be taken home and checked without this peer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobProofView {
    #[schema(value_type = String)]
    pub job: JobId,
    /// One for each block that metered or paid the job: mostly one.
    pub parts: Vec<JobProofPart>,
    #[serde(flatten)]
    pub proof: ProofView,
}

/// What one block did to a job.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobProofPart {
    pub height: u64,
    /// The block's own time.
    pub at: Timestamp,
    /// Lease, provider, sequence, steps, and what the receipt says.
    #[schema(value_type = Value)]
    pub entry: Value,
}

/// A proof: all that is beside it is only a reading of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProofView {
    #[schema(value_type = String)]
    pub network: NetworkId,
    /// The last block that the proof speaks of.
    pub proven_height: u64,
    /// The length of the proof.
    pub bytes: u32,
    /// In hex: docs/ledger-format.md says what is in it, `piecework ledger verify` checks it.
    pub proof: String,
}

/// One change of a job on the ledger.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LedgerJobEvent {
    /// `job_opened`, `job_metered`, `job_received`, `job_paid`, ...
    pub kind: String,
    pub height: u64,
    /// The block's own time.
    pub at: Timestamp,
    #[schema(value_type = String)]
    pub transaction: Digest,
    #[schema(value_type = Value)]
    pub body: Value,
}

/// Which page of the ledger's history: `GET /ledger/transactions`, `/ledger/jobs`, `/ledger/leases`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Items on the page: 1 to 1000, 100 if absent; jobs at most 100.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only what concerns this account: a name or an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

impl HistoryQuery {
    /// The limit in force, held within its range.
    pub fn limit(&self) -> u32 {
        let limit = self.limit.unwrap_or(PageQuery::LIMIT_DEFAULT);
        limit.clamp(1, PageQuery::LIMIT_MAX)
    }
}

/// How many blocks, from where: `GET /ledger/raw/blocks`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BlocksQuery {
    /// The first height, at least 1.
    pub from: u64,
    /// At most 256; fewer where they are large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Wait so long for the first of them to become final, at most 30,000; the page may still be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u32>,
}

/// From which state: `GET /ledger/raw/values/{key}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ValueQuery {
    /// That of this block or a later one; refused with `ledger.behind` where this peer does not have it within two seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<u64>,
}

/// Where the stream begins: `GET /ledger/events`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct BlockEventsQuery {
    /// The first height; the next block if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// 202 of `POST /ledger/transactions` with `Prefer: respond-async`: queued, or known already.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct TransactionAccepted {
    #[schema(value_type = String)]
    pub id: Digest,
    #[schema(value_type = String)]
    pub network: NetworkId,
    /// The block that holds it, if one does; it may be one that refused it.
    pub height: Option<u64>,
}

/// `POST /ledger/transactions`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitTransaction {
    /// The signed transaction in the ledger's encoding, in hex.
    pub transaction: String,
}
