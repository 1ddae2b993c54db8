//! Warm pools: instances by function version, never by anything less.
//!
//! ```text
//! check: bundle -> load once, so that a deploy is known to work ---> kept for the first call, among few others
//! take: idle instance of this version ---------------------------> lease (warm)
//!       none: bundle -> load once -> start ----------------------> lease (cold)
//! call: inline while short, on the waiters once it yields; reusable -> idle, else dropped
//! ```
//! Every instance holds its part of the machine's memory: all that it may use while it runs, what it holds while it is idle.

mod crashes;
mod images;
mod owners;
#[cfg(test)]
mod tests;
mod threads;
#[cfg(test)]
mod uncalled;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use piecework_blobs::{BlobsError, InUse, Unpacked};
use piecework_image::{Layers, LayersInUse};
use piecework_model::{AccountId, BackendName, Code, Digest, FunctionId, Rejection, Workload};
use piecework_queue::Work;
use piecework_sandbox::{Backend, Call, Finished, Instance, LoadError, Loaded, Outcome, Program};
use tokio::sync::OnceCell;

use crashes::Crashes;
use threads::{Threads, run_off_line};

use crate::{
    journal,
    memory::{Memory, Reserved},
};
use owners::over_share;
pub(crate) use owners::{owner_of, with_owner};

type Key = (FunctionId, u32);

pub(crate) struct Pools {
    bundles: Unpacked,
    layers: Option<Layers>,
    pools: RwLock<HashMap<Key, Arc<Pool>>>,
    /// Versions that a deploy has loaded, the oldest first; those that were called since are among them until they are looked at.
    fresh: Mutex<VecDeque<Key>>,
    idle: Duration,
    idle_bytes_max: u64,
    memory: Arc<Memory>,
    threads: Threads,
}

/// Everything warm of one function version.
pub(crate) struct Pool {
    code: Digest,
    backend: BackendName,
    template: OnceCell<Template>,
    idle: Mutex<Vec<Idle>>,
    crashes: Mutex<Crashes>,
    used: Mutex<Instant>,
    /// Whether somebody has called it.
    is_called: AtomicBool,
}

impl Pool {
    fn new(work: &Work) -> Arc<Self> {
        Arc::new(Self {
            code: work.code,
            backend: work.backend,
            template: OnceCell::new(),
            idle: Mutex::default(),
            crashes: Mutex::default(),
            used: Mutex::new(Instant::now()),
            is_called: AtomicBool::new(false),
        })
    }

    fn is_of(&self, work: &Work) -> bool {
        self.code == work.code && self.backend == work.backend
    }

    /// The instance that served last, of those that are still alive.
    fn pop(&self) -> Option<Idle> {
        let mut idle = self.idle.lock();
        std::iter::from_fn(|| idle.pop()).find(|idle| idle.instance.is_alive())
    }

    fn template_bytes(&self) -> u64 {
        self.template
            .get()
            .map_or(0, |template| template.reserved.lock().bytes())
    }

    /// What the template holds changes with what it keeps ready.
    fn recount(&self) {
        if let Some(template) = self.template.get() {
            template.reserved.lock().set(template.loaded.memory_bytes());
        }
    }
}

struct Template {
    loaded: Arc<dyn Loaded>,
    reserved: Mutex<Reserved>,
    _bundle: InUse,
    _layers: Option<LayersInUse>,
}

struct Idle {
    owner: AccountId,
    instance: Box<dyn Instance>,
    since: Instant,
    reserved: Reserved,
}

/// Why there is no instance for a call.
#[derive(Debug)]
pub(crate) struct NotTaken {
    pub(crate) error: LoadError,
    /// For how long code had its turn meanwhile.
    pub(crate) took: Duration,
}

impl From<LoadError> for NotTaken {
    fn from(error: LoadError) -> Self {
        Self {
            error,
            took: Duration::ZERO,
        }
    }
}

/// An instance taken for one call.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    owner: AccountId,
    instance: Box<dyn Instance>,
    reserved: Reserved,
    pub(crate) cold: bool,
}

impl Lease {
    /// Whose function it is.
    pub(crate) fn owner(&self) -> AccountId {
        self.owner
    }
}

/// Templates kept though nothing runs of them; the longest unused go first.
const TEMPLATES_MAX: usize = 2_000;
/// Templates that a deploy has left and nobody has called: nobody has paid for them, so they are few, and go before anything
/// else does.
const FRESH_MAX: usize = 32;
/// A template unused for this long goes.
const TEMPLATE_IDLE: Duration = Duration::from_secs(600);
/// How long a deploy waits for the memory to load its code in.
const LOAD_PATIENCE: Duration = Duration::from_secs(10);

impl Pools {
    pub(crate) fn new(
        (bundles, layers): (Unpacked, Option<Layers>),
        idle: Duration,
        idle_bytes_max: u64,
        cores: u32,
        memory: Arc<Memory>,
    ) -> Self {
        Self {
            bundles,
            layers,
            pools: RwLock::default(),
            fresh: Mutex::default(),
            idle,
            idle_bytes_max,
            memory,
            threads: Threads::new(cores),
        }
    }

    /// Deletes what is unpacked and serves nobody: it can be unpacked again.
    pub(crate) async fn shed_bundles(&self) {
        if let Err(error) = self.bundles.shed().await {
            tracing::warn!(%error, "unused bundles could not be deleted");
        }
        if let Some(layers) = &self.layers
            && let Err(error) = layers.shed().await
        {
            tracing::warn!(%error, "unused layers could not be deleted");
        }
    }

    /// Whether the version loads. What was loaded is kept for its first call, for as long as few others are.
    pub(crate) async fn check(&self, backend: &Arc<dyn Backend>, work: &Arc<Work>) -> Result<(), LoadError> {
        let pool = self.pool(work);
        let loaded = self.load(&pool, backend, work).await;
        let key = (work.function, work.version);
        if loaded.is_err() {
            self.forget(key);
            return loaded;
        }
        let surplus = {
            let mut fresh = self.fresh.lock();
            fresh.retain(|other| *other != key);
            fresh.push_back(key);
            let surplus = fresh.len().saturating_sub(FRESH_MAX);
            fresh.drain(..surplus).collect::<Vec<_>>()
        };
        self.forget_uncalled(surplus);
        Ok(())
    }

    async fn load(&self, pool: &Pool, backend: &Arc<dyn Backend>, work: &Arc<Work>) -> Result<(), LoadError> {
        let _reserved = self.room_within(work.limits.footprint_bytes(), LOAD_PATIENCE).await?;
        let loaded = self.template(pool, backend, work).await?;
        loaded.forgive();
        Ok(())
    }

    fn forget_uncalled(&self, keys: impl IntoIterator<Item = Key>) {
        let mut pools = self.pools.write();
        for key in keys {
            let is_called = |pool: &Arc<Pool>| pool.is_called.load(Ordering::Relaxed);
            if pools.get(&key).is_some_and(|pool| !is_called(pool)) {
                pools.remove(&key);
            }
        }
    }

    /// Memory for one more instance, within a time in which others may end.
    async fn room_within(&self, bytes: u64, patience: Duration) -> Result<Reserved, LoadError> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            let freed = self.memory.freed.notified();
            if let Some(reserved) = self.room(bytes) {
                return Ok(reserved);
            }
            if tokio::time::timeout_at(until, freed).await.is_err() {
                return Err(LoadError::Code(no_memory()));
            }
        }
    }

    /// Of what deploys have left and nobody has called, the oldest that have to go so that the rest takes no more than
    /// `room_bytes`.
    fn uncalled_beyond(&self, room_bytes: u64) -> Vec<Key> {
        let pools = self.pools.read();
        let mut fresh = self.fresh.lock();
        let uncalled = |key: &Key| {
            let pool = pools.get(key).filter(|pool| !pool.is_called.load(Ordering::Relaxed))?;
            pool.template.get().map(|template| template.loaded.memory_bytes())
        };
        fresh.retain(|key| uncalled(key).is_some());
        let mut bytes: u64 = fresh.iter().filter_map(uncalled).sum();
        let mut gone = Vec::new();
        while bytes > room_bytes
            && let Some(key) = fresh.pop_front()
        {
            bytes = bytes.saturating_sub(uncalled(&key).unwrap_or(0));
            gone.push(key);
        }
        gone
    }

    /// Ends what nobody has called until so many bytes are free; how many are.
    fn give_up_uncalled(&self, bytes: u64) -> u64 {
        let held = self.uncalled_bytes();
        self.forget_uncalled(self.uncalled_beyond(held.saturating_sub(bytes)));
        held - self.uncalled_bytes().min(held)
    }

    fn uncalled_bytes(&self) -> u64 {
        let pools = self.pools.read();
        let fresh = self.fresh.lock();
        let uncalled = fresh.iter().filter_map(|key| pools.get(key));
        let uncalled = uncalled.filter(|pool| !pool.is_called.load(Ordering::Relaxed));
        uncalled.map(|pool| pool.template_bytes()).sum()
    }

    /// Memory for one more instance, taken from idle ones where there is no other.
    fn room(&self, bytes: u64) -> Option<Reserved> {
        let mut reserved = self.memory.count(0);
        self.grow(&mut reserved, bytes).then_some(reserved)
    }

    fn grow(&self, reserved: &mut Reserved, bytes: u64) -> bool {
        if reserved.grow(bytes) {
            return true;
        }
        self.give_up(self.memory.excess(bytes.saturating_sub(reserved.bytes())));
        reserved.grow(bytes)
    }

    /// Ends what nobody has called, then the longest idle instances, then templates that nothing runs of, until so many bytes are free or none is left.
    fn give_up(&self, bytes: u64) {
        let mut dropped = Vec::new();
        let mut templates = Vec::new();
        let bytes = bytes.saturating_sub(self.give_up_uncalled(bytes));
        if bytes == 0 {
            return;
        }
        {
            let mut pools = self.pools.write();
            let ages: Vec<_> = pools
                .values()
                .flat_map(|pool| {
                    let idle = pool.idle.lock();
                    idle.iter()
                        .map(|idle| (idle.since, idle.reserved.bytes()))
                        .collect::<Vec<_>>()
                })
                .collect();
            let (before, freed) = oldest(ages, bytes);
            if let Some(before) = before {
                for pool in pools.values() {
                    dropped.extend(pool.idle.lock().extract_if(.., |idle| idle.since <= before));
                }
            }
            if freed < bytes {
                let ages = pools.iter().filter(|(_, pool)| is_unused(pool));
                let ages = ages
                    .map(|(_, pool)| (*pool.used.lock(), pool.template_bytes()))
                    .collect();
                let (before, _) = oldest(ages, bytes - freed);
                let goes = |pool: &mut Arc<Pool>| is_unused(pool) && Some(*pool.used.lock()) <= before;
                templates.extend(pools.extract_if(|_, pool| goes(pool)));
            }
        }
        drop((dropped, templates));
    }

    /// Gives up what is idle while more is promised than there is: others use the machine's memory.
    pub(crate) fn relieve(&self) {
        self.give_up(self.memory.excess(0));
    }

    async fn template(
        &self,
        pool: &Pool,
        backend: &Arc<dyn Backend>,
        work: &Arc<Work>,
    ) -> Result<Arc<dyn Loaded>, LoadError> {
        let template = pool
            .template
            .get_or_try_init(|| self.make_template(backend, work))
            .await?;
        Ok(template.loaded.clone())
    }

    async fn make_template(&self, backend: &Arc<dyn Backend>, work: &Arc<Work>) -> Result<Template, LoadError> {
        let failed = |error: BlobsError| match error.is_full() {
            true => LoadError::Code(journal::disk_full()),
            false => LoadError::Failed(error.to_string()),
        };
        let bundle = self.bundles.get(&work.code).await.map_err(failed)?;
        let (image, env, layers) = match work.language.workload() {
            Workload::Image => images::image(self.layers.as_ref(), bundle.path(), work).await?,
            Workload::Function | Workload::Pod => (None, work.env.clone(), None),
        };
        let program = Arc::new(Program {
            owner: owner_of(work),
            language: work.language,
            code: work.code,
            directory: bundle.path().to_owned(),
            handler: work.handler.clone(),
            image,
            env,
            limits: work.limits,
            egress: work.egress.clone(),
            function_name: work.name.clone(),
            version: work.version,
        });
        let backend = backend.clone();
        let loaded = run_off_line(self.threads.place(), async move { backend.load(program).await }).await?;
        Ok(Template {
            reserved: Mutex::new(self.memory.count(loaded.memory_bytes())),
            loaded,
            _bundle: bundle,
            _layers: layers,
        })
    }

    /// The version's pool; one of other code or of another backend under the same number is never used again.
    fn pool(&self, work: &Work) -> Arc<Pool> {
        let key = (work.function, work.version);
        if let Some(pool) = self.pools.read().get(&key).filter(|pool| pool.is_of(work)) {
            return pool.clone();
        }
        let mut pools = self.pools.write();
        let pool = pools.entry(key).or_insert_with(|| Pool::new(work));
        if !pool.is_of(work) {
            *pool = Pool::new(work);
        }
        pool.clone()
    }

    /// A warm instance if one is idle, else a fresh one.
    pub(crate) async fn take(&self, backend: &Arc<dyn Backend>, work: &Arc<Work>) -> Result<Lease, NotTaken> {
        let pool = self.pool(work);
        pool.is_called.store(true, Ordering::Relaxed);
        let footprint_bytes = work.limits.footprint_bytes();
        if let Some(mut idle) = pool.pop() {
            if !self.grow(&mut idle.reserved, footprint_bytes) {
                pool.idle.lock().push(idle);
                return Err(LoadError::Code(no_memory()).into());
            }
            return Ok(Lease {
                pool,
                owner: idle.owner,
                instance: idle.instance,
                reserved: idle.reserved,
                cold: false,
            });
        }
        let wait = pool.crashes.lock().wait(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let reserved = self.room(footprint_bytes).ok_or_else(|| LoadError::Code(no_memory()))?;
        let began = Instant::now();
        let instance = match self.start(&pool, backend, work).await {
            Ok(instance) => instance,
            Err(error) => {
                let now = Instant::now();
                pool.crashes.lock().note(now);
                return Err(NotTaken {
                    error,
                    took: now.duration_since(began),
                });
            }
        };
        Ok(Lease {
            pool,
            owner: owner_of(work),
            instance,
            reserved,
            cold: true,
        })
    }

    async fn start(
        &self,
        pool: &Pool,
        backend: &Arc<dyn Backend>,
        work: &Arc<Work>,
    ) -> Result<Box<dyn Instance>, LoadError> {
        let loaded = self.template(pool, backend, work).await?;
        // A burst leaves many behind: they make way for their owner's next instances.
        drop(over_share(&self.pools.read()));
        run_off_line(self.threads.place(), async move { loaded.start().await }).await
    }

    /// Calls the instance; puts it back if it may serve again.
    pub(crate) async fn call(&self, lease: Lease, call: Call) -> Finished {
        let Lease {
            pool,
            owner,
            mut instance,
            mut reserved,
            ..
        } = lease;
        let run = async move {
            let finished = instance.call(call).await;
            (instance, finished)
        };
        let (instance, finished) = run_off_line(self.threads.place(), run).await;
        let now = Instant::now();
        *pool.used.lock() = now;
        if matches!(finished.outcome, Outcome::Crashed(_) | Outcome::OutOfMemory) {
            pool.crashes.lock().note(now);
        }
        // What filled its part of the disk or holds all its files would fail the next caller, too.
        let met_limit = matches!(&finished.outcome, Outcome::Raised(raised) if raised.limit_met().is_some());
        if finished.reusable && !met_limit {
            reserved.set(instance.memory_bytes());
            pool.idle.lock().push(Idle {
                owner,
                instance,
                since: now,
                reserved,
            });
        }
        finished
    }

    pub(crate) fn is_warm(&self, key: Key) -> bool {
        self.pools
            .read()
            .get(&key)
            .is_some_and(|pool| !pool.idle.lock().is_empty())
    }

    /// Versions of which an instance is idle.
    pub(crate) fn warm(&self) -> Vec<Key> {
        let pools = self.pools.read();
        let warm = pools.iter().filter(|(_, pool)| !pool.idle.lock().is_empty());
        warm.map(|(key, _)| *key).collect()
    }

    pub(crate) fn forget(&self, key: Key) {
        self.pools.write().remove(&key);
    }

    /// Idle instances and the bytes they hold.
    pub(crate) fn idle(&self) -> (u32, u64) {
        self.pools.read().values().fold((0, 0), |(count, bytes), pool| {
            let idle = pool.idle.lock();
            let held: u64 = idle.iter().map(|idle| idle.reserved.bytes()).sum();
            (count + u32::try_from(idle.len()).unwrap_or(u32::MAX), bytes + held)
        })
    }

    /// Drops instances and templates that nobody used for long, and the longest idle beyond the quota.
    pub(crate) fn sweep(&self, now: Instant) {
        let (_, idle_bytes) = self.idle();
        self.forget_uncalled(self.uncalled_beyond(self.idle_bytes_max.saturating_sub(idle_bytes)));
        let mut dropped = Vec::new();
        let mut kept = Vec::new();
        {
            let mut pools = self.pools.write();
            dropped.extend(over_share(&pools));
            for pool in pools.values() {
                let mut idle = pool.idle.lock();
                let is_over = |idle: &mut Idle| now.duration_since(idle.since) > self.idle || !idle.instance.is_alive();
                dropped.extend(idle.extract_if(.., is_over));
                kept.extend(idle.iter().map(|idle| (idle.since, idle.reserved.bytes())));
            }
            let over = over_quota(kept, self.idle_bytes_max);
            if let Some(before) = over {
                for pool in pools.values() {
                    dropped.extend(pool.idle.lock().extract_if(.., |idle| idle.since <= before));
                }
            }
            forget_unused(&mut pools, now);
            pools.values().for_each(|pool| pool.recount());
        }
        drop(dropped);
    }
}

/// The age up to which instances must go so that the rest fits the quota.
fn over_quota(mut idle: Vec<(Instant, u64)>, bytes_max: u64) -> Option<Instant> {
    idle.sort_unstable_by_key(|&(since, _)| std::cmp::Reverse(since));
    let mut held = 0;
    idle.into_iter().find_map(|(since, bytes)| {
        held += bytes;
        (held > bytes_max).then_some(since)
    })
}

/// The age up to which instances must go so that `bytes` are free, and what that frees.
fn oldest(mut ages: Vec<(Instant, u64)>, bytes: u64) -> (Option<Instant>, u64) {
    ages.sort_unstable_by_key(|&(since, _)| since);
    let (mut before, mut freed) = (None, 0);
    for (since, held) in ages {
        if freed >= bytes {
            break;
        }
        (before, freed) = (Some(since), freed + held);
    }
    (before, freed)
}

fn no_memory() -> Rejection {
    Rejection::new(
        Code::ProviderNoMemory,
        "running jobs use the memory that this provider has",
    )
}

/// Whether nothing of it runs or is idle.
fn is_unused(pool: &Arc<Pool>) -> bool {
    Arc::strong_count(pool) == 1 && pool.idle.lock().is_empty()
}

fn forget_unused(pools: &mut HashMap<Key, Arc<Pool>>, now: Instant) {
    pools.retain(|_, pool| !(is_unused(pool) && now.duration_since(*pool.used.lock()) > TEMPLATE_IDLE));
    if pools.len() > TEMPLATES_MAX {
        let mut ages: Vec<_> = pools
            .iter()
            .filter(|(_, pool)| is_unused(pool))
            .map(|(key, pool)| (*pool.used.lock(), *key))
            .collect();
        ages.sort_unstable_by_key(|&(used, _)| used);
        let surplus = pools.len() - TEMPLATES_MAX;
        for (_, key) in ages.into_iter().take(surplus) {
            pools.remove(&key);
        }
    }
}
