//! Bytes from a function that has its channel in its own hands: whatever it writes, the agent holds no more than one frame
//! may be long, and takes nothing for an answer that is not one.

use bytes::{Bytes, BytesMut};
use piecework_fuzz::{PeakAlloc, attack, within};

use super::{
    frames::{Expected, Incoming, SECRET_BYTES, Said, frame},
    messages,
};
use crate::{CHUNK_BYTES_MAX, HEADERS_MAX, Outcome};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

const SECRET: [u8; SECRET_BYTES] = [7; SECRET_BYTES];
const OUTPUT_BYTES_MAX: usize = 64;
/// Bytes as they come from a pipe, at most so many at once.
const PIECE_BYTES: usize = 100;

fn framed(frames: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for (kind, payload) in frames {
        frame(&mut bytes, &SECRET, *kind, &[payload]).expect("short");
    }
    bytes.to_vec()
}

/// What these bytes say while `expected` is expected; `None` where they are refused.
fn said(expected: Expected, bytes: &[u8]) -> Option<Vec<Said>> {
    let mut incoming = Incoming::new(SECRET, expected, OUTPUT_BYTES_MAX);
    let mut frames = Vec::new();
    for piece in bytes.chunks(PIECE_BYTES) {
        incoming.put(piece);
        while let Some(said) = incoming.next().ok()? {
            let ends = matches!(said, Said::Answer(..));
            frames.push(said);
            // Nobody reads on.
            if ends {
                return Some(frames);
            }
        }
    }
    Some(frames)
}

/// The bytes that say this.
fn written(frames: &[Said]) -> Vec<u8> {
    let each = frames.iter().map(|said| match said {
        Said::Head(json) => (b'h', &json[..]),
        Said::Chunk(chunk) => (b'c', &chunk[..]),
        Said::WantsBody => (b'B', &[][..]),
        Said::LeavesBody => (b'Q', &[][..]),
        Said::Watches => (b'W', &[][..]),
        Said::WatchesNoMore => (b'V', &[][..]),
        Said::Retires => (b'X', &[][..]),
        Said::Answer(kind, payload) => (*kind, &payload[..]),
    });
    framed(&each.collect::<Vec<_>>())
}

#[test]
fn any_bytes_of_a_call_are_frames_in_their_order_or_refused() {
    let valid = [
        framed(&[(b'O', b"{}")]),
        framed(&[
            (b'h', br#"{"status":200,"headers":[]}"#),
            (b'c', b"a"),
            (b'c', b"bc"),
            (b'S', b""),
        ]),
        framed(&[
            (b'W', b""),
            (b'B', b""),
            (b'Q', b""),
            (b'V', b""),
            (b'R', br#"{"type":"E","message":"m","stack":""}"#),
        ]),
        framed(&[(b'M', b"")]),
    ];
    attack(&valid, |bytes| {
        let room = 4 * bytes.len() + (16 << 10);
        let Some(frames) = within(&PEAK, room, || said(Expected::Calling, bytes)) else {
            return false;
        };
        assert!(bytes.starts_with(&written(&frames)), "what was read is not what came");
        let answers = frames.iter().filter(|said| matches!(said, Said::Answer(..))).count();
        let ends = matches!(frames.last(), Some(Said::Answer(..)));
        assert!(
            answers <= 1 && (answers == 0 || ends),
            "something came after the answer"
        );
        let streams = |said: &&Said| matches!(said, Said::Head(_) | Said::Chunk(_));
        let first = frames.iter().find(streams);
        assert!(
            first.is_none_or(|first| matches!(first, Said::Head(_))),
            "a chunk came before a head"
        );
        for said in &frames {
            match said {
                Said::Chunk(chunk) => assert!((1..=CHUNK_BYTES_MAX).contains(&chunk.len())),
                Said::Head(_)
                | Said::WantsBody
                | Said::LeavesBody
                | Said::Watches
                | Said::WatchesNoMore
                | Said::Retires
                | Said::Answer(..) => {}
            }
        }
        true
    });
}

#[test]
fn any_bytes_of_a_load_say_done_or_why_not() {
    let refused = br#"{"code":"function.no_handler","message":"no","stack":""}"#;
    let valid = [framed(&[(b'D', b"")]), framed(&[(b'E', refused)])];
    attack(&valid, |bytes| match said(Expected::Loading, bytes).as_deref() {
        Some([]) | None => false,
        Some([Said::Answer(b'D' | b'E', _)]) => true,
        Some(frames) => panic!("{frames:?}"),
    });
}

#[test]
fn any_answer_of_a_function_is_an_outcome_with_one_meaning() {
    let valid = [
        br#"{"a": [1, 2.5, "\u00e9", null, true]}"#.to_vec(),
        b"[]".to_vec(),
        b"1".to_vec(),
    ];
    attack(&valid, |bytes| {
        let payload = Bytes::copy_from_slice(bytes);
        match messages::outcome(b'O', payload, 1 << 20) {
            (Outcome::Returned(output), true) => {
                assert_eq!(output, bytes, "an output passes as it came");
                true
            }
            (Outcome::OutputInvalid(_) | Outcome::OutputTooLarge, false) => false,
            (outcome, reusable) => panic!("{outcome:?}, {reusable}"),
        }
    });
    let valid = [br#"{"type":"KeyError","message":"m","stack":"s"}"#.to_vec()];
    attack(&valid, |bytes| {
        matches!(
            messages::outcome(b'R', Bytes::copy_from_slice(bytes), 0),
            (Outcome::Raised(_), true)
        )
    });
}

#[test]
fn any_head_of_a_stream_is_one_that_http_can_carry() {
    let valid = [
        br#"{"status":200,"headers":[["content-type","text/plain"],["set-cookie","a=1"]]}"#.to_vec(),
        br#"{"status":0,"headers":[]}"#.to_vec(),
    ];
    attack(&valid, |bytes| {
        let Ok(head) = messages::head(bytes) else { return false };
        assert!(head.status == 0 || (200..600).contains(&head.status), "{head:?}");
        assert!(head.headers.len() <= HEADERS_MAX);
        for (name, value) in &head.headers {
            assert!(
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()),
                "{name:?}"
            );
            assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{value:?}");
        }
        true
    });
}
