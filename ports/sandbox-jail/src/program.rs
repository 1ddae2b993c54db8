//! A loaded program and its instances.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use piecework_model::{Counters, Language, Rejection};
use piecework_sandbox::{
    Call, Finished, Freeze, Instance, LoadError, Loaded, LogLevel, Logs, Outcome, Program, Raised,
};
use serde::Deserialize;

use crate::{
    cell::{Cell, Mould, Yard},
    channel::Answer,
    process::Process,
};

/// V8 aborts at its own limit, a little below the jail's.
const V8_LAST_WORDS: &[u8] = b"JavaScript heap out of memory";
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
    /// In a task of its own: making a jail must not be cancelled half way.
    async fn instance(self: Arc<Self>) -> Result<JailInstance, LoadError> {
        tokio::spawn(async move {
            let spare = self.spare.lock().take().filter(|cell| cell.process.usable());
            let cell = match spare {
                Some(cell) => cell,
                None => self.yard.cell(&self.mould).await.map_err(LoadError::Failed)?,
            };
            JailInstance::load(cell, self.program.clone(), &self).await
        })
        .await
        .map_err(|error| LoadError::Failed(error.to_string()))?
    }

    /// Makes what the next start will need. After a first call and not before: it must not compete with one.
    fn prepare(self: &Arc<Self>) {
        let line = self.clone();
        tokio::spawn(async move {
            let language = line.program.language;
            let egress = !line.program.egress.is_empty();
            line.yard.prepare(language, &line.program.limits, egress).await;
            if language == Language::Python && line.spare.lock().is_none() {
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
enum End {
    Answered(Answer),
    TooLate,
    Stopped,
    OutOfMemory,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    message: String,
}

impl JailInstance {
    async fn load(mut cell: Cell, program: Arc<Program>, line: &Arc<Line>) -> Result<Self, LoadError> {
        let freeze = line.yard.freeze.clone();
        let settings = settings(&program).to_string();
        let within = Duration::from_millis(program.limits.timeout_ms.into());
        let guard = Guard(Some(cell.process.clone()));
        let end = ask(&mut cell, (b'L', &[settings.as_bytes()]), (within, &freeze), &program).await;
        let failed = |message: String| LoadError::Code(load_failed(message));
        match end {
            End::Answered(Answer::Said(b'D', _)) => {
                let mut guard = guard;
                guard.0 = None;
                Ok(Self {
                    process: cell.process.clone(),
                    cell,
                    program,
                    line: Arc::downgrade(line),
                    freeze,
                    served: false,
                })
            }
            End::Answered(Answer::Said(b'E', refusal)) => Err(LoadError::Code(rejection(&refusal))),
            End::Answered(Answer::Closed) => {
                drop(guard);
                let why = why_it_ended(&mut cell).await;
                Err(failed(match why {
                    Outcome::OutOfMemory => "the memory limit was hit while the module was imported".to_owned(),
                    Outcome::Crashed(reason) => format!("while the module was imported, {reason}"),
                    other => format!("{other:?}"),
                }))
            }
            End::Answered(Answer::Said(..) | Answer::Garbage(_) | Answer::TooLarge) => {
                Err(failed("the module wrote to the output channel by hand".to_owned()))
            }
            // Nothing stops a load.
            End::TooLate | End::Stopped => Err(failed(format!("importing the module took longer than {within:?}"))),
            End::OutOfMemory => Err(failed(
                "the memory limit was hit while the module was imported".to_owned(),
            )),
        }
    }

    async fn outcome(&mut self, end: End, guard: Guard) -> (Outcome, bool) {
        let limit = self.program.limits.output_bytes;
        let (outcome, reusable) = match end {
            End::TooLate => (Outcome::TimedOut, false),
            End::Stopped => (Outcome::Stopped, false),
            End::OutOfMemory => (Outcome::OutOfMemory, false),
            End::Answered(Answer::Said(kind, payload)) => said(kind, payload, limit),
            End::Answered(Answer::Garbage(what)) => (Outcome::OutputInvalid(what.to_owned()), false),
            End::Answered(Answer::TooLarge) => (Outcome::OutputTooLarge, false),
            End::Answered(Answer::Closed) => {
                drop(guard);
                return (why_it_ended(&mut self.cell).await, false);
            }
        };
        if reusable {
            let mut guard = guard;
            guard.0 = None;
            return (outcome, true);
        }
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
            return dead();
        }
        let guard = Guard(Some(self.process.clone()));
        self.process.forget_peak();
        let cpu_before_us = self.process.cpu_us();
        let watch = self.freeze.stopwatch();
        let head = format!(
            r#"{{"job_id":"{}","deadline_ms":{},"parameters":"#,
            call.job, call.deadline_ms
        );
        let question = [
            head.as_bytes(),
            &call.parameters,
            b",\"event\":".as_slice(),
            &call.event,
            b"}".as_slice(),
        ];
        let limits = self.program.limits;
        let within = call.time_left.min(Duration::from_millis(limits.timeout_ms.into()));
        if let Some(relay) = &self.cell.relay {
            relay.open(call.egress.clone(), limits.egress_bytes);
        }
        let end = tokio::select! {
            biased;
            end = ask(&mut self.cell, (b'C', &question), (within, &self.freeze), &self.program) => end,
            () = call.stop.cancelled() => End::Stopped,
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
        // Read once more: what a killed jail used until it was gone.
        let peak_bytes = peak_bytes.max(if reusable { 0 } else { self.process.peak_bytes() });
        let mut logs = self.cell.channel.logs().take();
        logs.add(LogLevel::Info, &asked_of_the_network);
        Finished {
            outcome,
            logs,
            counters: Counters {
                // Without cgroups a process that is gone tells nothing any more.
                cpu_us: self.process.cpu_us().max(cpu_us).saturating_sub(cpu_before_us),
                memory_byte_ms: byte_ms(peak_bytes, duration),
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
}

/// Peak times wall time, rounded up once.
fn byte_ms(bytes: u64, duration: Duration) -> u64 {
    let product = u128::from(bytes) * duration.as_micros();
    u64::try_from(product.div_ceil(1_000)).unwrap_or(u64::MAX)
}

async fn ask(
    cell: &mut Cell,
    (kind, payload): (u8, &[&[u8]]),
    (within, freeze): (Duration, &Freeze),
    program: &Program,
) -> End {
    let output_bytes = usize::try_from(program.limits.output_bytes).unwrap_or(usize::MAX >> 1);
    let process = cell.process.clone();
    let answer = freeze.within(within, cell.channel.ask(kind, payload, output_bytes));
    if process.memory_is_limited() {
        return answer.await.map_or(End::TooLate, End::Answered);
    }
    tokio::select! {
        biased;
        answer = answer => answer.map_or(End::TooLate, End::Answered),
        () = memory_exceeds(&process, program.limits.memory_bytes) => End::OutOfMemory,
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

fn said(kind: u8, payload: Vec<u8>, output_bytes_max: u64) -> (Outcome, bool) {
    match kind {
        b'O' if payload.len() as u64 > output_bytes_max => (Outcome::OutputTooLarge, false),
        b'O' => match serde_json::from_slice::<serde::de::IgnoredAny>(&payload) {
            Ok(_) => (Outcome::Returned(Bytes::from(payload)), true),
            Err(error) => (
                Outcome::OutputInvalid(format!("the output is not JSON: {error}")),
                false,
            ),
        },
        b'R' => match serde_json::from_slice::<Raised>(&payload) {
            Ok(raised) => (Outcome::Raised(raised), true),
            Err(_) => (Outcome::OutputInvalid("the function forged an error".to_owned()), false),
        },
        b'I' => (
            Outcome::OutputInvalid(String::from_utf8_lossy(&payload).into_owned()),
            true,
        ),
        b'T' => (Outcome::OutputTooLarge, true),
        b'M' => (Outcome::OutOfMemory, false),
        _ => (
            Outcome::OutputInvalid("the function wrote to its output channel by hand".to_owned()),
            false,
        ),
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
    if cell.process.hit_memory_limit() || cell.channel.logs().contains(V8_LAST_WORDS) {
        return Outcome::OutOfMemory;
    }
    Outcome::Crashed(match status {
        Some(code) if code >= 0 => format!("the process exited with code {code}"),
        Some(signal) => format!("the process was ended by signal {}", -signal),
        None => "the process closed its output channel".to_owned(),
    })
}

fn dead() -> Finished {
    Finished {
        outcome: Outcome::Crashed("the instance had ended before this call".to_owned()),
        logs: Logs::default(),
        counters: Counters::default(),
        memory_peak_bytes: 0,
        duration: Duration::ZERO,
        reusable: false,
    }
}

fn load_failed(message: String) -> Rejection {
    Rejection::new("function.load_failed", message)
        .hint("the code outside of the handler runs once, under the function's limits")
}

fn rejection(bytes: &[u8]) -> Rejection {
    let Ok(refusal) = serde_json::from_slice::<Refusal>(bytes) else {
        return load_failed("the module forged its own refusal".to_owned());
    };
    match refusal.code.as_str() {
        "function.syntax_error" => {
            Rejection::new("function.syntax_error", refusal.message).hint("correct that line and deploy again")
        }
        "function.no_handler" => Rejection::new("function.no_handler", refusal.message)
            .hint("Python: `def handler(event, context)` in main.py; JavaScript: `export default` in main.mjs"),
        _ => load_failed(refusal.message),
    }
}

/// What the runner needs to know of the program.
fn settings(program: &Program) -> serde_json::Value {
    let (file, function) = entry(program);
    let mut env: std::collections::BTreeMap<&str, &str> = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("HOME", "/tmp"),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
    ]
    .into();
    env.extend(program.env.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    serde_json::json!({
        "file": file,
        "function": function,
        "env": env,
        "name": program.function_name,
        "version": program.version,
        "output_bytes": program.limits.output_bytes,
        "network": !program.egress.is_empty(),
    })
}

/// `file` or `file:function`, with the language's defaults.
fn entry(program: &Program) -> (&str, &str) {
    let by_default = match program.language {
        Language::Python => "handler",
        Language::JavaScript => "default",
    };
    match program.handler.as_deref() {
        None => (program.language.entry_file(), by_default),
        Some(handler) => handler.rsplit_once(':').unwrap_or((handler, by_default)),
    }
}
