//! The port: what the controller needs from its durable storage.

use async_trait::async_trait;
use std::collections::HashSet;

use piecework_model::{AccountId, Digest, FunctionId, FunctionName, JobId, LeaseId, OwnerName};

use crate::{
    Accepted, AcceptedJob, Amounts, AuditEntry, AuditFilter, BuildLog, Change, Function, FunctionSettings, Idempotency,
    Job, JobFilter, JobState, JobStep, JournalLag, Kept, MetricScope, Page, Point, Policy, Projected, Put, ResultNote,
    StoreFailure, Token, User, Version,
};

/// Versions that one function keeps; with [`Functions::set_live`] one can go back as far.
pub const VERSIONS_OF_ONE_MAX: u32 = 50;
/// Logs of failed deploys that are kept: of one name, and of one account.
pub const FAILED_BUILDS_OF_NAME_MAX: u32 = 5;
pub const FAILED_BUILDS_MAX: u32 = 20;
/// For how long metrics are kept by the minute.
pub const MINUTES_KEPT_MS: u64 = 31 * 86_400_000;
/// By the hour: a year can be compared with the one before.
pub const HOURS_KEPT_MS: u64 = 800 * 86_400_000;

/// Everything durable of one controller.
pub trait Store:
    Users + Tokens + Functions + BuildLogs + Jobs + Results + Metrics + Sequences + Values + Sealing + Audit + Keeping
{
}

impl<T> Store for T where
    T: Users
        + Tokens
        + Functions
        + BuildLogs
        + Jobs
        + Results
        + Metrics
        + Sequences
        + Values
        + Sealing
        + Audit
        + Keeping
{
}

/// People and organisations. Whatever returns `Ok` is durable.
#[async_trait]
pub trait Users: Send + Sync {
    /// `Conflict` if the name or the account exists.
    async fn insert_user(&self, user: &User) -> Result<(), StoreFailure>;
    /// Replaces everything but account, name and creation time; `NotFound` if there is none.
    async fn update_user(&self, user: &User) -> Result<(), StoreFailure>;
    async fn user_by_name(&self, name: &OwnerName) -> Result<Option<User>, StoreFailure>;
    async fn user_by_account(&self, account: AccountId) -> Result<Option<User>, StoreFailure>;
    /// All of them, by name: a community is small.
    async fn list_users(&self) -> Result<Vec<User>, StoreFailure>;
}

/// Bearer tokens. Whatever returns `Ok` is durable.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// `Conflict` if the id or the hash exists, `NotFound` if its parent does not.
    async fn insert_token(&self, token: &Token) -> Result<(), StoreFailure>;
    /// Also one that has expired: the caller has the clock.
    async fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Option<Token>, StoreFailure>;
    /// Oldest first.
    async fn list_tokens(&self, account: AccountId) -> Result<Vec<Token>, StoreFailure>;
    /// Deletes it with those that were made with it, and with those. Whether there was one; only the account's own.
    async fn delete_token(&self, account: AccountId, id: &str) -> Result<bool, StoreFailure>;
}

/// Functions and their versions. Whatever returns `Ok` is durable.
#[async_trait]
pub trait Functions: Send + Sync {
    /// Writes both or neither; `version.version` must be `function.live_version`. `Conflict` if the owner has the name,
    /// `OverQuota` where its owner would keep too much.
    async fn create_function(&self, function: &Function, version: &Version) -> Result<(), StoreFailure>;
    /// Adds the next version and, with `live`, makes it live in the same step; the number is given here,
    /// `version.version` is not read. Of the older ones, those go that are beyond [`VERSIONS_OF_ONE_MAX`] and get no calls.
    /// `OverQuota` where its owner would keep too much.
    async fn add_version(&self, version: &Version, live: bool) -> Result<u32, StoreFailure>;
    /// Makes an existing version live; `NotFound` if there is none.
    async fn set_live(&self, function: FunctionId, version: u32, now_ms: u64) -> Result<(), StoreFailure>;
    async fn update_settings(
        &self,
        function: FunctionId,
        settings: FunctionSettings,
        now_ms: u64,
    ) -> Result<(), StoreFailure>;
    /// Replaces the policy; `NotFound` if there is no such function.
    async fn set_policy(&self, function: FunctionId, policy: &Policy, now_ms: u64) -> Result<(), StoreFailure>;
    /// Undoes a deletion: whether there was one. `Conflict` where the name is taken by now.
    async fn restore_function(&self, function: FunctionId, now_ms: u64) -> Result<bool, StoreFailure>;
    /// Those deleted since, with the time of their deletion, newest first; at most a thousand.
    async fn list_deleted(&self, owner: AccountId, since_ms: u64) -> Result<Vec<(Function, u64)>, StoreFailure>;
    /// Removes a deleted function for good, with its versions; jobs stay. Whether there was one.
    async fn purge_function(&self, function: FunctionId) -> Result<bool, StoreFailure>;
    /// Removes the functions that were deleted before then, but for those of which jobs are kept; of those, the versions.
    /// Their number.
    async fn purge_deleted(&self, before_ms: u64) -> Result<u64, StoreFailure>;
    /// Frees the name; versions, jobs and metrics stay. Whether there was one.
    async fn delete_function(&self, function: FunctionId, now_ms: u64) -> Result<bool, StoreFailure>;
    /// `None` once deleted.
    async fn function(&self, function: FunctionId) -> Result<Option<Function>, StoreFailure>;
    /// Also a deleted one, with the time of its deletion.
    async fn function_ever(&self, function: FunctionId) -> Result<Option<(Function, Option<u64>)>, StoreFailure>;
    async fn function_by_name(&self, owner: AccountId, name: &FunctionName) -> Result<Option<Function>, StoreFailure>;
    /// Those whose name has `part` in it, by name; `after` is the `next` of the page before.
    async fn list_functions(
        &self,
        owner: AccountId,
        part: &str,
        after: Option<&FunctionName>,
        limit: u32,
    ) -> Result<Page<Function, FunctionName>, StoreFailure>;
    /// Newest first, also of a deleted function.
    async fn versions(&self, function: FunctionId) -> Result<Vec<Version>, StoreFailure>;
    async fn version(&self, function: FunctionId, version: u32) -> Result<Option<Version>, StoreFailure>;
}

/// What was said while versions were made. They count as logs of their accounts; of what those may take, build logs take at most a
/// quarter, and the oldest go first.
#[async_trait]
pub trait BuildLogs: Send + Sync {
    /// Keeps it, and drops what is too much. Nothing where its version is gone by now. A version's log goes with it; of deploys
    /// that failed, the last [`FAILED_BUILDS_OF_NAME_MAX`] of a name and [`FAILED_BUILDS_MAX`] of the account are kept.
    async fn put_build_log(&self, log: &BuildLog) -> Result<(), StoreFailure>;
    /// `None` of versions from before they were kept, and where it was too much.
    async fn build_log(&self, function: FunctionId, version: u32) -> Result<Option<BuildLog>, StoreFailure>;
    /// Of deploys that failed, newest first; of all names where none is given.
    async fn failed_builds(&self, owner: AccountId, name: Option<&FunctionName>)
    -> Result<Vec<BuildLog>, StoreFailure>;
}

/// Jobs: acceptance, outcome, payment.
#[async_trait]
pub trait Jobs: Send + Sync {
    /// Keeps a finished job; blocks the thread for microseconds (for up to two seconds while far too many wait).
    ///
    /// When it returns the job survives the death of the process; a power cut may lose what is younger than 50 ms.
    /// The first outcome of an id counts, a second one is dropped.
    fn finish(&self, job: Job) -> Result<(), StoreFailure>;

    /// Keeps a promise to run a job; when it returns the job survives a power cut. Safe to cancel: then it may or may
    /// not be kept.
    async fn accept(&self, job: AcceptedJob) -> Result<Accepted, StoreFailure>;

    /// Claims a key for a synchronous call. The claim lives in memory until `finish` makes it durable or
    /// [`Jobs::release_idempotency`] gives it back, so that a crash leaves no key without an answer.
    async fn reserve_idempotency(
        &self,
        function: FunctionId,
        idempotency: &Idempotency,
        job: JobId,
    ) -> Result<Accepted, StoreFailure>;

    /// Gives back a claim whose job was refused before it ran.
    fn release_idempotency(&self, function: FunctionId, idempotency: &Idempotency, job: JobId);

    /// Notes the progress of an accepted job; as durable as [`Jobs::finish`].
    fn set_state(&self, job: JobId, state: JobState, provider: Option<AccountId>) -> Result<(), StoreFailure>;

    /// Ends an accepted job as cancelled, unless it is unknown or has ended: then `None`.
    async fn cancel(&self, job: JobId) -> Result<Option<Job>, StoreFailure>;

    /// Accepted jobs without an outcome, oldest first: what to run after a start.
    async fn unfinished(&self) -> Result<Vec<AcceptedJob>, StoreFailure>;

    /// With output and logs.
    async fn job(&self, job: JobId) -> Result<Option<Job>, StoreFailure>;

    /// Without output and logs.
    async fn list_jobs(&self, filter: &JobFilter) -> Result<Page<Job, JobId>, StoreFailure>;

    async fn logs(&self, job: JobId) -> Result<Option<String>, StoreFailure>;

    /// Finished jobs that have a settlement and are not paid, oldest first, without output and logs.
    async fn unsettled(&self) -> Result<Vec<Job>, StoreFailure>;

    /// Writes all that a block of the ledger changes, and that the ledger was read up to it, in one transaction: all or
    /// nothing, also over the death of the process. Idempotent. A payment of a job that is not here is passed over.
    async fn project(&self, block: &Projected) -> Result<(), StoreFailure>;

    /// The steps noted of a job.
    async fn steps(&self, job: JobId) -> Result<Vec<(JobStep, u64)>, StoreFailure>;

    /// The height given to the last [`Jobs::project`]; zero before the first.
    async fn projected_height(&self) -> Result<u64, StoreFailure>;

    /// Deletes settled or never-settling jobs created before `older_than_ms`; gives their number. Metrics stay.
    async fn prune(&self, older_than_ms: u64) -> Result<u64, StoreFailure>;

    /// Returns when everything written before the call is synced and in the tables.
    async fn flush(&self) -> Result<(), StoreFailure>;

    fn lag(&self) -> JournalLag;
}

/// What each account keeps here, and how much of it it may.
#[async_trait]
pub trait Keeping: Send + Sync {
    /// Exact for what is in the tables: jobs come into them within about 100 ms.
    async fn usage(&self, account: AccountId) -> Result<Amounts, StoreFailure>;
    /// What was set for the account, and the defaults for the rest.
    fn quotas(&self, account: AccountId) -> Amounts;
    /// Sets them, or takes them back where absent; durable and in force when it returns. Outputs, logs and records above
    /// theirs go with the account's next job, the oldest first.
    async fn set_quotas(&self, account: AccountId, set: &[(Kept, Option<u64>)]) -> Result<(), StoreFailure>;
    /// Bundles of all versions there are.
    async fn bundles(&self) -> Result<HashSet<Digest>, StoreFailure>;
    /// Whether any version has this bundle, at this moment.
    async fn has_bundle(&self, code: &Digest) -> Result<bool, StoreFailure>;
    /// Bundles that describe container images: of all versions, or of one account's.
    async fn image_bundles(&self, owner: Option<AccountId>) -> Result<HashSet<Digest>, StoreFailure>;
    /// Bundles whose size was not known when their version was written: those of stores from before there were quotas.
    async fn unsized_bundles(&self) -> Result<Vec<Digest>, StoreFailure>;
    async fn size_bundle(&self, code: &Digest, bytes: u64) -> Result<(), StoreFailure>;
}

/// Where results are that are not simply with their jobs.
#[async_trait]
pub trait Results: Send + Sync {
    /// Keeps a job's first note; to be called before [`Jobs::finish`] of the job, and as durable as it. A second one is
    /// dropped.
    fn begin_result(&self, note: ResultNote) -> Result<(), StoreFailure>;

    /// Replaces what a note says and, unless `keep_output`, takes the output from the job, both or neither. Nothing
    /// where the job has no note.
    async fn note_result(&self, note: &ResultNote, keep_output: bool) -> Result<(), StoreFailure>;

    async fn result(&self, job: JobId) -> Result<Option<ResultNote>, StoreFailure>;

    /// Owed ones whose time has come, oldest first; `but_of` are functions to leave out, a few dozen at most. The job
    /// of a note need not be there: a crash can come between the note and the job.
    async fn due_results(
        &self,
        now_ms: u64,
        but_of: &[FunctionId],
        limit: u32,
    ) -> Result<Vec<ResultNote>, StoreFailure>;

    /// Kept and undelivered ones whose time is over.
    async fn expired_results(&self, now_ms: u64, limit: u32) -> Result<Vec<ResultNote>, StoreFailure>;
}

/// What was used, over time.
#[async_trait]
pub trait Metrics: Send + Sync {
    /// Points of `[from_ms, to_ms)`, oldest first, empty ones left out; `step_ms` is rounded up to whole minutes. A job
    /// shows within about 100 ms of its end. At most [`crate::POINTS_MAX`] points.
    async fn points(
        &self,
        scope: MetricScope,
        from_ms: u64,
        to_ms: u64,
        step_ms: u64,
    ) -> Result<Vec<Point>, StoreFailure>;

    /// Deletes what is older than [`MINUTES_KEPT_MS`] and [`HOURS_KEPT_MS`]; days stay with their function. Gives the number.
    async fn prune_points(&self, now_ms: u64) -> Result<u64, StoreFailure>;
}

/// Who changed what, and when: only ever added to, but for [`Audit::prune_audit`]. Whatever returns `Ok` is durable.
#[async_trait]
pub trait Audit: Send + Sync {
    async fn record(&self, change: &Change) -> Result<(), StoreFailure>;
    /// Of accounts with more than `of_account_max` entries, those that they made and those that the platform made about them
    /// counted apart, drops the oldest until three quarters are left, and records that as `audit.dropped`. Gives the number.
    async fn prune_audit(&self, of_account_max: u64, now_ms: u64) -> Result<u64, StoreFailure>;
    /// Newest first.
    async fn audit(&self, filter: &AuditFilter) -> Result<Page<AuditEntry, u64>, StoreFailure>;
}

/// High-water marks of ticket sequences, one for each lane.
#[async_trait]
pub trait Sequences: Send + Sync {
    /// Promises that no sequence below `up_to` is given out again after a restart; survives a power cut. Never lowers.
    async fn reserve_sequences(&self, lease: LeaseId, provider: AccountId, up_to: u64) -> Result<(), StoreFailure>;
    /// Where to go on after a start; zero for a new lane.
    fn sequence_high_water(&self, lease: LeaseId, provider: AccountId) -> u64;
}

/// Small values by name, in spaces of their own. Whatever returns `Ok` is durable.
#[async_trait]
pub trait Values: Send + Sync {
    async fn value(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreFailure>;
    /// Adds or replaces.
    async fn put_value(&self, space: &str, key: &str, value: &[u8]) -> Result<(), StoreFailure>;
    /// `Conflict` if there is one.
    async fn insert_value(&self, space: &str, key: &str, value: &[u8]) -> Result<(), StoreFailure>;
    /// Removes it and gives what it was: of several who ask at once, one gets it.
    async fn take_value(&self, space: &str, key: &str) -> Result<Option<Vec<u8>>, StoreFailure>;
    /// By key, those that begin with `prefix`; `after` is the `next` of the page before.
    async fn list_values(
        &self,
        space: &str,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<(String, Vec<u8>), String>, StoreFailure>;
    /// The spaces that begin with `prefix` and hold more than `over` values, with their numbers.
    async fn crowded_spaces(&self, prefix: &str, over: u64) -> Result<Vec<(String, u64)>, StoreFailure>;
    /// Removes some values (space, key), and then adds or replaces others: all or nothing.
    async fn replace_values(&self, takes: &[(String, String)], puts: &[Put]) -> Result<(), StoreFailure>;
}

/// Secrets at rest.
pub trait Sealing: Send + Sync {
    /// Encrypts under the master key; `context` must be given again to open.
    fn seal(&self, context: &str, bytes: &[u8]) -> Result<Vec<u8>, StoreFailure>;
    /// `SealBroken` for anything but what [`Sealing::seal`] gave for the same context.
    fn open_sealed(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreFailure>;
}
