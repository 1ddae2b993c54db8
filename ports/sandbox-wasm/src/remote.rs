//! A program and its instances, as the rest of the system sees them: each lives in its owner's worker.
//!
//! ```text
//! call: send, wait here for the first moment --Finished--> done
//!                `--Yielded--> stream and worker in turns, on whatever executor polls the call
//! ```

use std::{
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use piecework_model::Counters;
use piecework_sandbox::{
    CHUNK_BYTES_MAX, Call, Finished, Head, Inlet, Instance, LoadError, Loaded, Logs, OutOfTime, Outcome, Program,
    ReaderGone, Sent, Stopwatch,
};
use tokio::{io::unix::AsyncFd, sync::mpsc::Receiver};

use crate::{
    crew::Crew,
    line::{Broken, Mode, Read},
    program,
    words::{Ask, Asked, Ended, Said, Standing, Start},
    worker::{Loss, Seat},
};

/// How much longer than its time a worker may take to say how a call ended: it looks at the time itself, and is late only on
/// a machine that is far too busy.
const LATE: Duration = Duration::from_secs(10);

/// A program that its owner's worker has loaded, or will load.
pub(crate) struct Hosted {
    crew: Arc<Crew>,
    program: Arc<Program>,
    setup: String,
    number: u64,
    kept_bytes: AtomicU64,
}

impl Hosted {
    /// Runs the program's module-level code once.
    pub(crate) async fn load(crew: Arc<Crew>, program: Arc<Program>) -> Result<Arc<Self>, LoadError> {
        let setup = program::setup_of(&program)?;
        let number = crew.number();
        let hosted = Arc::new(Self {
            crew,
            program,
            setup,
            number,
            kept_bytes: AtomicU64::new(0),
        });
        drop(hosted.seat().await?);
        Ok(hosted)
    }

    /// A fresh instance that has loaded the program.
    async fn seat(&self) -> Result<(Seat, Begun), LoadError> {
        let begun = self.crew.freeze.stopwatch();
        let limits = self.program.limits;
        let bundle = (self.number, self.program.directory.as_path());
        let (mut seat, place) = self.crew.seat(self.program.owner, bundle, &limits).await?;
        seat.line().put(&Ask::Start(Start {
            number: self.number,
            place,
            setup: self.setup.clone(),
            limits,
        }));
        // Twice: for the import, and for what it compiled to.
        let within = 2 * Duration::from_millis(limits.timeout_ms.into()) + LATE;
        let started = self.crew.freeze.within(within, started(&mut seat)).await;
        let standing = match started {
            Ok(Ok(standing)) => standing?,
            Ok(Err(broken)) => return Err(self.broken_start(&seat, &broken).await),
            Err(OutOfTime) => {
                seat.worker().kill();
                return Err(LoadError::Failed("a worker did not answer in time".to_owned()));
            }
        };
        seat.rests();
        self.kept_bytes.store(standing.kept_bytes, Ordering::Relaxed);
        let begun = Begun {
            memory_bytes: standing.memory_bytes,
            took: begun.elapsed(),
        };
        Ok((seat, begun))
    }

    async fn broken_start(&self, seat: &Seat, broken: &Broken) -> LoadError {
        match (broken, seat.worker().loss().await) {
            (Broken::Nonsense(what), _) => {
                seat.worker().kill();
                LoadError::Failed(format!("a worker said {what}"))
            }
            (Broken::Gone, Some(Loss::Alone { out_of_memory: true })) => {
                program::load_failed("the module's own code ran out of memory".to_owned())
            }
            (Broken::Gone, Some(Loss::Alone { out_of_memory: false })) => {
                program::load_failed("the module's own code ended its sandbox".to_owned())
            }
            (Broken::Gone, Some(Loss::Shared)) => LoadError::Failed("the worker ended".to_owned()),
            (Broken::Gone, None) => LoadError::Failed("the instance ended at its start".to_owned()),
        }
    }
}

/// A fresh instance, as this process saw it begin.
#[derive(Clone, Copy)]
struct Begun {
    memory_bytes: u64,
    took: Duration,
}

async fn started(seat: &mut Seat) -> Result<Result<Standing, LoadError>, Broken> {
    // As with a call: most programs load within the first moment.
    seat.line().flush(Mode::Now)?;
    seat.line().read(Mode::Wait)?;
    match Talk::new(seat).next_said().await? {
        Said::Started(started) => Ok(started),
        Said::Yielded | Said::Part(_) | Said::WantsPart | Said::Finished(_) => {
            Err(Broken::Nonsense("something else than that it started"))
        }
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.crew.forget(self.program.owner, self.number);
    }
}

/// [`Hosted`] as others hold it.
pub(crate) struct Template(pub(crate) Arc<Hosted>);

#[async_trait]
impl Loaded for Template {
    async fn start(&self) -> Result<Box<dyn Instance>, LoadError> {
        let (seat, begun) = self.0.seat().await?;
        Ok(Box::new(Remote {
            hosted: Arc::clone(&self.0),
            rests: Some(seat),
            memory_bytes: begun.memory_bytes,
            loading: begun.took,
        }))
    }

    fn memory_bytes(&self) -> u64 {
        self.0.kept_bytes.load(Ordering::Relaxed)
    }
}

/// One instance.
pub(crate) struct Remote {
    hosted: Arc<Hosted>,
    /// None while a call runs and after one that must not be followed by another.
    rests: Option<Seat>,
    memory_bytes: u64,
    /// What loading took at most: the first call is billed for some of it.
    loading: Duration,
}

/// How a conversation ended, and what it used where the worker does not say.
enum End {
    Told(Box<Ended>),
    Broken(Broken),
    TooMuchStreamed,
    Overdue,
}

#[async_trait]
impl Instance for Remote {
    async fn call(&mut self, call: Call) -> Finished {
        let watch = self.hosted.crew.freeze.stopwatch();
        let Some(seat) = self.rests.take() else {
            return unsaid(Outcome::Crashed("the instance has ended".to_owned()), &watch, &call);
        };
        let mut seat = match self.begun(seat, &call).await {
            Ok(seat) => seat,
            Err(outcome) => return unsaid(outcome, &watch, &call),
        };
        let limits = self.hosted.program.limits;
        let within = call.time_left.min(Duration::from_millis(limits.timeout_ms.into()));
        let time = (&watch, within);
        let talk = Conversation::new(&mut seat, (&call, time), limits.stream_bytes());
        let end = match self.hosted.crew.freeze.within(within + LATE, talk.run()).await {
            Ok(end) => end,
            Err(OutOfTime) => End::Overdue,
        };
        match end {
            End::Told(ended) => self.told(seat, *ended, &watch, &call),
            End::TooMuchStreamed => unsaid(Outcome::OutputTooLarge, &watch, &call),
            End::Overdue => {
                seat.worker().kill();
                unsaid(Outcome::TimedOut, &watch, &call)
            }
            End::Broken(broken) => unsaid(lost(&seat, &broken).await, &watch, &call),
        }
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

impl Remote {
    /// The seat with the call on its way. A worker that ended while the instance rested is no fault of the call: it gets a fresh
    /// instance.
    async fn begun(&mut self, seat: Seat, call: &Call) -> Result<Seat, Outcome> {
        let asked = Ask::Call(Asked {
            job: call.job,
            event: call.event.clone(),
            parameters: call.parameters.clone(),
            deadline_ms: call.deadline_ms,
            time_left_us: u64::try_from(call.time_left.as_micros()).unwrap_or(u64::MAX),
            has_body: call.body.is_some(),
        });
        let begins = |mut seat: Seat| {
            if !seat.begins() {
                return None;
            }
            seat.line().put(&asked);
            seat.line().flush(Mode::Now).is_ok().then_some(seat)
        };
        if let Some(seat) = begins(seat) {
            return Ok(seat);
        }
        let Ok((seat, begun)) = self.hosted.seat().await else {
            return Err(Outcome::Lost);
        };
        self.loading = begun.took;
        begins(seat).ok_or(Outcome::Lost)
    }

    /// A worker is believed as far as this process saw it.
    fn told(&mut self, seat: Seat, ended: Ended, watch: &Stopwatch, call: &Call) -> Finished {
        let seen = watch.elapsed();
        let paid = seen + std::mem::take(&mut self.loading);
        let paid_us = u64::try_from(paid.as_micros()).unwrap_or(u64::MAX);
        self.memory_bytes = ended.memory_bytes;
        if ended.reusable {
            seat.rests();
            self.rests = Some(seat);
        }
        Finished {
            outcome: ended.outcome,
            logs: ended.logs,
            counters: Counters {
                cpu_us: ended.counters.cpu_us.min(paid_us),
                memory_byte_ms: ended.counters.memory_byte_ms,
                egress_bytes: call.egress.bytes(),
            },
            memory_peak_bytes: ended.memory_peak_bytes,
            duration: Duration::from_micros(ended.duration_us).min(seen),
            reusable: ended.reusable,
        }
    }
}

/// What a call is taken to have used whose worker says nothing: one core for as long as it ran. One that its own fault did
/// not end has used nothing.
fn unsaid(outcome: Outcome, watch: &Stopwatch, call: &Call) -> Finished {
    let duration = watch.elapsed();
    let cpu_us = match outcome == Outcome::Lost {
        true => 0,
        false => u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
    };
    Finished {
        outcome,
        logs: Logs::default(),
        counters: Counters {
            cpu_us,
            memory_byte_ms: 0,
            egress_bytes: call.egress.bytes(),
        },
        memory_peak_bytes: 0,
        duration,
        reusable: false,
    }
}

async fn lost(seat: &Seat, broken: &Broken) -> Outcome {
    match broken {
        Broken::Nonsense(what) => {
            // Code that broke out of the engine, or a fault of ours: in either case it is over.
            tracing::error!(what, "a wasm worker broke its protocol and is killed");
            seat.worker().kill();
        }
        Broken::Gone => {}
    }
    match seat.worker().loss().await {
        Some(Loss::Alone { out_of_memory: true }) => Outcome::OutOfMemory,
        Some(Loss::Alone { out_of_memory: false }) => Outcome::Crashed("its sandbox's process ended".to_owned()),
        Some(Loss::Shared) => Outcome::Lost,
        None => Outcome::Crashed("its sandbox ended".to_owned()),
    }
}

/// A seat's stream, which another executor than the last one may wait for.
struct Talk<'a> {
    seat: &'a mut Seat,
    registered: Option<AsyncFd<Descriptor>>,
}

/// The stream of the seat that the talk holds on to.
struct Descriptor(RawFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl<'a> Talk<'a> {
    fn new(seat: &'a mut Seat) -> Self {
        Self { seat, registered: None }
    }

    fn registered(&mut self) -> Result<&AsyncFd<Descriptor>, Broken> {
        if self.registered.is_none() {
            let descriptor = Descriptor(self.seat.line().stream().as_raw_fd());
            // SAFETY: the seat outlives the registration, and its stream is open for as long as the seat lives.
            let registered = unsafe { AsyncFd::register(descriptor) };
            self.registered = Some(registered.map_err(|_| Broken::Gone)?);
        }
        Ok(self.registered.as_ref().expect("made above"))
    }

    /// Waits until the stream has something, sending what there is to be sent. Cancel safe.
    async fn turn(&mut self) -> Result<(), Broken> {
        loop {
            self.seat.line().flush(Mode::Now)?;
            if self.seat.line().read(Mode::Now)? == Read::Something {
                return Ok(());
            }
            let to_write = self.seat.line().has_outgoing();
            let registered = self.registered()?;
            let ready = async {
                match to_write {
                    false => registered.readable().await,
                    true => {
                        let interest = tokio::io::Interest::READABLE | tokio::io::Interest::WRITABLE;
                        registered.ready(interest).await
                    }
                }
            };
            // It was read until it would block.
            ready.await.map_err(|_| Broken::Gone)?.clear_ready();
        }
    }

    async fn next_said(&mut self) -> Result<Said, Broken> {
        loop {
            if let Some(said) = self.seat.line().next()? {
                return Ok(said);
            }
            self.turn().await?;
        }
    }
}

/// One call's conversation.
struct Conversation<'a> {
    talk: Talk<'a>,
    call: &'a Call,
    /// The call's time.
    time: (&'a Stopwatch, Duration),
    stream_bytes_max: u64,
    body: Option<Receiver<Bytes>>,
    wants_part: bool,
    streams: bool,
    stops: bool,
    /// Nobody is waited for any more: what still comes before the end is dropped.
    drops: bool,
}

impl<'a> Conversation<'a> {
    fn new(seat: &'a mut Seat, (call, time): (&'a Call, (&'a Stopwatch, Duration)), stream_bytes_max: u64) -> Self {
        Self {
            talk: Talk::new(seat),
            call,
            time,
            stream_bytes_max,
            body: call.body.as_ref().and_then(Inlet::take),
            wants_part: false,
            streams: false,
            stops: false,
            drops: false,
        }
    }

    async fn run(mut self) -> End {
        let talked = match self.first_moment() {
            Ok(()) => self.converse().await,
            Err(broken) => Err(broken),
        };
        talked.unwrap_or_else(End::Broken)
    }

    /// Waits in this thread for what a short call says at once: two threads less to wake.
    fn first_moment(&mut self) -> Result<(), Broken> {
        let line = self.talk.seat.line();
        match line.has_outgoing() {
            // More than the socket takes at once.
            true => Ok(()),
            false => line.read(Mode::Wait).map(drop),
        }
    }

    async fn converse(&mut self) -> Result<End, Broken> {
        loop {
            match self.talk.seat.line().next()? {
                Some(Said::Finished(ended)) => return Ok(End::Told(Box::new(ended))),
                Some(Said::Part(part)) => {
                    if !self.pass_on(part).await? {
                        return Ok(End::TooMuchStreamed);
                    }
                }
                Some(Said::WantsPart) => self.wants_part = true,
                Some(Said::Yielded) => {}
                Some(Said::Started(_)) => return Err(Broken::Nonsense("that it started, in a call")),
                None => self.wait().await?,
            }
        }
    }

    /// Until the worker says something; meanwhile what it is to be told.
    async fn wait(&mut self) -> Result<(), Broken> {
        tokio::select! {
            biased;
            turn = self.talk.turn() => turn?,
            () = self.call.stop.cancelled(), if !self.stops => self.stop()?,
            () = self.call.outlet.closed(), if self.streams && !self.stops => self.stop()?,
            part = next_part(&mut self.body), if self.wants_part => {
                self.wants_part = false;
                let told = match part {
                    Some(part) => Ask::Part(part),
                    None => Ask::End,
                };
                self.talk.seat.line().put(&told);
            }
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), Broken> {
        self.stops = true;
        self.drops = true;
        let line = self.talk.seat.line();
        line.put(&Ask::Stop);
        line.flush(Mode::Now)
    }

    /// Waits for room; nothing more is read meanwhile, so that the worker waits too. False for what is too much.
    async fn pass_on(&mut self, part: Sent) -> Result<bool, Broken> {
        match &part {
            Sent::Head(_) if std::mem::replace(&mut self.streams, true) => {
                return Err(Broken::Nonsense("a second head"));
            }
            Sent::Head(head) if Head::checked(head.status, head.headers.clone()).as_ref() != Ok(head) => {
                return Err(Broken::Nonsense("a head that is none"));
            }
            Sent::Head(_) => {}
            Sent::Chunk(_) if !self.streams => return Err(Broken::Nonsense("a chunk before a head")),
            Sent::Chunk(chunk) if chunk.is_empty() || chunk.len() > CHUNK_BYTES_MAX => {
                return Err(Broken::Nonsense("a chunk that is empty or too long"));
            }
            Sent::Chunk(_) if self.drops => {}
            Sent::Chunk(chunk) => {
                if !self
                    .call
                    .egress
                    .take_streamed(chunk.len() as u64, self.stream_bytes_max)
                {
                    return Ok(false);
                }
            }
        }
        if self.drops {
            return Ok(true);
        }
        let (watch, time) = self.time;
        let room = tokio::select! {
            biased;
            room = self.call.outlet.room() => room,
            () = self.call.stop.cancelled() => Err(ReaderGone),
            // The worker says so too, behind what it has sent before.
            () = watch.reaches(time) => {
                self.drops = true;
                return Ok(true);
            }
        };
        match room {
            Ok(room) => room.send(part),
            Err(ReaderGone) => self.stop()?,
        }
        Ok(true)
    }
}

/// Cancel safe.
async fn next_part(body: &mut Option<Receiver<Bytes>>) -> Option<Bytes> {
    let part = body.as_mut()?.recv().await;
    if part.is_none() {
        *body = None;
    }
    part
}
