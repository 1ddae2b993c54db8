//! Questions for names as they come from inside, and the addresses that stand for names in one instance.
//!
//! Only as much of RFC 1035 as a stub resolver needs: one question, and at most one address as the answer.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

/// Names that one instance may ask for; a wildcard would allow any number.
const NAMES_MAX: usize = 1_024;
/// 198.18.0.0/15 is not assigned to anybody; .0.0 is left out.
const FIRST: u32 = 0xc612_0001;

const HEADER_BYTES: usize = 12;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
/// The stub inside asks again after as many seconds.
const TTL_S: u32 = 30;

/// What a question may be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Address(Ipv4Addr),
    /// The name exists, but has nothing of the kind that was asked for.
    NothingOfThatKind,
    NoSuchName,
    /// Something failed; asking again may help.
    Failed,
    Refused,
}

/// One question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    id: [u8; 2],
    /// As it came: name, type and class.
    bytes: Vec<u8>,
    /// In lower case, without a dot at its end; bytes that no host name has are `?`.
    pub(crate) name: String,
    kind: u16,
    class: u16,
}

impl Question {
    /// `None` unless it is a plain question.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let header: [u8; HEADER_BYTES] = *packet.first_chunk()?;
        let is_query = header[2] & 0b1111_1000 == 0;
        let one_question = header[4..6] == [0, 1];
        if !is_query || !one_question {
            return None;
        }
        let mut at = HEADER_BYTES;
        let mut name = String::new();
        loop {
            let length = usize::from(*packet.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            let label = packet.get(at..at + length).filter(|_| length < 64)?;
            if !name.is_empty() {
                name.push('.');
            }
            name.extend(label.iter().map(|byte| plain(*byte)));
            at += length;
            if at - HEADER_BYTES > 255 {
                return None;
            }
        }
        let number = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
        Some(Self {
            id: [header[0], header[1]],
            name,
            kind: number(at)?,
            class: number(at + 2)?,
            bytes: packet[HEADER_BYTES..at + 4].to_vec(),
        })
    }

    pub(crate) fn wants_address(&self) -> bool {
        (self.kind, self.class) == (TYPE_A, CLASS_IN)
    }

    pub(crate) fn answer(&self, verdict: Verdict) -> Vec<u8> {
        let (code, count) = match verdict {
            Verdict::Address(_) => (0, 1),
            Verdict::NothingOfThatKind => (0, 0),
            Verdict::Failed => (2, 0),
            Verdict::NoSuchName => (3, 0),
            Verdict::Refused => (5, 0),
        };
        let mut packet = self.id.to_vec();
        // An answer, recursion desired and available.
        packet.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
        packet.extend(&self.bytes);
        if let Verdict::Address(address) = verdict {
            // The name is that of the question.
            packet.extend([0xc0, 0x0c]);
            packet.extend(TYPE_A.to_be_bytes());
            packet.extend(CLASS_IN.to_be_bytes());
            packet.extend(TTL_S.to_be_bytes());
            packet.extend([0, 4]);
            packet.extend(address.octets());
        }
        packet
    }
}

fn plain(byte: u8) -> char {
    if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
        char::from(byte.to_ascii_lowercase())
    } else {
        '?'
    }
}

/// A name that was asked for, and what it resolved to.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) at: Instant,
}

/// Names and the addresses that stand for them inside; for the life of an instance.
#[derive(Default)]
pub(crate) struct Names {
    inside: HashMap<String, Ipv4Addr>,
    names: Vec<String>,
    known: HashMap<String, Known>,
}

impl Names {
    pub(crate) fn known(&self, name: &str) -> Option<&Known> {
        self.known.get(name)
    }

    /// Notes what the name resolved to; `None` if the instance has asked for too many.
    pub(crate) fn note(&mut self, name: &str, known: Known) -> Option<Ipv4Addr> {
        let inside = match self.inside.get(name) {
            Some(inside) => *inside,
            None if self.names.len() >= NAMES_MAX => return None,
            None => {
                let offset = u32::try_from(self.names.len()).expect("at most a thousand");
                let inside = Ipv4Addr::from_bits(FIRST + offset);
                self.inside.insert(name.to_owned(), inside);
                self.names.push(name.to_owned());
                inside
            }
        };
        self.known.insert(name.to_owned(), known);
        Some(inside)
    }

    /// The name that an address stands for.
    pub(crate) fn of(&self, inside: Ipv4Addr) -> Option<&str> {
        let offset = usize::try_from(inside.to_bits().checked_sub(FIRST)?).ok()?;
        self.names.get(offset).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut packet = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            packet.push(u8::try_from(label.len()).expect("short"));
            packet.extend(label.as_bytes());
        }
        packet.push(0);
        packet.extend(kind.to_be_bytes());
        packet.extend(CLASS_IN.to_be_bytes());
        packet
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let mut packet = query("Api.Example.COM", TYPE_A);
        packet.extend([0; 11]);
        let question = Question::parse(&packet).expect("a question");
        assert_eq!(question.name, "api.example.com");
        assert!(question.wants_address());
        let answer = question.answer(Verdict::Address(Ipv4Addr::new(198, 18, 0, 1)));
        assert_eq!(answer[..4], [0xab, 0xcd, 0x81, 0x80]);
        assert_eq!(answer[answer.len() - 6..], [0, 4, 198, 18, 0, 1]);
        assert_eq!(question.answer(Verdict::NoSuchName)[3] & 0xf, 3);
        assert!(
            !Question::parse(&query("example.com", 28))
                .expect("a question")
                .wants_address()
        );
    }

    #[test]
    fn garbage_is_no_question() {
        let whole = query("api.example.com", TYPE_A);
        for length in 0..whole.len() {
            assert_eq!(Question::parse(&whole[..length]), None, "{length}");
        }
        let mut answer = whole.clone();
        answer[2] |= 0x80;
        assert_eq!(Question::parse(&answer), None);
        let mut pointer = whole.clone();
        pointer[12] = 0xc0;
        assert_eq!(Question::parse(&pointer), None);
        let mut endless = whole[..12].to_vec();
        for _ in 0..10 {
            endless.push(63);
            endless.extend([b'a'; 63]);
        }
        endless.extend([0; 5]);
        assert_eq!(Question::parse(&endless), None);
        let odd = Question::parse(&query("a b.example*com", TYPE_A)).expect("a question");
        assert_eq!(odd.name, "a?b.example?com");
    }

    #[test]
    fn a_name_keeps_its_address_and_names_are_bounded() {
        let mut names = Names::default();
        let known = || Known {
            addresses: Vec::new(),
            at: Instant::now(),
        };
        let first = names.note("a.example.com", known()).expect("room");
        let second = names.note("b.example.com", known()).expect("room");
        assert_ne!(first, second);
        assert_eq!(names.note("a.example.com", known()), Some(first));
        assert_eq!(names.of(second), Some("b.example.com"));
        assert_eq!(names.of(Ipv4Addr::new(198, 18, 0, 0)), None);
        assert_eq!(names.of(Ipv4Addr::new(198, 18, 0, 3)), None);
        for number in 0..NAMES_MAX {
            names.note(&format!("h{number}.example.com"), known());
        }
        assert_eq!(names.note("more.example.com", known()), None);
        assert_eq!(names.note("a.example.com", known()), Some(first));
    }
}
