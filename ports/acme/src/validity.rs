//! From when until when a certificate is good: the few fields of X.509 (RFC 5280, section 4.1) that lead there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{civil::DateTime, tz::TimeZone};

/// A certificate's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: SystemTime,
    pub until: SystemTime,
}

impl Validity {
    /// At two thirds of its life there is time for a month of failures with a usual certificate.
    pub fn renewed_at(&self) -> SystemTime {
        let life = self.until.duration_since(self.from).unwrap_or(Duration::ZERO);
        self.from + life / 3 * 2
    }
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// A length of more bytes is no certificate's.
const LENGTH_BYTES_MAX: usize = 3;

/// None if these bytes are no certificate.
pub fn validity(certificate: &[u8]) -> Option<Validity> {
    let (outer, _) = expect(SEQUENCE, certificate)?;
    let (mut at, _) = expect(SEQUENCE, outer)?;
    if at.first() == Some(&VERSION) {
        at = element(at)?.2;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        at = element(at)?.2;
    }
    let (times, _) = expect(SEQUENCE, at)?;
    let (tag, from, rest) = element(times)?;
    let from = time(tag, from)?;
    let (tag, until, _) = element(rest)?;
    Some(Validity {
        from,
        until: time(tag, until)?,
    })
}

fn expect(wanted: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// Tag, content and what comes after.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, short], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match usize::from(short) {
        length @ 0..0x80 => (length, rest),
        more => {
            let (length, rest) = rest.split_at_checked(more - 0x80)?;
            if length.is_empty() || length.len() > LENGTH_BYTES_MAX {
                return None;
            }
            let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, or with four digits of the year.
fn time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let year: i16 = text[..2].parse().ok()?;
            (if year < 50 { 2_000 + year } else { 1_900 + year }, &text[2..])
        }
        (GENERALIZED_TIME, 14) => (text[..4].parse().ok()?, &text[4..]),
        (_, _) => return None,
    };
    let pair = |at: usize| rest[at..at + 2].parse::<i8>().ok();
    let date = DateTime::new(year, pair(0)?, pair(2)?, pair(4)?, pair(6)?, pair(8)?, 0).ok()?;
    let seconds = date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> Vec<u8> {
        let mut wanted = rcgen::CertificateParams::new(["a.example".to_owned()]).expect("a name");
        wanted.not_before = rcgen::date_time_ymd(2026, 2, 1);
        wanted.not_after = rcgen::date_time_ymd(2051, 2, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        wanted.self_signed(&key).expect("signed").der().to_vec()
    }

    #[test]
    fn the_times_of_a_certificate_are_read_in_both_forms() {
        let found = validity(&certificate()).expect("a certificate");
        let at = |text: &str| SystemTime::from(text.parse::<jiff::Timestamp>().expect("a time"));
        assert_eq!(found.from, at("2026-02-01T00:00:00Z"));
        assert_eq!(found.until, at("2051-02-01T00:00:00Z"));
        let third = found.until.duration_since(found.from).expect("later") / 3;
        assert_eq!(found.renewed_at(), found.from + third * 2);
        assert_eq!(time(UTC_TIME, b"991231235959Z"), Some(at("1999-12-31T23:59:59Z")));
        assert_eq!(time(UTC_TIME, b"261331235959Z"), None);
        assert_eq!(time(UTC_TIME, b"2612312359Z"), None);
        assert_eq!(time(GENERALIZED_TIME, b"20261231235959+"), None);
    }

    #[test]
    fn hostile_bytes_are_no_certificate_or_have_an_order_of_times() {
        piecework_fuzz::attack(&[certificate()], |bytes| {
            validity(bytes).is_some_and(|found| found.renewed_at() >= found.from)
        });
    }
}
