//! A session of version 3 to 5: a stream for control, one for each job, one for each bundle. The controller opens them all.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    AsyncReadExt as _, AsyncWriteExt as _,
    io::{ReadHalf, WriteHalf},
};
use parking_lot::Mutex;
use piecework_sandbox::{CHUNK_BYTES_MAX, Inlet, Outcome, Sent};
use tokio::sync::{Semaphore, mpsc, oneshot};
use yamux::{Mode, Stream};

use super::{Agent, Outgoing, Run, RunResult, Terms};
use crate::link::{
    BEAT, CONTROL_WAITING_MAX, Clock, DEAD_AFTER, LinkFailure,
    ending::Ending,
    fetch::BUNDLE_BYTES_MAX,
    frames::{OrderFrame, OrderId},
    handshake::Welcome,
    messages::{Opening, Part, Say, Tell},
    mux::{Mux, opener},
    parts::{Budget, CONTROL_BYTES_MAX, MESSAGE_BYTES_MAX, Reader, cut, write},
};

/// Questions answered at once: a controller that asks more waits. It asks one for each lane, and one for each deploy.
const ASKS_MAX: usize = 256;

/// A run that has said nothing for this long says that it has begun. Much less than it takes to be impatient, and in time for
/// yamux, which opens no more than 256 streams that nothing has come back on.
const BEGUN_AFTER: Duration = Duration::from_millis(20);

type Halves = (ReadHalf<Stream>, WriteHalf<Stream>);

struct Session {
    agent: Arc<Agent>,
    says: mpsc::Sender<Say>,
    asks: Arc<Semaphore>,
    /// Until the controller has opened the control stream.
    control: Mutex<Option<oneshot::Sender<Halves>>>,
    budget: Budget,
    ending: Ending,
    clock: Clock,
}

pub(super) async fn session(agent: &Arc<Agent>, welcome: Welcome) -> LinkFailure {
    let clock = welcome.receiver.clock.clone();
    let (_, requests) = opener(agent.provider.profile().slots);
    let mux = Mux::new((welcome.sender, welcome.receiver), Mode::Client, requests);
    let (says, saying) = mpsc::channel(CONTROL_WAITING_MAX);
    let (give_control, control) = oneshot::channel();
    let session = Arc::new(Session {
        agent: agent.clone(),
        says: says.clone(),
        asks: Arc::new(Semaphore::new(ASKS_MAX)),
        control: Mutex::new(Some(give_control)),
        budget: Budget::default(),
        ending: Ending::default(),
        clock: clock.clone(),
    });
    let before = agent.begin(&Outgoing::Streams(says), welcome.controller, clock);
    let accept = |stream| {
        tokio::spawn(session.clone().serve(stream));
        Ok(())
    };
    let ended = tokio::select! {
        biased;
        failure = session.ending.failed() => failure,
        failure = mux.drive(accept) => failure,
        failure = session.control(control, saying, before) => failure,
    };
    session.ending.end();
    ended
}

impl Session {
    async fn serve(self: Arc<Self>, stream: Stream) {
        let served = tokio::select! {
            () = self.ending.over() => return,
            served = self.serve_stream(stream) => served,
        };
        match served {
            // A stream that was cut: whoever opened it has gone away, or the session ends.
            Ok(()) | Err(LinkFailure::Broken(_)) => {}
            Err(failure) => self.ending.fail(failure),
        }
    }

    async fn serve_stream(self: &Arc<Self>, stream: Stream) -> Result<(), LinkFailure> {
        let (from, mut to) = stream.split();
        let mut reader = Reader {
            from,
            budget: &self.budget,
        };
        match reader.message(MESSAGE_BYTES_MAX).await? {
            Opening::Control => {
                let control = self.control.lock().take();
                let control = control.ok_or(LinkFailure::Protocol("it opens a second control stream"))?;
                control.send((reader.from, to)).map_err(|_| gone())
            }
            Opening::Order {
                mut order,
                event_bytes,
                parameters_bytes,
                has_body,
            } => {
                read_event(&mut reader, &mut order, (event_bytes, parameters_bytes)).await?;
                self.order((*order, Terms::default()), has_body, (reader, to)).await
            }
            Opening::Salted {
                salt,
                mut order,
                event_bytes,
                parameters_bytes,
                has_body,
            } => {
                read_event(&mut reader, &mut order, (event_bytes, parameters_bytes)).await?;
                let terms = Terms {
                    salt: Some(salt),
                    is_tentative: false,
                };
                self.order((*order, terms), has_body, (reader, to)).await
            }
            Opening::Tentative {
                salt,
                mut order,
                event_bytes,
                parameters_bytes,
                has_body,
            } => {
                read_event(&mut reader, &mut order, (event_bytes, parameters_bytes)).await?;
                let terms = Terms {
                    salt,
                    is_tentative: true,
                };
                self.order((*order, terms), has_body, (reader, to)).await
            }
            Opening::Fetch(id) => match self.agent.run_of(id) {
                Some(run) => self.carry(id, &run, &mut to).await,
                None => write(&mut to, &Part::Unknown).await,
            },
            Opening::Bundle { fetch, bytes } => self.bundle(fetch, bytes, reader).await,
        }
    }

    async fn order(
        self: &Arc<Self>,
        (order, terms): (OrderFrame, Terms),
        has_body: bool,
        (reader, mut to): (Reader<'_, ReadHalf<Stream>>, WriteHalf<Stream>),
    ) -> Result<(), LinkFailure> {
        let id = OrderId::of(&order.ticket);
        let (body, inlet) = Inlet::channel();
        let (run, begins) = self.agent.take((order, terms), has_body.then_some(inlet), true);
        if begins {
            // Whatever becomes of this stream, a body that broke off does not look like its end to the function.
            *run.body.lock() = Some(body.clone());
        }
        let carried = self.carry(id, &run, &mut to);
        if !(has_body && begins) {
            return carried.await;
        }
        tokio::select! {
            carried = carried => carried,
            failure = take_body(reader, body, &run) => Err(failure),
        }
    }

    /// Passes on what the function gives out, then what came of it.
    async fn carry(
        self: &Arc<Self>,
        id: OrderId,
        run: &Arc<Run>,
        to: &mut WriteHalf<Stream>,
    ) -> Result<(), LinkFailure> {
        let mut parts = run.parts.lock().await;
        let mut carried = Carried {
            session: self,
            id,
            run,
            parts: &mut parts,
            is_told: false,
        };
        run.is_carried.store(true, Ordering::SeqCst);
        let mut result = run.result.subscribe();
        let mut ended = pin!(async {
            let ended = result.wait_for(Option::is_some).await;
            ended.ok().and_then(|result| result.clone())
        });
        // Short runs say that they have begun with what comes first, in the same packet.
        let mut say_begun = pin!(self.clock.sleep(BEGUN_AFTER));
        let mut has_begun = false;
        let result = loop {
            let part = tokio::select! {
                biased;
                Some(part) = carried.parts.recv() => Some(part),
                result = &mut ended => break result.ok_or_else(gone)?,
                () = &mut say_begun, if !has_begun => None,
            };
            if !std::mem::replace(&mut has_begun, true) {
                write(to, &Part::Begun).await?;
            }
            if let Some(part) = part {
                carried.pass(part, to).await?;
            }
        };
        if !has_begun {
            write(to, &Part::Begun).await?;
        }
        // The last parts, where something of the sandbox still holds the other end.
        while let Ok(part) = carried.parts.try_recv() {
            carried.pass(part, to).await?;
        }
        self.tell_result(run, result, to).await?;
        carried.is_told = true;
        Ok(())
    }

    async fn tell_result(&self, run: &Run, result: RunResult, to: &mut WriteHalf<Stream>) -> Result<(), LinkFailure> {
        match &*result {
            Ok(delivery) => {
                let mut delivery = Box::new(delivery.clone());
                let output = match &mut delivery.outcome {
                    Outcome::Returned(output) => std::mem::take(output),
                    Outcome::Raised(_)
                    | Outcome::TimedOut
                    | Outcome::Stopped
                    | Outcome::OutOfMemory
                    | Outcome::Crashed(_)
                    | Outcome::OutputTooLarge
                    | Outcome::OutputInvalid(_)
                    | Outcome::Lost
                    | Outcome::FellShort(_)
                    | Outcome::Streamed => Bytes::new(),
                };
                let output_bytes =
                    u32::try_from(output.len()).map_err(|_| LinkFailure::Protocol("an output is too large to send"))?;
                let is_cut = run.is_cut.load(Ordering::SeqCst);
                let finished = Part::Finished {
                    delivery,
                    output_bytes,
                    is_cut,
                };
                write(to, &finished).await?;
                to.write_all(&output).await.map_err(cut)?;
            }
            Err(refused) => write(to, &Part::Refused(refused.clone())).await?,
        }
        to.close().await.map_err(cut)
    }

    async fn bundle(
        &self,
        fetch: u64,
        bytes: Option<u64>,
        mut reader: Reader<'_, ReadHalf<Stream>>,
    ) -> Result<(), LinkFailure> {
        if !self.agent.fetcher.wants(fetch) {
            return Ok(());
        }
        let bundle = match bytes {
            None => None,
            Some(bytes) if bytes > BUNDLE_BYTES_MAX => return Err(LinkFailure::Protocol("a bundle is too large")),
            Some(bytes) => Some(reader.exactly(bytes as usize).await?),
        };
        self.agent.fetcher.take_whole(fetch, bundle);
        Ok(())
    }

    async fn control(
        self: &Arc<Self>,
        control: oneshot::Receiver<Halves>,
        saying: mpsc::Receiver<Say>,
        before: Vec<(OrderId, Option<RunResult>)>,
    ) -> LinkFailure {
        let running = before
            .iter()
            .filter(|(_, result)| result.is_none())
            .map(|(id, _)| *id)
            .collect();
        let kept = before
            .into_iter()
            .filter(|(_, result)| result.is_some())
            .map(|(id, _)| id)
            .collect();
        let Some(Ok((from, to))) = self.clock.timeout(DEAD_AFTER, control).await else {
            return LinkFailure::Protocol("it opened no control stream");
        };
        tokio::select! {
            failure = self.say_all(to, saying, kept) => failure,
            failure = self.listen(from, running) => failure,
        }
    }

    async fn say_all(
        &self,
        mut to: WriteHalf<Stream>,
        mut saying: mpsc::Receiver<Say>,
        kept: Vec<OrderId>,
    ) -> LinkFailure {
        let mut kept = kept.into_iter();
        let mut beat = pin!(self.clock.sleep(Duration::ZERO));
        loop {
            let say = match kept.next() {
                Some(id) => Say::Kept(id),
                None => tokio::select! {
                    Some(say) = saying.recv() => say,
                    () = &mut beat => {
                        beat.set(self.clock.sleep(BEAT));
                        self.beat()
                    }
                    () = self.agent.provider.changed() => self.beat(),
                },
            };
            match self.clock.timeout(DEAD_AFTER, write(&mut to, &say)).await {
                Some(Ok(())) => {}
                Some(Err(failure)) => return failure,
                None => return LinkFailure::Silent,
            }
        }
    }

    fn beat(&self) -> Say {
        let (load, warm) = self.agent.beat();
        Say::Beat { load, warm }
    }

    /// `running`: orders that came in earlier sessions.
    async fn listen(self: &Arc<Self>, from: ReadHalf<Stream>, running: Vec<OrderId>) -> LinkFailure {
        // Of its own: control never waits for a job's bytes.
        let budget = Budget::default();
        let mut reader = Reader { from, budget: &budget };
        loop {
            match reader.message(CONTROL_BYTES_MAX).await {
                Ok(tell) => self.told(tell, &running).await,
                Err(failure) => return failure,
            }
        }
    }

    async fn told(self: &Arc<Self>, tell: Tell, running: &[OrderId]) {
        let agent = &self.agent;
        match tell {
            Tell::Ask(id, ask) => {
                let turn = self.asks.clone().acquire_owned().await;
                let (agent, says) = (agent.clone(), self.says.clone());
                tokio::spawn(async move {
                    let _turn = turn;
                    let answer = agent.answer(*ask).await;
                    // The session has ended: it is asked again in the next one.
                    let _ = says.send(Say::Answer(id, Box::new(answer))).await;
                });
            }
            Tell::Cancel(id) => agent.cancel(id),
            Tell::Confirm(id) => agent.confirm(id),
            Tell::Forget(function, version) => agent.provider.forget(function, version),
            Tell::Waiting(waiting) => {
                let forsaken = running.iter().filter(|id| !waiting.contains(id));
                forsaken.for_each(|id| agent.cancel(*id));
            }
            Tell::Beat => {}
        }
    }
}

/// The event and the parameters of an order, of as many bytes.
async fn read_event(
    reader: &mut Reader<'_, ReadHalf<Stream>>,
    order: &mut OrderFrame,
    (event_bytes, parameters_bytes): (u32, u32),
) -> Result<(), LinkFailure> {
    let event_bytes = event_bytes as usize;
    let (mut both, held) = reader
        .bytes(event_bytes.saturating_add(parameters_bytes as usize))
        .await?;
    // It has arrived: from here on the provider's slots bound it.
    drop(held);
    order.parameters = both.split_off(event_bytes);
    order.event = both;
    Ok(())
}

fn gone() -> LinkFailure {
    LinkFailure::Broken("whoever waited for it is gone".into())
}

/// Reads a request's body as fast as the function takes it. Ends by itself only when the stream is cut.
async fn take_body(mut reader: Reader<'_, ReadHalf<Stream>>, body: mpsc::Sender<Bytes>, run: &Run) -> LinkFailure {
    loop {
        match reader.chunk(CHUNK_BYTES_MAX).await {
            Ok(chunk) if chunk.is_empty() => break,
            Ok(chunk) => {
                if body.send(chunk).await.is_err() {
                    // The function does not read it.
                    break;
                }
            }
            Err(failure) => return failure,
        }
    }
    drop(body);
    run.body.lock().take();
    std::future::pending().await
}

/// While a stream carries a run. Dropped before everything is told, it leaves the run to the next stream, or ends it where
/// that would have to tell again what has passed.
struct Carried<'a> {
    session: &'a Session,
    id: OrderId,
    run: &'a Run,
    parts: &'a mut mpsc::Receiver<Sent>,
    is_told: bool,
}

impl Carried<'_> {
    async fn pass(&mut self, part: Sent, to: &mut WriteHalf<Stream>) -> Result<(), LinkFailure> {
        self.run.has_passed.store(true, Ordering::SeqCst);
        match part {
            Sent::Head(head) => write(to, &Part::Head(head)).await,
            Sent::Chunk(mut bytes) => {
                while !bytes.is_empty() {
                    let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES_MAX));
                    write(to, &Part::Chunk(chunk)).await?;
                }
                Ok(())
            }
        }
    }
}

impl Drop for Carried<'_> {
    fn drop(&mut self) {
        self.run.is_carried.store(false, Ordering::SeqCst);
        if self.is_told {
            return;
        }
        if self.run.has_passed.load(Ordering::SeqCst) {
            self.run.is_cut.store(true, Ordering::SeqCst);
            self.parts.close();
            while self.parts.try_recv().is_ok() {}
            self.run.cancel.cancel();
        }
        // Else the next session hears of it when it begins.
        if self.run.result().is_some() && !self.session.ending.is_over() {
            let kept = self.session.says.try_send(Say::Kept(self.id));
            if kept.is_err() {
                self.session
                    .ending
                    .fail(LinkFailure::Protocol("it does not take what it is told"));
            }
        }
    }
}
