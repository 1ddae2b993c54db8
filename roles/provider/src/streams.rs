//! What a run streams, both ways: counted on its way, and stopped where its ticket pays for no more.

#[cfg(test)]
mod tests;

use std::convert::Infallible;

use bytes::Bytes;
use piecework_queue::Order;
use piecework_sandbox::{EgressMeter, Finished, Inlet, Outcome, Outlet, StreamMeter, Streamed};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The streams of one run, between its order and its sandbox.
pub(crate) struct Streams {
    meter: StreamMeter,
    body: Option<(mpsc::Receiver<Bytes>, mpsc::Sender<Bytes>)>,
    stop: CancellationToken,
}

/// The sandbox's ends of them.
pub(crate) struct Ends {
    pub(crate) body: Option<Inlet>,
    pub(crate) outlet: Outlet,
    pub(crate) stop: CancellationToken,
}

impl Streams {
    /// Of an order whose ticket was checked.
    pub(crate) fn of(order: &Order) -> (Self, Ends) {
        let allowed_bytes = order.work.limits.streamable(&order.ticket.limits);
        let meter = StreamMeter::new(allowed_bytes.unwrap_or(0));
        let outlet = order.outlet.metered(&meter);
        let source = order.body.as_ref().and_then(Inlet::take);
        let (body, inlet, stop) = match source {
            None => (None, None, order.cancel.clone()),
            Some(source) => {
                let (sender, inlet) = Inlet::channel();
                // A body that is too long ends this run, not what else hangs on the order.
                (Some((source, sender)), Some(inlet), order.cancel.child_token())
            }
        };
        let ends = Ends {
            body: inlet,
            outlet,
            stop: stop.clone(),
        };
        (Self { meter, body, stop }, ends)
    }

    /// Passes the request's body on, counted. Never returns: the run's end is its end.
    pub(crate) async fn pass_body(&mut self) -> Infallible {
        if let Some((source, sender)) = &mut self.body {
            while let Some(part) = source.recv().await {
                if !self.meter.take_body(&part) {
                    self.stop.cancel();
                    // Kept open: the run must not take what it has got for all of it.
                    return std::future::pending().await;
                }
                if sender.send(part).await.is_err() {
                    break;
                }
            }
        }
        // Whole, or read no further: either end is told that there is no more.
        self.body = None;
        std::future::pending().await
    }

    /// Whether something of the answer went out.
    pub(crate) fn has_begun(&self) -> bool {
        self.meter.streamed().begun
    }

    /// What was streamed; nothing is from now on. The outcome is put right where the stream was stopped for its length.
    /// The counters get what has passed: a sandbox counts a part that it could not send.
    pub(crate) fn end(&self, finished: &mut Finished, egress: &EgressMeter) -> Streamed {
        if self.meter.is_over() && matches!(finished.outcome, Outcome::Stopped | Outcome::Streamed) {
            finished.outcome = Outcome::OutputTooLarge;
        }
        let streamed = self.meter.close();
        let network = finished.counters.egress_bytes.saturating_sub(egress.streamed_bytes());
        finished.counters.egress_bytes = network.saturating_add(streamed.both_ways());
        streamed
    }
}
