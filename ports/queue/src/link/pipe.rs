//! The bytes of a session of streams under Noise: what the multiplexer reads from and writes to.
//!
//! Plain bytes are gathered into packets: the multiplexer writes a header of 12 bytes and a body of 16 KiB at a time and
//! flushes after each, but a packet goes out only when [`Line::poll_send`] is called, once for each turn of the session's
//! task, or when it is full.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use futures::{AsyncRead, AsyncWrite, ready, task::noop_waker_ref};
use parking_lot::Mutex;
use snow::TransportState;

use super::{
    Clock, LinkFailure, PACKET_BYTES_MAX, READ_BYTES,
    secure::{Receiver, Sender},
    wire::{Incoming, Outgoing, checked},
};

/// Noise's tag.
const TAG_BYTES: usize = 16;
const PLAIN_BYTES_MAX: usize = PACKET_BYTES_MAX - TAG_BYTES;

/// Both directions of a session, shared by the multiplexer and the task that drives it.
pub(super) struct Line {
    incoming: Incoming,
    outgoing: Outgoing,
    noise: Arc<Mutex<TransportState>>,
    heard: Arc<Mutex<Instant>>,
    pub(super) clock: Clock,
    /// The packet that is being read, and how far.
    packet: Vec<u8>,
    read: usize,
    /// Plain bytes of the next packet.
    gathered: Vec<u8>,
    /// A packet was handed to the carrier and has not left it.
    is_leaving: bool,
    /// Since when the other end has taken nothing.
    stuck: Option<Instant>,
    /// The carrier has failed, and is not asked again.
    is_broken: bool,
    /// Why the session ends; the multiplexer sees an IO error only.
    failure: Option<LinkFailure>,
    written: Written,
}

/// The multiplexer's end of a [`Line`].
pub(super) struct Pipe(pub(super) Arc<Mutex<Line>>);

impl Line {
    pub(super) fn new(sender: Sender, receiver: Receiver) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            incoming: receiver.incoming,
            outgoing: sender.outgoing,
            noise: receiver.noise,
            heard: receiver.heard,
            clock: receiver.clock,
            packet: Vec::new(),
            read: 0,
            gathered: Vec::new(),
            is_leaving: false,
            stuck: None,
            is_broken: false,
            failure: None,
            written: Written::default(),
        }))
    }

    /// Why the session ended, where this side of the multiplexer knows.
    pub(super) fn take_failure(&mut self) -> Option<LinkFailure> {
        self.failure.take()
    }

    /// When the last genuine packet came, and since when none has been taken from here.
    pub(super) fn signs_of_life(&self) -> (Instant, Option<Instant>) {
        (*self.heard.lock(), self.stuck)
    }

    pub(super) fn has_gathered(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Whether the multiplexer has told the other end to go away: it does so for what breaks its protocol, and then goes on.
    pub(super) fn has_sent_away(&self) -> bool {
        self.written.go_away
    }

    /// Sends what was gathered, one packet at a time: no more than one waits in the carrier, so that what comes next
    /// never stands behind much. Ready when all has left.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LinkFailure>> {
        if self.is_broken {
            return Poll::Ready(Err(LinkFailure::Broken("the other end closed it".into())));
        }
        let sent = self.send(context);
        match &sent {
            Poll::Pending => _ = self.stuck.get_or_insert(self.clock.now()),
            Poll::Ready(Ok(())) => self.stuck = None,
            Poll::Ready(Err(_)) => self.is_broken = true,
        }
        sent
    }

    fn send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LinkFailure>> {
        loop {
            if self.is_leaving {
                ready!(self.outgoing.as_mut().poll_flush(context)).map_err(LinkFailure::Broken)?;
                self.is_leaving = false;
                self.stuck = None;
            }
            if self.gathered.is_empty() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.outgoing.as_mut().poll_ready(context)).map_err(LinkFailure::Broken)?;
            let packet = self.seal()?;
            self.outgoing.as_mut().start_send(packet).map_err(LinkFailure::Broken)?;
            self.is_leaving = true;
        }
    }

    fn seal(&mut self) -> Result<Bytes, LinkFailure> {
        let mut sealed = vec![0; self.gathered.len() + TAG_BYTES];
        self.noise
            .lock()
            .write_message(&self.gathered, &mut sealed)
            .map_err(|_| LinkFailure::Protocol("the session's cipher is worn out"))?;
        self.gathered.clear();
        // Idle links keep little.
        if self.gathered.capacity() > READ_BYTES {
            self.gathered = Vec::new();
        }
        Ok(sealed.into())
    }

    /// Waits for a packet and opens it. Empty ones are a sign of life and nothing else.
    fn poll_packet(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LinkFailure>> {
        let came = ready!(self.incoming.as_mut().poll_next(context));
        let sealed = checked(came, PACKET_BYTES_MAX)?;
        self.packet.clear();
        self.packet.resize(sealed.len(), 0);
        self.read = 0;
        let opened = self.noise.lock().read_message(&sealed, &mut self.packet);
        let length = opened.map_err(|_| LinkFailure::Protocol("a packet was altered, repeated or lost"))?;
        self.packet.truncate(length);
        *self.heard.lock() = self.clock.now();
        Poll::Ready(Ok(()))
    }

    fn fail(&mut self, failure: LinkFailure) -> io::Error {
        self.failure.get_or_insert(failure);
        io::ErrorKind::BrokenPipe.into()
    }

    fn copy_out(&mut self, into: &mut [u8]) -> usize {
        let rest = &self.packet[self.read..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        if self.read == self.packet.len() && self.packet.capacity() > READ_BYTES {
            (self.packet, self.read) = (Vec::new(), 0);
        }
        count
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut line = self.0.lock();
        while line.read == line.packet.len() {
            if let Err(failure) = ready!(line.poll_packet(context)) {
                return Poll::Ready(Err(line.fail(failure)));
            }
        }
        Poll::Ready(Ok(line.copy_out(into)))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut line = self.0.lock();
        if line.gathered.len() == PLAIN_BYTES_MAX
            && let Err(failure) = ready!(line.poll_send(context))
        {
            return Poll::Ready(Err(line.fail(failure)));
        }
        let count = bytes.len().min(PLAIN_BYTES_MAX - line.gathered.len());
        line.gathered.extend_from_slice(&bytes[..count]);
        line.written.note(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    /// Says yes at once: the session's task sends what was gathered when the multiplexer has nothing more to say.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The carrier is closed when it is dropped; what was gathered is sent if it can be at once.
        let mut context = Context::from_waker(noop_waker_ref());
        let _ = self.0.lock().poll_send(&mut context);
        Poll::Ready(Ok(()))
    }
}

/// Follows the frames that the multiplexer writes, as yamux has them: version, type, flags (16 bits), stream and length
/// (32 bits each, big endian); a frame of data is followed by so many bytes.
#[derive(Default)]
struct Written {
    header: [u8; 12],
    filled: usize,
    body: usize,
    go_away: bool,
}

impl Written {
    fn note(&mut self, mut bytes: &[u8]) {
        const DATA: u8 = 0;
        const GO_AWAY: u8 = 3;
        while !bytes.is_empty() {
            let skipped = self.body.min(bytes.len());
            self.body -= skipped;
            bytes = &bytes[skipped..];
            let wanted = (self.header.len() - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + wanted].copy_from_slice(&bytes[..wanted]);
            self.filled += wanted;
            bytes = &bytes[wanted..];
            if self.filled == self.header.len() {
                self.filled = 0;
                let [_, kind, _, _, _, _, _, _, length @ ..] = self.header;
                match kind {
                    DATA => self.body = u32::from_be_bytes(length) as usize,
                    GO_AWAY => self.go_away = true,
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u8, length: u32) -> Vec<u8> {
        [&[0, kind, 0, 0, 0, 0, 0, 1][..], &length.to_be_bytes()].concat()
    }

    #[test]
    fn a_go_away_is_seen_between_frames_and_not_in_the_bytes_of_one() {
        let data = [header(0, 12), header(3, 0)].concat();
        let away = [header(1, 100), header(2, 7), header(3, 1)].concat();
        for at_once in [1, 5, 12, 100] {
            let mut written = Written::default();
            data.chunks(at_once).for_each(|part| written.note(part));
            assert!(!written.go_away);
            away.chunks(at_once).for_each(|part| written.note(part));
            assert!(written.go_away);
        }
    }
}
