//! Enforces the owner's rules: watches the machine, and freezes, thaws or refuses jobs accordingly.
//!
//! Runs on its own thread, because it must be on time when everything else is late.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use piecework_disk::Level;
use piecework_model::{Code, Rejection};
use piecework_queue::Refusal;
use piecework_sandbox::{Backend, BackendName, Beside};
use tokio::sync::{Notify, watch};

use crate::{
    Provider,
    machine::Machine,
    owner::{Hold, Rules, Standing, Verdict, Watch},
};

/// Between two looks while jobs run: together with the window, others wait less than 100 ms.
const LOOK: Duration = Duration::from_millis(20);
/// And while nothing runs that could be in the way.
const IDLE_LOOK: Duration = Duration::from_millis(250);
/// And while there is nothing to look for: a change of the rules wakes it.
const NO_RULES_LOOK: Duration = Duration::from_secs(5);
/// A job that is frozen for this long is given back, so that it runs elsewhere.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(5);

/// What the thread is called, for whoever sets priorities: all else may wait for others, but not who makes it do so.
pub const KEEPER_THREAD: &str = "owner";

/// Whether jobs may run, and who told so.
pub(crate) struct Keeper {
    state: watch::Sender<State>,
    orders: Mutex<Orders>,
    /// Whether there are any rules.
    watches: AtomicBool,
    thread: Mutex<Option<Thread>>,
    looks: watch::Sender<u64>,
    /// For the link: tells the controller at once.
    pub(crate) stirred: Notify,
    /// Backends that cannot be frozen: their jobs are given back at once.
    unfreezable: Vec<BackendName>,
}

#[derive(Clone, Default)]
struct State {
    verdict: Verdict,
    frozen_since: Option<Instant>,
}

#[derive(Clone, Default)]
struct Orders {
    rules: Rules,
    told: bool,
}

impl Keeper {
    pub(crate) fn new(rules: Rules, backends: &[Arc<dyn Backend>]) -> Self {
        let stiff = backends.iter().filter(|backend| !backend.freeze(false));
        Self {
            state: watch::Sender::default(),
            watches: AtomicBool::new(rules.any()),
            orders: Mutex::new(Orders { rules, told: false }),
            thread: Mutex::default(),
            looks: watch::Sender::default(),
            stirred: Notify::new(),
            unfreezable: stiff.map(|backend| backend.name()).collect(),
        }
    }

    /// Begins to look; ends with the provider.
    pub(crate) fn start(provider: &Arc<Provider>, machine: Machine) -> std::io::Result<()> {
        let weak = Arc::downgrade(provider);
        let cores =
            std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
        let watch = Watch::new(cores, machine.knows_the_owner());
        let thread = std::thread::Builder::new()
            .name(KEEPER_THREAD.into())
            .spawn(move || look_on(&weak, machine, watch))?;
        *provider.keeper.thread.lock() = Some(thread.thread().clone());
        Ok(())
    }

    pub(crate) fn rules(&self) -> Rules {
        self.orders.lock().rules.clone()
    }

    pub(crate) fn set_rules(&self, rules: Rules) {
        self.watches.store(rules.any(), Ordering::Relaxed);
        self.orders.lock().rules = rules;
        self.look_now();
    }

    /// The owner's own word.
    pub(crate) fn tell(&self, paused: bool) {
        self.orders.lock().told = paused;
        self.look_now();
    }

    /// Resolves after a look that began after this call.
    pub(crate) async fn looked(&self) {
        let mut looks = self.looks.subscribe();
        let before = *looks.borrow();
        // One may be under way now.
        while *looks.borrow_and_update() < before + 2 {
            self.look_now();
            if looks.changed().await.is_err() {
                return;
            }
        }
    }

    /// A job begins: from now on looks are frequent, where there is anything to look for.
    pub(crate) fn job_begins(&self) {
        if self.watches.load(Ordering::Relaxed) {
            self.look_now();
        }
    }

    pub(crate) fn look_now(&self) {
        if let Some(thread) = &*self.thread.lock() {
            thread.unpark();
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        self.state.borrow().verdict.standing
    }

    pub(crate) fn holds(&self) -> Vec<Hold> {
        self.state.borrow().verdict.holds.clone()
    }

    /// Refuses with `provider.paused` while its owner comes first, and with `provider.disk_full`.
    pub(crate) fn admit(&self) -> Result<(), Refusal> {
        match self.state.borrow().verdict.holds.first() {
            None => Ok(()),
            Some(hold) => Err(paused(hold)),
        }
    }

    /// Resolves when a job of this backend has stood still for too long.
    pub(crate) async fn gives_back(&self, backend: BackendName) -> Refusal {
        let patience = match self.unfreezable.contains(&backend) {
            true => Duration::ZERO,
            false => GIVE_BACK_AFTER,
        };
        let mut states = self.state.subscribe();
        loop {
            let frozen_since = states.borrow_and_update().frozen_since;
            let over = async {
                match frozen_since {
                    Some(since) => tokio::time::sleep_until((since + patience).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = states.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
                () = over => return paused(self.holds().first().unwrap_or(&Hold::Told)),
            }
        }
    }
}

fn paused(hold: &Hold) -> Refusal {
    let code = match *hold == Hold::DiskFull {
        true => Code::ProviderDiskFull,
        false => Code::ProviderPaused,
    };
    Rejection::new(code, hold.to_string())
}

fn look_on(provider: &Weak<Provider>, mut machine: Machine, mut watch: Watch) {
    loop {
        let pause = {
            let Some(provider) = provider.upgrade() else { return };
            let keeper = &provider.keeper;
            let orders = keeper.orders.lock().clone();
            let reading = match orders.rules.any() {
                true => machine.read(beside(&provider.backends)),
                false => Default::default(),
            };
            let mut verdict = watch.look(&orders.rules, orders.told, &reading);
            if provider.disk.reading().level == Level::Reserved {
                verdict.add(Hold::DiskFull);
            }
            keeper.follow(verdict, &provider.backends);
            keeper.looks.send_modify(|looks| *looks += 1);
            match (orders.rules.any(), provider.has_jobs()) {
                (true, true) => LOOK,
                (true, false) => IDLE_LOOK,
                (false, _) => NO_RULES_LOOK,
            }
        };
        std::thread::park_timeout(pause);
    }
}

pub(crate) fn beside(backends: &[Arc<dyn Backend>]) -> Beside {
    let all = backends.iter().map(|backend| backend.beside());
    all.fold(Beside::default(), |sum, one| Beside {
        cpu_us: sum.cpu_us + one.cpu_us,
        memory_bytes: sum.memory_bytes + one.memory_bytes,
    })
}

impl Keeper {
    fn follow(&self, verdict: Verdict, backends: &[Arc<dyn Backend>]) {
        let before = self.state.borrow().verdict.clone();
        if before == verdict {
            return;
        }
        let (was, is) = (before.standing, verdict.standing);
        let changes = (was == Standing::Frozen) != (is == Standing::Frozen);
        if changes {
            let frozen = is == Standing::Frozen;
            for backend in backends {
                backend.freeze(frozen);
            }
            let why = verdict.holds.first().map(ToString::to_string).unwrap_or_default();
            tracing::info!(frozen, why, "froze or resumed the sandboxes");
        }
        self.state.send_modify(|state| {
            state.verdict = verdict;
            if changes {
                state.frozen_since = (is == Standing::Frozen).then(Instant::now);
            }
        });
        if was != is {
            self.stirred.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_begins_while_the_owner_comes_first() {
        let keeper = Keeper::new(Rules::default(), &[]);
        keeper.admit().expect("open");
        let verdict = Verdict {
            standing: Standing::Frozen,
            holds: vec![Hold::OnBattery],
        };
        keeper.follow(verdict, &[]);
        let refused = keeper.admit().expect_err("frozen");
        assert_eq!(
            (refused.code.known(), refused.message.as_str()),
            (Some(Code::ProviderPaused), "the computer runs on battery")
        );
        keeper.follow(Verdict::default(), &[]);
        keeper.admit().expect("open again");
    }

    #[tokio::test]
    async fn a_job_that_cannot_stand_still_is_given_back_at_once() {
        let mut keeper = Keeper::new(Rules::default(), &[]);
        keeper.unfreezable.push(BackendName::Wasm);
        let verdict = Verdict {
            standing: Standing::Frozen,
            holds: vec![Hold::Told],
        };
        keeper.follow(verdict, &[]);
        assert_eq!(keeper.gives_back(BackendName::Wasm).await.code, Code::ProviderPaused);
    }
}
