//! Bytes from strangers and from ends that have proved a key: each is refused or is one message with one spelling, and a
//! length that was only said takes no room.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use futures::{FutureExt as _, io::Cursor};
use piecework_fuzz::{PeakAlloc, attack, within};
use piecework_model::{PublicKey, Signature};
use tokio::io::AsyncWriteExt as _;

use super::{
    Clock, LinkFailure, Wire, accepted,
    frames::{ToController, ToProvider},
    golden::{Kinds, NETWORK, introduction, key, version_2, version_3},
    handshake::{HELLO_BYTES_MAX, Introduction, golden::handshake, knocked},
    messages::{Opening, Part, Say, Tell},
    parts::{Budget, MESSAGE_BYTES_MAX, Reader},
    receive,
};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

/// What a stranger's packet may take beside itself: the state of a Noise handshake and a refusal's sentences.
const STRANGER_BYTES: usize = 16 << 10;
/// Decoded, a message is a few times as large as its bytes: texts, lists and boxes have pointers and lengths.
const DECODED_TIMES: usize = 8;
/// borsh gives a text or bare bytes as much room as their length says, up to 1 MiB, before it reads them.
const AHEAD_BYTES: usize = (1 << 20) + (64 << 10);

/// Those of `kinds` that are named so.
fn named(kinds: Kinds, name: &str) -> Vec<Vec<u8>> {
    let named = kinds.into_iter().filter(|(kind, _)| kind.starts_with(name));
    let found: Vec<_> = named.map(|(_, bytes)| bytes).collect();
    assert!(!found.is_empty(), "{name}");
    found
}

fn decoded<T: BorshSerialize + BorshDeserialize>(bytes: &[u8]) -> bool {
    let room = DECODED_TIMES * bytes.len() + AHEAD_BYTES;
    let Ok(message) = within(&PEAK, room, || borsh::from_slice::<T>(bytes)) else {
        return false;
    };
    assert_eq!(
        borsh::to_vec(&message).expect("bytes"),
        bytes,
        "one message has two spellings"
    );
    true
}

#[test]
fn any_message_of_version_2_has_one_spelling_and_takes_no_room_for_a_lie() {
    attack(&named(version_2(), "to-provider"), decoded::<ToProvider>);
    attack(&named(version_2(), "to-controller"), decoded::<ToController>);
}

#[test]
fn any_message_of_version_3_has_one_spelling_and_takes_no_room_for_a_lie() {
    attack(&named(version_3(), "opening"), decoded::<Opening>);
    attack(&named(version_3(), "part"), decoded::<Part>);
    attack(&named(version_3(), "tell"), decoded::<Tell>);
    attack(&named(version_3(), "say"), decoded::<Say>);
}

#[test]
fn any_knock_is_answered_or_refused_with_a_few_kib() {
    attack(&named(handshake(), "handshake knock"), |bytes| {
        within(&PEAK, STRANGER_BYTES, || knocked(bytes, NETWORK))
    });
}

#[test]
fn any_proof_of_a_key_is_refused_before_the_rest_is_read() {
    let hello = named(handshake(), "handshake hello").remove(0);
    attack(&[hello], |bytes| {
        assert!(bytes.len() <= HELLO_BYTES_MAX || bytes.len() < 1 << 20);
        let mut rest = bytes;
        let proof = within(&PEAK, 1 << 10, || <(PublicKey, Signature)>::deserialize(&mut rest));
        proof.is_ok() && decoded::<Introduction>(rest)
    });
    assert!(decoded::<Introduction>(&borsh::to_vec(&introduction()).expect("bytes")));
}

/// A wire on which one packet comes, and then nothing.
fn wire_with(packet: &[u8]) -> Wire {
    let packets = vec![Ok(Bytes::copy_from_slice(packet))];
    let incoming = futures::StreamExt::chain(futures::stream::iter(packets), futures::stream::pending());
    let outgoing = futures::SinkExt::sink_map_err(futures::sink::drain(), |never| match never {});
    Wire::new(incoming, outgoing).with_clock(Clock::paused().0)
}

#[test]
fn any_first_packet_costs_a_controller_a_few_kib() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let _in = runtime.enter();
    let controller = key(1);
    attack(&named(handshake(), "handshake knock"), |bytes| {
        within(&PEAK, STRANGER_BYTES + 2 * bytes.len(), || {
            let arrival = receive(wire_with(bytes), &controller, NETWORK).now_or_never();
            match arrival {
                // It waits for the proof.
                None => true,
                Some(Err(LinkFailure::Refused(_) | LinkFailure::Protocol(_))) => false,
                Some(Err(failure)) => panic!("{failure}"),
                Some(Ok(_)) => panic!("nobody has proved a key"),
            }
        })
    });
}

/// What each of them may hold while it has proved nothing.
const UNPROVED_BYTES: usize = 32 << 10;

/// A masked frame of a WebSocket that says it is this long, and the beginning of it.
fn frame_of(length: u64, payload: usize) -> Vec<u8> {
    let mut frame = vec![0x82, 0x80 | 127];
    frame.extend(length.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(vec![7; payload]);
    frame
}

#[test]
fn links_that_have_proved_no_key_hold_a_few_kib_each_whatever_they_say() {
    const LINKS: usize = 64;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let nearly = HELLO_BYTES_MAX - 1;
    let said = [
        Vec::new(),
        frame_of(65_535, 0),
        frame_of(1 << 40, 100),
        frame_of(HELLO_BYTES_MAX as u64, nearly),
        [
            frame_of(HELLO_BYTES_MAX as u64, HELLO_BYTES_MAX),
            frame_of(HELLO_BYTES_MAX as u64, nearly),
        ]
        .concat(),
    ];
    let key = key(1);
    for said in said {
        let mut clients = Vec::new();
        let mut servers = Vec::new();
        for _ in 0..LINKS {
            let (client, server) = tokio::io::duplex(said.len() + 1);
            clients.push(client);
            servers.push(server);
        }
        runtime.block_on(async {
            for client in &mut clients {
                client.write_all(&said).await.expect("there is room");
            }
        });
        within(&PEAK, LINKS * UNPROVED_BYTES, || {
            runtime.block_on(async {
                let waiting = servers.into_iter().map(async |server| {
                    let wire = accepted(server).await.with_clock(Clock::paused().0);
                    receive(wire, &key, NETWORK).await.map(drop)
                });
                let mut waiting: Vec<_> = waiting.map(Box::pin).collect();
                for link in &mut waiting {
                    // It waits for more, or has ended.
                    if let std::task::Poll::Ready(ended) = futures::poll!(link) {
                        assert!(matches!(ended, Err(LinkFailure::Refused(_) | LinkFailure::Broken(_))));
                    }
                }
            });
        });
    }
}

#[test]
fn any_length_on_a_stream_is_refused_or_waited_for_without_room() {
    let framed = |(_, message): (String, Vec<u8>)| {
        let length = u32::try_from(message.len()).expect("small");
        [&length.to_le_bytes()[..], &message].concat()
    };
    let valid: Vec<Vec<u8>> = version_3()
        .into_iter()
        .filter(|(kind, _)| kind.starts_with("say"))
        .map(framed)
        .collect();
    let budget = Arc::new(Budget::default());
    attack(&valid, |bytes| {
        let room = DECODED_TIMES * bytes.len() + AHEAD_BYTES + (128 << 10);
        within(&PEAK, room, || {
            let mut reader = Reader {
                from: Cursor::new(bytes),
                budget: &budget,
            };
            let said = reader.message::<Say>(MESSAGE_BYTES_MAX).now_or_never();
            said.expect("a slice never waits, and the budget is free").is_ok()
        })
    });
}
