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
    /// Height of the newest final block.
    pub height: u64,
    #[schema(value_type = String)]
    pub head: Digest,
    #[schema(value_type = String)]
    pub state_root: Digest,
    /// When this peer saw it become final.
    pub finalized_at: Option<Timestamp>,
    pub peers: Vec<PeerView>,
    /// Number of voting peers.
    pub peer_count: u32,
    /// Commission kept for the peers and the insurance pool.
    #[schema(value_type = Ucr)]
    pub pools_ucr: Credits,
    /// The part that waits to be paid out to the peers' owners.
    #[serde(default)]
    #[schema(value_type = Ucr)]
    pub peers_pool_ucr: Credits,
    pub commission_permille: u32,
    /// Transactions that wait at this peer for a block.
    pub queued: u32,
    /// For how long no block has become final there; a block comes at least once a heartbeat while enough peers answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_ms: Option<u64>,
    /// Whether that is too long: what is sent to the ledger then waits.
    #[serde(default)]
    pub stalled: bool,
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
    /// First block of a peer that has not started yet; absent for a current peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_height: Option<u64>,
    /// Whether this is the peer that you asked.
    pub here: bool,
    /// The last block that it proposed, since the server that you asked began to watch. All peers propose in turn: one that
    /// is far behind the others is gone or cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_proposed_height: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_proposed_at: Option<Timestamp>,
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
    /// Reported by the proposer, in milliseconds; nothing on the ledger depends on it.
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

/// A transaction and its outcome: `GET /ledger/transactions/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TransactionView {
    #[schema(value_type = String)]
    pub id: Digest,
    /// `register`, `transfer`, `open_lease`, `settle`, ...
    pub kind: String,
    pub height: u64,
    /// Position in the block.
    pub index: u32,
    /// The signing account.
    pub sender: String,
    pub nonce: Option<u64>,
    /// Absent if it was accepted.
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
    /// Name or id of the receiving account.
    pub to: String,
    /// More than zero.
    #[schema(value_type = Ucr)]
    pub amount_ucr: Credits,
    /// At most 100 characters, no control characters. Appears in both sides' statements for as long as this controller
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
    /// The sender's new balance.
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
    /// RFC 3339, exclusive.
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
    /// `transfer`, `deposit`, `withdrawal`, `withdrawal_returned`, `jobs_paid`, `jobs_earned`, `debt_covered`, `peer_share`, or
    /// `earlier` for the sum of all that is no longer listed on its own. Of long statements, older `jobs_...` lines are sums of
    /// one day with one counterparty.
    pub kind: String,
    /// The other account, if there is one.
    pub counterparty: Option<String>,
    /// Memo of a transfer, reference of a deposit, what was asked for a withdrawal, or why it was declined.
    pub detail: Option<String>,
    /// Number of jobs that it pays for.
    pub jobs: u32,
    /// Negative for money that left the account.
    #[schema(value_type = Ucr)]
    pub amount_ucr: Credits,
    /// Balance afterwards.
    #[schema(value_type = Ucr)]
    pub posted_ucr: Credits,
    /// Of a sum, the newest one.
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
    /// Disk space for functions' code.
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
    /// Finishes running jobs and takes no new ones.
    Draining,
    /// Paused, because its owner needs the computer.
    Paused,
    /// Not connected; gets no jobs until it comes back.
    Gone,
}

impl ProviderState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Paused => "paused",
            Self::Gone => "gone",
        }
    }
}

/// A provider as seen by the controller: `GET /providers`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProviderView {
    #[schema(value_type = String)]
    pub id: AccountId,
    pub name: String,
    pub state: ProviderState,
    /// The account that the computer belongs to, where the ledger says that it is another's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// As named by its owner.
    pub region: String,
    pub labels: Vec<String>,
    pub backends: Vec<String>,
    /// Maximum number of concurrent jobs.
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

/// Record of a provider's results that could be checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct StandingView {
    /// `suspended`, `new`, `known` or `trusted`.
    pub trust: String,
    /// From 0 to 1000.
    pub score: u32,
    pub right: u64,
    pub wrong: u64,
    /// Receipts refused because they claimed more than was ordered or observed.
    pub overclaimed: u64,
    /// CPU microseconds per unit of the reference job; lower is faster.
    pub cpu_us_per_unit: Option<u32>,
}

/// A lease: `GET /leases`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LeaseView {
    #[schema(value_type = String)]
    pub id: LeaseId,
    pub developer: String,
    /// The only function it pays for; absent for all functions of the developer.
    pub function: Option<String>,
    /// The only provider it pays; absent for the whole network.
    pub provider: Option<String>,
    #[schema(value_type = Ucr)]
    pub budget_ucr: Credits,
    #[schema(value_type = Ucr)]
    pub used_ucr: Credits,
    /// Reserved for jobs in progress.
    #[schema(value_type = Ucr)]
    pub reserved_ucr: Credits,
    /// `open`, `draining` or `closed`.
    pub state: String,
    pub opened_at_height: Option<u64>,
    /// For a draining lease: the unspent part is free again after this block.
    pub expires_at_height: Option<u64>,
    /// Number of blocks that it drains for.
    pub window_blocks: Option<u32>,
    /// Keys of the controllers whose tickets and settlements it pays.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub payer_keys: Vec<PublicKey>,
}

/// `GET /leases/terms`: the terms that a lease needs for this controller to use it, for developers who sign their own.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LeaseTerms {
    #[schema(value_type = String)]
    pub controller: AccountId,
    /// The controller's key, which signs tickets and acks.
    #[schema(value_type = String)]
    pub payer_key: PublicKey,
    /// Maximum prices of a job.
    pub price_caps: PricesView,
    /// Maximum unsealed debt to one provider.
    pub exposure_ucr: u64,
    /// Amount that the controller holds at a time for accounts whose keys it keeps.
    pub budget_ucr: u64,
}

/// `POST /leases/{id}/payers`: lets another controller pay from the lease and ack results.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddPayer {
    /// Public key of the controller.
    #[schema(value_type = String)]
    pub key: PublicKey,
}

/// Selects one of several jobs with the same id.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LedgerJobQuery {
    /// The job of this lease; if absent, of the lease that used the id first.
    pub lease: Option<String>,
}

/// `GET /ledger/jobs/{id}`: a job as recorded on the ledger.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LedgerJob {
    #[schema(value_type = String)]
    pub id: JobId,
    #[schema(value_type = Option<String>)]
    pub lease: Option<LeaseId>,
    /// Other leases with a different job of the same id, in the order in which the ledger saw them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub other_leases: Vec<LeaseId>,
    pub developer: Option<String>,
    pub provider: Option<String>,
    pub paid: bool,
    /// What a settlement says about it: code, input, counters, output, price.
    #[schema(value_type = Option<Value>)]
    pub settled: Option<Value>,
    /// In ledger order.
    pub events: Vec<LedgerJobEvent>,
}

/// `GET /jobs/{id}/proof`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct JobProofQuery {
    /// Heights of the blocks that mention the job, separated by commas, at most 8: needed for a job so old that this
    /// peer no longer remembers its blocks. `/jobs/{id}/history` lists them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<String>,
}

/// `GET /jobs/{id}/proof`: a proof that you can save and check without this peer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobProofView {
    #[schema(value_type = String)]
    pub job: JobId,
    /// One for each block that metered or paid the job, usually one.
    pub parts: Vec<JobProofPart>,
    #[serde(flatten)]
    pub proof: ProofView,
}

/// Changes of a job in one block.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobProofPart {
    pub height: u64,
    /// Time of the block.
    pub at: Timestamp,
    /// Lease, provider, sequence, steps and the receipt's contents.
    #[schema(value_type = Value)]
    pub entry: Value,
}

/// A proof. The fields beside it only describe it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProofView {
    #[schema(value_type = String)]
    pub network: NetworkId,
    /// Last block in the proof.
    pub proven_height: u64,
    /// Length of the proof in bytes.
    pub bytes: u32,
    /// In hex. docs/ledger-format.md describes it; `piecework ledger verify` checks it.
    pub proof: String,
}

/// One change of a job on the ledger.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LedgerJobEvent {
    /// `job_opened`, `job_metered`, `job_received`, `job_paid`, ...
    pub kind: String,
    pub height: u64,
    /// Time of the block.
    pub at: Timestamp,
    #[schema(value_type = String)]
    pub transaction: Digest,
    #[schema(value_type = Value)]
    pub body: Value,
}

/// Page of the ledger's history: `GET /ledger/transactions`, `/ledger/jobs`, `/ledger/leases`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Items per page: 1 to 1000, for jobs at most 100; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The `next` of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only entries for this account: a name or an id.
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

/// Range of blocks: `GET /ledger/raw/blocks`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BlocksQuery {
    /// First height, at least 1.
    pub from: u64,
    /// At most 256; fewer if they are large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// How long to wait for the first one to become final, at most 30,000; the page may still be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u32>,
}

/// State to read from: `GET /ledger/raw/values/{key}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ValueQuery {
    /// The state at this block or a later one; refused with `ledger.behind` if this peer does not have it within two
    /// seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<u64>,
}

/// Start of the stream: `GET /ledger/events`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct BlockEventsQuery {
    /// First height; the next block if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// 202 of `POST /ledger/transactions` with `Prefer: respond-async`: queued, or already known.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct TransactionAccepted {
    #[schema(value_type = String)]
    pub id: Digest,
    #[schema(value_type = String)]
    pub network: NetworkId,
    /// The block that contains it, if any; the block may have refused it.
    pub height: Option<u64>,
}

/// `POST /ledger/transactions`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitTransaction {
    /// Signed transaction in the ledger's encoding, in hex.
    pub transaction: String,
}
