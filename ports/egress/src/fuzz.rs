//! Bytes from a function to the resolver of its own: any packet is a plain question, whose answer repeats it, or none.

use std::net::Ipv4Addr;

use piecework_fuzz::attack;

use crate::names::{Question, Verdict};

/// What a packet of DNS over UDP has, and an address as its answer.
const ANSWER_BYTES_MAX: usize = 12 + 256 + 4 + 16;

fn question(name: &[&[u8]], kind: u16) -> Vec<u8> {
    let mut packet = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name {
        packet.push(u8::try_from(label.len()).expect("a label"));
        packet.extend_from_slice(label);
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    packet
}

#[test]
fn any_packet_is_a_question_that_its_answer_repeats_or_none() {
    let long = [b"a".repeat(63), b"b".repeat(63), b"c".repeat(63)];
    let long: Vec<&[u8]> = long.iter().map(Vec::as_slice).collect();
    let valid = [
        question(&[b"api", b"Example", b"com"], 1),
        question(&[b"x"], 28),
        question(&long, 1),
        question(&[], 255),
    ];
    attack(&valid, |packet| {
        let Some(asked) = Question::parse(packet) else {
            return false;
        };
        assert!(asked.name.len() <= 254 && asked.name.is_ascii(), "{}", asked.name);
        assert!(
            !asked
                .name
                .bytes()
                .any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_control())
        );
        for verdict in [
            Verdict::Address(Ipv4Addr::LOCALHOST),
            Verdict::NothingOfThatKind,
            Verdict::NoSuchName,
            Verdict::Failed,
            Verdict::Refused,
        ] {
            let answer = asked.answer(verdict);
            assert_eq!(answer[..2], packet[..2], "the number of the question");
            assert!(answer.len() <= ANSWER_BYTES_MAX, "{} bytes", answer.len());
        }
        // Another program would read the same question in the answer.
        let mut again = asked.answer(Verdict::NothingOfThatKind);
        assert!(
            packet[12..].starts_with(&again[12..]),
            "what was asked is not what is repeated"
        );
        again[2..4].copy_from_slice(&[1, 0]);
        assert_eq!(Question::parse(&again), Some(asked));
        true
    });
}
