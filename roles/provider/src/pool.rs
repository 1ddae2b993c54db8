//! Warm pools: instances by function version, never by anything less.
//!
//! ```text
//! take: idle instance of this version ---------------------------> lease (warm)
//!       none: bundle -> load once -> start ----------------------> lease (cold)
//! call: inline while short, on the workers once it yields; reusable -> idle, else dropped
//! ```

use std::{
    collections::HashMap,
    future::Future,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use piecework_blobs::{BlobsError, InUse, Unpacked};
use piecework_model::{AccountId, Digest, FunctionId};
use piecework_queue::{Order, Work};
use piecework_sandbox::{Backend, Call, Finished, Instance, LoadError, Loaded, Program};
use tokio::{runtime::Runtime, sync::OnceCell};
use tokio_util::task::AbortOnDropHandle;

use crate::journal;

type Key = (FunctionId, u32);

pub(crate) struct Pools {
    bundles: Unpacked,
    pools: RwLock<HashMap<Key, Arc<Pool>>>,
    idle: Duration,
    idle_bytes_max: u64,
    /// Runs what does not end in its first slice, so that the threads that serve requests never wait for it.
    workers: Option<Runtime>,
}

/// Everything warm of one function version.
struct Pool {
    code: Digest,
    template: OnceCell<Template>,
    idle: Mutex<Vec<Idle>>,
    used: Mutex<Instant>,
}

impl Pool {
    fn new(code: Digest) -> Arc<Self> {
        Arc::new(Self {
            code,
            template: OnceCell::new(),
            idle: Mutex::default(),
            used: Mutex::new(Instant::now()),
        })
    }
}

struct Template {
    loaded: Arc<dyn Loaded>,
    _bundle: InUse,
}

struct Idle {
    owner: AccountId,
    instance: Box<dyn Instance>,
    since: Instant,
    bytes: u64,
}

/// An instance taken for one call.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    owner: AccountId,
    instance: Box<dyn Instance>,
    pub(crate) cold: bool,
}

/// Templates kept though nothing runs of them; the longest unused go first.
const TEMPLATES_MAX: usize = 2_000;
/// Idle instances of one owner: more than its calls of a moment need, and too few to crowd out others'.
const IDLE_OF_AN_OWNER_MAX: usize = 64;
/// A template unused for this long goes.
const TEMPLATE_IDLE: Duration = Duration::from_secs(600);

impl Pools {
    pub(crate) fn new(bundles: Unpacked, idle: Duration, idle_bytes_max: u64, cores: u32) -> Self {
        let workers = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores.max(1) as usize)
            .thread_name("sandbox-worker")
            .enable_all()
            .build()
            .expect("threads can be started at start-up");
        Self {
            bundles,
            pools: RwLock::default(),
            idle,
            idle_bytes_max,
            workers: Some(workers),
        }
    }

    /// The version's template, loaded if need be.
    pub(crate) async fn load(
        &self,
        backend: &Arc<dyn Backend>,
        work: &Arc<Work>,
    ) -> Result<Arc<dyn Loaded>, LoadError> {
        let pool = self.pool(work);
        let owner = work.owner.unwrap_or_else(|| stand_in(&work.function.0));
        self.template(&pool, backend, (work, owner)).await
    }

    async fn template(
        &self,
        pool: &Pool,
        backend: &Arc<dyn Backend>,
        (work, owner): (&Arc<Work>, AccountId),
    ) -> Result<Arc<dyn Loaded>, LoadError> {
        let template = pool
            .template
            .get_or_try_init(|| self.make_template(backend, work, owner))
            .await?;
        Ok(template.loaded.clone())
    }

    async fn make_template(
        &self,
        backend: &Arc<dyn Backend>,
        work: &Arc<Work>,
        owner: AccountId,
    ) -> Result<Template, LoadError> {
        let failed = |error: BlobsError| match error.is_full() {
            true => LoadError::Code(journal::disk_full()),
            false => LoadError::Failed(error.to_string()),
        };
        let bundle = self.bundles.get(&work.code).await.map_err(failed)?;
        let program = Arc::new(Program {
            owner,
            language: work.language,
            code: work.code,
            directory: bundle.path().to_owned(),
            handler: work.handler.clone(),
            env: work.env.clone(),
            limits: work.limits,
            egress: work.egress.clone(),
            function_name: work.name.clone(),
            version: work.version,
        });
        let backend = backend.clone();
        let loaded = self.run_off_line(async move { backend.load(program).await }).await?;
        Ok(Template {
            loaded,
            _bundle: bundle,
        })
    }

    /// The version's pool; one of other code under the same number is never used again.
    fn pool(&self, work: &Work) -> Arc<Pool> {
        let key = (work.function, work.version);
        if let Some(pool) = self.pools.read().get(&key).filter(|pool| pool.code == work.code) {
            return pool.clone();
        }
        let mut pools = self.pools.write();
        let pool = pools.entry(key).or_insert_with(|| Pool::new(work.code));
        if pool.code != work.code {
            *pool = Pool::new(work.code);
        }
        pool.clone()
    }

    /// A warm instance if one is idle, else a fresh one.
    pub(crate) async fn take(
        &self,
        backend: &Arc<dyn Backend>,
        work: &Arc<Work>,
        owner: AccountId,
    ) -> Result<Lease, LoadError> {
        let pool = self.pool(work);
        let idle = pool.idle.lock().pop();
        if let Some(Idle { instance, .. }) = idle {
            return Ok(Lease {
                pool,
                owner,
                instance,
                cold: false,
            });
        }
        let loaded = self.template(&pool, backend, (work, owner)).await?;
        // A burst leaves many behind: they make way for its owner's next instances.
        let dropped = Self::over_share(&self.pools.read());
        drop(dropped);
        let instance = self.run_off_line(async move { loaded.start().await }).await?;
        Ok(Lease {
            pool,
            owner,
            instance,
            cold: true,
        })
    }

    /// Calls the instance; puts it back if it may serve again.
    pub(crate) async fn call(&self, lease: Lease, call: Call) -> Finished {
        let Lease {
            pool,
            owner,
            mut instance,
            ..
        } = lease;
        let run = async move {
            let finished = instance.call(call).await;
            (instance, finished)
        };
        let (instance, finished) = self.run_off_line(run).await;
        let now = Instant::now();
        *pool.used.lock() = now;
        if finished.reusable {
            let bytes = instance.memory_bytes();
            pool.idle.lock().push(Idle {
                owner,
                instance,
                since: now,
                bytes,
            });
        }
        finished
    }

    /// Drops the longest idle instances of each owner beyond its share.
    fn over_share(pools: &HashMap<Key, Arc<Pool>>) -> Vec<Idle> {
        let mut owners: HashMap<AccountId, Vec<Instant>> = HashMap::new();
        for pool in pools.values() {
            for idle in pool.idle.lock().iter() {
                owners.entry(idle.owner).or_default().push(idle.since);
            }
        }
        let before: HashMap<AccountId, Instant> = owners
            .into_iter()
            .filter_map(|(owner, mut since)| {
                since.sort_unstable_by(|one, other| other.cmp(one));
                Some((owner, *since.get(IDLE_OF_AN_OWNER_MAX)?))
            })
            .collect();
        let mut dropped = Vec::new();
        for pool in pools.values().filter(|_| !before.is_empty()) {
            let goes = |idle: &mut Idle| before.get(&idle.owner).is_some_and(|before| idle.since <= *before);
            dropped.extend(pool.idle.lock().extract_if(.., goes));
        }
        dropped
    }

    /// Polls once here, where a short call ends; what yields goes on among the workers. Dropping it ends it there too.
    async fn run_off_line<F>(&self, future: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let mut future = Box::pin(future);
        match futures::poll!(&mut future) {
            Poll::Ready(output) => output,
            Poll::Pending => {
                let workers = self.workers.as_ref().expect("the workers live as long as the pools");
                let task = AbortOnDropHandle::new(workers.spawn(future));
                task.await
                    .expect("a sandbox call neither panics nor is aborted while it is awaited")
            }
        }
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
            let held: u64 = idle.iter().map(|idle| idle.bytes).sum();
            (count + u32::try_from(idle.len()).unwrap_or(u32::MAX), bytes + held)
        })
    }

    /// Drops instances and templates that nobody used for long, and the longest idle beyond the quota.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut dropped = Vec::new();
        let mut kept = Vec::new();
        {
            let mut pools = self.pools.write();
            dropped.extend(Self::over_share(&pools));
            for pool in pools.values() {
                let mut idle = pool.idle.lock();
                dropped.extend(idle.extract_if(.., |idle| now.duration_since(idle.since) > self.idle));
                kept.extend(idle.iter().map(|idle| (idle.since, idle.bytes)));
            }
            let over = over_quota(kept, self.idle_bytes_max);
            if let Some(before) = over {
                for pool in pools.values() {
                    dropped.extend(pool.idle.lock().extract_if(.., |idle| idle.since <= before));
                }
            }
            forget_unused(&mut pools, now);
        }
        drop(dropped);
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        if let Some(workers) = self.workers.take() {
            workers.shutdown_background();
        }
    }
}

/// Whose processes and idle instances a job's are.
pub(crate) fn owner_of_order(order: &Order) -> AccountId {
    order.work.owner.unwrap_or(AccountId(order.ticket.lease.0))
}

/// Where only the function is known: it shares a process with no other.
fn stand_in(function: &[u8; 12]) -> AccountId {
    let mut bytes = [0; 20];
    bytes[..function.len()].copy_from_slice(function);
    AccountId(bytes)
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

fn forget_unused(pools: &mut HashMap<Key, Arc<Pool>>, now: Instant) {
    let unused = |pool: &Arc<Pool>| Arc::strong_count(pool) == 1 && pool.idle.lock().is_empty();
    pools.retain(|_, pool| !(unused(pool) && now.duration_since(*pool.used.lock()) > TEMPLATE_IDLE));
    if pools.len() > TEMPLATES_MAX {
        let mut ages: Vec<_> = pools
            .iter()
            .filter(|(_, pool)| unused(pool))
            .map(|(key, pool)| (*pool.used.lock(), *key))
            .collect();
        ages.sort_unstable_by_key(|&(used, _)| used);
        let surplus = pools.len() - TEMPLATES_MAX;
        for (_, key) in ages.into_iter().take(surplus) {
            pools.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Still;

    #[async_trait::async_trait]
    impl Instance for Still {
        async fn call(&mut self, _: Call) -> Finished {
            unreachable!("nobody calls")
        }

        fn memory_bytes(&self) -> u64 {
            1
        }
    }

    #[test]
    fn an_owner_keeps_so_many_idle_instances_and_others_keep_theirs() {
        let now = Instant::now();
        let idle = |owner: u8, age: usize| Idle {
            owner: AccountId([owner; 20]),
            instance: Box::new(Still),
            since: now - Duration::from_secs(age as u64),
            bytes: 1,
        };
        let pools: HashMap<Key, Arc<Pool>> = [1, 2]
            .map(|version| ((FunctionId([1; 12]), version), Pool::new(Digest::of(b"code"))))
            .into();
        let keys: Vec<Key> = pools.keys().copied().collect();
        for age in 0..IDLE_OF_AN_OWNER_MAX + 10 {
            pools[&keys[age % 2]].idle.lock().push(idle(1, age));
        }
        pools[&keys[0]].idle.lock().push(idle(2, 1_000));
        let dropped = Pools::over_share(&pools);
        assert_eq!(dropped.len(), 10);
        let least = now - Duration::from_secs(IDLE_OF_AN_OWNER_MAX as u64);
        assert!(
            dropped
                .iter()
                .all(|idle| idle.owner == AccountId([1; 20]) && idle.since <= least)
        );
        assert!(Pools::over_share(&pools).is_empty(), "the rest is its share");
    }
}
