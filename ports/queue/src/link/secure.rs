//! Frames under Noise: the end of every handshake, and all of a session of version 2. A frame travels as one packet after the
//! other, so that a long one over a slow line is not taken for silence, and nobody has to keep more than a packet before it
//! is known to be genuine.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use futures::SinkExt as _;
use parking_lot::Mutex;
use snow::TransportState;
use tokio::sync::Semaphore;

use super::{
    Clock, DEAD_AFTER, LinkFailure, PACKET_BYTES_MAX,
    wire::{Incoming, Outgoing, Wire},
};

/// One frame of version 2: an event or an output at its largest, and some.
pub(super) const FRAME_BYTES_MAX: usize = 32 << 20;

/// Frames of more than one packet that all sessions of version 2 together may be in the middle of: 256 MiB at the most. A session
/// whose next one comes on top is not read from until another's is complete.
const LARGE_FRAMES_MAX: usize = 8;
static LARGE_FRAMES: Semaphore = Semaphore::const_new(LARGE_FRAMES_MAX);
/// For all of such a frame, at the most: whoever trickles one keeps others from theirs.
const LARGE_FRAME_WITHIN: Duration = Duration::from_secs(120);

/// Noise's tag, and a byte that says whether the frame goes on in the next packet.
const OVERHEAD: usize = 16 + 1;
const PLAIN: usize = PACKET_BYTES_MAX - OVERHEAD;

/// An encrypted session, before it is split into its two directions.
pub(super) struct Secure {
    wire: Wire,
    noise: Arc<Mutex<TransportState>>,
}

/// What comes in. Any failure ends the session: the cipher's counter has moved.
pub(super) struct Receiver {
    pub(super) incoming: Incoming,
    pub(super) noise: Arc<Mutex<TransportState>>,
    pub(super) heard: Arc<Mutex<Instant>>,
    pub(super) clock: Clock,
}

pub(super) struct Sender {
    pub(super) outgoing: Outgoing,
    noise: Arc<Mutex<TransportState>>,
    clock: Clock,
}

impl Secure {
    pub(super) fn new(wire: Wire, noise: TransportState) -> Self {
        Self {
            wire,
            noise: Arc::new(Mutex::new(noise)),
        }
    }

    pub(super) fn split(self) -> (Sender, Receiver) {
        let Self { wire, noise } = self;
        let sender = Sender {
            outgoing: wire.outgoing,
            noise: noise.clone(),
            clock: wire.clock.clone(),
        };
        let receiver = Receiver {
            incoming: wire.incoming,
            noise,
            heard: Arc::new(Mutex::new(wire.clock.now())),
            clock: wire.clock,
        };
        (sender, receiver)
    }
}

impl Sender {
    /// `Silent` when the other end takes no packet for [`DEAD_AFTER`].
    pub(super) async fn send<T: BorshSerialize>(&mut self, frame: &T) -> Result<(), LinkFailure> {
        let frame = borsh::to_vec(frame).expect("a vector accepts every byte");
        if frame.len() > FRAME_BYTES_MAX {
            return Err(LinkFailure::Protocol("a frame is too large to send"));
        }
        let mut rest = &frame[..];
        loop {
            let (part, after) = rest.split_at(rest.len().min(PLAIN));
            let packet = seal(&mut self.noise.lock(), part, !after.is_empty())?;
            let sent = self.clock.timeout(DEAD_AFTER, self.outgoing.send(packet)).await;
            sent.ok_or(LinkFailure::Silent)?.map_err(LinkFailure::Broken)?;
            if after.is_empty() {
                return Ok(());
            }
            rest = after;
        }
    }
}

impl Receiver {
    /// When the last genuine packet came.
    pub(super) fn heard(&self) -> Arc<Mutex<Instant>> {
        self.heard.clone()
    }

    /// The next frame; `Silent` when no packet comes for [`DEAD_AFTER`], or a large frame takes longer than
    /// [`LARGE_FRAME_WITHIN`]. Not cancel safe: a dropped read may lose a frame.
    pub(super) async fn receive<T: BorshDeserialize>(&mut self) -> Result<T, LinkFailure> {
        let mut frame = Vec::new();
        let goes_on = self.part(PACKET_BYTES_MAX, &mut frame).await?;
        let _place = match goes_on {
            true => Some(LARGE_FRAMES.acquire().await.expect("it is never closed")),
            false => None,
        };
        if goes_on {
            let clock = self.clock.clone();
            let rest = clock.timeout(LARGE_FRAME_WITHIN, self.rest(&mut frame)).await;
            rest.ok_or(LinkFailure::Silent)??;
        }
        borsh::from_slice(&frame).map_err(|_| LinkFailure::Protocol("a frame does not decode"))
    }

    /// What is missing of a frame that goes on.
    async fn rest(&mut self, frame: &mut Vec<u8>) -> Result<(), LinkFailure> {
        while self.part(PACKET_BYTES_MAX, frame).await? {
            if frame.len() > FRAME_BYTES_MAX {
                return Err(LinkFailure::Protocol("a frame is too large"));
            }
        }
        Ok(())
    }

    /// The bytes of a frame that fits into one packet of at most this size.
    pub(super) async fn receive_small(&mut self, bytes_max: usize) -> Result<Vec<u8>, LinkFailure> {
        let mut frame = Vec::new();
        match self.part(bytes_max, &mut frame).await? {
            true => Err(LinkFailure::Protocol("a frame of the handshake is too large")),
            false => Ok(frame),
        }
    }

    /// Adds the next packet's part to the frame; whether the frame goes on after it.
    async fn part(&mut self, bytes_max: usize, frame: &mut Vec<u8>) -> Result<bool, LinkFailure> {
        let packet = super::wire::next(&mut self.incoming, bytes_max);
        let packet = self.clock.timeout(DEAD_AFTER, packet).await;
        let packet = packet.ok_or(LinkFailure::Silent)??;
        let goes_on = open(&mut self.noise.lock(), &packet, frame)?;
        *self.heard.lock() = self.clock.now();
        Ok(goes_on)
    }
}

fn seal(noise: &mut TransportState, part: &[u8], goes_on: bool) -> Result<Bytes, LinkFailure> {
    let mut plain = Vec::with_capacity(part.len() + 1);
    plain.push(u8::from(goes_on));
    plain.extend_from_slice(part);
    let mut sealed = vec![0; part.len() + OVERHEAD];
    noise
        .write_message(&plain, &mut sealed)
        .map_err(|_| LinkFailure::Protocol("the session's cipher is worn out"))?;
    Ok(sealed.into())
}

/// Adds the packet's part to the frame; whether the frame goes on after it.
fn open(noise: &mut TransportState, packet: &[u8], frame: &mut Vec<u8>) -> Result<bool, LinkFailure> {
    let mut plain = vec![0; packet.len()];
    let length = noise
        .read_message(packet, &mut plain)
        .map_err(|_| LinkFailure::Protocol("a frame was altered, repeated or lost"))?;
    match plain[..length].split_first() {
        Some((0, part)) => {
            frame.extend_from_slice(part);
            Ok(false)
        }
        // An empty part that goes on would keep a reader busy for nothing.
        Some((1, part)) if !part.is_empty() => {
            frame.extend_from_slice(part);
            Ok(true)
        }
        _ => Err(LinkFailure::Protocol("a packet of no known kind")),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::link::hostile::run;

    fn pair() -> (TransportState, TransportState) {
        let pattern: snow::params::NoiseParams = super::super::handshake::PATTERN.parse().expect("a pattern");
        let mut one = snow::Builder::new(pattern.clone()).build_initiator().expect("builds");
        let mut two = snow::Builder::new(pattern).build_responder().expect("builds");
        let (mut buffer, mut payload) = ([0; 256], [0; 256]);
        let count = one.write_message(&[], &mut buffer).expect("writes");
        two.read_message(&buffer[..count], &mut payload).expect("reads");
        let count = two.write_message(&[], &mut buffer).expect("writes");
        one.read_message(&buffer[..count], &mut payload).expect("reads");
        (
            one.into_transport_mode().expect("done"),
            two.into_transport_mode().expect("done"),
        )
    }

    #[test]
    fn packets_of_every_size_survive() {
        let (mut one, mut two) = pair();
        for size in [0, 1, PLAIN - 1, PLAIN] {
            let part: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let sealed = seal(&mut one, &part, false).expect("seals");
            let mut frame = Vec::new();
            assert!(!open(&mut two, &sealed, &mut frame).expect("opens"));
            assert_eq!(frame, part);
        }
    }

    /// One end that is read from, and packets of another on their way to it.
    struct Line {
        receiver: Receiver,
        packets: futures::channel::mpsc::UnboundedSender<Result<Bytes, String>>,
        other: TransportState,
    }

    impl Line {
        fn new(clock: &Clock) -> Self {
            let (here, other) = pair();
            let (packets, incoming) = futures::channel::mpsc::unbounded();
            let outgoing = futures::sink::drain().sink_map_err(|never: Infallible| -> String { match never {} });
            let wire = Wire::new(incoming, outgoing).with_clock(clock.clone());
            let (_, receiver) = Secure::new(wire, here).split();
            Self {
                receiver,
                packets,
                other,
            }
        }

        fn send(&mut self, part: &[u8], goes_on: bool) {
            let packet = seal(&mut self.other, part, goes_on).expect("seals");
            self.packets.unbounded_send(Ok(packet)).expect("it is read from");
        }
    }

    #[test]
    fn few_sessions_are_in_the_middle_of_a_large_frame() {
        run(async |clock| {
            let mut lines: Vec<Line> = (0..LARGE_FRAMES_MAX).map(|_| Line::new(&clock)).collect();
            let (mut next, mut small) = (Line::new(&clock), Line::new(&clock));
            let whole = borsh::to_vec(&vec![7_u8; 100]).expect("writes");
            for line in &mut lines {
                line.send(&whole[..50], true);
            }
            next.send(&whole[..50], true);
            next.send(&whole[50..], false);
            small.send(&whole, false);
            let reads = lines
                .iter_mut()
                .map(|line| Box::pin(line.receiver.receive::<Vec<u8>>()));
            let mut reads: Vec<_> = reads.collect();
            for read in &mut reads {
                assert!(futures::poll!(read).is_pending());
            }
            let mut last = Box::pin(next.receiver.receive::<Vec<u8>>());
            assert!(futures::poll!(&mut last).is_pending(), "all places are taken");
            let small = small.receiver.receive::<Vec<u8>>().await;
            assert_eq!(small.expect("needs no place"), vec![7; 100]);
            let stalled = reads.pop().expect("one of them").await;
            assert!(matches!(stalled, Err(LinkFailure::Silent)));
            assert_eq!(last.await.expect("a place is free"), vec![7; 100]);
        });
    }

    #[test]
    fn a_large_frame_that_trickles_is_given_up() {
        run(async |clock| {
            let mut line = Line::new(&clock);
            let trickled = (0..100).map(|_| seal(&mut line.other, b"x", true).expect("seals"));
            let trickled: Vec<Bytes> = trickled.collect();
            let began = clock.now();
            let read = async {
                let read = line.receiver.receive::<Vec<u8>>().await;
                (read, clock.now())
            };
            let trickle = async {
                for packet in trickled {
                    // It is not read from any more.
                    let _ = line.packets.unbounded_send(Ok(packet));
                    clock.sleep(DEAD_AFTER / 2).await;
                }
            };
            let ((read, ended), ()) = tokio::join!(read, trickle);
            assert!(matches!(read, Err(LinkFailure::Silent)));
            assert!(ended.duration_since(began) <= LARGE_FRAME_WITHIN + DEAD_AFTER);
        });
    }

    #[test]
    fn an_empty_part_never_goes_on() {
        let (mut one, mut two) = pair();
        let sealed = seal(&mut one, b"", true).expect("seals");
        assert!(open(&mut two, &sealed, &mut Vec::new()).is_err());
    }

    #[test]
    fn an_altered_a_repeated_and_a_reordered_message_are_refused() {
        let (mut one, mut two) = pair();
        let first = seal(&mut one, b"first", false).expect("seals");
        let mut frame = Vec::new();
        let second = seal(&mut one, b"second", false).expect("seals");
        assert!(open(&mut two, &second, &mut frame).is_err(), "out of order");
        let mut altered = first.to_vec();
        altered[2] ^= 1;
        assert!(open(&mut two, &altered, &mut frame).is_err(), "altered");
        open(&mut two, &first, &mut frame).expect("in order");
        assert!(open(&mut two, &first, &mut frame).is_err(), "repeated");
    }
}
