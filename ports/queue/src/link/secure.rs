//! Frames under Noise: each message is a run of Noise packets, so that it may be longer than one of them.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use futures::SinkExt as _;
use parking_lot::Mutex;
use snow::TransportState;

use super::{
    LinkFailure, MESSAGE_BYTES_MAX,
    wire::{Incoming, Outgoing, Wire},
};

/// A Noise packet holds 65,535 bytes, 16 of them the tag.
const PACKET: usize = 65_535;
const PLAIN: usize = PACKET - 16;

/// An encrypted session, before it is split into its two directions.
pub(super) struct Secure {
    wire: Wire,
    noise: Arc<Mutex<TransportState>>,
}

/// What comes in. Any failure ends the session: the cipher's counter has moved.
pub(super) struct Receiver {
    incoming: Incoming,
    noise: Arc<Mutex<TransportState>>,
}

pub(super) struct Sender {
    outgoing: Outgoing,
    noise: Arc<Mutex<TransportState>>,
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
        };
        let receiver = Receiver {
            incoming: wire.incoming,
            noise,
        };
        (sender, receiver)
    }
}

impl Sender {
    pub(super) async fn send<T: BorshSerialize>(&mut self, frame: &T) -> Result<(), LinkFailure> {
        let plain = borsh::to_vec(frame).expect("a vector accepts every byte");
        let sealed = seal(&mut self.noise.lock(), &plain)?;
        self.outgoing.send(sealed).await.map_err(LinkFailure::Broken)
    }
}

impl Receiver {
    /// Not cancel safe in the sense that a dropped read may lose a frame: read in one place only.
    pub(super) async fn receive<T: BorshDeserialize>(&mut self) -> Result<T, LinkFailure> {
        let message = super::wire::next(&mut self.incoming).await?;
        let plain = open(&mut self.noise.lock(), &message)?;
        borsh::from_slice(&plain).map_err(|_| LinkFailure::Protocol("a frame does not decode"))
    }
}

fn seal(noise: &mut TransportState, plain: &[u8]) -> Result<Bytes, LinkFailure> {
    if plain.len() > MESSAGE_BYTES_MAX - (MESSAGE_BYTES_MAX / PLAIN + 1) * 16 {
        return Err(LinkFailure::Protocol("a frame is too large to send"));
    }
    let packets = plain.len().div_ceil(PLAIN).max(1);
    let mut sealed = vec![0; plain.len() + packets * 16];
    let mut at = 0;
    for packet in 0..packets {
        let part = &plain[packet * PLAIN..plain.len().min((packet + 1) * PLAIN)];
        at += noise
            .write_message(part, &mut sealed[at..])
            .map_err(|_| LinkFailure::Protocol("the session's cipher is worn out"))?;
    }
    Ok(sealed.into())
}

fn open(noise: &mut TransportState, message: &[u8]) -> Result<Vec<u8>, LinkFailure> {
    let mut plain = vec![0; message.len()];
    let mut at = 0;
    for packet in message.chunks(PACKET) {
        at += noise
            .read_message(packet, &mut plain[at..])
            .map_err(|_| LinkFailure::Protocol("a frame was altered, repeated or lost"))?;
    }
    plain.truncate(at);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn messages_of_every_size_survive() {
        let (mut one, mut two) = pair();
        for size in [0, 1, PLAIN - 1, PLAIN, PLAIN + 1, 3 * PLAIN, 1 << 20] {
            let plain: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let sealed = seal(&mut one, &plain).expect("seals");
            assert_eq!(open(&mut two, &sealed).expect("opens"), plain);
        }
    }

    #[test]
    fn an_altered_a_repeated_and_a_reordered_message_are_refused() {
        let (mut one, mut two) = pair();
        let first = seal(&mut one, b"first").expect("seals");
        let second = seal(&mut one, b"second").expect("seals");
        assert!(open(&mut two, &second).is_err(), "out of order");
        let mut altered = first.to_vec();
        altered[2] ^= 1;
        assert!(open(&mut two, &altered).is_err(), "altered");
        open(&mut two, &first).expect("in order");
        assert!(open(&mut two, &first).is_err(), "repeated");
    }
}
