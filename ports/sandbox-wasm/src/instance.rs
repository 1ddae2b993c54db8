//! One guest bound to one program: loads it, answers calls, and tells how they ended.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{Either, select};
use piecework_model::Limits;
use piecework_sandbox::{Call, CancellationToken, EXITED, Finished, OutOfTime, Outcome, Outlet, Raised, too_deep};
use wasmtime::Store;
use wasmtime_wasi::I32Exit;

use crate::{
    answer::Answer,
    exports::JavaScript,
    flow::{Cut, cut_short},
    host::{Exited, Host, Touched},
    meter::{Deadline, Metered, Usage},
    runtime::{Functions, Guest, Runtime, renew_epoch},
};

/// Whatever the limit, a guest may grow by this much beyond what its component begins with.
const MEMORY_GROWTH_BYTES_MIN: u64 = 16 << 20;
/// What an idle guest holds at rest before it has grown: pages that it wrote, its stacks and tables. Measured by
/// `examples/medians.rs`, rounded up.
const PYTHON_RESIDENT_BYTES: u64 = 1_536 << 10;
const JAVASCRIPT_RESIDENT_BYTES: u64 = 320 << 10;
/// Added to the timeout while loading: a busy machine reads the interpreter's pages from disk at first.
const LOAD_GRACE: Duration = Duration::from_secs(2);
/// CPU time of loading that nobody is billed: what the interpreter takes to import a small module.
const LOAD_FREE: Duration = Duration::from_millis(10);

pub(crate) struct WasmInstance {
    guest: Guest,
    runtime: Arc<Runtime>,
    limits: Limits,
    /// Linear memory right after the component was instantiated.
    initial_bytes: u64,
    /// What loading took beyond [`LOAD_FREE`]: the first call's.
    owed: Duration,
    /// False while a call runs and after one that must not be followed by another.
    alive: bool,
}

/// Why there is no answer.
pub(crate) enum Broken {
    OutOfTime,
    /// By [`Call::stop`], or because nobody reads what is streamed.
    Stopped,
    OutOfMemory,
    TooMuchStreamed,
    /// What it streamed is no answer.
    Invalid(String),
    /// It touched what is not here.
    Touched(String),
    /// It ended by itself, or the runner's answer was tampered with.
    Died(String),
}

impl WasmInstance {
    /// Binds a fresh guest to a program; `load` comes next.
    pub(crate) fn new(mut guest: Guest, runtime: Arc<Runtime>, limits: Limits) -> Self {
        let memory = &mut guest.store.data_mut().memory;
        let initial_bytes = memory.bytes;
        memory.limit(limits.memory_bytes.max(initial_bytes + MEMORY_GROWTH_BYTES_MIN));
        Self {
            guest,
            runtime,
            limits,
            initial_bytes,
            owed: Duration::ZERO,
            alive: false,
        }
    }

    /// Imports the program's entry module. `code` is what [`Self::compiled`] of an earlier instance gave, or empty.
    pub(crate) async fn load(&mut self, setup: String, code: Vec<u8>) -> Result<Answer, Broken> {
        let deadline = Deadline::after(self.loads_within(), &self.runtime.ticker.freeze);
        let mut usage = Usage::default();
        let never = (CancellationToken::new(), Outlet::nowhere());
        let answer = self
            .run(Request::Load(setup, code), (deadline, &never), &mut usage)
            .await?;
        self.owed = usage.beyond(LOAD_FREE);
        self.alive = matches!(answer, Answer::Done(_));
        self.guest.store.data_mut().has_loaded = true;
        Ok(answer)
    }

    /// The compiled modules of a loaded Python program. The program may have replaced what tells them: it has the time of a
    /// load again, and is trusted as little as its source.
    pub(crate) async fn compiled(&mut self) -> Result<Vec<u8>, Broken> {
        let Functions::Python(functions) = &self.guest.functions else {
            return Ok(Vec::new());
        };
        let ticker = &self.runtime.ticker;
        let _live = ticker.enter();
        let deadline = Deadline::after(self.loads_within(), &ticker.freeze);
        self.guest.store.data_mut().deadline = deadline;
        renew_epoch(&mut self.guest.store);
        let mut usage = Usage::default();
        let called = {
            let called = pin!(functions.compiled.call_async(&mut self.guest.store, ()));
            Metered::new(called, &mut usage, deadline, ticker.clone()).await
        };
        match called {
            Ok(Ok((code,))) => Ok(code),
            Ok(Err(error)) => Err(broken(&self.guest.store, &error)),
            Err(OutOfTime) => Err(Broken::OutOfTime),
        }
    }

    fn loads_within(&self) -> Duration {
        Duration::from_millis(self.limits.timeout_ms.into()) + LOAD_GRACE
    }

    /// What the program printed since the last call.
    pub(crate) fn logs(&self) -> piecework_sandbox::Logs {
        self.guest.store.data().logs.take()
    }

    /// The import that could not be satisfied, if one failed.
    pub(crate) fn missing(&self) -> Option<&str> {
        self.guest.store.data().missing.as_deref()
    }

    /// Until there is an answer, the deadline, or a wish to stop, whichever comes first.
    async fn run(
        &mut self,
        request: Request,
        (deadline, (stop, outlet)): (Deadline, &(CancellationToken, Outlet)),
        usage: &mut Usage,
    ) -> Result<Answer, Broken> {
        let _live = self.runtime.ticker.enter();
        let host = self.guest.store.data_mut();
        host.deadline = deadline;
        host.answer = None;
        host.memory.refused = false;
        let signs = Arc::clone(&host.flow.signs);
        renew_epoch(&mut self.guest.store);
        let replied = {
            let ticker = &self.runtime.ticker;
            let asked = pin!(ask(&mut self.guest, &self.runtime, request, deadline));
            let cut = pin!(cut_short((stop, outlet), &signs, (ticker, deadline)));
            match select(Metered::new(asked, usage, deadline, ticker.clone()), cut).await {
                Either::Left((replied, _)) => Some(replied),
                Either::Right(_) => None,
            }
        };
        let Some(replied) = replied else {
            return Err(Broken::Stopped);
        };
        match replied {
            Err(OutOfTime) => Err(Broken::OutOfTime),
            Ok(Err(error)) => Err(broken(&self.guest.store, &error)),
            Ok(Ok((code, text))) => self.read(code, text),
        }
    }

    fn read(&self, code: u8, text: String) -> Result<Answer, Broken> {
        let answer = Answer::read(code, text).map_err(Broken::Died)?;
        let refused = self.guest.store.data().memory.refused;
        match answer {
            Answer::NoMemory => Err(Broken::OutOfMemory),
            Answer::Raised(raised) if refused && says_out_of_memory(&raised) => Err(Broken::OutOfMemory),
            answer => Ok(answer),
        }
    }

    /// What an answer means, together with what was streamed before it.
    fn outcome(&self, ended: Result<Answer, Broken>) -> (Outcome, bool) {
        let streams = self.guest.store.data().flow.signs.streams();
        match ended {
            Ok(Answer::Streamed) if streams => (Outcome::Streamed, true),
            Ok(Answer::Done(_) | Answer::Streamed) if streams => by_hand(),
            Ok(answer) => outcome(answer, self.limits.output_bytes),
            Err(Broken::OutOfMemory) => (Outcome::OutOfMemory, false),
            Err(Broken::OutOfTime) => (Outcome::TimedOut, false),
            Err(Broken::Stopped) => (Outcome::Stopped, false),
            Err(Broken::TooMuchStreamed) => (Outcome::OutputTooLarge, false),
            Err(Broken::Invalid(reason)) => (Outcome::OutputInvalid(reason), false),
            Err(Broken::Touched(what)) => (Outcome::FellShort(what), false),
            Err(Broken::Died(reason)) => (Outcome::Crashed(reason), false),
        }
    }

    fn finished(&mut self, (outcome, reusable): (Outcome, bool), used: Used) -> Finished {
        let memory_bytes = self.guest.store.data().memory.bytes;
        self.alive = reusable;
        Finished {
            outcome,
            logs: self.logs(),
            counters: used.usage.counters(memory_bytes, used.duration, used.streamed_bytes),
            memory_peak_bytes: memory_bytes,
            duration: used.duration,
            reusable,
        }
    }
}

/// What a call used beside memory.
#[derive(Default)]
struct Used {
    usage: Usage,
    duration: Duration,
    streamed_bytes: u64,
}

#[async_trait]
impl piecework_sandbox::Instance for WasmInstance {
    async fn call(&mut self, call: Call) -> Finished {
        let freeze = &self.runtime.ticker.freeze;
        let watch = freeze.stopwatch();
        let time = call.time_left.min(Duration::from_millis(self.limits.timeout_ms.into()));
        let deadline = Deadline::after(time, freeze);
        let mut usage = Usage::owing(std::mem::take(&mut self.owed));
        if !std::mem::take(&mut self.alive) {
            let ended = Outcome::Crashed("the instance has ended".to_owned());
            return self.finished((ended, false), Used::default());
        }
        if let Some(outcome) = too_deep(&call) {
            return self.finished((outcome, true), Used::default());
        }
        let flow = &mut self.guest.store.data_mut().flow;
        flow.begin(&call, self.limits.stream_bytes());
        let (meter, ends) = (call.egress.clone(), (call.stop.clone(), call.outlet.clone()));
        let ended = self.run(Request::Call(call), (deadline, &ends), &mut usage).await;
        self.guest.store.data_mut().flow.end();
        let used = Used {
            usage,
            duration: watch.elapsed(),
            streamed_bytes: meter.bytes(),
        };
        let outcome = self.outcome(ended);
        self.finished(outcome, used)
    }

    fn memory_bytes(&self) -> u64 {
        let base = match self.guest.functions {
            Functions::Python(_) => PYTHON_RESIDENT_BYTES,
            Functions::JavaScript(_) => JAVASCRIPT_RESIDENT_BYTES,
        };
        base + self.guest.store.data().memory.bytes.saturating_sub(self.initial_bytes)
    }
}

enum Request {
    Load(String, Vec<u8>),
    Call(Call),
}

async fn ask(
    guest: &mut Guest,
    runtime: &Runtime,
    request: Request,
    deadline: Deadline,
) -> wasmtime::Result<(u8, String)> {
    let Guest { store, functions } = guest;
    match (functions, request) {
        (Functions::Python(python), Request::Load(setup, code)) => {
            Ok(python.load.call_async(store, (setup, code)).await?.0)
        }
        (Functions::Python(python), Request::Call(call)) => {
            let told = (
                text(&call.event),
                call.job.to_string(),
                call.deadline_ms,
                text(&call.parameters),
                call.body.is_some(),
            );
            Ok(python.call.call_async(store, told).await?.0)
        }
        (Functions::JavaScript(javascript), Request::Load(setup, _)) => {
            javascript.load.call_async(&mut *store, (setup,)).await?;
            answered(javascript, store, runtime, deadline).await
        }
        (Functions::JavaScript(javascript), Request::Call(call)) => {
            let told = (
                text(&call.event),
                call.job.to_string(),
                call.deadline_ms as f64,
                text(&call.parameters),
                call.body.is_some(),
            );
            javascript.start.call_async(&mut *store, told).await?;
            answered(javascript, store, runtime, deadline).await
        }
    }
}

/// Runs timers until the runner has answered. All promise jobs have run whenever an export returns, so that without an
/// answer and without a timer nothing will ever happen.
async fn answered(
    javascript: &JavaScript,
    store: &mut Store<Host>,
    runtime: &Runtime,
    deadline: Deadline,
) -> wasmtime::Result<(u8, String)> {
    loop {
        if let Some(answer) = store.data_mut().answer.take() {
            return Ok(answer);
        }
        let (after_ms,) = javascript.soonest.call_async(&mut *store, ()).await?;
        if after_ms < 0.0 {
            return Ok((1, NEVER_SETTLES.to_owned()));
        }
        let at = Instant::now() + Duration::from_secs_f64((after_ms / 1e3).min(LONGEST_SLEEP_S));
        runtime.ticker.sleep_within(Some(at), deadline).await;
        renew_epoch(store);
        javascript.tick.call_async(&mut *store, ()).await?;
    }
}

const NEVER_SETTLES: &str = r#"{"type":"Error","message":"the handler's promise never settles: nothing is left to wait for","stack":"Error: the handler's promise never settles: nothing is left to wait for"}"#;
/// A day: longer than any timeout, short enough for every clock.
const LONGEST_SLEEP_S: f64 = 86_400.0;

/// Checked before; a copy, as the guest's strings are lowered from one. The runners' parsers skip no space at the start.
fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes.trim_ascii()).into_owned()
}

fn outcome(answer: Answer, output_bytes_max: u64) -> (Outcome, bool) {
    match answer {
        Answer::Done(output) if output.len() as u64 > output_bytes_max => (Outcome::OutputTooLarge, true),
        Answer::Done(output) => (Outcome::Returned(output.into()), true),
        Answer::Raised(raised) => (Outcome::Raised(raised), true),
        Answer::Invalid(reason) => (Outcome::OutputInvalid(reason), true),
        Answer::Exited(code) => (Outcome::Crashed(format!("{EXITED} {code}")), false),
        Answer::NoMemory => (Outcome::OutOfMemory, false),
        Answer::Streamed | Answer::NoHandler(_) | Answer::Syntax(_) | Answer::Unsupported(_) => by_hand(),
    }
}

fn by_hand() -> (Outcome, bool) {
    let what = "the function wrote to its output channel by hand".to_owned();
    (Outcome::OutputInvalid(what), false)
}

fn says_out_of_memory(raised: &Raised) -> bool {
    raised.kind == "MemoryError" || (raised.kind == "InternalError" && raised.message.contains("out of memory"))
}

fn broken(store: &Store<Host>, error: &wasmtime::Error) -> Broken {
    if let Some(Exited(code)) = error.downcast_ref() {
        return Broken::Died(format!("{EXITED} {code}"));
    }
    if let Some(Touched(what)) = error.downcast_ref() {
        return Broken::Touched(what.clone());
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return Broken::Died(format!("{EXITED} {code}"));
    }
    match error.downcast_ref() {
        Some(Cut::ReaderGone) => return Broken::Stopped,
        Some(Cut::TooMuch) => return Broken::TooMuchStreamed,
        Some(Cut::Invalid(reason)) => return Broken::Invalid(reason.clone()),
        None => {}
    }
    if store.data().memory.refused {
        return Broken::OutOfMemory;
    }
    Broken::Died(match error.downcast_ref::<wasmtime::Trap>() {
        Some(trap) => trap.to_string(),
        None => format!("{error:#}"),
    })
}
