//! What comes from a stranger passes here until a key is proved: few bytes in all, in WebSocket frames that are small. The
//! WebSocket library sets as much room aside as a frame's header says, so the header is read here first.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::handshake::{HELLO_BYTES_MAX, KNOCK_BYTES_MAX};

/// A knock, and a proof with what seals it.
const FRAME_BYTES_MAX: u64 = HELLO_BYTES_MAX as u64 + 64;
/// Both, their headers, and some pings of a proxy on the way.
const BYTES_MAX: u64 = FRAME_BYTES_MAX + KNOCK_BYTES_MAX as u64 + (1 << 10);
/// Two bytes, a length of eight and a mask of four (RFC 6455, 5.2).
const HEADER_BYTES_MAX: usize = 14;

/// Opens a gate for good; a clone opens the same one.
#[derive(Clone, Default)]
pub(super) struct Opener(Arc<AtomicBool>);

impl Opener {
    pub(super) fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A connection that ends with an error when a stranger at its other end says too much.
pub(super) struct Gate<S> {
    inner: S,
    opener: Opener,
    frames: Frames,
}

impl<S> Gate<S> {
    pub(super) fn new(inner: S) -> (Self, Opener) {
        let opener = Opener::default();
        let gate = Self {
            inner,
            opener: opener.clone(),
            frames: Frames::default(),
        };
        (gate, opener)
    }
}

/// Where in a WebSocket's frames its bytes are.
#[derive(Default)]
struct Frames {
    header: Vec<u8>,
    /// Of the frame whose header was read.
    payload_left: u64,
    seen: u64,
}

impl Frames {
    /// Whether a stranger may say this next.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        self.seen += bytes.len() as u64;
        if self.seen > BYTES_MAX {
            return false;
        }
        while !bytes.is_empty() {
            let skipped = bytes
                .len()
                .min(usize::try_from(self.payload_left).unwrap_or(usize::MAX));
            self.payload_left -= skipped as u64;
            bytes = &bytes[skipped..];
            if let Some((next, rest)) = bytes.split_first() {
                bytes = rest;
                self.header.push(*next);
                debug_assert!(self.header.len() <= HEADER_BYTES_MAX);
                if let Some(length) = length(&self.header) {
                    if length > FRAME_BYTES_MAX {
                        return false;
                    }
                    self.header.clear();
                    self.payload_left = length;
                }
            }
        }
        true
    }
}

/// The length of a frame's payload, once its header is whole.
fn length(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let wide = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if header.len() < 2 + wide + mask {
        return None;
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte));
    Some(match wide {
        0 => u64::from(second & 0x7f),
        wide => number(&header[2..2 + wide]),
    })
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        if this.opener.is_open() || this.frames.take(&buffer.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        buffer.set_filled(before);
        let error = io::Error::new(io::ErrorKind::InvalidData, "too much was said before a key was proved");
        Poll::Ready(Err(error))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked binary frame's header.
    fn header(length: u64) -> Vec<u8> {
        let mut header = vec![0x82];
        match u16::try_from(length) {
            Ok(short) if short < 126 => header.push(0x80 | short as u8),
            Ok(short) => {
                header.push(0x80 | 126);
                header.extend(short.to_be_bytes());
            }
            Err(_) => {
                header.push(0x80 | 127);
                header.extend(length.to_be_bytes());
            }
        }
        header.extend([1, 2, 3, 4]);
        header
    }

    #[test]
    fn frames_of_a_handshake_pass_however_they_are_cut() {
        let mut said = header(100);
        said.extend([7; 100]);
        said.extend(header(0));
        said.extend(header(HELLO_BYTES_MAX as u64 + 17));
        said.extend([7; HELLO_BYTES_MAX + 17]);
        for cut in [1, 2, 3, 100, 4_096, said.len()] {
            let mut frames = Frames::default();
            assert!(said.chunks(cut).all(|chunk| frames.take(chunk)), "cut into {cut}");
            assert_eq!((frames.payload_left, frames.header.len()), (0, 0));
        }
    }

    #[test]
    fn a_large_frame_is_refused_by_its_header_and_many_small_ones_by_their_sum() {
        for length in [FRAME_BYTES_MAX + 1, 65_535, 1 << 20, u64::MAX] {
            assert!(!Frames::default().take(&header(length)), "{length}");
        }
        let mut frames = Frames::default();
        let mut small = header(50);
        small.extend([7; 50]);
        let passed = (0..1_000).take_while(|_| frames.take(&small)).count();
        assert_eq!(passed as u64, BYTES_MAX / small.len() as u64);
    }
}
