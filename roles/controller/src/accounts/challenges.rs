//! Texts to sign for a login by key. Nothing is kept of one that was handed out: it says itself for whom and until when it is
//! good, under a key of this process. Only those that logged somebody in are kept, until they are over.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use borsh::BorshSerialize;
use parking_lot::Mutex;
use piecework_model::{Digest, OwnerName};
use rand::RngExt as _;

/// Each is somebody's login with a key that the controller knows: some hundred a second for two minutes.
const USED_MAX: usize = 65_536;
const NONCE_BYTES: usize = 16;
const MARK_BYTES: usize = 16;
const TIME_BYTES: usize = 8;

/// What makes and checks them.
pub(crate) struct Challenges {
    key: [u8; 32],
    began: Instant,
    /// By their marks, with when they are over.
    used: Mutex<HashMap<[u8; MARK_BYTES], u64>>,
}

/// What the mark covers.
#[derive(BorshSerialize)]
struct Marked<'a> {
    key: &'a [u8; 32],
    name: &'a str,
    until_ms: u64,
    nonce: [u8; NONCE_BYTES],
}

/// A challenge that is good for the name, and has not been used when it was looked at.
pub(crate) struct Fresh {
    mark: [u8; MARK_BYTES],
    until_ms: u64,
}

pub(crate) const CHALLENGE_TTL: Duration = Duration::from_secs(120);

impl Default for Challenges {
    fn default() -> Self {
        Self {
            key: rand::rng().random(),
            began: Instant::now(),
            used: Mutex::default(),
        }
    }
}

impl Challenges {
    /// Good once, for this name, within [`CHALLENGE_TTL`].
    pub(crate) fn make(&self, name: &OwnerName) -> String {
        let until_ms = self.now_ms() + CHALLENGE_TTL.as_millis() as u64;
        let nonce = rand::rng().random();
        let mark = self.mark(name, until_ms, nonce);
        hex::encode([&until_ms.to_be_bytes()[..], &nonce, &mark].concat())
    }

    /// Whether it was made here, for this name, and is not over.
    pub(crate) fn check(&self, text: &str, name: &OwnerName) -> Option<Fresh> {
        let mut bytes = [0; TIME_BYTES + NONCE_BYTES + MARK_BYTES];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        let (until, rest) = bytes.split_first_chunk()?;
        let (nonce, mark) = rest.split_first_chunk()?;
        let until_ms = u64::from_be_bytes(*until);
        let mark: &[u8; MARK_BYTES] = mark.try_into().ok()?;
        // Compared by digests: what the comparison's time tells is about those.
        let is_ours = Digest::of(&self.mark(name, until_ms, *nonce)) == Digest::of(mark);
        (is_ours && until_ms > self.now_ms()).then_some(Fresh { mark: *mark, until_ms })
    }

    /// Takes it for a login: whether nobody did before.
    pub(crate) fn spend(&self, fresh: &Fresh) -> bool {
        let now_ms = self.now_ms();
        let mut used = self.used.lock();
        if used.len() >= USED_MAX {
            used.retain(|_, until_ms| *until_ms > now_ms);
        }
        used.len() < USED_MAX && used.insert(fresh.mark, fresh.until_ms).is_none()
    }

    fn mark(&self, name: &OwnerName, until_ms: u64, nonce: [u8; NONCE_BYTES]) -> [u8; MARK_BYTES] {
        let marked = Marked {
            key: &self.key,
            name: name.as_str(),
            until_ms,
            nonce,
        };
        let Digest(digest) = Digest::of_value("piecework 2026 login challenge", &marked);
        *digest.first_chunk().expect("a digest is longer")
    }

    /// Of this process: no clock that somebody sets makes a challenge live longer.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_good_once_for_its_name_and_its_process() {
        let (challenges, ada) = (Challenges::default(), "ada".parse().expect("a name"));
        let text = challenges.make(&ada);
        let fresh = challenges.check(&text, &ada).expect("it is ours");
        assert!(challenges.check(&text, &"eve".parse().expect("a name")).is_none());
        assert!(Challenges::default().check(&text, &ada).is_none(), "another process");
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            let other = String::from_utf8(other).expect("ASCII");
            assert!(challenges.check(&other, &ada).is_none(), "altered at {at}");
        }
        for wrong in ["", "00", "zz", &text[1..], &format!("{text}00")] {
            assert!(challenges.check(wrong, &ada).is_none(), "{wrong}");
        }
        assert!(challenges.spend(&fresh));
        assert!(!challenges.spend(&fresh), "a second time");
    }

    #[test]
    fn no_number_of_challenges_is_kept_or_ends_those_of_others() {
        let (challenges, ada) = (Challenges::default(), "ada".parse().expect("a name"));
        let text = challenges.make(&ada);
        for _ in 0..20_000 {
            challenges.make(&ada);
        }
        assert!(challenges.used.lock().is_empty());
        let fresh = challenges.check(&text, &ada).expect("still good");
        assert!(challenges.spend(&fresh));
    }

    #[test]
    fn a_challenge_that_is_over_is_no_good() {
        let ada = "ada".parse().expect("a name");
        let challenges = Challenges::default();
        let text = challenges.make(&ada);
        let later = Challenges {
            began: challenges
                .began
                .checked_sub(CHALLENGE_TTL)
                .expect("the machine is up that long"),
            ..challenges
        };
        assert!(later.check(&text, &ada).is_none());
    }
}
