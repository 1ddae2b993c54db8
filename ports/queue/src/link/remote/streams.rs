//! A session of version 3 to 5: opens a stream for control, one for each job, one for each bundle that is pulled.

use std::{
    future::pending,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    AsyncReadExt, AsyncWriteExt as _, StreamExt as _,
    io::{ReadHalf, WriteHalf},
    stream::FuturesUnordered,
};
use piecework_model::{Code, Digest, FunctionId, Rejection};
use piecework_sandbox::{CHUNK_BYTES_MAX, Outcome, Sent};
use tokio::sync::{Notify, mpsc};
use yamux::{Mode, Stream};

use super::{Bundles, Job, Outgoing, QUIET_MAX, RemoteProvider, lost};
use crate::{
    Delivery,
    link::{
        Arrival, CONTROL_WAITING_MAX, Clock, DEAD_AFTER, LinkFailure,
        ending::Ending,
        frames::{Ask, OrderFrame, OrderId},
        messages::{Opening, Part, Say, Tell},
        mux::{Mux, Opened, Opener, opener},
        parts::{Budget, CONTROL_BYTES_MAX, MESSAGE_BYTES_MAX, Reader, cut, write, write_chunk},
    },
};

/// Bundles sent at once over one link: a small one does not wait behind a large one, and few are held in memory.
const FETCHES_AT_ONCE: usize = 4;
/// Bundles that wait to be sent over it: a provider asks once for each version that it starts.
const FETCHES_WAITING_MAX: usize = 1_024;
/// A job's stream that is cut while its session stands is taken up again this often.
const ATTEMPTS_MAX: usize = 2;

pub(super) struct Session {
    opener: Opener,
    tell: mpsc::Sender<Tell>,
    /// The provider has said something and waits for an answer. One, however much it says.
    beat_due: Notify,
    fetches: mpsc::Sender<(u64, Digest)>,
    budget: Budget,
    clock: Clock,
    /// Whether the provider knows of salts.
    pub(super) takes_salts: bool,
    /// Whether it knows of orders that are tentative.
    pub(super) takes_tentative: bool,
    pub(super) ending: Ending,
}

pub(super) async fn serve(
    remote: &Arc<RemoteProvider>,
    arrival: Arrival,
    bundles: &dyn Bundles,
    now_ms: u64,
) -> LinkFailure {
    let (opener, requests) = opener(arrival.introduction.profile.slots);
    let (tell, telling) = mpsc::channel(CONTROL_WAITING_MAX);
    let (fetches, fetching) = mpsc::channel(FETCHES_WAITING_MAX);
    let session = Arc::new(Session {
        opener,
        tell,
        beat_due: Notify::new(),
        fetches,
        budget: Budget::default(),
        clock: arrival.receiver.clock.clone(),
        takes_salts: arrival.version >= SALTS_SINCE,
        takes_tentative: arrival.version >= TENTATIVE_SINCE,
        ending: Ending::default(),
    });
    // Before the welcome: whoever reads it may count on being given jobs.
    let (_up, waiting) = remote.begin(Outgoing::Streams(session.clone()), arrival.receiver.heard());
    let halves = match arrival.welcome(now_ms).await {
        Ok(halves) => halves,
        Err(failure) => {
            session.ending.end();
            return failure;
        }
    };
    let mux = Mux::new(halves, Mode::Server, requests);
    let accept = |_| {
        Err(LinkFailure::Protocol(
            "it opens a stream, which only the controller does",
        ))
    };
    let ended = tokio::select! {
        biased;
        failure = session.ending.failed() => failure,
        failure = mux.drive(accept) => failure,
        failure = session.control(remote, telling, waiting) => failure,
        failure = session.give_bundles(remote, bundles, fetching) => failure,
    };
    session.ending.end();
    ended
}

impl Session {
    fn tell(&self, tell: Tell) {
        match self.tell.try_send(tell) {
            // A session that is ending: what matters is told again in the next one.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                let failure = LinkFailure::Protocol("it does not take what it is told");
                self.ending.fail(failure);
            }
        }
    }

    pub(super) fn cancel(&self, order: OrderId) {
        self.tell(Tell::Cancel(order));
    }

    pub(super) fn ask(&self, id: u64, ask: &Ask) {
        self.tell(Tell::Ask(id, Box::new(ask.clone())));
    }

    pub(super) fn forget(&self, function: FunctionId, version: u32) {
        self.tell(Tell::Forget(function, version));
    }

    async fn control(
        &self,
        remote: &RemoteProvider,
        telling: mpsc::Receiver<Tell>,
        waiting: Vec<OrderId>,
    ) -> LinkFailure {
        let Some(opened) = self.opener.open().await else {
            return LinkFailure::Broken("the session ended".into());
        };
        let (from, mut to) = AsyncReadExt::split(opened.stream);
        if let Err(failure) = write(&mut to, &Opening::Control).await {
            return failure;
        }
        tokio::select! {
            failure = self.tell_all(to, telling, waiting) => failure,
            failure = self.listen(remote, from) => failure,
        }
    }

    async fn tell_all(
        &self,
        mut to: WriteHalf<Stream>,
        mut telling: mpsc::Receiver<Tell>,
        waiting: Vec<OrderId>,
    ) -> LinkFailure {
        let mut tell = Tell::Waiting(waiting);
        loop {
            match self.clock.timeout(DEAD_AFTER, write(&mut to, &tell)).await {
                Some(Ok(())) => {}
                Some(Err(failure)) => return failure,
                None => return LinkFailure::Silent,
            }
            tell = tokio::select! {
                biased;
                Some(tell) = telling.recv() => tell,
                () = self.beat_due.notified() => Tell::Beat,
                () = self.clock.sleep(QUIET_MAX) => Tell::Beat,
            };
        }
    }

    async fn listen(&self, remote: &RemoteProvider, from: ReadHalf<Stream>) -> LinkFailure {
        // Of its own: control never waits for a job's bytes.
        let budget = Budget::default();
        let mut reader = Reader { from, budget: &budget };
        loop {
            let heard = match reader.message(CONTROL_BYTES_MAX).await {
                Ok(say) => self.hear(remote, say).await,
                Err(failure) => return failure,
            };
            if let Err(failure) = heard {
                return failure;
            }
        }
    }

    async fn hear(&self, remote: &RemoteProvider, say: Say) -> Result<(), LinkFailure> {
        match say {
            Say::Beat { load, warm } => {
                remote.note_beat(load, warm)?;
                self.beat_due.notify_one();
            }
            Say::Answer(id, answer) => remote.note_answer(id, *answer),
            // One that is waited for has a stream, or will have.
            Say::Kept(order) if remote.is_waited_for(order) => {}
            Say::Kept(order) => {
                remote.note_stale();
                // It waits: a provider that says this all the time is not read from meanwhile.
                let _ = self.tell.send(Tell::Confirm(order)).await;
            }
            Say::Fetch { fetch, digest } => {
                if let Err(mpsc::error::TrySendError::Full(_)) = self.fetches.try_send((fetch, digest)) {
                    return Err(LinkFailure::Protocol("it asks for too many bundles at once"));
                }
            }
        }
        Ok(())
    }

    async fn give_bundles(
        &self,
        remote: &RemoteProvider,
        bundles: &dyn Bundles,
        mut fetching: mpsc::Receiver<(u64, Digest)>,
    ) -> LinkFailure {
        let mut giving = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(asked) = fetching.recv(), if giving.len() < FETCHES_AT_ONCE => giving.push(self.give(remote, bundles, asked)),
                Some(given) = giving.next(), if !giving.is_empty() => match given {
                    // The stream was cut: whoever asked does not want it any more.
                    Ok(()) | Err(LinkFailure::Broken(_)) => {}
                    Err(failure) => return failure,
                },
                else => return pending().await,
            }
        }
    }

    async fn give(
        &self,
        remote: &RemoteProvider,
        bundles: &dyn Bundles,
        (fetch, digest): (u64, Digest),
    ) -> Result<(), LinkFailure> {
        // It gets nothing of which it was given no work.
        let bundle = match remote.may_have(bundles, digest).await {
            true => bundles.bundle(digest).await,
            false => None,
        };
        let opened = self.opener.open().await;
        let Opened { mut stream, place } =
            opened.ok_or_else(|| LinkFailure::Broken("no stream is to be had".into()))?;
        let bytes = bundle.as_ref().map(|bundle| bundle.len() as u64);
        write(&mut stream, &Opening::Bundle { fetch, bytes }).await?;
        if let Some(bundle) = bundle {
            stream.write_all(&bundle).await.map_err(cut)?;
        }
        stream.close().await.map_err(cut)?;
        drop(place);
        Ok(())
    }

    /// Carries one job, over more than one stream if need be, until what came of it is known or the session ends.
    pub(super) async fn carry(self: Arc<Self>, remote: Arc<RemoteProvider>, job: Arc<Job>) {
        tokio::select! {
            () = self.ending.over() => {}
            () = job.is_dropped.cancelled() => {}
            () = self.carry_to_the_end(&remote, &job) => {}
        }
    }

    async fn carry_to_the_end(&self, remote: &RemoteProvider, job: &Arc<Job>) {
        for _ in 0..ATTEMPTS_MAX {
            let Some(opened) = self.opener.open().await else {
                if !self.opener.is_closed() {
                    let none = Rejection::new(
                        Code::ProviderNoSlot,
                        "the provider already has as many jobs as its link can carry",
                    );
                    remote.done(job.id, Err(none));
                }
                return;
            };
            match self.attempt(job, opened).await {
                Ok(result) => {
                    self.tell(Tell::Confirm(job.id));
                    return remote.done(job.id, result);
                }
                Err(LinkFailure::Broken(_)) => {}
                Err(failure) => return self.ending.fail(failure),
            }
        }
        if !self.opener.is_closed() {
            let failure = LinkFailure::Protocol("it cuts the streams of its jobs");
            self.ending.fail(failure);
        }
    }

    /// One stream: the order, or the question what came of it where parts have passed; then whatever comes back.
    async fn attempt(&self, job: &Arc<Job>, opened: Opened) -> Result<Result<Delivery, Rejection>, LinkFailure> {
        let (from, mut to) = AsyncReadExt::split(opened.stream);
        let reader = Reader {
            from,
            budget: &self.budget,
        };
        if job.has_passed.load(Ordering::SeqCst) {
            write(&mut to, &Opening::Fetch(job.id)).await?;
            return self.receive(job, reader, true).await;
        }
        let order = &job.order;
        let length = |bytes: &Bytes| {
            u32::try_from(bytes.len()).map_err(|_| LinkFailure::Protocol("an event is too large to send"))
        };
        let frame = Box::new(OrderFrame::bare(order));
        let (event_bytes, parameters_bytes) = (length(&order.event)?, length(&order.parameters)?);
        let has_body = order.body.is_some();
        let opening = match order.salt {
            salt if order.is_tentative && self.takes_tentative => Opening::Tentative {
                salt,
                order: frame,
                event_bytes,
                parameters_bytes,
                has_body,
            },
            Some(salt) => Opening::Salted {
                salt,
                order: frame,
                event_bytes,
                parameters_bytes,
                has_body,
            },
            None => Opening::Order {
                order: frame,
                event_bytes,
                parameters_bytes,
                has_body,
            },
        };
        write(&mut to, &opening).await?;
        to.write_all(&order.event).await.map_err(cut)?;
        to.write_all(&order.parameters).await.map_err(cut)?;
        let body = order.body.as_ref().and_then(piecework_sandbox::Inlet::take);
        if order.body.is_some() {
            job.has_passed.store(true, Ordering::SeqCst);
        }
        tokio::select! {
            result = self.receive(job, reader, false) => result,
            failure = send_body(body, to) => Err(failure),
        }
    }

    /// Whether the reader has taken it. One that stalls is waited for as long as few do; otherwise it counts as gone.
    async fn pass(&self, job: &Job, sent: Sent) -> bool {
        let mut sending = pin!(job.order.outlet.send(sent));
        if let std::task::Poll::Ready(sent) = futures::poll!(&mut sending) {
            return sent.is_ok();
        }
        if let Some(sent) = self.clock.timeout(STALLS_AFTER, &mut sending).await {
            return sent.is_ok();
        }
        let place = self.budget.stall();
        place.is_some() && sending.await.is_ok()
    }

    /// Passes on what the function gives out, until what came of it is told.
    async fn receive(
        &self,
        job: &Job,
        mut reader: Reader<'_, ReadHalf<Stream>>,
        was_cut: bool,
    ) -> Result<Result<Delivery, Rejection>, LinkFailure> {
        let mut order = Sequence::default();
        let begun = Notify::new();
        let passed = async {
            let mut is_read = true;
            loop {
                let (part, held) = reader.held_message(MESSAGE_BYTES_MAX).await?;
                order.check(&part)?;
                let sent = match part {
                    Part::Begun => continue,
                    Part::Head(head) => Sent::Head(head),
                    Part::Chunk(bytes) => Sent::Chunk(bytes),
                    last @ (Part::Finished { .. } | Part::Refused(_) | Part::Unknown) => {
                        // Held until the output is here, too: a provider that stops between them holds no more than that.
                        break Ok::<_, LinkFailure>((last, held));
                    }
                };
                job.has_passed.store(true, Ordering::SeqCst);
                // What comes after the reader has gone is thrown away; the receipt still comes.
                if is_read && !self.pass(job, sent).await {
                    is_read = false;
                    self.cancel(job.id);
                }
                begun.notify_one();
            }
        };
        // Whoever reads an answer may go away between two parts of it.
        let watched = async {
            begun.notified().await;
            job.order.outlet.closed().await;
            self.cancel(job.id);
            pending().await
        };
        let (last, _held) = tokio::select! {
            biased;
            last = passed => last?,
            () = watched => return Err(LinkFailure::Broken("nobody reads it".into())),
        };
        match last {
            Part::Finished {
                delivery,
                output_bytes,
                is_cut,
            } => {
                let mut delivery = Delivery::from(*delivery);
                delivery.is_cut = is_cut || was_cut;
                let (output, _place) = reader.bytes(output_bytes as usize).await?;
                match &mut delivery.finished.outcome {
                    Outcome::Returned(returned) => *returned = output,
                    _ if output.is_empty() => {}
                    _ => return Err(LinkFailure::Protocol("an output beside an outcome without one")),
                }
                Ok(Ok(delivery))
            }
            Part::Refused(rejection) => Ok(Err(rejection)),
            Part::Unknown | Part::Begun | Part::Head(_) | Part::Chunk(_) => Ok(Err(lost())),
        }
    }
}

/// A reader that takes nothing for this long has stalled.
const STALLS_AFTER: Duration = Duration::from_secs(2);

/// The version of the link in which orders have salts.
const SALTS_SINCE: u16 = 4;
/// The version in which orders may be tentative.
const TENTATIVE_SINCE: u16 = 5;

/// Sends a request's body as it comes, as fast as the function takes it. Ends by itself only when the stream is cut.
async fn send_body(body: Option<mpsc::Receiver<Bytes>>, mut to: WriteHalf<Stream>) -> LinkFailure {
    let Some(mut body) = body else {
        return pending().await;
    };
    loop {
        let chunk = body.recv().await;
        let mut rest = chunk.clone().unwrap_or_default();
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
            if let Err(failure) = write_chunk(&mut to, &part).await {
                return failure;
            }
        }
        if chunk.is_none() {
            break;
        }
    }
    // An empty chunk is the end.
    match write_chunk(&mut to, &[]).await {
        Ok(()) => pending().await,
        Err(failure) => failure,
    }
}

/// The order in which the parts of an answer come.
#[derive(Default)]
struct Sequence {
    begun: bool,
    has_parts: bool,
}

impl Sequence {
    fn check(&mut self, part: &Part) -> Result<(), LinkFailure> {
        let fits = match part {
            Part::Begun => !std::mem::replace(&mut self.begun, true),
            Part::Head(_) => self.begun && !std::mem::replace(&mut self.has_parts, true),
            Part::Chunk(bytes) => {
                self.has_parts = true;
                self.begun && (1..=CHUNK_BYTES_MAX).contains(&bytes.len())
            }
            Part::Finished { .. } | Part::Refused(_) => self.begun,
            Part::Unknown => !self.begun,
        };
        fits.then_some(())
            .ok_or(LinkFailure::Protocol("the parts of an answer come in no order"))
    }
}
