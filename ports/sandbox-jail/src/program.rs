//! A loaded program and its instances.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use piecework_model::{Counters, Language};
use piecework_sandbox::{
    Call, Finished, Freeze, Instance, LoadError, Loaded, LogLevel, Outcome, Program,
    instances::{self, LOAD_FREE_US, LoadEnd},
    runner::{Ended, NotLoaded},
};

use crate::{
    cell::{Cell, Mould, Yard},
    process::Process,
};

/// How often memory is looked at where no cgroup limits it.
const MEMORY_LOOK: Duration = Duration::from_millis(10);

pub(crate) struct JailedProgram {
    line: Arc<Line>,
    /// The instance that proved that the program loads: the first one given out.
    proof: Mutex<Option<JailInstance>>,
}

/// Where instances of one program come from.
struct Line {
    yard: Arc<Yard>,
    mould: Mould,
    program: Arc<Program>,
    /// A standing jail of this program that has not read its code yet.
    spare: Mutex<Option<Cell>>,
}

impl JailedProgram {
    pub(crate) async fn load(yard: Arc<Yard>, program: Arc<Program>) -> Result<Self, LoadError> {
        let mould = yard.mould(&program).await.map_err(LoadError::Failed)?;
        let line = Arc::new(Line {
            yard,
            mould,
            program,
            spare: Mutex::default(),
        });
        let proof = line.clone().instance().await?;
        Ok(Self {
            line,
            proof: Mutex::new(Some(proof)),
        })
    }
}

#[async_trait]
impl Loaded for JailedProgram {
    async fn start(&self) -> Result<Box<dyn Instance>, LoadError> {
        let proof = self.proof.lock().take().filter(|instance| instance.process.usable());
        match proof {
            Some(instance) => Ok(Box::new(instance)),
            None => Ok(Box::new(self.line.clone().instance().await?)),
        }
    }

    fn forgive(&self) {
        if let Some(instance) = &mut *self.proof.lock() {
            instance.settled_us = instance.process.cpu_us();
        }
    }

    fn memory_bytes(&self) -> u64 {
        let spare = self
            .line
            .spare
            .lock()
            .as_ref()
            .map_or(0, |cell| cell.process.memory_bytes());
        let proof = self
            .proof
            .lock()
            .as_ref()
            .map_or(0, |instance| instance.process.memory_bytes());
        self.line.mould.memory_bytes() + spare + proof
    }
}

impl Line {
    /// The jail is made in a task of its own: that must not be cancelled half way. The program's own code ends with whoever
    /// waits for it.
    async fn instance(self: Arc<Self>) -> Result<JailInstance, LoadError> {
        let line = self.clone();
        let making = tokio::spawn(async move {
            let spare = line.spare.lock().take().filter(|cell| cell.process.usable());
            match spare {
                Some(cell) => Ok(cell),
                None => line.yard.cell(&line.mould).await.map_err(LoadError::Failed),
            }
        });
        let made = making.await.map_err(|error| LoadError::Failed(error.to_string()))?;
        JailInstance::load(made?, self.program.clone(), &self).await
    }

    /// Makes what the next start will need. After a first call and not before: it must not compete with one.
    fn prepare(self: &Arc<Self>) {
        let line = self.clone();
        tokio::spawn(async move {
            let language = line.program.language;
            let egress = !line.program.egress.is_empty();
            line.yard.prepare(language, &line.program.limits, egress).await;
            if language != Language::JavaScript && line.spare.lock().is_none() {
                match line.yard.cell(&line.mould).await {
                    Ok(cell) => *line.spare.lock() = Some(cell),
                    // The next start makes one itself, and tells its caller if it cannot.
                    Err(reason) => tracing::debug!(reason, "no jail could be made ahead"),
                }
            }
        });
    }
}

/// One jail that has loaded its program.
pub(crate) struct JailInstance {
    process: Arc<Process>,
    cell: Cell,
    program: Arc<Program>,
    line: Weak<Line>,
    freeze: Freeze,
    served: bool,
    /// CPU time that is billed or free; what it has used beyond is billed to the next call.
    settled_us: u64,
}

/// Kills the jail unless the call came to its end.
struct Guard(Option<Arc<Process>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            process.kill();
        }
    }
}

/// How a question ended.
enum End<T> {
    Answered(T),
    TooLate,
    Stopped,
    OutOfMemory,
}

impl JailInstance {
    async fn load(mut cell: Cell, program: Arc<Program>, line: &Arc<Line>) -> Result<Self, LoadError> {
        let freeze = line.yard.freeze.clone();
        let within = Duration::from_millis(program.limits.timeout_ms.into());
        let mut guard = Guard(Some(cell.process.clone()));
        let process = cell.process.clone();
        let standing_us = process.cpu_us();
        process.begins(standing_us);
        let loads = cell.channel.load(&program);
        let end = watched(loads, &process, (within, &freeze), program.limits.memory_bytes).await;
        match end {
            End::Answered(Ok(())) => {
                guard.0 = None;
                process.ends();
                Ok(Self {
                    settled_us: standing_us + process.cpu_us().saturating_sub(standing_us).min(LOAD_FREE_US),
                    process,
                    cell,
                    program,
                    line: Arc::downgrade(line),
                    freeze,
                    served: false,
                })
            }
            End::Answered(Err(NotLoaded::Closed)) => {
                drop(guard);
                let why = why_it_ended(&mut cell).await;
                Err(instances::not_loaded(&program, LoadEnd::Ended(why)))
            }
            End::Answered(Err(why)) => Err(instances::not_loaded(&program, LoadEnd::NotLoaded(why))),
            // Nothing stops a load.
            End::TooLate | End::Stopped => Err(instances::not_loaded(&program, LoadEnd::OutOfTime(within))),
            End::OutOfMemory => Err(instances::not_loaded(&program, LoadEnd::OutOfMemory)),
        }
    }

    async fn outcome(&mut self, end: End<Option<Ended>>, mut guard: Guard) -> (Outcome, bool) {
        let outcome = match end {
            End::TooLate => Outcome::TimedOut,
            End::Stopped => Outcome::Stopped,
            End::OutOfMemory => Outcome::OutOfMemory,
            End::Answered(Some(Ended { outcome, .. }))
                if instances::ended_for_memory(&outcome, self.process.hit_memory_limit()) =>
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
                drop(guard);
                return (why_it_ended(&mut self.cell).await, false);
            }
        };
        drop(guard);
        self.process.ended().await;
        self.cell.channel.late_logs();
        (outcome, false)
    }
}

#[async_trait]
impl Instance for JailInstance {
    async fn call(&mut self, call: Call) -> Finished {
        if !self.process.usable() {
            return instances::had_ended();
        }
        let guard = Guard(Some(self.process.clone()));
        self.process.begins(self.settled_us);
        self.process.forget_peak();
        let watch = self.freeze.stopwatch();
        let limits = self.program.limits;
        let within = call.time_left.min(Duration::from_millis(limits.timeout_ms.into()));
        if let Some(relay) = &self.cell.relay {
            relay.open(call.egress.clone(), limits.egress_bytes);
        }
        let told = self.cell.channel.watched();
        let answers = self.cell.channel.call(&call, &limits);
        let stopped = async {
            call.stop.cancelled().await;
            if told.ends_by_itself() {
                // The runner was told, and the channel waits for it.
                std::future::pending::<()>().await;
            }
        };
        let end = tokio::select! {
            biased;
            end = watched(answers, &self.process, (within, &self.freeze), limits.memory_bytes) => end,
            () = stopped => End::Stopped,
        };
        let duration = watch.elapsed();
        let asked_of_the_network = match &self.cell.relay {
            Some(relay) => relay.close().await,
            None => String::new(),
        };
        let (peak_bytes, cpu_us) = (self.process.peak_bytes(), self.process.cpu_us());
        let (outcome, reusable) = self.outcome(end, guard).await;
        if !std::mem::replace(&mut self.served, true)
            && let Some(line) = self.line.upgrade()
        {
            line.prepare();
        }
        // Read once more: what a killed jail used until it was gone. Without cgroups one that is gone tells nothing any more.
        let (peak_bytes, cpu_us) = match reusable {
            true => (peak_bytes, cpu_us),
            false => (
                peak_bytes.max(self.process.peak_bytes()),
                cpu_us.max(self.process.cpu_us()),
            ),
        };
        let settled_us = std::mem::replace(&mut self.settled_us, cpu_us);
        if reusable {
            self.process.ends();
        }
        let mut logs = self.cell.channel.logs().take();
        logs.add(LogLevel::Info, &asked_of_the_network);
        Finished {
            outcome,
            logs,
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
        self.process.memory_bytes()
    }

    fn is_alive(&self) -> bool {
        self.process.usable()
    }
}

/// Awaits an answer, for as long as the process may take and within the memory that it may hold.
async fn watched<T>(
    answers: impl Future<Output = T>,
    process: &Process,
    (within, freeze): (Duration, &Freeze),
    memory_bytes_max: u64,
) -> End<T> {
    let answer = freeze.within(within, answers);
    if process.memory_is_limited() {
        return answer.await.map_or(End::TooLate, End::Answered);
    }
    tokio::select! {
        biased;
        answer = answer => answer.map_or(End::TooLate, End::Answered),
        () = memory_exceeds(process, memory_bytes_max) => End::OutOfMemory,
    }
}

/// Waits until the first process of the jail holds more than the limit.
async fn memory_exceeds(process: &Process, limit: u64) {
    let mut looks = tokio::time::interval(MEMORY_LOOK);
    loop {
        looks.tick().await;
        if process.resident_bytes() > limit {
            return;
        }
    }
}

/// After the channel closed: kills what is left and says how the process ended.
async fn why_it_ended(cell: &mut Cell) -> Outcome {
    // A process on its way out gets the time to say how; one that only closed the channel is killed.
    let ended = tokio::time::timeout(Duration::from_millis(200), cell.process.ended()).await;
    let status = match ended {
        Ok(status) => status,
        Err(_) => {
            cell.process.kill();
            cell.process.ended().await
        }
    };
    cell.channel.late_logs();
    let hit_memory_limit = cell.process.hit_memory_limit();
    instances::why_it_ended(status, hit_memory_limit, cell.channel.logs())
}
