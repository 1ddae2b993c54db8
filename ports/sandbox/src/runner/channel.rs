//! The agent's end: asks one question at a time, and moves what the call takes in and gives out meanwhile.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use piecework_model::{Limits, Rejection};
use rand::Rng;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc::Receiver,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    frames::{Expected, Fault, Incoming, SECRET_BYTES, Said, Secret, frame},
    messages,
};
use crate::{CHUNK_BYTES_MAX, Call, EgressMeter, Inlet, Outcome, Outlet, Program, ReaderGone, Sent, too_deep};

/// Read at once: a frame of a chunk.
const READ_BYTES: usize = CHUNK_BYTES_MAX + (1 << 10);

/// A runner that was told that nobody reads its answer has this long to end by itself: less than a provider waits for a run that it
/// has stopped.
const LEAVES_WITHIN: Duration = Duration::from_secs(4);

/// The agent's end of a runner's byte stream.
pub struct Channel<S> {
    stream: S,
    buffer: Box<[u8]>,
    watched: Watched,
}

/// Whether the runner of the present call ends by itself when the call is stopped: then the channel waits for that, for a bounded time.
#[derive(Clone, Debug, Default)]
pub struct Watched(Arc<AtomicBool>);

impl Watched {
    pub fn ends_by_itself(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, value: bool) {
        self.0.store(value, Ordering::Release);
    }
}

/// How a call ended, as far as the channel tells.
#[derive(Debug, PartialEq)]
pub struct Ended {
    pub outcome: Outcome,
    /// Whether the runner may be asked again.
    pub reusable: bool,
}

/// Why a program is not loaded.
#[derive(Debug, PartialEq, Eq)]
pub enum NotLoaded {
    /// The runner says why: the code is at fault.
    Refused(Rejection),
    /// The module wrote to the channel by hand.
    ByHand,
    /// The runner closed the channel, mostly by ending.
    Closed,
}

/// Why there is no answer.
#[derive(Debug)]
enum Broken {
    Fault(Fault),
    /// The function's own output is at fault, with a sentence.
    Invalid(String),
    TooMuchStreamed,
    ReaderGone,
    Closed,
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            watched: Watched::default(),
        }
    }

    /// Of all calls of this channel, one after the other.
    pub fn watched(&self) -> Watched {
        self.watched.clone()
    }

    /// Waits for the runner to say that its sandbox stands; else a sentence.
    pub async fn greeting(&mut self) -> Result<(), String> {
        let mut talk = Talk {
            outgoing: BytesMut::new(),
            incoming: Incoming::new([0; SECRET_BYTES], Expected::Greeting, 0),
            flow: Flow::none(),
        };
        match self.converse(&mut talk).await {
            Ok((_, payload)) => messages::greeting_fault(&payload).map_or(Ok(()), Err),
            Err(Broken::Closed) => Err("it ended at its start".to_owned()),
            Err(
                Broken::Fault(Fault::Garbage(_) | Fault::TooLarge)
                | Broken::Invalid(_)
                | Broken::TooMuchStreamed
                | Broken::ReaderGone,
            ) => Err("its runner said nonsense".to_owned()),
        }
    }

    /// Has the runner load a program. Cancelling it leaves the channel unusable.
    pub async fn load(
        &mut self,
        program: &Program,
        base_env: &[(&'static str, &'static str)],
    ) -> Result<(), NotLoaded> {
        let settings = messages::settings(program, base_env);
        let answered = match self.question((b'L', &[&settings]), (Expected::Loading, 0), Flow::none()) {
            Ok(mut talk) => self.converse(&mut talk).await,
            Err(broken) => Err(broken),
        };
        match answered {
            Ok((b'D', _)) => Ok(()),
            Ok((_, refusal)) => Err(NotLoaded::Refused(messages::rejection(&refusal))),
            Err(Broken::Closed) => Err(NotLoaded::Closed),
            Err(
                Broken::Fault(Fault::Garbage(_) | Fault::TooLarge)
                | Broken::Invalid(_)
                | Broken::TooMuchStreamed
                | Broken::ReaderGone,
            ) => Err(NotLoaded::ByHand),
        }
    }

    /// Runs the handler once; `None` where the runner closed the channel, mostly by ending. Time is the caller's matter.
    /// Cancelling it leaves the channel unusable.
    pub async fn call(&mut self, call: &Call, limits: &Limits) -> Option<Ended> {
        if let Some(outcome) = too_deep(call) {
            return Some(Ended {
                outcome,
                reusable: true,
            });
        }
        let before = messages::before_parameters(call);
        let payload: [&[u8]; 5] = [before.as_bytes(), &call.parameters, b",\"event\":", &call.event, b"}"];
        let output_bytes = usize::try_from(limits.output_bytes).unwrap_or(usize::MAX >> 1);
        self.watched.set(false);
        let flow = Flow::of(call, limits);
        let answered = match self.question((b'C', &payload), (Expected::Calling, output_bytes), flow) {
            Ok(mut talk) => {
                let answered = self.converse(&mut talk).await;
                // A runner that answers before it has had what it asked for would take the next question for that.
                let flow = &talk.flow;
                let asks = flow.body.wanted || flow.watch == Watch::Asked;
                let settled = talk.outgoing.is_empty() && !asks && !flow.retires;
                let is_left = flow.leaves_by.is_some();
                answered.map(|answer| (answer, settled, is_left))
            }
            Err(broken) => Err(broken),
        };
        let (outcome, reusable) = match answered {
            Ok(((kind, payload), settled, is_left)) => {
                let (outcome, reusable) = messages::outcome(kind, payload, limits.output_bytes);
                let outcome = if is_left { Outcome::Stopped } else { outcome };
                (outcome, reusable && settled)
            }
            Err(Broken::Closed) => return None,
            Err(Broken::Fault(Fault::Garbage(what))) => (Outcome::OutputInvalid(what.to_owned()), false),
            Err(Broken::Invalid(why)) => (Outcome::OutputInvalid(why), false),
            Err(Broken::Fault(Fault::TooLarge) | Broken::TooMuchStreamed) => (Outcome::OutputTooLarge, false),
            Err(Broken::ReaderGone) => (Outcome::Stopped, false),
        };
        Some(Ended { outcome, reusable })
    }

    fn question(
        &mut self,
        (kind, payload): (u8, &[&[u8]]),
        (expected, answer_bytes_max): (Expected, usize),
        flow: Flow,
    ) -> Result<Talk, Broken> {
        self.nothing_came()?;
        let mut secret: Secret = [0; SECRET_BYTES];
        rand::rng().fill_bytes(&mut secret);
        let mut outgoing = BytesMut::new();
        frame(&mut outgoing, &secret, kind, payload).ok_or(Fault::TooLarge)?;
        Ok(Talk {
            outgoing,
            incoming: Incoming::new(secret, expected, answer_bytes_max),
            flow,
        })
    }

    /// Between questions a runner is silent. What comes later than this look has a wrong secret.
    fn nothing_came(&mut self) -> Result<(), Broken> {
        let mut buffer = ReadBuf::new(&mut self.buffer[..1]);
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Err(Broken::Fault(Fault::Garbage(
                "the function wrote to its output channel between calls",
            ))),
            Poll::Ready(Ok(()) | Err(_)) => Err(Broken::Closed),
        }
    }

    async fn converse(&mut self, talk: &mut Talk) -> Result<(u8, Bytes), Broken> {
        let Talk {
            outgoing,
            incoming,
            flow,
        } = talk;
        // What waits for room with its reader; nothing more is read meanwhile.
        let mut part: Option<Sent> = None;
        loop {
            if part.is_none()
                && let Some(said) = incoming.next()?
            {
                match said {
                    Said::Answer(kind, payload) => return Ok((kind, payload)),
                    Said::Head(head) => part = Some(Sent::Head(messages::head(&head).map_err(Broken::Invalid)?)),
                    Said::Chunk(_) if flow.leaves_by.is_some() => {}
                    Said::Chunk(chunk) => part = Some(flow.chunk(chunk, incoming)?),
                    // A runner asks once it has read the part before: else its questions would pile up here, unread.
                    Said::WantsBody if !outgoing.is_empty() => {
                        return Err(Fault::Garbage("the function asks for a part before it took the last").into());
                    }
                    Said::WantsBody => flow.body.want()?,
                    Said::LeavesBody => flow.body.leave(outgoing, incoming.secret()),
                    Said::Watches => {
                        flow.watch.begin()?;
                        self.watched.set(true);
                    }
                    Said::WatchesNoMore => {
                        flow.watch.end(outgoing, incoming.secret())?;
                        self.watched.set(flow.leaves_by.is_some());
                    }
                    Said::Retires => flow.retires = true,
                }
                continue;
            }
            if flow.leaves_by.is_some() {
                part = None;
            }
            let waits = part.is_some();
            let is_left = flow.leaves_by.is_some();
            let leaves_by = flow.leaves_by.unwrap_or_else(Instant::now);
            let mut reads = (!waits).then_some(&mut *incoming);
            let streams = reads.as_ref().is_some_and(|incoming| incoming.is_streaming());
            let mut went = false;
            tokio::select! {
                biased;
                moved = poll_fn(|cx| self.poll_io(cx, outgoing, reads.as_deref_mut())) => moved?,
                room = flow.outlet.room(), if waits => match (room, part.take()) {
                    (Ok(room), Some(part)) => room.send(part),
                    (Ok(_), None) => {}
                    (Err(ReaderGone), _) => went = true,
                },
                () = flow.outlet.closed(), if streams && !is_left => went = true,
                () = flow.stop.cancelled(), if flow.watch == Watch::Asked => went = true,
                () = sleep_until(leaves_by), if is_left => return Err(Broken::ReaderGone),
                part = flow.body.next(), if flow.body.wanted => flow.body.give(part, outgoing, incoming.secret()),
            }
            if went {
                flow.reader_went(outgoing, incoming.secret())?;
            }
        }
    }

    /// Writes what can be written; reads if asked to, and is ready when something was read.
    fn poll_io(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut BytesMut,
        incoming: Option<&mut Incoming>,
    ) -> Poll<Result<(), Broken>> {
        while !outgoing.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, outgoing) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Broken::Closed)),
                Poll::Ready(Ok(written)) => outgoing.advance(written),
                Poll::Pending => break,
            }
        }
        let Some(incoming) = incoming else {
            return Poll::Pending;
        };
        let mut buffer = ReadBuf::new(&mut self.buffer);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                incoming.put(buffer.filled());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(()) | Err(_)) => Poll::Ready(Err(Broken::Closed)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// One question and what belongs to it.
struct Talk {
    outgoing: BytesMut,
    incoming: Incoming,
    flow: Flow,
}

/// Whether the runner waits to be told that nobody reads its answer any more. It does so once a call: each time is answered, and the
/// answers to a runner that reads none would pile up here.
///
/// ```text
/// Nothing --W--> Asked --the reader goes, g--> Told --V--> Over
///                Asked --V, g----------------------------> Over
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Watch {
    #[default]
    Nothing,
    Asked,
    Told,
    Over,
}

impl Watch {
    fn begin(&mut self) -> Result<(), Fault> {
        match self {
            Self::Nothing => *self = Self::Asked,
            Self::Asked | Self::Told | Self::Over => {
                return Err(Fault::Garbage("the function asked twice for the end of its reader"));
            }
        }
        Ok(())
    }

    fn tell(&mut self, outgoing: &mut BytesMut, secret: &Secret) {
        *self = Self::Told;
        frame(outgoing, secret, b'g', &[]).expect("it is short");
    }

    fn end(&mut self, outgoing: &mut BytesMut, secret: &Secret) -> Result<(), Fault> {
        match self {
            Self::Asked => self.tell(outgoing, secret),
            // It was told while it said so.
            Self::Told => {}
            Self::Nothing | Self::Over => {
                return Err(Fault::Garbage(
                    "the function ended a wait for its reader that had not begun",
                ));
            }
        }
        *self = Self::Over;
        Ok(())
    }
}

/// What a call may move while it runs.
struct Flow {
    outlet: Outlet,
    meter: EgressMeter,
    stream_bytes_max: u64,
    body: Body,
    watch: Watch,
    /// By then the runner has ended: it was told that nobody reads.
    leaves_by: Option<Instant>,
    stop: CancellationToken,
    /// The runner says that the sandbox is to serve nobody else.
    retires: bool,
}

impl Flow {
    fn of(call: &Call, limits: &Limits) -> Self {
        Self {
            outlet: call.outlet.clone(),
            meter: call.egress.clone(),
            stream_bytes_max: limits.stream_bytes(),
            body: Body {
                parts: call.body.as_ref().and_then(Inlet::take),
                ..Body::default()
            },
            watch: Watch::default(),
            leaves_by: None,
            stop: call.stop.clone(),
            retires: false,
        }
    }

    /// For questions during which nothing streams.
    fn none() -> Self {
        Self {
            outlet: Outlet::nowhere(),
            meter: EgressMeter::default(),
            stream_bytes_max: 0,
            body: Body::default(),
            watch: Watch::default(),
            leaves_by: None,
            stop: CancellationToken::new(),
            retires: false,
        }
    }

    /// Tells a runner that wants to know it; whoever does not is not asked on.
    fn reader_went(&mut self, outgoing: &mut BytesMut, secret: &Secret) -> Result<(), Broken> {
        if self.watch != Watch::Asked {
            return Err(Broken::ReaderGone);
        }
        self.leaves_by = Some(Instant::now() + LEAVES_WITHIN);
        self.watch.tell(outgoing, secret);
        Ok(())
    }

    /// The chunk, together with those that came right behind it: small writes cost the way ahead as little as large ones.
    fn chunk(&self, mut chunk: BytesMut, incoming: &mut Incoming) -> Result<Sent, Broken> {
        incoming.add_chunks(&mut chunk)?;
        if !self.meter.take_streamed(chunk.len() as u64, self.stream_bytes_max) {
            return Err(Broken::TooMuchStreamed);
        }
        Ok(Sent::Chunk(chunk.freeze()))
    }
}

/// The body of the call's request, given part by part as the runner asks: so nothing of it is left in the stream when the
/// call ends.
#[derive(Default)]
struct Body {
    /// None where there is no body, or no more of it.
    parts: Option<Receiver<Bytes>>,
    /// What is left of a part that was larger than a chunk.
    rest: Bytes,
    wanted: bool,
}

impl Body {
    fn want(&mut self) -> Result<(), Fault> {
        if std::mem::replace(&mut self.wanted, true) {
            return Err(Fault::Garbage("the function asked twice for one part of the body"));
        }
        Ok(())
    }

    /// Cancel safe.
    async fn next(&mut self) -> Option<Bytes> {
        while self.rest.is_empty() {
            self.rest = self.parts.as_mut()?.recv().await?;
        }
        let length = self.rest.len().min(CHUNK_BYTES_MAX);
        Some(self.rest.split_to(length))
    }

    fn give(&mut self, part: Option<Bytes>, outgoing: &mut BytesMut, secret: &Secret) {
        self.wanted = false;
        let framed = match &part {
            Some(part) => frame(outgoing, secret, b'b', &[part]),
            None => {
                self.parts = None;
                frame(outgoing, secret, b'e', &[])
            }
        };
        framed.expect("a chunk is far below 4 GiB");
    }

    /// Whoever sends the body finds that nobody takes it any more.
    fn leave(&mut self, outgoing: &mut BytesMut, secret: &Secret) {
        self.parts = None;
        self.rest = Bytes::new();
        if self.wanted {
            self.give(None, outgoing, secret);
        }
    }
}
