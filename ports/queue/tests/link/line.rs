//! A line in memory on which packets are lost, late, doubled, altered, exchanged, or cut off.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, channel::mpsc};
use piecework_queue::link::{Clock, Wire};
use tokio_util::sync::CancellationToken;

type Packet = Result<Bytes, String>;

/// An end of a line that a test holds itself.
pub struct End {
    pub incoming: mpsc::UnboundedReceiver<Packet>,
    pub outgoing: mpsc::UnboundedSender<Packet>,
}

impl End {
    fn into_wire(self, clock: &Clock) -> Wire {
        let outgoing = self
            .outgoing
            .sink_map_err(|error| error.to_string())
            .with(|bytes: Bytes| futures::future::ok::<Packet, String>(Ok(bytes)));
        Wire::new(self.incoming, outgoing).with_clock(clock.clone())
    }
}

fn ends() -> (End, End) {
    let ((out, incoming), (back, returning)) = (mpsc::unbounded(), mpsc::unbounded());
    let near = End {
        incoming: returning,
        outgoing: out,
    };
    let far = End {
        incoming,
        outgoing: back,
    };
    (near, far)
}

/// A wire, and its other end.
pub fn wire(clock: &Clock) -> (Wire, End) {
    let (near, far) = ends();
    (near.into_wire(clock), far)
}

/// Whose packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Provider,
    Controller,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Cut,
    Lose,
    Double,
    Alter,
    Exchange,
}

/// What happens to the packet of this number.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub side: Side,
    pub at: usize,
    pub what: What,
}

impl Fault {
    pub const KINDS: [What; 5] = [What::Cut, What::Lose, What::Double, What::Alter, What::Exchange];
}

pub struct Line {
    pub provider: Wire,
    pub controller: Wire,
}

impl Line {
    /// `met` is set when the fault has happened; `cut` ends the line.
    pub fn new(fault: Option<Fault>, slow: (Clock, Duration), met: &Arc<AtomicBool>, cut: &CancellationToken) -> Self {
        let ((provider, from_provider), (controller, from_controller)) = (wire(&slow.0), wire(&slow.0));
        let cut = cut.child_token();
        let on = |side| fault.filter(|fault| fault.side == side);
        tokio::spawn(relay(
            from_provider.incoming,
            from_controller.outgoing,
            on(Side::Provider),
            slow.clone(),
            met.clone(),
            cut.clone(),
        ));
        tokio::spawn(relay(
            from_controller.incoming,
            from_provider.outgoing,
            on(Side::Controller),
            slow,
            met.clone(),
            cut,
        ));
        Self { provider, controller }
    }
}

async fn relay(
    mut from: mpsc::UnboundedReceiver<Packet>,
    mut to: mpsc::UnboundedSender<Packet>,
    fault: Option<Fault>,
    (clock, slow): (Clock, Duration),
    met: Arc<AtomicBool>,
    cut: CancellationToken,
) {
    let carry = async {
        let mut held = None;
        let mut at = 0;
        while let Some(Ok(packet)) = from.next().await {
            let what = fault.filter(|fault| fault.at == at).map(|fault| fault.what);
            at += 1;
            met.fetch_or(what.is_some(), Ordering::Relaxed);
            if packet.len() > 1_000 {
                clock.sleep(slow).await;
            }
            let passes = match what {
                None => vec![packet],
                Some(What::Cut) => return,
                Some(What::Lose) => Vec::new(),
                Some(What::Double) => vec![packet.clone(), packet],
                Some(What::Alter) => vec![altered(&packet)],
                Some(What::Exchange) => {
                    held = Some(packet);
                    continue;
                }
            };
            for packet in passes.into_iter().chain(held.take()) {
                if to.send(Ok(packet)).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = carry => {}
        () = cut.cancelled() => {}
    }
    // A line is cut in both directions.
    cut.cancel();
}

fn altered(packet: &Bytes) -> Bytes {
    let mut bytes = packet.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x20;
    }
    bytes.into()
}
