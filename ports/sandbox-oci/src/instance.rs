//! A loaded program and its instances: each is one container, kept between calls.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use piecework_model::Counters;
use piecework_sandbox::{
    Call, Finished, Freeze, Instance, LoadError, Loaded, Outcome, Program,
    instances::{self, LOAD_FREE_US, LoadEnd},
    runner::{Ended, NotLoaded},
};

use crate::{
    container::Container,
    yard::{Mould, Standing, Yard},
};

/// CPU time of a call after which shorter ones go first, and how often that is looked at.
const BURST_US: u64 = 20_000;
const BURST_LOOK: Duration = Duration::from_millis(10);
/// How long a container on its way out has to say how, on a busy machine.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(3);

pub(crate) struct LoadedProgram {
    line: Arc<Line>,
    /// The instance that proved that the program loads: the first one given out.
    proof: Mutex<Option<ContainerInstance>>,
}

/// Where instances of one program come from.
struct Line {
    yard: Arc<Yard>,
    mould: Mould,
    program: Arc<Program>,
}

impl LoadedProgram {
    pub(crate) async fn load(yard: Arc<Yard>, program: Arc<Program>) -> Result<Self, LoadError> {
        let mould = yard.mould(&program).map_err(LoadError::Failed)?;
        let line = Arc::new(Line { yard, mould, program });
        let proof = line.clone().instance().await?;
        Ok(Self {
            line,
            proof: Mutex::new(Some(proof)),
        })
    }
}

#[async_trait]
impl Loaded for LoadedProgram {
    async fn start(&self) -> Result<Box<dyn Instance>, LoadError> {
        let proof = self.proof.lock().take().filter(|instance| instance.container.usable());
        match proof {
            Some(instance) => Ok(Box::new(instance)),
            None => Ok(Box::new(self.line.clone().instance().await?)),
        }
    }

    fn forgive(&self) {
        if let Some(instance) = &mut *self.proof.lock() {
            instance.settled_us = instance.container.cage().cpu_us();
        }
    }

    fn memory_bytes(&self) -> u64 {
        let proof = self.proof.lock();
        proof
            .as_ref()
            .map_or(0, |instance| instance.container.cage().memory_bytes())
    }
}

impl Line {
    /// The container is made in a task of its own: that must not be cancelled half way. The program's own code ends with whoever
    /// waits for it.
    async fn instance(self: Arc<Self>) -> Result<ContainerInstance, LoadError> {
        let line = self.clone();
        let making = tokio::spawn(async move { line.yard.make(&line.mould).await.map_err(LoadError::Failed) });
        let made = making.await.map_err(|error| LoadError::Failed(error.to_string()))?;
        ContainerInstance::load(made?, self.program.clone(), self.yard.freeze.clone()).await
    }
}

/// One container that has loaded its program.
pub(crate) struct ContainerInstance {
    container: Arc<Container>,
    standing: Standing,
    program: Arc<Program>,
    freeze: Freeze,
    /// CPU time that is billed or free; what it has used beyond is billed to the next call.
    settled_us: u64,
}

/// Kills the container unless the call came to its end.
struct Guard(Option<Arc<Container>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(container) = &self.0 {
            container.kill();
        }
    }
}

/// How a question ended.
enum End<T> {
    Answered(T),
    TooLate,
    Stopped,
}

impl ContainerInstance {
    async fn load(mut standing: Standing, program: Arc<Program>, freeze: Freeze) -> Result<Self, LoadError> {
        let within = Duration::from_millis(program.limits.timeout_ms.into());
        let container = standing.container.clone();
        let mut guard = Guard(Some(container.clone()));
        let standing_us = container.cage().cpu_us();
        container.begins();
        let loads = standing.channel.load(&program);
        let answer = freeze.within(within, loads).await;
        match answer {
            Ok(Ok(())) => {
                guard.0 = None;
                let used_us = container.cage().cpu_us().saturating_sub(standing_us);
                container.ends();
                Ok(Self {
                    settled_us: standing_us + used_us.min(LOAD_FREE_US),
                    container,
                    standing,
                    program,
                    freeze,
                })
            }
            Ok(Err(NotLoaded::Closed)) => {
                drop(guard);
                let why = why_it_ended(&mut standing).await;
                Err(instances::not_loaded(&program, LoadEnd::Ended(why)))
            }
            Ok(Err(why)) => Err(instances::not_loaded(&program, LoadEnd::NotLoaded(why))),
            Err(_out_of_time) => Err(instances::not_loaded(&program, LoadEnd::OutOfTime(within))),
        }
    }

    async fn outcome(&mut self, end: End<Option<Ended>>, mut guard: Guard) -> (Outcome, bool) {
        let outcome = match end {
            End::TooLate => Outcome::TimedOut,
            End::Stopped => Outcome::Stopped,
            End::Answered(Some(Ended { outcome, .. }))
                if instances::ended_for_memory(&outcome, self.container.cage().hit_memory_limit()) =>
            {
                Outcome::OutOfMemory
            }
            End::Answered(Some(Ended { outcome, reusable })) => {
                if reusable {
                    guard.0 = None;
                    return (outcome, true);
                }
                outcome
            }
            End::Answered(None) => {
                // A process on its way out says how; the guard kills what is left.
                let outcome = why_it_ended(&mut self.standing).await;
                drop(guard);
                return (outcome, false);
            }
        };
        drop(guard);
        self.container.ended().await;
        self.standing.channel.late_logs();
        (outcome, false)
    }

    /// Asks, for as long as the call may take; meanwhile lets others go first where it computes for long.
    async fn ask(&mut self, call: &Call, within: Duration) -> End<Option<Ended>> {
        let limits = self.program.limits;
        let told = self.standing.channel.watched();
        let answers = self.standing.channel.call(call, &limits);
        let stopped = async {
            call.stop.cancelled().await;
            if told.ends_by_itself() {
                // The runner was told, and the channel waits for it.
                std::future::pending::<()>().await;
            }
        };
        let burst = Burst::new(&self.container);
        tokio::select! {
            biased;
            end = self.freeze.within(within, answers) => end.map_or(End::TooLate, End::Answered),
            () = stopped => End::Stopped,
            () = burst.watch() => unreachable!("it never ends"),
        }
    }
}

/// A call that computes for long lets shorter ones go first, until it ends.
struct Burst<'a> {
    container: &'a Container,
    begun_us: u64,
    yields: std::sync::atomic::AtomicBool,
}

impl<'a> Burst<'a> {
    fn new(container: &'a Container) -> Self {
        Self {
            container,
            begun_us: container.cage().cpu_us(),
            yields: std::sync::atomic::AtomicBool::new(false),
        }
    }

    async fn watch(&self) {
        loop {
            tokio::time::sleep(BURST_LOOK).await;
            if self.container.cage().cpu_us().saturating_sub(self.begun_us) >= BURST_US {
                self.yields.store(true, std::sync::atomic::Ordering::Relaxed);
                self.container.cage().let_others_first(true);
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Burst<'_> {
    fn drop(&mut self) {
        if *self.yields.get_mut() {
            self.container.cage().let_others_first(false);
        }
    }
}

#[async_trait]
impl Instance for ContainerInstance {
    async fn call(&mut self, call: Call) -> Finished {
        if !self.container.usable() {
            return instances::had_ended();
        }
        let guard = Guard(Some(self.container.clone()));
        self.container.begins();
        self.container.cage().forget_peak();
        let watch = self.freeze.stopwatch();
        let within = call
            .time_left
            .min(Duration::from_millis(self.program.limits.timeout_ms.into()));
        let end = self.ask(&call, within).await;
        let duration = watch.elapsed();
        let cage = self.container.cage();
        let (peak_bytes, cpu_us) = (cage.peak_bytes(), cage.cpu_us());
        let (outcome, reusable) = self.outcome(end, guard).await;
        // Read once more: what a killed container used until it was gone.
        let cage = self.container.cage();
        let (peak_bytes, cpu_us) = match reusable {
            true => (peak_bytes, cpu_us),
            false => (peak_bytes.max(cage.peak_bytes()), cpu_us.max(cage.cpu_us())),
        };
        let settled_us = std::mem::replace(&mut self.settled_us, cpu_us);
        if reusable {
            self.container.ends();
        }
        Finished {
            outcome,
            logs: self.standing.channel.logs().take(),
            counters: Counters {
                cpu_us: cpu_us.saturating_sub(settled_us),
                memory_byte_ms: instances::byte_ms(peak_bytes, duration),
                egress_bytes: call.egress.bytes(),
            },
            memory_peak_bytes: peak_bytes,
            duration,
            reusable,
        }
    }

    fn memory_bytes(&self) -> u64 {
        self.container.cage().memory_bytes()
    }

    fn is_alive(&self) -> bool {
        self.container.usable()
    }
}

/// After the channel closed: kills what is left and says how the container ended.
async fn why_it_ended(standing: &mut Standing) -> Outcome {
    let container = standing.container.clone();
    // Of one that has ended and whose end is not told yet, nothing is killed.
    if tokio::time::timeout(LAST_WORDS_WAIT, container.gone()).await.is_err() {
        container.kill();
    }
    let status = container.told().await;
    standing.channel.late_logs();
    let hit_memory_limit = container.cage().hit_memory_limit();
    instances::why_it_ended(status, hit_memory_limit, standing.channel.logs())
}
