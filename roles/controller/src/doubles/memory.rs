//! A store in memory that fails when it is told to: jobs, values and what a block changes; of the rest, that there is none.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use parking_lot::Mutex;
use piecework_model::{AccountId, Digest, FunctionId, FunctionName, JobId, LeaseId, OwnerName};
use piecework_store::*;
use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Memory {
    jobs: Mutex<BTreeMap<JobId, Job>>,
    values: Mutex<BTreeMap<(String, String), Vec<u8>>>,
    functions: Mutex<BTreeMap<FunctionId, Function>>,
    sequences: Mutex<BTreeMap<(LeaseId, AccountId), u64>>,
    height: Mutex<u64>,
    /// Blocks written.
    commits: AtomicUsize,
    is_full: AtomicBool,
    /// Whether it takes no record of a job.
    is_broken: AtomicBool,
    written: Notify,
}

type Stored<T> = Result<T, StoreFailure>;

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// From now on its disk is full, but for jobs that end.
    pub(crate) fn set_broken(&self, is_broken: bool) {
        self.is_broken.store(is_broken, Ordering::Relaxed);
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    pub(crate) fn put_function(&self, function: Function) {
        self.functions.lock().insert(function.id, function);
    }

    /// Resolves when the next block is written.
    pub(crate) async fn written(&self) {
        self.written.notified().await;
    }

    pub(crate) fn commits(&self) -> usize {
        self.commits.load(Ordering::Relaxed)
    }

    /// Values of the spaces that begin so.
    pub(crate) fn values_in(&self, space: &str) -> usize {
        self.values
            .lock()
            .keys()
            .filter(|(of, _)| of.starts_with(space))
            .count()
    }

    fn check(&self) -> Stored<()> {
        match self.is_full.load(Ordering::Relaxed) {
            true => Err(StoreFailure::DiskFull),
            false => Ok(()),
        }
    }

    fn none<T>(what: &'static str) -> Stored<T> {
        Err(StoreFailure::NotFound { what })
    }
}

fn place(space: &str, key: &str) -> (String, String) {
    (space.to_owned(), key.to_owned())
}

#[async_trait]
impl Jobs for Memory {
    fn finish(&self, job: Job) -> Stored<()> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(StoreFailure::DiskFull);
        }
        self.jobs.lock().insert(job.id, job);
        Ok(())
    }

    async fn accept(&self, _job: AcceptedJob) -> Stored<Accepted> {
        Self::none("queue")
    }

    async fn reserve_idempotency(&self, _: FunctionId, _: &Idempotency, _: JobId) -> Stored<Accepted> {
        Self::none("key")
    }

    fn release_idempotency(&self, _: FunctionId, _: &Idempotency, _: JobId) {}

    fn set_state(&self, _: JobId, _: JobState, _: Option<AccountId>) -> Stored<()> {
        Ok(())
    }

    async fn cancel(&self, _: JobId) -> Stored<Option<Job>> {
        Ok(None)
    }

    async fn unfinished(&self) -> Stored<Vec<AcceptedJob>> {
        Ok(Vec::new())
    }

    async fn job(&self, job: JobId) -> Stored<Option<Job>> {
        Ok(self.jobs.lock().get(&job).cloned())
    }

    async fn list_jobs(&self, filter: &JobFilter) -> Stored<Page<Job, JobId>> {
        self.check()?;
        let jobs = self.jobs.lock();
        let of_it = jobs
            .values()
            .rev()
            .filter(|job| filter.function == Some(job.function))
            .filter(|job| filter.state.is_none_or(|state| job.state == state));
        Ok(Page {
            items: of_it.take(filter.limit as usize).cloned().collect(),
            next: None,
        })
    }

    async fn logs(&self, _: JobId) -> Stored<Option<String>> {
        Ok(None)
    }

    async fn unsettled(&self) -> Stored<Vec<Job>> {
        Ok(self
            .jobs
            .lock()
            .values()
            .filter(|job| job.is_unsettled())
            .cloned()
            .collect())
    }

    async fn project(&self, block: &Projected) -> Stored<()> {
        self.check()?;
        let (mut jobs, mut values) = (self.jobs.lock(), self.values.lock());
        for payment in &block.payments {
            if let Some(job) = jobs.get_mut(&payment.job) {
                job.paid = true;
                job.paid_height = Some(payment.height);
            }
        }
        for put in &block.puts {
            values.insert(place(&put.space, &put.key), put.value.clone());
        }
        for take in &block.takes {
            values.remove(&place(&take.space, &take.key));
        }
        *self.height.lock() = block.height;
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.written.notify_waiters();
        Ok(())
    }

    async fn steps(&self, _: JobId) -> Stored<Vec<(JobStep, u64)>> {
        Ok(Vec::new())
    }

    async fn projected_height(&self) -> Stored<u64> {
        Ok(*self.height.lock())
    }

    async fn prune(&self, _: u64) -> Stored<u64> {
        Ok(0)
    }

    async fn flush(&self) -> Stored<()> {
        Ok(())
    }

    fn lag(&self) -> JournalLag {
        JournalLag::default()
    }
}

#[async_trait]
impl BuildLogs for Memory {
    async fn put_build_log(&self, _: &BuildLog) -> Stored<()> {
        Ok(())
    }

    async fn build_log(&self, _: FunctionId, _: u32) -> Stored<Option<BuildLog>> {
        Ok(None)
    }

    async fn failed_builds(&self, _: AccountId, _: Option<&FunctionName>) -> Stored<Vec<BuildLog>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Values for Memory {
    async fn value(&self, space: &str, key: &str) -> Stored<Option<Vec<u8>>> {
        self.check()?;
        Ok(self.values.lock().get(&place(space, key)).cloned())
    }

    async fn put_value(&self, space: &str, key: &str, value: &[u8]) -> Stored<()> {
        self.check()?;
        self.values.lock().insert(place(space, key), value.to_vec());
        Ok(())
    }

    async fn insert_value(&self, space: &str, key: &str, value: &[u8]) -> Stored<()> {
        self.put_value(space, key, value).await
    }

    async fn take_value(&self, space: &str, key: &str) -> Stored<Option<Vec<u8>>> {
        self.check()?;
        Ok(self.values.lock().remove(&place(space, key)))
    }

    async fn list_values(
        &self,
        space: &str,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Stored<Page<(String, Vec<u8>), String>> {
        self.check()?;
        let values = self.values.lock();
        let found = values.iter().filter(|((of, key), _)| {
            of == space && key.starts_with(prefix) && after.is_none_or(|after| **key > *after)
        });
        Ok(Page {
            items: found
                .take(limit as usize)
                .map(|((_, key), value)| (key.clone(), value.clone()))
                .collect(),
            next: None,
        })
    }

    async fn crowded_spaces(&self, prefix: &str, over: u64) -> Stored<Vec<(String, u64)>> {
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for (space, _) in self.values.lock().keys().filter(|(space, _)| space.starts_with(prefix)) {
            *counted.entry(space.clone()).or_default() += 1;
        }
        counted.retain(|_, count| *count > over);
        Ok(counted.into_iter().collect())
    }

    async fn replace_values(&self, takes: &[(String, String)], puts: &[Put]) -> Stored<()> {
        self.check()?;
        let mut values = self.values.lock();
        for (space, key) in takes {
            values.remove(&place(space, key));
        }
        for put in puts {
            values.insert(place(&put.space, &put.key), put.value.clone());
        }
        Ok(())
    }
}

#[async_trait]
impl Sequences for Memory {
    async fn reserve_sequences(&self, lease: LeaseId, provider: AccountId, up_to: u64) -> Stored<()> {
        self.sequences.lock().insert((lease, provider), up_to);
        Ok(())
    }

    fn sequence_high_water(&self, lease: LeaseId, provider: AccountId) -> u64 {
        self.sequences.lock().get(&(lease, provider)).copied().unwrap_or(0)
    }
}

#[async_trait]
impl Audit for Memory {
    async fn record(&self, _: &Change) -> Stored<()> {
        self.check()
    }

    async fn audit(&self, _: &AuditFilter) -> Stored<Page<AuditEntry, u64>> {
        Self::none("record")
    }

    async fn prune_audit(&self, _: u64, _: u64) -> Stored<u64> {
        Ok(0)
    }
}

#[async_trait]
impl Results for Memory {
    fn begin_result(&self, _: ResultNote) -> Stored<()> {
        Ok(())
    }

    async fn note_result(&self, _: &ResultNote, _: bool) -> Stored<()> {
        Ok(())
    }

    async fn result(&self, _: JobId) -> Stored<Option<ResultNote>> {
        Ok(None)
    }

    async fn due_results(&self, _: u64, _: &[FunctionId], _: u32) -> Stored<Vec<ResultNote>> {
        Ok(Vec::new())
    }

    async fn expired_results(&self, _: u64, _: u32) -> Stored<Vec<ResultNote>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Keeping for Memory {
    async fn usage(&self, _: AccountId) -> Stored<Amounts> {
        Ok(Amounts::default())
    }

    fn quotas(&self, _: AccountId) -> Amounts {
        QUOTAS_DEFAULT
    }

    async fn set_quotas(&self, _: AccountId, _: &[(Kept, Option<u64>)]) -> Stored<()> {
        Ok(())
    }

    async fn bundles(&self) -> Stored<HashSet<Digest>> {
        Ok(HashSet::new())
    }

    async fn has_bundle(&self, _: &Digest) -> Stored<bool> {
        Ok(false)
    }

    async fn image_bundles(&self, _: Option<AccountId>) -> Stored<HashSet<Digest>> {
        Ok(HashSet::new())
    }

    async fn unsized_bundles(&self) -> Stored<Vec<Digest>> {
        Ok(Vec::new())
    }

    async fn size_bundle(&self, _: &Digest, _: u64) -> Stored<()> {
        Ok(())
    }
}

#[async_trait]
impl Metrics for Memory {
    async fn points(&self, _: MetricScope, _: u64, _: u64, _: u64) -> Stored<Vec<Point>> {
        self.check()?;
        Ok(Vec::new())
    }

    async fn prune_points(&self, _: u64) -> Stored<u64> {
        Ok(0)
    }
}

impl Sealing for Memory {
    fn seal(&self, _: &str, bytes: &[u8]) -> Stored<Vec<u8>> {
        Ok(bytes.to_vec())
    }

    fn open_sealed(&self, _: &str, sealed: &[u8]) -> Stored<Vec<u8>> {
        Ok(sealed.to_vec())
    }
}

#[async_trait]
impl Users for Memory {
    async fn insert_user(&self, _: &User) -> Stored<()> {
        Self::none("user")
    }

    async fn update_user(&self, _: &User) -> Stored<()> {
        Self::none("user")
    }

    async fn user_by_name(&self, _: &OwnerName) -> Stored<Option<User>> {
        Ok(None)
    }

    async fn user_by_account(&self, _: AccountId) -> Stored<Option<User>> {
        Ok(None)
    }

    async fn list_users(&self) -> Stored<Vec<User>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Tokens for Memory {
    async fn insert_token(&self, _: &Token) -> Stored<()> {
        Self::none("token")
    }

    async fn token_by_hash(&self, _: &[u8; 32]) -> Stored<Option<Token>> {
        Ok(None)
    }

    async fn list_tokens(&self, _: AccountId) -> Stored<Vec<Token>> {
        Ok(Vec::new())
    }

    async fn delete_token(&self, _: AccountId, _: &str) -> Stored<bool> {
        Ok(false)
    }
}

#[async_trait]
impl Functions for Memory {
    async fn create_function(&self, _: &Function, _: &Version) -> Stored<()> {
        Self::none("function")
    }

    async fn add_version(&self, _: &Version, _: bool) -> Stored<u32> {
        Self::none("function")
    }

    async fn set_live(&self, _: FunctionId, _: u32, _: u64) -> Stored<()> {
        Self::none("function")
    }

    async fn update_settings(&self, _: FunctionId, _: FunctionSettings, _: u64) -> Stored<()> {
        Self::none("function")
    }

    async fn set_policy(&self, _: FunctionId, _: &Policy, _: u64) -> Stored<()> {
        self.check()
    }

    async fn restore_function(&self, _: FunctionId, _: u64) -> Stored<bool> {
        Ok(false)
    }

    async fn list_deleted(&self, _: AccountId, _: u64) -> Stored<Vec<(Function, u64)>> {
        Ok(Vec::new())
    }

    async fn delete_function(&self, _: FunctionId, _: u64) -> Stored<bool> {
        Ok(false)
    }

    async fn purge_function(&self, _: FunctionId) -> Stored<bool> {
        Ok(false)
    }

    async fn purge_deleted(&self, _: u64) -> Stored<u64> {
        Ok(0)
    }

    async fn function(&self, function: FunctionId) -> Stored<Option<Function>> {
        self.check()?;
        Ok(self.functions.lock().get(&function).cloned())
    }

    async fn function_ever(&self, function: FunctionId) -> Stored<Option<(Function, Option<u64>)>> {
        Ok(self.function(function).await?.map(|found| (found, None)))
    }

    async fn function_by_name(&self, _: AccountId, _: &FunctionName) -> Stored<Option<Function>> {
        Ok(None)
    }

    async fn list_functions(
        &self,
        _: AccountId,
        _: &str,
        _: Option<&FunctionName>,
        _: u32,
    ) -> Stored<Page<Function, FunctionName>> {
        Self::none("function")
    }

    async fn versions(&self, _: FunctionId) -> Stored<Vec<Version>> {
        Ok(Vec::new())
    }

    async fn version(&self, _: FunctionId, _: u32) -> Stored<Option<Version>> {
        Ok(None)
    }
}
