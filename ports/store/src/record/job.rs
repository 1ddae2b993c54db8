//! A job's record and what was promised about it.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use piecework_model::{
    AccountId, Ack, BackendName, Counters, Digest, FunctionId, FunctionName, JobId, JobState, JobStatus, LeaseId,
    Receipt,
};
use serde::{Deserialize, Serialize};

/// A caller's `Idempotency-Key` and what it was used for; one account's keys are apart for each function.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Idempotency {
    /// The calling account.
    pub account: AccountId,
    pub key: String,
    /// Digest of the request, so that the same key with another request is noticed.
    pub request: Digest,
}

/// What a settlement needs of a job beside the record's own fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Settlement {
    pub lease: LeaseId,
    pub sequence: u64,
    pub code: Digest,
    pub input: Digest,
    pub output: Digest,
    pub status: JobStatus,
    pub price_max_ucr: u64,
    /// When the result arrived; `None` while only the provider's side is known.
    pub received_at_ms: Option<u64>,
    /// The provider's own mark on the receipt, by which it knows it again when asked to seal it.
    pub mark: [u8; 32],
}

/// One invocation of a function, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Job {
    pub id: JobId,
    pub function: FunctionId,
    pub function_name: FunctionName,
    pub version: u32,
    /// The function's owner, who pays.
    pub developer: AccountId,
    /// Who ran it; `None` if nobody has yet, or ever did.
    pub provider: Option<AccountId>,
    /// None where nobody ran it.
    #[serde(with = "super::backend_text")]
    #[borsh(
        serialize_with = "super::backend_text::write",
        deserialize_with = "super::backend_text::read"
    )]
    pub backend: Option<BackendName>,
    pub state: JobState,
    pub cold: bool,
    pub created_at_ms: u64,
    pub queued_us: u64,
    pub pull_us: u64,
    pub duration_us: u64,
    pub counters: Counters,
    pub memory_peak_bytes: u64,
    pub price_ucr: u64,
    /// Known once paid.
    pub commission_ucr: Option<u64>,
    pub received: bool,
    pub paid: bool,
    /// The block that paid it.
    pub paid_height: Option<u64>,
    /// JSON text of the error that the caller saw.
    pub error: Option<String>,
    /// The job that this one was started in place of.
    pub replaces: Option<JobId>,
    /// The job whose result this one's was compared with.
    pub rerun_of: Option<JobId>,
    pub settlement: Option<Settlement>,
    pub idempotency: Option<Idempotency>,
    /// Why providers were passed over, as JSON text.
    pub passed_over: Option<String>,
    // The two large fields stay last: the tables keep the encoding before them apart from them.
    pub output: Option<Vec<u8>>,
    pub logs: String,
}

impl Job {
    /// A job nobody has run yet; the place to begin building a record.
    pub fn queued(
        id: JobId,
        (function, version): (FunctionId, u32),
        function_name: FunctionName,
        developer: AccountId,
        created_at_ms: u64,
    ) -> Self {
        Self {
            id,
            function,
            function_name,
            version,
            developer,
            provider: None,
            backend: None,
            state: JobState::Queued,
            cold: false,
            created_at_ms,
            queued_us: 0,
            pull_us: 0,
            duration_us: 0,
            counters: Counters::default(),
            memory_peak_bytes: 0,
            price_ucr: 0,
            commission_ucr: None,
            received: false,
            paid: false,
            paid_height: None,
            error: None,
            replaces: None,
            rerun_of: None,
            settlement: None,
            idempotency: None,
            passed_over: None,
            output: None,
            logs: String::new(),
        }
    }

    /// The provider's receipt as it was signed; `None` without a settlement or a provider.
    pub fn receipt(&self) -> Option<Receipt> {
        let settlement = self.settlement.as_ref()?;
        Some(Receipt {
            lease: settlement.lease,
            provider: self.provider?,
            sequence: settlement.sequence,
            job: self.id,
            code: settlement.code,
            input: settlement.input,
            output: settlement.output,
            status: settlement.status,
            counters: self.counters,
            price_ucr: self.price_ucr,
            duration_us: self.duration_us,
        })
    }

    /// The ack of its arrival; `None` without a settlement or before it arrived.
    pub fn ack(&self) -> Option<Ack> {
        let settlement = self.settlement.as_ref()?;
        Some(Ack {
            job: self.id,
            output: settlement.output,
            received_at_ms: settlement.received_at_ms?,
        })
    }

    /// Whether it has to be settled still.
    pub fn is_unsettled(&self) -> bool {
        self.state.is_final() && self.settlement.is_some() && !self.paid
    }

    /// Roughly the memory it holds, for the bound on what waits to be filed.
    pub(crate) fn weight(&self) -> usize {
        512 + self.logs.len()
            + self.output.as_ref().map_or(0, Vec::len)
            + self.error.as_ref().map_or(0, String::len)
            + self.passed_over.as_ref().map_or(0, String::len)
    }
}

/// A job whose acceptance the caller was told: it is run even if the process dies at once.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AcceptedJob {
    pub id: JobId,
    pub function: FunctionId,
    pub function_name: FunctionName,
    pub version: u32,
    /// The function's owner, who pays.
    pub developer: AccountId,
    /// Who called.
    pub caller: AccountId,
    pub input: Bytes,
    /// JSON text.
    pub parameters: String,
    pub created_at_ms: u64,
    /// Unix milliseconds after which it expires unrun.
    pub deadline_ms: u64,
    pub idempotency: Option<Idempotency>,
}

impl AcceptedJob {
    /// The record to show until somebody runs it.
    pub fn to_job(&self) -> Job {
        Job {
            idempotency: self.idempotency.clone(),
            ..Job::queued(
                self.id,
                (self.function, self.version),
                self.function_name.clone(),
                self.developer,
                self.created_at_ms,
            )
        }
    }
}

/// What became of an acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    New,
    /// The key was used for the same request before: this is its job, running or done.
    Existing(JobId),
    /// The key was used for another request.
    IdempotencyConflict,
}

/// One job's payment as the ledger reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    pub job: JobId,
    pub height: u64,
    pub commission_ucr: u64,
}

/// What the ledger notes of a job before it pays it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JobStep {
    Opened,
    Metered,
    Received,
}

impl JobStep {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Metered => "metered",
            Self::Received => "received",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Opened, Self::Metered, Self::Received]
            .into_iter()
            .find(|step| step.as_str() == name)
    }
}

/// Which jobs to list, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFilter {
    pub developer: AccountId,
    pub function: Option<FunctionId>,
    pub state: Option<JobState>,
    /// The `next` of the page before.
    pub before: Option<JobId>,
    pub limit: u32,
}

/// One page of a list, and where the next one begins; `None` at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, Cursor> {
    pub items: Vec<T>,
    pub next: Option<Cursor>,
}

impl<T, Cursor> Page<T, Cursor> {
    /// From one item more than asked for, if there is one.
    pub(crate) fn cut(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> Cursor) -> Self {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }
}

/// How far the tables are behind the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalLag {
    /// Jobs that are in the journal and not in the tables yet.
    pub jobs: u64,
    pub bytes: u64,
    /// Journal bytes that no sync has covered yet.
    pub unsynced_bytes: u64,
    /// Journal segments on disk.
    pub segments: u64,
}
