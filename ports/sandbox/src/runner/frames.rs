//! Frames as bytes, and the order in which a runner may send them. Nothing here waits.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{CHUNK_BYTES_MAX, HEADER_BYTES_MAX, HEADERS_MAX};

/// Length of a question's secret.
pub(super) const SECRET_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;
/// Before the payload: the secret and the kind.
const PREFIX_BYTES: usize = SECRET_BYTES + 1;
/// What an answer may be longer than the output limit: a raised error with its stack.
const ANSWER_SLACK_BYTES: usize = 256 << 10;
/// Names and values as JSON: each byte may be an escape of six, and each header has its punctuation.
const HEAD_FRAME_BYTES_MAX: usize = 6 * HEADER_BYTES_MAX + 8 * HEADERS_MAX + 64;

/// The question's mark and the wall against answers to any other question.
pub(super) type Secret = [u8; SECRET_BYTES];

/// A frame of the runner, in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// JSON.
    Head(Bytes),
    Chunk(BytesMut),
    WantsBody,
    LeavesBody,
    /// Wants to know when nobody reads the answer any more.
    Watches,
    WatchesNoMore,
    /// The call left something running: the instance is not to be asked again.
    Retires,
    /// The last frame of a question, by its kind.
    Answer(u8, Bytes),
}

/// Why a frame is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Garbage(&'static str),
    /// An answer beyond its limit.
    TooLarge,
}

/// What a runner may send at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Greeting,
    Loading,
    /// A call before its head.
    Calling,
    /// A call after its head.
    Streaming,
}

const BY_HAND: Fault = Fault::Garbage("the function wrote to its output channel by hand");
const AFTER: Fault = Fault::Garbage("the function wrote to its output channel after the answer");

impl Expected {
    /// The longest payload of a frame of this kind, if it may come now.
    fn payload_max(self, kind: u8, answer_bytes_max: usize) -> Result<usize, Fault> {
        let answer = answer_bytes_max + ANSWER_SLACK_BYTES;
        let in_call = matches!(self, Self::Calling | Self::Streaming);
        match kind {
            b'H' if self == Self::Greeting => Ok(answer),
            b'D' | b'E' if self == Self::Loading => Ok(answer),
            b'h' if self == Self::Calling => Ok(HEAD_FRAME_BYTES_MAX),
            b'h' if self == Self::Streaming => Err(Fault::Garbage("the function sent a second head")),
            b'c' if self == Self::Streaming => Ok(CHUNK_BYTES_MAX),
            b'c' if self == Self::Calling => Err(Fault::Garbage("the function sent a chunk before a head")),
            b'B' | b'Q' | b'W' | b'V' | b'X' if in_call => Ok(0),
            b'S' if self == Self::Streaming => Ok(0),
            b'O' | b'T' if self == Self::Calling => Ok(answer),
            b'R' | b'I' | b'M' if in_call => Ok(answer),
            _ => Err(BY_HAND),
        }
    }
}

/// What a runner has sent for one question and nobody has taken yet.
pub(super) struct Incoming {
    secret: Secret,
    expected: Expected,
    answer_bytes_max: usize,
    bytes: BytesMut,
}

impl Incoming {
    pub(super) fn new(secret: Secret, expected: Expected, answer_bytes_max: usize) -> Self {
        Self {
            secret,
            expected,
            answer_bytes_max,
            bytes: BytesMut::new(),
        }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    pub(super) fn is_streaming(&self) -> bool {
        self.expected == Expected::Streaming
    }

    /// The next frame, once all of it is here.
    pub(super) fn next(&mut self) -> Result<Option<Said>, Fault> {
        let Some((kind, payload)) = self.whole()? else {
            return Ok(None);
        };
        let mut frame = self.bytes.split_to(LENGTH_BYTES + PREFIX_BYTES + payload);
        frame.advance(LENGTH_BYTES + PREFIX_BYTES);
        Ok(Some(match kind {
            b'h' => {
                self.expected = Expected::Streaming;
                Said::Head(frame.freeze())
            }
            b'c' if payload == 0 => return Err(Fault::Garbage("the function sent an empty chunk")),
            b'c' => Said::Chunk(frame),
            b'B' => Said::WantsBody,
            b'Q' => Said::LeavesBody,
            b'W' => Said::Watches,
            b'V' => Said::WatchesNoMore,
            b'X' => Said::Retires,
            _ if !self.bytes.is_empty() => return Err(AFTER),
            kind => Said::Answer(kind, frame.freeze()),
        }))
    }

    /// Adds the chunks that are here already to one that came before, up to the largest size.
    pub(super) fn add_chunks(&mut self, chunk: &mut BytesMut) -> Result<(), Fault> {
        while let Some((b'c', payload)) = self.whole()? {
            if chunk.len() + payload > CHUNK_BYTES_MAX {
                return Ok(());
            }
            match self.next()? {
                Some(Said::Chunk(more)) => chunk.extend_from_slice(&more),
                Some(_) | None => return Err(BY_HAND),
            }
        }
        Ok(())
    }

    /// Kind and payload length of the first frame if all of it is here. Refuses it as soon as its first bytes show why.
    fn whole(&self) -> Result<Option<(u8, usize)>, Fault> {
        let Some(length) = self.bytes.first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        let said = &self.bytes[LENGTH_BYTES..self.bytes.len().min(LENGTH_BYTES + SECRET_BYTES)];
        if !self.secret.starts_with(said) || length < PREFIX_BYTES {
            return Err(BY_HAND);
        }
        let payload = length - PREFIX_BYTES;
        let Some(kind) = self.bytes.get(LENGTH_BYTES + SECRET_BYTES) else {
            return Ok(None);
        };
        if payload > self.expected.payload_max(*kind, self.answer_bytes_max)? {
            return Err(match kind {
                b'O' | b'R' | b'I' | b'E' => Fault::TooLarge,
                _ => Fault::Garbage("the function sent a frame that is too long"),
            });
        }
        Ok((self.bytes.len() >= LENGTH_BYTES + length).then_some((*kind, payload)))
    }
}

/// Appends a frame. `None` where it is longer than its length can say.
pub(super) fn frame(to: &mut BytesMut, secret: &Secret, kind: u8, payload: &[&[u8]]) -> Option<()> {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    let length = PREFIX_BYTES + length;
    let said = u32::try_from(length).ok()?;
    to.reserve(LENGTH_BYTES + length);
    to.put_u32_le(said);
    to.put_slice(secret);
    to.put_u8(kind);
    payload.iter().for_each(|part| to.put_slice(part));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: Secret = [7; SECRET_BYTES];

    fn framed(secret: Secret, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        frame(&mut bytes, &secret, kind, &[payload]).unwrap();
        bytes.to_vec()
    }

    /// All frames of these bytes, or the fault.
    fn read(expected: Expected, bytes: &[u8]) -> Result<Vec<Said>, Fault> {
        let mut incoming = Incoming::new(SECRET, expected, 10);
        incoming.put(bytes);
        std::iter::from_fn(|| incoming.next().transpose()).collect()
    }

    fn frames(kinds: &[(u8, &[u8])]) -> Vec<u8> {
        kinds
            .iter()
            .flat_map(|(kind, payload)| framed(SECRET, *kind, payload))
            .collect()
    }

    fn answer(kind: u8, payload: &'static [u8]) -> Said {
        Said::Answer(kind, Bytes::from_static(payload))
    }

    #[test]
    fn an_answer_may_come_in_any_pieces() {
        let whole = framed(SECRET, b'O', b"{}");
        let mut incoming = Incoming::new(SECRET, Expected::Calling, 10);
        let (last, rest) = whole.split_last().unwrap();
        for byte in rest {
            incoming.put(&[*byte]);
            assert_eq!(incoming.next(), Ok(None));
        }
        incoming.put(&[*last]);
        assert_eq!(incoming.next(), Ok(Some(answer(b'O', b"{}"))));
    }

    #[test]
    fn an_answer_to_another_question_is_garbage() {
        assert_eq!(read(Expected::Calling, &framed([8; 16], b'O', b"{}")), Err(BY_HAND));
        assert_eq!(
            read(Expected::Calling, &[9, 0, 0, 0, 7, 7, 8]),
            Err(BY_HAND),
            "told by its first bytes"
        );
        assert_eq!(
            read(Expected::Calling, &[0, 0, 0, 0]),
            Err(BY_HAND),
            "shorter than any frame"
        );
    }

    #[test]
    fn what_follows_an_answer_spoils_it() {
        for first in [&[(b'O', &b"{}"[..])][..], &[(b'h', b"{}"), (b'S', b"")]] {
            let mut bytes = frames(first);
            assert!(read(Expected::Calling, &bytes).is_ok());
            bytes.push(0);
            assert_eq!(read(Expected::Calling, &bytes), Err(AFTER));
        }
        let chunk = frames(&[(b'h', b"{}"), (b'S', b""), (b'c', b"late")]);
        assert_eq!(read(Expected::Calling, &chunk), Err(AFTER));
    }

    #[test]
    fn a_stream_is_a_head_then_chunks_then_its_end() {
        let said = read(
            Expected::Calling,
            &frames(&[(b'h', b"{}"), (b'c', b"a"), (b'c', b"b"), (b'S', b"")]),
        );
        assert_eq!(
            said,
            Ok(vec![
                Said::Head(Bytes::from_static(b"{}")),
                Said::Chunk(BytesMut::from("a")),
                Said::Chunk(BytesMut::from("b")),
                answer(b'S', b""),
            ])
        );
        for (what, kinds) in [
            ("a chunk without a head", &[(b'c', &b"a"[..])][..]),
            ("an end without a head", &[(b'S', b"")]),
            ("two heads", &[(b'h', b"{}"), (b'h', b"{}")]),
            ("an empty chunk", &[(b'h', b"{}"), (b'c', b"")]),
            ("an output after a head", &[(b'h', b"{}"), (b'O', b"1")]),
            ("too large after a head", &[(b'h', b"{}"), (b'T', b"")]),
            ("an end that says something", &[(b'h', b"{}"), (b'S', b"x")]),
            ("a pull that says something", &[(b'B', b"x")]),
            ("an unknown kind", &[(b'z', b"")]),
            ("an answer to a load", &[(b'D', b"")]),
        ] {
            assert!(
                matches!(read(Expected::Calling, &frames(kinds)), Err(Fault::Garbage(_))),
                "{what}"
            );
        }
        for kind in [b'h', b'c', b'B', b'Q', b'W', b'V', b'X', b'S', b'O', b'R'] {
            assert!(
                read(Expected::Loading, &framed(SECRET, kind, b"")).is_err(),
                "{kind} while loading"
            );
        }
    }

    #[test]
    fn lengths_are_refused_before_the_bytes_come() {
        let begins = |kind: u8, payload: usize| {
            let length = u32::try_from(PREFIX_BYTES + payload).unwrap();
            [&length.to_le_bytes()[..], &SECRET, &[kind]].concat()
        };
        let head = frames(&[(b'h', b"{}")]);
        let chunk = [&head[..], &begins(b'c', CHUNK_BYTES_MAX)].concat();
        assert_eq!(
            read(Expected::Calling, &chunk).map(|said| said.len()),
            Ok(1),
            "the largest"
        );
        let chunk = [&head[..], &begins(b'c', CHUNK_BYTES_MAX + 1)].concat();
        assert!(matches!(read(Expected::Calling, &chunk), Err(Fault::Garbage(_))));
        assert!(read(Expected::Calling, &begins(b'h', HEAD_FRAME_BYTES_MAX + 1)).is_err());
        let endless = u32::MAX as usize - PREFIX_BYTES;
        assert_eq!(read(Expected::Calling, &begins(b'O', endless)), Err(Fault::TooLarge));
    }

    #[test]
    fn chunks_that_came_together_go_on_together() {
        let half = vec![1; CHUNK_BYTES_MAX / 2];
        let mut incoming = Incoming::new(SECRET, Expected::Streaming, 10);
        incoming.put(&frames(&[(b'c', b"a"), (b'c', &half), (b'c', &half), (b'S', b"")]));
        let Ok(Some(Said::Chunk(mut chunk))) = incoming.next() else {
            panic!("a chunk");
        };
        assert_eq!(incoming.add_chunks(&mut chunk), Ok(()));
        assert_eq!(chunk.len(), 1 + half.len(), "no more than one chunk's size");
        assert_eq!(incoming.next(), Ok(Some(Said::Chunk(BytesMut::from(&half[..])))));
        assert_eq!(incoming.next(), Ok(Some(answer(b'S', b""))));
    }
}
