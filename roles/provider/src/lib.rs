//! Verifies tickets, runs sandboxes, keeps the pools warm and signs receipts.
//!
//! The provider trusts no controller: what it runs is ordered by a ticket of a payer it knows, for itself, in time, at
//! its prices, and once. What is not yet under the payer's seal never exceeds the lease's exposure.

mod abandon;
pub mod agent;
pub mod claims;
pub mod collect;
pub mod earned;
mod journal;
mod keeper;
pub mod lanes;
pub mod leases;
mod machine;
mod memory;
#[cfg(test)]
mod orders;
pub mod owner;
mod pool;
pub mod receipts;
mod streams;
#[cfg(test)]
mod tests;
pub mod tickets;
mod unsealed;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use piecework_blobs::Unpacked;
use piecework_disk::{Level, Room};
use piecework_image::Layers;
use piecework_model::{
    AccountId, Code, Counters, EgressPolicy, FunctionId, LeaseId, NetworkId, Prices, PublicKey, Rejection, Seal,
    SecretKey, Ticket,
};
use piecework_queue::{Delivery, Load, Order, Profile, ProviderLink, Refusal, Unsealed, Work};
use piecework_sandbox::{Backend, BackendName, Call, EgressMeter, Finished, LoadError, Logs, Outcome, Probe};
use tokio_util::sync::CancellationToken;

use crate::{
    collect::Collector,
    earned::{Earned, Earnings},
    keeper::Keeper,
    lanes::Lanes,
    machine::Machine,
    memory::{Groups, Memory, RESERVE_BYTES},
    owner::{Hold, Rules, Standing},
    pool::Pools,
    receipts::{Receipts, Seen},
    streams::Streams,
};
pub use crate::{keeper::KEEPER_THREAD, machine::can_watch, memory::guest_bytes};

/// Whether this build reads the journal of begun jobs, the papers and the earnings at these paths, as far as they are there. Fails with
/// `InvalidData` around [`piecework_model::UnknownVersion`] where it does not. Writes nothing.
pub fn check_formats(journal: &Path, papers: &Path, earned: &Path) -> std::io::Result<()> {
    journal::check(journal)?;
    collect::check(papers)?;
    earned::check(earned)
}

/// What a provider is made of.
pub struct Options {
    pub key: SecretKey,
    pub account: AccountId,
    pub network: NetworkId,
    pub name: String,
    pub prices: Prices,
    pub region: String,
    pub labels: Vec<String>,
    pub cores: u32,
    /// For all sandboxes together, running and idle ones: see [`guest_bytes`].
    pub memory_bytes: u64,
    /// Jobs at once.
    pub slots: u32,
    /// An instance that served nothing for this long goes.
    pub idle: Duration,
    /// Idle instances together hold no more than this; the longest idle goes first.
    pub idle_bytes_max: u64,
    /// Backends whose probe said that they work.
    pub backends: Vec<Arc<dyn Backend>>,
    pub probes: Vec<Probe>,
    /// What functions with an allow list may reach; none: this provider runs no such function.
    pub egress: Option<EgressPolicy>,
    /// Whose jobs cost nothing here.
    pub free_for: Option<AccountId>,
    pub bundles: Unpacked,
    /// Of container images; none where no image runs.
    pub layers: Option<Layers>,
    /// A file that remembers which jobs were begun; created if missing.
    pub journal: PathBuf,
    /// Controllers whose tickets it takes.
    pub payers: HashSet<PublicKey>,
    /// A file that sums up what jobs here cost; none: nothing is summed up.
    pub earned: Option<PathBuf>,
    /// Told of every job; without one this provider depends on its controllers to be paid.
    pub collector: Option<Arc<Collector>>,
    /// When jobs may run.
    pub rules: Rules,
    /// Of the disk with the journal, the papers and the bundles.
    pub disk: Arc<dyn Room>,
    /// A control group whose load alone is the owner's, as [`can_watch`] takes it; none: all that is not this provider.
    pub owner_group: Option<PathBuf>,
}

/// A running provider; itself the in-process end of its queue.
pub struct Provider {
    profile: Profile,
    payers: RwLock<HashSet<PublicKey>>,
    network: NetworkId,
    backends: Vec<Arc<dyn Backend>>,
    pools: Pools,
    memory: Arc<Memory>,
    lanes: Lanes,
    given_up: abandon::GivenUp,
    receipts: Receipts,
    unsealed: unsealed::Unsealed,
    earned: Option<Mutex<Earned>>,
    collector: Option<Arc<Collector>>,
    keeper: Keeper,
    disk: Arc<dyn Room>,
    running: AtomicU32,
    draining: AtomicBool,
    /// Of the controller's clock, by which deadlines are set.
    clock_ahead_ms: AtomicI64,
}

impl Provider {
    /// Starts the sweeper of idle instances; it ends with `shutdown`. Fails where the journal cannot be opened.
    pub fn start(options: Options, shutdown: CancellationToken) -> std::io::Result<Arc<Self>> {
        let memory = Memory::new(options.memory_bytes);
        let provider = Arc::new(Self {
            profile: Profile {
                account: options.account,
                name: options.name,
                prices: options.prices,
                cores: options.cores,
                memory_bytes: options.memory_bytes,
                slots: options.slots,
                region: options.region,
                labels: options.labels,
                probes: options.probes,
                egress: options.egress,
                free_for: options.free_for,
            },
            payers: RwLock::new(options.payers),
            network: options.network,
            keeper: Keeper::new(options.rules, &options.backends),
            backends: options.backends,
            pools: Pools::new(
                (options.bundles, options.layers),
                options.idle,
                options.idle_bytes_max,
                options.cores,
                memory.clone(),
            ),
            memory,
            lanes: Lanes::open(&options.journal)?,
            given_up: abandon::GivenUp::default(),
            receipts: Receipts::new(options.key, options.network),
            unsealed: unsealed::Unsealed::default(),
            earned: options.earned.map(Earned::open).transpose()?.map(Mutex::new),
            collector: options.collector,
            disk: options.disk,
            running: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            clock_ahead_ms: AtomicI64::new(0),
        });
        Keeper::start(&provider, Machine::new(options.owner_group))?;
        tokio::spawn(sweep(Arc::downgrade(&provider), shutdown.clone()));
        tokio::spawn(watch_disk(Arc::downgrade(&provider), shutdown));
        Ok(provider)
    }

    /// Takes tickets of this controller from now on.
    pub fn trust(&self, payer: PublicKey) {
        self.payers.write().insert(payer);
    }

    /// Takes no new jobs; running ones end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.keeper.stirred.notify_one();
    }

    /// Takes new jobs again, and goes on with those that stand still.
    pub fn resume(&self) {
        self.draining.store(false, Ordering::Relaxed);
        self.keeper.stirred.notify_one();
        self.keeper.tell(false);
    }

    /// Everything stands still until [`Self::resume`].
    pub fn pause(&self) {
        self.keeper.tell(true);
    }

    /// Resolves when what was said before this call is in force.
    pub async fn settled(&self) {
        self.keeper.looked().await;
    }

    pub fn rules(&self) -> Rules {
        self.keeper.rules()
    }

    /// From now on; a job that runs is frozen where they say so.
    pub fn set_rules(&self, rules: Rules) {
        self.keeper.set_rules(rules);
    }

    /// Jobs whose receipts the controller has not had sealed yet; it does within a second, unless it holds them back.
    pub fn unsealed(&self) -> usize {
        self.unsealed.len()
    }

    /// By local days; nothing where nothing is summed up.
    pub fn earnings(&self) -> Earnings {
        let today = jiff::Zoned::now().date();
        let earned = self.earned.as_ref();
        earned.map(|earned| earned.lock().shown(today)).unwrap_or_default()
    }

    /// Writes down what was earned, if that is due, or now.
    pub async fn keep_earnings(&self, is_last: bool) {
        let Some(earned) = &self.earned else { return };
        let Some(write) = earned.lock().to_write(is_last) else {
            return;
        };
        match tokio::task::spawn_blocking(write)
            .await
            .map_err(std::io::Error::other)
            .flatten()
        {
            Ok(()) => {}
            Err(error) => tracing::error!(%error, "writing down what was earned failed"),
        }
    }

    /// Why its owner comes first at this moment; empty if jobs may run.
    pub fn holds(&self) -> Vec<Hold> {
        self.keeper.holds()
    }

    fn has_jobs(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    fn backend(&self, name: BackendName) -> Result<&Arc<dyn Backend>, Rejection> {
        self.backends
            .iter()
            .find(|backend| backend.name() == name)
            .ok_or_else(|| {
                Rejection::new(
                    Code::SandboxUnavailable,
                    format!("the sandbox `{name}` does not work on this provider"),
                )
                .hint("`piecework doctor` says why; `--sandbox auto` takes one that works")
            })
    }

    /// With a refusal comes how long code had its turn.
    async fn instance(&self, order: &Order) -> Result<pool::Lease, (Refusal, Duration)> {
        let backend = self
            .backend(order.work.backend)
            .map_err(|gone| (gone, Duration::ZERO))?;
        let taken = self.pools.take(backend, &order.work).await;
        taken.map_err(|not_taken| (refusal(&not_taken.error), not_taken.took))
    }

    /// A start that failed because of the code, once its developer has had enough of them for nothing: then it is a run that failed.
    fn failed_start(&self, order: &Order, (refused, took): (Refusal, Duration)) -> Result<Finished, Refusal> {
        let developer = pool::owner_of(&order.work);
        let is_free = !abandon::is_of_code(&refused) || self.given_up.takes(developer, took, Instant::now());
        match is_free {
            true => Err(abandon::of_start(order, refused)),
            false => Ok(abandon::billed(&order.ticket.limits, &refused, took)),
        }
    }

    /// The run as its controller is told of it, and noted where it is owed.
    fn ended(
        &self,
        order: &Order,
        mut finished: Finished,
        (streams, egress): (&Streams, &EgressMeter),
        timing: Timing,
    ) -> Delivery {
        abandon::put_into_words(&mut finished.outcome);
        // It has to fit into one message of the link, whatever the function wrote there.
        finished.outcome.cut_error_text();
        let streamed = streams.end(&mut finished, egress);
        let ticket = &order.ticket;
        let seen = Seen {
            cores: self.profile.cores,
            took: timing.ordered.elapsed(),
        };
        let (receipt, mark) = self
            .receipts
            .write((ticket, order.salt.as_ref()), &finished, &streamed, &seen);
        self.lanes.finish(&receipt);
        if let Some(collector) = &self.collector {
            collector.ran(ticket, order.payer, order.seal.as_ref(), &receipt);
        }
        if let Some(earned) = &self.earned {
            earned.lock().ran(receipt.price_ucr, jiff::Zoned::now().date());
        }
        self.unsealed.ran(receipt.job);
        Delivery {
            receipt,
            mark,
            finished,
            cold: timing.cold,
            pull_us: u64::try_from(timing.pull.as_micros()).unwrap_or(u64::MAX),
            is_cut: false,
        }
    }

    /// Promises no more than there is while others use the machine's memory, and gives up what is idle for them.
    fn look_at_memory(&self, groups: &Groups) {
        let (_, idle_bytes) = self.pools.idle();
        let held_bytes = keeper::beside(&self.backends).memory_bytes.max(idle_bytes);
        // Half of its reserve is the platform's to grow into.
        let available_bytes = groups.available().saturating_sub(RESERVE_BYTES / 2);
        self.memory.look(held_bytes, available_bytes);
        self.pools.relieve();
    }

    fn take_slot(&self) -> Result<Slot<'_>, Refusal> {
        let taken = self.running.fetch_add(1, Ordering::AcqRel);
        let slot = Slot(&self.running);
        if taken >= self.profile.slots {
            return Err(Rejection::new(
                Code::ProviderNoSlot,
                "every slot of this provider is taken",
            ));
        }
        if self.draining.load(Ordering::Relaxed) {
            return Err(Rejection::new(
                Code::ProviderDraining,
                "this provider takes no new jobs",
            ));
        }
        self.keeper.admit()?;
        if taken == 0 {
            self.keeper.job_begins();
        }
        Ok(slot)
    }
}

/// One running job's place; freed when dropped.
struct Slot<'a>(&'a AtomicU32);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn sweep(provider: std::sync::Weak<Provider>, shutdown: CancellationToken) {
    const EVERY: Duration = Duration::from_secs(1);
    let groups = Groups::of_this_process();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let Some(provider) = provider.upgrade() else { return };
        provider.pools.sweep(Instant::now());
        provider.look_at_memory(&groups);
    }
}

/// Has the keeper look as soon as the room on the disk changes, and makes room there of what can be unpacked again.
async fn watch_disk(provider: std::sync::Weak<Provider>, shutdown: CancellationToken) {
    let Some(disk) = provider.upgrade().map(|provider| provider.disk.clone()) else {
        return;
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = disk.changed() => {}
        }
        let Some(provider) = provider.upgrade() else { return };
        if disk.reading().level != Level::Ample {
            provider.pools.shed_bundles().await;
        }
        provider.keeper.look_now();
    }
}

fn now_ms() -> u64 {
    piecework_model::unix_ms(SystemTime::now())
}

#[async_trait]
impl ProviderLink for Provider {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn load(&self) -> Load {
        let (instances, instance_bytes) = self.pools.idle();
        Load {
            running: self.running.load(Ordering::Relaxed),
            instances,
            instance_bytes,
            draining: self.draining.load(Ordering::Relaxed),
            paused: self.keeper.standing() != Standing::Open,
        }
    }

    async fn changed(&self) {
        self.keeper.stirred.notified().await;
    }

    fn is_warm(&self, function: FunctionId, version: u32) -> bool {
        self.pools.is_warm((function, version))
    }

    async fn check(&self, work: Arc<Work>) -> Result<(), LoadError> {
        self.keeper
            .admit()
            .map_err(|refused| match refused.code == Code::ProviderDiskFull {
                true => LoadError::Code(refused),
                false => LoadError::Failed(refused.message),
            })?;
        let backend = self
            .backend(work.backend)
            .map_err(|gone| LoadError::Unsupported { reason: gone.message })?;
        match tokio::time::timeout(CHECK_WITHIN, self.pools.check(backend, &work)).await {
            Ok(loaded) => loaded,
            Err(_) => Err(LoadError::Code(too_slow())),
        }
    }

    async fn run(&self, order: Order) -> Result<Delivery, Refusal> {
        let ordered = Instant::now();
        let order = pool::with_owner(order);
        let _slot = self.take_slot()?;
        let now = now_ms().saturating_add_signed(self.clock_ahead_ms.load(Ordering::Relaxed));
        tickets::check(&order, &self.profile, &self.payers.read(), &self.network, now)?;
        let ticket = &order.ticket;
        if let Some(collector) = &self.collector {
            collector.admit(ticket, &order.payer).await?;
        }
        self.lanes.begin(&order)?;
        let pulled = Instant::now();
        let lease = match self.instance(&order).await {
            Ok(lease) => lease,
            Err(failed) => {
                let finished = self
                    .failed_start(&order, failed)
                    .inspect_err(|_| self.lanes.refused(ticket))?;
                let (streams, _ends) = Streams::of(&order);
                return Ok(self.ended(
                    &order,
                    finished,
                    (&streams, &EgressMeter::of(ticket.lease)),
                    Timing {
                        ordered,
                        cold: true,
                        pull: Duration::ZERO,
                    },
                ));
            }
        };
        let developer = lease.owner();
        let (cold, pull) = (lease.cold, pulled.elapsed());
        let egress = EgressMeter::of(ticket.lease);
        let (mut streams, ends) = Streams::of(&order);
        let call = Call {
            job: ticket.job,
            event: order.event.clone(),
            parameters: order.parameters.clone(),
            deadline_ms: now + u64::from(ticket.limits.timeout_ms),
            time_left: Duration::from_millis(u64::from(ticket.limits.timeout_ms)),
            stop: ends.stop,
            egress: egress.clone(),
            body: ends.body,
            outlet: ends.outlet,
        };
        let (began, stop) = (Instant::now(), call.stop.clone());
        let finished = tokio::select! {
            biased;
            finished = self.pools.call(lease, call) => finished,
            paused = self.keeper.gives_back(order.work.backend) => {
                self.lanes.refused(ticket);
                return Err(paused);
            }
            () = overdue(&stop) => cut_short(ticket, began.elapsed(), &egress),
            never = streams.pass_body() => match never {},
        };
        if finished.outcome == Outcome::Lost {
            self.lanes.refused(ticket);
            return Err(worker_lost());
        }
        if order.is_tentative
            && !streams.has_begun()
            && let Some(gives_up) = abandon::of_run(&finished.outcome)
            && self.given_up.takes(developer, began.elapsed(), Instant::now())
        {
            self.lanes.refused(ticket);
            return Err(gives_up);
        }
        Ok(self.ended(&order, finished, (&streams, &egress), Timing { ordered, cold, pull }))
    }

    async fn accept_seal(&self, seal: Seal, sequences: Vec<u64>) -> Result<(), Refusal> {
        self.lanes.accept_seal(&seal, &sequences, &self.network)?;
        if let Some(collector) = &self.collector {
            collector.sealed(&seal, &sequences);
        }
        Ok(())
    }

    async fn seal_receipts(&self, lane: (LeaseId, AccountId), receipts: Vec<Unsealed>) -> Result<Seal, Refusal> {
        let seal = self.receipts.seal(lane, &receipts)?;
        self.unsealed.sealed(&receipts);
        Ok(seal)
    }

    fn forget(&self, function: FunctionId, version: u32) {
        self.pools.forget((function, version));
    }

    fn warm(&self) -> Vec<(FunctionId, u32)> {
        self.pools.warm()
    }

    fn set_clock_offset(&self, ahead_ms: i64) {
        self.clock_ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }
}

/// What a delivery says of how its run began.
struct Timing {
    ordered: Instant,
    cold: bool,
    pull: Duration,
}

/// When a sandbox that was told to stop has not done so for far too long.
async fn overdue(cancel: &CancellationToken) {
    const STOPS_WITHIN: Duration = Duration::from_secs(5);
    cancel.cancelled().await;
    tokio::time::sleep(STOPS_WITHIN).await;
}

/// What a run whose sandbox does not stop, and so tells nothing, is taken to have used: one core and all of its memory for
/// as long as it ran.
fn cut_short(ticket: &Ticket, ran: Duration, egress: &EgressMeter) -> Finished {
    let ran_us = u64::try_from(ran.as_micros()).unwrap_or(u64::MAX);
    let memory_byte_ms = ticket.limits.memory_bytes.saturating_mul(ran_us.div_ceil(1_000));
    Finished {
        outcome: Outcome::Stopped,
        logs: Logs::default(),
        counters: Counters {
            cpu_us: ran_us,
            memory_byte_ms,
            egress_bytes: egress.bytes(),
        },
        memory_peak_bytes: ticket.limits.memory_bytes,
        duration: ran,
        reusable: false,
    }
}

/// Another provider may run it, or this one again: nothing is charged, and it counts against no version.
fn worker_lost() -> Refusal {
    Rejection::new(
        Code::SandboxWorkerLost,
        "the process that runs this developer's functions ended; which of them ended it is not known",
    )
    .hint("call again")
}

/// What a deploy's check may take: nobody pays for it. Heavy packages take some seconds to import.
const CHECK_WITHIN: Duration = Duration::from_secs(30);

fn too_slow() -> Rejection {
    let message = format!(
        "loading the code took longer than the {} s that a deploy has for it",
        CHECK_WITHIN.as_secs()
    );
    Rejection::new(Code::FunctionLoadFailed, message).hint("do less at module level; do it in the handler's first call")
}

/// Code that loaded at deploy time and does not now: the sandbox or the bundle failed here, not the caller.
fn refusal(error: &LoadError) -> Refusal {
    match error {
        LoadError::Code(rejection) => rejection.clone(),
        LoadError::Unsupported { reason } => Rejection::new(Code::SandboxUnsupported, reason.clone()),
        LoadError::Failed(reason) => Rejection::new(Code::SandboxFailed, reason.clone()),
    }
}
