//! The streams of a job while it runs: what its caller sends, what comes of its answer, and what was seen of both.
//!
//! The digest and the bytes are counted here too, since the receipt is believed no further than what came through.

#[cfg(test)]
mod tests;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use piecework_api::errors::Refusal;
use piecework_model::{Code, Limits, Rejection};
use piecework_queue::{Delivery, Order, ProviderLink};
use piecework_sandbox::{CancellationToken, Inlet, Outcome, Outlet, Sent, StreamMeter, Streamed};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use crate::calls::{
    outcome::came_through,
    passing::{NotPassed, Passing},
    upload::Upload,
};

/// Beyond the function's timeout a caller may take so long to read what has been sent: well within the time after which a
/// remote provider that has said nothing is taken for lost, and its run would go unpaid.
const LATE_AFTER: Duration = Duration::from_secs(60);

/// What hangs on a job beside its event.
#[derive(Default)]
pub(crate) struct Streams {
    pub(crate) answer: Answering,
    pub(crate) body: Option<Upload>,
}

/// What comes of an answer that the function streams.
#[derive(Default)]
pub(crate) enum Answering {
    /// It becomes the job's output, if it is no longer than that.
    #[default]
    Collect,
    /// Its digest is compared.
    Discard,
    /// To the caller, as it comes.
    Pass(Passing),
}

impl Streams {
    /// What a ticket has to allow for them, of a function that may stream `limit_bytes`.
    pub(crate) fn allowance(&self, limits: &Limits, limit_bytes: u64) -> u64 {
        let answer = match &self.answer {
            Answering::Collect => limit_bytes.min(limits.output_bytes),
            Answering::Discard | Answering::Pass(_) => limit_bytes,
        };
        let body = self.body.as_ref().map_or(0, Upload::bytes_max);
        answer.saturating_add(body)
    }

    /// Whether the caller has seen a part of the answer.
    pub(crate) fn has_passed(&self) -> bool {
        match &self.answer {
            Answering::Pass(passing) => passing.has_begun(),
            Answering::Collect | Answering::Discard => false,
        }
    }

    /// Whether another provider cannot do the job any more: the caller would get, or has sent, something twice.
    pub(crate) fn is_spent(&self) -> bool {
        self.has_passed() || self.body.as_ref().is_some_and(Upload::is_spent)
    }

    /// The job went well and is written down.
    pub(crate) async fn end(&self) {
        match &self.answer {
            Answering::Pass(passing) => passing.end().await,
            Answering::Collect | Answering::Discard => {}
        }
    }
}

/// What was seen of a run's streams.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) streamed: Streamed,
    /// More came than the ticket allows: an honest provider sends no more than that.
    pub(crate) is_over: bool,
    pub(crate) output: Collected,
    /// Why the answer could not be passed on from its beginning, or is none where it came in one piece.
    pub(crate) answer_fault: Option<Box<Refusal>>,
    /// Why the body of the request did not arrive whole.
    pub(crate) body_fault: Option<Box<Refusal>>,
}

/// What an answer that was collected came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Collected {
    /// It was passed on, or there was none.
    #[default]
    Nothing,
    Whole(Vec<u8>),
    /// More than the output limit.
    TooLarge,
}

impl Collected {
    /// As a function would have returned it in one piece.
    pub(crate) fn to_json(bytes: &[u8]) -> Bytes {
        let value = match std::str::from_utf8(bytes) {
            Ok(text) => Value::from(text),
            Err(_) => json!({"$bytes": STANDARD.encode(bytes)}),
        };
        value.to_string().into()
    }
}

/// Has the order carried out there; `allowed_bytes` is what its ticket lets it stream.
pub(crate) async fn carry_out(
    provider: &dyn ProviderLink,
    mut order: Order,
    streams: &Streams,
    allowed_bytes: u64,
) -> (Result<Delivery, Rejection>, Seen) {
    let (outlet, parts) = Outlet::channel();
    order.outlet = outlet;
    let salt = order.salt;
    let body = streams.body.as_ref().map(|upload| {
        let (sender, inlet) = Inlet::channel();
        order.body = Some(inlet);
        (upload, sender)
    });
    // A body is counted here when it is sent and at the provider when it arrives: what is on its way between must not make
    // an honest answer too much. What the receipt bills is bounded by the ticket all the same.
    let body_bytes_max = streams.body.as_ref().map_or(0, Upload::bytes_max);
    let patience = Duration::from_millis(order.ticket.limits.timeout_ms.into()) + LATE_AFTER;
    let mut intake = Intake {
        answer: &streams.answer,
        meter: StreamMeter::new(allowed_bytes.saturating_add(body_bytes_max)),
        late: Instant::now() + patience,
        stop: order.cancel.clone(),
        output_bytes_max: order.ticket.limits.output_bytes,
        output: Collected::Nothing,
        is_gone: false,
        fault: None,
    };
    let delivered = intake.follow(provider.run(order), parts, body).await;
    let streamed = intake.meter.close();
    let delivered = delivered.and_then(|delivery| {
        let digest = came_through(&delivery.finished.outcome, &streamed).map(|digest| digest.salted(salt.as_ref()));
        // Nothing that its receipt covers was lost, and nobody else can do the job any more: it is paid.
        let is_covered = streams.is_spent() && digest == Some(delivery.receipt.output);
        match delivery.is_cut && !is_covered {
            // What was lost cannot be checked, so it is not paid: as if the provider were gone.
            true => Err(Rejection::new(
                Code::ProviderLost,
                "the provider's link broke in the middle of the job's stream",
            )),
            false => Ok(delivery),
        }
    });
    let fault_of = |delivery: &Delivery| match (&streams.answer, &delivery.finished.outcome) {
        (Answering::Pass(passing), Outcome::Returned(output)) => passing.fault_of(output),
        _ => None,
    };
    let output_fault = delivered.as_ref().ok().and_then(fault_of);
    let seen = Seen {
        streamed,
        is_over: intake.meter.is_over(),
        output: intake.output,
        answer_fault: intake.fault.or(output_fault),
        body_fault: streams.body.as_ref().and_then(Upload::fault),
    };
    (delivered, seen)
}

/// Takes in what one run streams.
struct Intake<'a> {
    answer: &'a Answering,
    meter: StreamMeter,
    /// From here on a caller who still reads is waited for no more: the run has ended, and its provider wants its receipt.
    late: Instant,
    stop: CancellationToken,
    output_bytes_max: u64,
    output: Collected,
    /// Whether nothing is passed on any more, as the caller went away or could not be given it.
    is_gone: bool,
    fault: Option<Box<Refusal>>,
}

impl Intake<'_> {
    /// Drives the run to its end, with its streams beside it.
    async fn follow<T>(
        &mut self,
        run: impl Future<Output = T>,
        mut parts: mpsc::Receiver<Sent>,
        body: Option<(&Upload, mpsc::Sender<Bytes>)>,
    ) -> T {
        let mut run = std::pin::pin!(run);
        // Most runs end at once and stream nothing.
        if body.is_none()
            && let std::task::Poll::Ready(done) = futures::poll!(&mut run)
        {
            while let Ok(part) = parts.try_recv() {
                self.take(part).await;
            }
            return done;
        }
        let ended = CancellationToken::new();
        let (meter, stop) = (self.meter.clone(), self.stop.clone());
        let running = async {
            let done = run.await;
            ended.cancel();
            done
        };
        let sending = ended.run_until_cancelled(async {
            let Some((upload, sender)) = body else { return };
            if !upload.pump(&sender, &meter).await {
                stop.cancel();
                // Kept open: the run must not take what it has got for all of it.
                std::future::pending::<()>().await;
            }
        });
        let (done, _, ()) = tokio::join!(running, sending, self.take_all(&mut parts, &ended));
        done
    }

    /// Until nobody sends any more, or the run has ended and what it had sent is taken.
    async fn take_all(&mut self, parts: &mut mpsc::Receiver<Sent>, ended: &CancellationToken) {
        let mut is_closed = false;
        loop {
            tokio::select! {
                biased;
                part = parts.recv() => match part {
                    Some(part) => self.take(part).await,
                    None => return,
                },
                () = ended.cancelled(), if !is_closed => {
                    is_closed = true;
                    parts.close();
                }
                () = gone(self.answer), if !self.is_gone => self.caller_went(),
            }
        }
    }

    /// Counts it and hands it on. What comes after the run was stopped is counted all the same: its receipt covers it.
    async fn take(&mut self, part: Sent) {
        if !self.meter.take_part(&part) {
            self.stop.cancel();
            return;
        }
        match self.answer {
            Answering::Discard => {}
            Answering::Pass(_) if self.is_gone => {}
            Answering::Pass(passing) => match timeout_at(self.late, passing.pass(part))
                .await
                .unwrap_or(Err(NotPassed::Gone))
            {
                Ok(()) => {}
                Err(NotPassed::Gone) => self.caller_went(),
                Err(NotPassed::Invalid(refusal)) => {
                    self.fault = Some(refusal);
                    self.caller_went();
                }
            },
            Answering::Collect => self.collect(part),
        }
    }

    fn caller_went(&mut self) {
        if let Answering::Pass(passing) = self.answer {
            passing.break_off();
        }
        self.is_gone = true;
        self.stop.cancel();
    }

    fn collect(&mut self, part: Sent) {
        let chunk = match part {
            Sent::Head(_) => Bytes::new(),
            Sent::Chunk(chunk) => chunk,
        };
        match &mut self.output {
            Collected::Nothing => self.output = Collected::Whole(chunk.into()),
            Collected::Whole(bytes) => bytes.extend_from_slice(&chunk),
            Collected::TooLarge => return,
        }
        if let Collected::Whole(bytes) = &self.output
            && bytes.len() as u64 > self.output_bytes_max
        {
            self.output = Collected::TooLarge;
            self.stop.cancel();
        }
    }
}

async fn gone(answer: &Answering) {
    match answer {
        Answering::Pass(passing) => passing.gone().await,
        Answering::Collect | Answering::Discard => std::future::pending().await,
    }
}
