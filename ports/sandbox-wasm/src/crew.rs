//! One language's workers: one for each owner, some of them at a time, and one that waits for the next owner.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use piecework_model::{AccountId, Language, Limits};
use piecework_sandbox::{Freeze, LoadError};
use piecework_sandbox_jail::walls::{Cgroups, GroupLimits};

use crate::{
    Component, Tell, WasmError, component,
    hatchery::Zygote,
    pace::Pace,
    words::{Errand, Forking, Proof, said_bytes_max},
    worker::{Made, NoSeat, Seat, Worker},
    zygote::ZygoteOptions,
};

/// Owners who have a worker at once. A further one takes the place of whose worker rests longest; more than a computer has
/// slots for, and some MiB each.
const WORKERS_MAX: usize = 64;
/// Workers while more owners than [`WORKERS_MAX`] have something running at once.
const WORKERS_MAX_RUNNING: usize = 512;
/// A worker in which nobody has lived for this long ends.
const EMPTY: Duration = Duration::from_secs(60);
/// Who workers are on the host when this process is root: identities that own nothing, each worker its own, apart from those of
/// jails and from those of other agents.
const HOST_IDS_FIRST: u32 = 1_700_000_000;
/// Agents by the ends of their process ids.
const AGENTS_MAX: u32 = 1 << 16;
/// Identities of one language's workers.
const HOST_IDS_EACH: u32 = 1_024;
/// Who the zygote becomes in a test of the rootless mode by root.
const TEST_ID: u32 = 61_906;
/// Without a control group: private memory of one worker, in all.
const MEMORY_BYTES: u64 = 4 << 30;
/// Of one worker, before anything lives in it.
const GROUP_BYTES: u64 = 128 << 20;
/// Threads of a worker beside its instances'.
const THREADS: u64 = 8;
/// How long a full worker is waited for: its instances leave within a tick.
const ROOM_WITHIN: Duration = Duration::from_secs(2);

/// What all workers of a language are made by.
pub(crate) struct Crew {
    pub(crate) language: Language,
    pub(crate) component: Option<Component>,
    pub(crate) options: CrewOptions,
    pub(crate) freeze: Freeze,
    cgroups: Option<Arc<Cgroups>>,
    zygote: Mutex<Option<Arc<Zygote>>>,
    roster: Mutex<Roster>,
    programs: AtomicU64,
    pace: Arc<Pace>,
}

#[derive(Clone)]
pub(crate) struct CrewOptions {
    pub(crate) executable: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) tell: Option<Tell>,
    pub(crate) instances_max: u32,
    pub(crate) cores: u32,
    /// Whether this process is root and may use it.
    pub(crate) privileged: bool,
    /// Whether it is root and must not.
    pub(crate) gives_up_root: bool,
}

#[derive(Default)]
struct Roster {
    of: HashMap<AccountId, Arc<Worker>>,
    spare: Option<Arc<Worker>>,
    numbers: BTreeSet<u32>,
}

impl Crew {
    pub(crate) fn new(
        language: Language,
        component: Option<Component>,
        options: CrewOptions,
        (cgroups, freeze): (Option<Arc<Cgroups>>, Freeze),
    ) -> Self {
        Self {
            language,
            component,
            options,
            freeze,
            cgroups,
            zygote: Mutex::default(),
            roster: Mutex::default(),
            programs: AtomicU64::new(0),
            pace: Pace::start(),
        }
    }

    pub(crate) fn is_offered(&self) -> bool {
        self.component.as_ref().is_some_and(Component::is_there)
    }

    /// Whether its zygote stands; else [`Self::stand`] takes some time, and at first seconds.
    pub(crate) fn stands(&self) -> bool {
        self.zygote.try_lock().is_some_and(|zygote| zygote.is_some())
    }

    /// Compiles the component unless the cache has it, and starts the zygote. Blocks; a failure is tried again the next time.
    pub(crate) fn stand(&self) -> Result<Arc<Zygote>, WasmError> {
        let mut zygote = self.zygote.lock();
        if let Some(zygote) = &*zygote {
            return Ok(Arc::clone(zygote));
        }
        let component = self.component.as_ref().ok_or(WasmError::NoComponent(self.language))?;
        let options = &self.options;
        let component = component::compiled(self.language, component, &options.cache, options.tell.as_ref())?;
        let options = ZygoteOptions {
            language: self.language,
            instances_max: self.options.instances_max,
            rootless: !self.options.privileged,
            become_id: self.options.gives_up_root.then_some(TEST_ID),
        };
        let group = self.cgroups.as_ref().and_then(|cgroups| cgroups.launcher_entry().ok());
        let made = Zygote::start(&self.options.executable, &options, component, group);
        let made = made.map_err(WasmError::Zygote)?;
        Ok(Arc::clone(zygote.insert(Arc::new(made))))
    }

    /// A number for a program, never used again.
    pub(crate) fn number(&self) -> u64 {
        self.programs.fetch_add(1, Ordering::Relaxed)
    }

    /// A place for an instance of the program in its owner's worker, and where that sees the bundle.
    pub(crate) async fn seat(
        self: &Arc<Self>,
        owner: AccountId,
        (program, bundle): (u64, &Path),
        limits: &Limits,
    ) -> Result<(Seat, u32), LoadError> {
        let begun = std::time::Instant::now();
        loop {
            let worker = self
                .worker(owner)
                .map_err(|error| LoadError::Failed(error.to_string()))?;
            match worker.seat((program, bundle), limits.memory_bytes, said_bytes_max(limits)) {
                Ok(seat) => return Ok(seat),
                Err(NoSeat::Failed(error)) => return Err(LoadError::Failed(format!("a worker: {error}"))),
                Err(NoSeat::Full) if begun.elapsed() > ROOM_WITHIN => {
                    let most = self.options.instances_max;
                    let reason = format!("its owner has {most} live instances here, which is the most");
                    return Err(LoadError::Failed(reason));
                }
                Err(NoSeat::Gone) if begun.elapsed() > ROOM_WITHIN => {
                    return Err(LoadError::Failed("workers end at their start".to_owned()));
                }
                Err(NoSeat::Gone) => self.dismiss(owner, &worker),
                Err(NoSeat::Full) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// The owner's worker, or the one that waits.
    fn worker(self: &Arc<Self>, owner: AccountId) -> Result<Arc<Worker>, WasmError> {
        let mut roster = self.roster.lock();
        if let Some(worker) = roster.of.get(&owner) {
            return Ok(Arc::clone(worker));
        }
        self.make_room(&mut roster);
        let worker = match roster.spare.take() {
            Some(spare) if spare.is_open() => spare,
            Some(gone) => {
                roster.numbers.remove(&gone.number);
                self.fork(&mut roster)?
            }
            None => self.fork(&mut roster)?,
        };
        roster.of.insert(owner, Arc::clone(&worker));
        drop(roster);
        self.prepare();
        Ok(worker)
    }

    /// Ends the worker that rests longest where there are too many.
    fn make_room(&self, roster: &mut Roster) {
        while roster.of.len() >= WORKERS_MAX {
            let resting = roster
                .of
                .iter()
                .filter_map(|(owner, worker)| Some((worker.rests_since()?, *owner)));
            let Some((_, owner)) = resting.min() else { return };
            let Some(worker) = roster.of.get(&owner).filter(|worker| worker.close()).cloned() else {
                // Something began to run in it at this moment.
                return;
            };
            roster.of.remove(&owner);
            roster.numbers.remove(&worker.number);
        }
    }

    /// Makes the worker that waits for the next owner, on a thread of its own.
    fn prepare(self: &Arc<Self>) {
        let crew = Arc::downgrade(self);
        let forks = move || {
            let Some(crew) = crew.upgrade() else { return };
            let mut roster = crew.roster.lock();
            if roster.spare.is_none() {
                match crew.fork(&mut roster) {
                    Ok(worker) => roster.spare = Some(worker),
                    // The next owner's instance makes one itself, and tells its caller if it cannot.
                    Err(error) => tracing::debug!(%error, "no wasm worker could be made ahead"),
                }
            }
        };
        // Without a thread the next owner waits a millisecond longer.
        let _ = std::thread::Builder::new().name("wasm-spare".into()).spawn(forks);
    }

    fn fork(&self, roster: &mut Roster) -> Result<Arc<Worker>, WasmError> {
        if roster.of.len() >= WORKERS_MAX_RUNNING {
            return Err(WasmError::TooManyWorkers);
        }
        match self.fork_once(roster) {
            Ok(worker) => Ok(worker),
            // The zygote may have been killed: a second one is tried, once.
            Err(error) => {
                tracing::warn!(%error, "a wasm worker could not be forked; the zygote is started anew");
                *self.zygote.lock() = None;
                self.fork_once(roster)
            }
        }
    }

    fn fork_once(&self, roster: &mut Roster) -> Result<Arc<Worker>, WasmError> {
        let zygote = self.stand()?;
        let number = (0..HOST_IDS_EACH)
            .find(|number| !roster.numbers.contains(number))
            .ok_or(WasmError::TooManyWorkers)?;
        let group = self.cgroups.as_ref().map(|cgroups| {
            cgroups.acquire(GroupLimits {
                memory_bytes: GROUP_BYTES,
                tasks: u64::from(self.options.instances_max) + THREADS,
                cores: self.options.cores,
            })
        });
        let group = group.transpose().map_err(WasmError::Worker)?;
        let agent = std::process::id() % AGENTS_MAX;
        let first_id = HOST_IDS_FIRST
            + agent * 2 * HOST_IDS_EACH
            + match self.language {
                Language::Python => 0,
                Language::JavaScript => HOST_IDS_EACH,
                Language::Image => unreachable!("no image is loaded here"),
            };
        let made = Made {
            forking: Forking {
                id: self.options.privileged.then_some(first_id + number),
                memory_bytes: group.is_none().then_some(MEMORY_BYTES),
            },
            group,
            instances_max: self.options.instances_max,
            number,
            pace: self.pace.clone(),
        };
        let worker = Worker::new(zygote, made).map_err(WasmError::Worker)?;
        if self.freeze.is_frozen() {
            worker.tell(&Errand::Freeze(true), &[]).map_err(WasmError::Worker)?;
        }
        roster.numbers.insert(number);
        Ok(worker)
    }

    /// The worker has ended.
    fn dismiss(&self, owner: AccountId, gone: &Arc<Worker>) {
        let mut roster = self.roster.lock();
        if roster.of.get(&owner).is_some_and(|worker| Arc::ptr_eq(worker, gone)) {
            roster.of.remove(&owner);
            roster.numbers.remove(&gone.number);
        }
    }

    pub(crate) fn forget(&self, owner: AccountId, program: u64) {
        let worker = self.roster.lock().of.get(&owner).cloned();
        if let Some(worker) = worker {
            worker.forget(program);
        }
    }

    fn workers(&self) -> Vec<(Option<AccountId>, Arc<Worker>)> {
        let roster = self.roster.lock();
        let owned = roster.of.iter().map(|(owner, worker)| (Some(*owner), worker));
        let spare = roster.spare.iter().map(|worker| (None, worker));
        owned
            .chain(spare)
            .map(|(owner, worker)| (owner, Arc::clone(worker)))
            .collect()
    }

    /// What one worker's walls let through.
    pub(crate) fn prove(self: &Arc<Self>) -> Result<Proof, WasmError> {
        let worker = self.fork(&mut self.roster.lock())?;
        let proof = worker.prove();
        self.roster.lock().numbers.remove(&worker.number);
        proof.map_err(WasmError::Worker)
    }

    /// Calls stop being polled at their next tick.
    pub(crate) fn tell_frozen(&self, frozen: bool) {
        for (_, worker) in self.workers() {
            // One that does not hear is on its way out.
            let _ = worker.tell(&Errand::Freeze(frozen), &[]);
        }
    }

    /// Ends workers that nobody lives in, and those in which something does not end.
    pub(crate) fn look(&self) {
        for (owner, worker) in self.workers() {
            let empty = worker.look();
            let Some(owner) = owner else { continue };
            let over = empty.is_some_and(|empty| empty > EMPTY) && worker.close();
            if over || !worker.is_open() {
                self.dismiss(owner, &worker);
            }
        }
    }

    /// CPU time of the zygote and its workers.
    pub(crate) fn tree_cpu_us(&self) -> u64 {
        let zygote = self.zygote.try_lock().and_then(|zygote| zygote.clone());
        zygote.map_or(0, |zygote| zygote.tree_cpu_us())
    }
}
