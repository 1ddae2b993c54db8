//! Serves one instance: loads it, runs its calls, and moves what they take in and give out.
//!
//! ```text
//! read Ask::Call --> poll the guest --done--> Finished            one read and one write of the stream
//!                        `--waits or ticks--> Yielded, then: stream and guest in turns until Finished
//! ```
//! When the host hangs up the guest is dropped where it is, at its next tick at the latest.

use std::{
    future::Future,
    os::unix::net::UnixStream,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use piecework_sandbox::{
    Call, CancellationToken, ERROR_TEXT_BYTES_MAX, EgressMeter, Finished, Inlet, Instance as _, LoadError, Outlet, Sent,
};
use tokio::sync::mpsc::{Receiver, Sender, error::TryRecvError};

use super::{Worker, bell::Bell, template::Template};
use crate::{
    instance::WasmInstance,
    line::{Broken, Line, Mode, Read},
    words::{Ask, Asked, Ended, Said, Standing, Start},
};

pub(super) fn serve(worker: &Worker, stream: UnixStream) {
    // The host is trusted, and bounds what it passes on.
    let line = Line::new(stream, usize::MAX >> 1);
    let Ok(bell) = Bell::new() else { return };
    let mut server = Server { line, bell };
    // Either end of the line broke: there is nobody to tell.
    let _ = server.serve(worker);
}

struct Server {
    line: Line,
    bell: Arc<Bell>,
}

impl Server {
    fn serve(&mut self, worker: &Worker) -> Result<(), Broken> {
        let Some(mut instance) = self.start(worker)? else {
            return Ok(());
        };
        loop {
            match self.next()? {
                Ask::Call(asked) => self.call(&mut instance, asked)?,
                // Left over from a call that ended while they were on their way.
                Ask::Part(_) | Ask::End | Ask::Stop => {}
                Ask::Start(_) => return Err(Broken::Nonsense("a second start")),
            }
        }
    }

    /// Waits for the next message.
    fn next(&mut self) -> Result<Ask, Broken> {
        loop {
            if let Some(ask) = self.line.next()? {
                return Ok(ask);
            }
            self.line.read(Mode::Wait)?;
        }
    }

    fn start(&mut self, worker: &Worker) -> Result<Option<WasmInstance>, Broken> {
        let Ask::Start(start) = self.next()? else {
            return Err(Broken::Nonsense("no start"));
        };
        let started = self.drive(begin(worker, start))?;
        let (instance, said) = match started {
            Ok((instance, standing)) => (Some(instance), Ok(standing)),
            Err(error) => (None, Err(cut(error))),
        };
        self.line.put(&Said::Started(said));
        self.line.flush(Mode::Wait)?;
        Ok(instance)
    }

    /// Runs a future to its end, unless the host hangs up.
    fn drive<F: Future>(&mut self, future: F) -> Result<F::Output, Broken> {
        let mut future = pin!(future);
        let waker = Waker::from(self.bell.clone());
        let mut cx = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return Ok(output);
            }
            self.bell.wait(self.line.stream(), false).map_err(|_| Broken::Gone)?;
            // Nothing is said while something is driven: only the end can come.
            self.line.read(Mode::Now)?;
        }
    }

    fn call(&mut self, instance: &mut WasmInstance, asked: Asked) -> Result<(), Broken> {
        let (call, mut flows) = Flows::of(asked);
        let mut finished = {
            let mut running = pin!(instance.call(call));
            self.run(running.as_mut(), &mut flows)?
        };
        // What was given out goes before how it ended.
        while let Ok(part) = flows.parts.try_recv() {
            self.line.put(&Said::Part(part));
            self.line.flush(Mode::Wait)?;
        }
        finished.outcome.cut_error_text();
        self.line.put(&Said::Finished(Ended {
            outcome: finished.outcome,
            logs: finished.logs,
            counters: finished.counters,
            memory_peak_bytes: finished.memory_peak_bytes,
            duration_us: u64::try_from(finished.duration.as_micros()).unwrap_or(u64::MAX),
            reusable: finished.reusable,
            memory_bytes: instance.memory_bytes(),
        }));
        self.line.flush(Mode::Wait)?;
        match finished.reusable {
            true => Ok(()),
            false => Err(Broken::Gone),
        }
    }

    fn run(
        &mut self,
        mut running: Pin<&mut impl Future<Output = Finished>>,
        flows: &mut Flows,
    ) -> Result<Finished, Broken> {
        let waker = Waker::from(self.bell.clone());
        let mut cx = Context::from_waker(&waker);
        let mut is_first = true;
        loop {
            if let Poll::Ready(finished) = running.as_mut().poll(&mut cx) {
                return Ok(finished);
            }
            if std::mem::take(&mut is_first) {
                self.line.put(&Said::Yielded);
            }
            self.give(flows)?;
            if self.take(flows)? == Read::Nothing {
                let to_write = self.line.has_outgoing();
                self.bell.wait(self.line.stream(), to_write).map_err(|_| Broken::Gone)?;
            }
        }
    }

    /// Sends what the guest gives out, as far as the host takes it, and asks for what it wants.
    fn give(&mut self, flows: &mut Flows) -> Result<(), Broken> {
        if flows.wants_part() {
            self.line.put(&Said::WantsPart);
        }
        loop {
            self.line.flush(Mode::Now)?;
            if self.line.has_outgoing() {
                return Ok(());
            }
            match flows.parts.try_recv() {
                Ok(part) => self.line.put(&Said::Part(part)),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Takes in what the host says, if anything.
    fn take(&mut self, flows: &mut Flows) -> Result<Read, Broken> {
        if self.line.read(Mode::Now)? == Read::Nothing {
            return Ok(Read::Nothing);
        }
        while let Some(ask) = self.line.next()? {
            match ask {
                Ask::Part(part) => flows.part(part),
                Ask::End => flows.body = None,
                Ask::Stop => flows.stop.cancel(),
                Ask::Start(_) | Ask::Call(_) => return Err(Broken::Nonsense("a call within a call")),
            }
        }
        Ok(Read::Something)
    }
}

async fn begin(worker: &Worker, start: Start) -> Result<(WasmInstance, Standing), LoadError> {
    let number = start.number;
    let known = worker.templates.lock().get(&number).cloned();
    let template = match known {
        Some(template) => template,
        None => Arc::new(Template::new(worker.runtime.clone(), start)?),
    };
    let instance = template.instance().await?;
    let standing = Standing {
        memory_bytes: instance.memory_bytes(),
        kept_bytes: template.memory_bytes(),
    };
    worker.templates.lock().entry(number).or_insert(template);
    Ok((instance, standing))
}

/// What a program says of itself is cut: the host takes no more.
fn cut(mut error: LoadError) -> LoadError {
    let text = match &mut error {
        LoadError::Code(rejection) => &mut rejection.message,
        LoadError::Unsupported { reason } | LoadError::Failed(reason) => reason,
    };
    text.truncate(text.floor_char_boundary(ERROR_TEXT_BYTES_MAX));
    error
}

/// What one call moves.
struct Flows {
    parts: Receiver<Sent>,
    /// None where there is no body, or no more of it.
    body: Option<Sender<Bytes>>,
    awaits_part: bool,
    stop: CancellationToken,
}

impl Flows {
    fn of(asked: Asked) -> (Call, Self) {
        let (outlet, parts) = Outlet::channel();
        let (sender, inlet) = Inlet::channel();
        let flows = Self {
            parts,
            body: asked.has_body.then_some(sender),
            awaits_part: false,
            stop: CancellationToken::new(),
        };
        let call = Call {
            job: asked.job,
            event: asked.event,
            parameters: asked.parameters,
            deadline_ms: asked.deadline_ms,
            time_left: Duration::from_micros(asked.time_left_us),
            stop: flows.stop.clone(),
            egress: EgressMeter::default(),
            body: asked.has_body.then_some(inlet),
            outlet,
        };
        (call, flows)
    }

    /// One part ahead of the guest, so that it seldom waits; no more, so that little is read that it leaves.
    fn wants_part(&mut self) -> bool {
        let Some(body) = &self.body else { return false };
        if body.is_closed() {
            self.body = None;
            return false;
        }
        let wants = !self.awaits_part && body.capacity() == body.max_capacity();
        self.awaits_part |= wants;
        wants
    }

    fn part(&mut self, part: Bytes) {
        self.awaits_part = false;
        if let Some(body) = &self.body {
            // There is room: it was asked for. A guest that left it is not told.
            let _ = body.try_send(part);
        }
    }
}
