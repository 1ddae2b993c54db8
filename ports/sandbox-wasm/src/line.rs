//! One end of an instance's stream: frames over a Unix socket that waits only where it is told to.
//!
//! A message is one system call where it fits, and a read takes what is there: a warm call costs each side one of each.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::{Buf, BufMut, BytesMut};

/// Read at once unless a frame is known to be longer.
const READ_BYTES: usize = 4 << 10;
/// An empty buffer larger than this is given back: most instances rest.
const KEPT_BYTES_MAX: usize = 64 << 10;
const LENGTH_BYTES: usize = 4;

pub(crate) struct Line {
    stream: UnixStream,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Of a frame that comes in.
    bytes_max: usize,
}

/// Why nothing comes or goes any more.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The other end is gone.
    Gone,
    /// It said what is not in the protocol.
    Nonsense(&'static str),
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Something,
    Nothing,
}

/// Whether a read or write may wait for the other end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As long as the socket's own time-out allows.
    Wait,
    Now,
}

impl Line {
    pub(crate) fn new(stream: UnixStream, bytes_max: usize) -> Self {
        Self {
            stream,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            bytes_max,
        }
    }

    /// A connected pair: this process's line, whose reads wait for `patience` at most, and the other end.
    pub(crate) fn pair(bytes_max: usize, patience: Duration) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(patience))?;
        Ok((Self::new(ours, bytes_max), theirs.into()))
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }

    pub(crate) fn put<T: BorshSerialize>(&mut self, message: &T) {
        let at = self.outgoing.len();
        let mut writer = (&mut self.outgoing).writer();
        let written =
            io::Write::write_all(&mut writer, &[0; LENGTH_BYTES]).and_then(|()| message.serialize(&mut writer));
        written.expect("memory takes everything");
        let length = u32::try_from(self.outgoing.len() - at - LENGTH_BYTES).expect("far below 4 GiB: limits see to it");
        self.outgoing[at..at + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    }

    pub(crate) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Sends what can be sent; all of it where it may wait.
    pub(crate) fn flush(&mut self, mode: Mode) -> Result<(), Broken> {
        while !self.outgoing.is_empty() {
            match send(self.stream.as_raw_fd(), &self.outgoing, mode) {
                Ok(sent) => self.outgoing.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken::Gone),
            }
        }
        if self.outgoing.capacity() > KEPT_BYTES_MAX {
            self.outgoing = BytesMut::new();
        }
        Ok(())
    }

    /// Reads once.
    pub(crate) fn read(&mut self, mode: Mode) -> Result<Read, Broken> {
        let wanted = self.missing_bytes()?.max(READ_BYTES);
        self.incoming.reserve(wanted);
        loop {
            match receive(self.stream.as_raw_fd(), &mut self.incoming, mode) {
                Ok(0) => return Err(Broken::Gone),
                Ok(_) => return Ok(Read::Something),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Read::Nothing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted && mode == Mode::Now => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Read::Nothing),
                Err(_) => return Err(Broken::Gone),
            }
        }
    }

    /// The next message, once all of it is here.
    pub(crate) fn next<T: BorshDeserialize>(&mut self) -> Result<Option<T>, Broken> {
        let Some(length) = self.length()? else { return Ok(None) };
        if self.incoming.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.incoming.advance(LENGTH_BYTES);
        let frame = self.incoming.split_to(length);
        let message = T::try_from_slice(&frame).map_err(|_| Broken::Nonsense("a message that is none"));
        if self.incoming.is_empty() && frame.len() > KEPT_BYTES_MAX {
            self.incoming = BytesMut::new();
        }
        message.map(Some)
    }

    fn length(&self) -> Result<Option<usize>, Broken> {
        let Some(length) = self.incoming.first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > self.bytes_max {
            return Err(Broken::Nonsense("a message that is too long"));
        }
        Ok(Some(length))
    }

    /// Of the frame that has begun.
    fn missing_bytes(&self) -> Result<usize, Broken> {
        let length = self.length()?;
        Ok(length.map_or(0, |length| (LENGTH_BYTES + length).saturating_sub(self.incoming.len())))
    }
}

fn flags(mode: Mode) -> libc::c_int {
    match mode {
        Mode::Wait => 0,
        Mode::Now => libc::MSG_DONTWAIT,
    }
}

fn send(socket: RawFd, bytes: &[u8], mode: Mode) -> io::Result<usize> {
    // SAFETY: an open socket and a buffer of the length that is said.
    let sent = unsafe {
        libc::send(
            socket,
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_NOSIGNAL | flags(mode),
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Appends to `to` what there is, up to its spare capacity.
fn receive(socket: RawFd, to: &mut BytesMut, mode: Mode) -> io::Result<usize> {
    let spare = to.spare_capacity_mut();
    // SAFETY: an open socket, and room of the length that is said.
    let got = unsafe { libc::recv(socket, spare.as_mut_ptr().cast(), spare.len(), flags(mode)) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel wrote so many bytes at the start of the spare capacity.
    unsafe { to.set_len(to.len() + got) };
    Ok(got)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::words::Ask;

    fn pair(bytes_max: usize) -> (Line, Line) {
        let (one, other) = Line::pair(bytes_max, Duration::from_millis(1)).expect("a pair");
        (one, Line::new(UnixStream::from(other), bytes_max))
    }

    #[test]
    fn messages_come_whole_and_in_order() {
        let (mut one, mut other) = pair(1 << 20);
        for part in [&b"a"[..], &[7; 100_000], b"b"] {
            other.put(&Ask::Part(Bytes::copy_from_slice(part)));
        }
        let mut got = Vec::new();
        while got.len() < 3 {
            other.flush(Mode::Now).expect("there");
            one.read(Mode::Now).expect("there");
            while let Some(Ask::Part(part)) = one.next().expect("messages") {
                got.push(part.len());
            }
        }
        assert_eq!(got, [1, 100_000, 1]);
        assert_eq!(one.read(Mode::Wait).expect("nothing came"), Read::Nothing);
        drop(other);
        assert!(matches!(one.read(Mode::Wait), Err(Broken::Gone)));
    }

    #[test]
    fn what_is_too_long_or_no_message_is_refused() {
        let (mut one, mut other) = pair(8);
        other.put(&Ask::Part(Bytes::from_static(&[0; 9])));
        other.flush(Mode::Now).expect("there");
        one.read(Mode::Now).expect("there");
        assert!(matches!(one.next::<Ask>(), Err(Broken::Nonsense(_))));
        let (mut one, mut other) = pair(8);
        other.put(&[9_u8, 9]);
        other.flush(Mode::Now).expect("there");
        one.read(Mode::Now).expect("there");
        assert!(matches!(one.next::<Ask>(), Err(Broken::Nonsense(_))));
    }
}
