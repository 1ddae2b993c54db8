//! Keys of requests whose outcome is not known yet, so that the same command, run again, is the same request.
//!
//! ```text
//! first run: a fresh key, kept --request--> done or refused: forgotten
//!                                    `----> no answer, queued, Ctrl-C: kept; the next run of the same command has it
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use piecework_api::Client;
use piecework_model::{Code, Digest};
use rand::RngExt as _;

use crate::{failure::Failure, places};

/// After that, the same command is meant anew.
const KEPT_FOR: Duration = Duration::from_secs(86_400);

/// One such request.
pub struct Pending {
    pub key: String,
    /// None where nothing can be kept: then a repeated command is a new request.
    place: Option<PathBuf>,
    /// Whether an earlier run of the command left it.
    pub is_repeated: bool,
}

impl Pending {
    /// The request of these words to this server by this account.
    pub fn of(client: &Client, account: &str, words: &[&str]) -> Self {
        let folder = places::pending_dir().ok();
        Self::within(folder.as_deref(), &[&[client.base(), account][..], words].concat())
    }

    fn within(folder: Option<&Path>, words: &[&str]) -> Self {
        let name = Digest::of(words.join("\0").as_bytes()).to_string();
        let place = folder.map(|folder| folder.join(&name[..32]));
        if let Some(key) = place.as_deref().and_then(kept) {
            return Self {
                key,
                place,
                is_repeated: true,
            };
        }
        let key = format!("cli-{:032x}", rand::rng().random::<u128>());
        let place = place.filter(|place| keep(place, &key).is_ok());
        Self {
            key,
            place,
            is_repeated: false,
        }
    }

    /// Forgets the key unless the outcome is still open.
    pub fn ended<T>(self, outcome: &Result<T, Failure>) {
        let is_open = match outcome {
            Ok(_) => false,
            Err(Failure::NoConnection { .. } | Failure::Local(_)) => true,
            Err(failure) => OPEN.into_iter().any(|code| failure.is_refusal(code)),
        };
        if let Some(place) = self.place.filter(|_| !is_open) {
            // One that stays is out of date in a day.
            let _ = fs::remove_file(place);
        }
    }
}

/// Refusals of requests that may have been carried out, or will be.
const OPEN: [Code; 4] = [
    Code::TransferQueued,
    Code::ServerBusy,
    Code::LedgerUnavailable,
    Code::ServerFailed,
];

fn kept(place: &Path) -> Option<String> {
    let changed = fs::metadata(place).ok()?.modified().ok()?;
    let age = SystemTime::now().duration_since(changed).unwrap_or_default();
    let key = fs::read_to_string(place).ok().filter(|_| age < KEPT_FOR)?;
    Some(key.trim().to_owned()).filter(|key| !key.is_empty())
}

fn keep(place: &Path, key: &str) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(place)?;
    file.write_all(key.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use piecework_api::errors::Refusal;

    use super::*;

    const WORDS: [&str; 3] = ["http://here", "transfer bob", "5"];

    fn refused(code: Code) -> Result<(), Failure> {
        Err(Failure::Refused {
            refusal: Box::new(Refusal::new(code, "a sentence")),
            retry_after: None,
        })
    }

    fn unanswered() -> Result<(), Failure> {
        Err(Failure::NoConnection {
            url: "http://here".to_owned(),
            reason: "nobody".to_owned(),
        })
    }

    #[test]
    fn the_same_command_has_the_same_key_until_its_outcome_is_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let pending = || Pending::within(Some(folder.path()), &WORDS);
        let first = pending();
        assert!(!first.is_repeated);
        let key = first.key.clone();
        for open in [unanswered(), refused(Code::TransferQueued), refused(Code::ServerBusy)] {
            let again = pending();
            assert_eq!((again.key.as_str(), again.is_repeated), (key.as_str(), true));
            again.ended(&open);
        }
        pending().ended(&Ok(()));
        assert_ne!(pending().key, key);
    }

    #[test]
    fn a_refusal_ends_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let pending = || Pending::within(Some(folder.path()), &WORDS);
        let first = pending();
        let key = first.key.clone();
        first.ended(&refused(Code::TransferInsufficient));
        assert_ne!(pending().key, key);
    }

    #[test]
    fn other_words_are_another_request_and_nothing_is_needed_to_keep_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = |words: &[&str]| Pending::within(Some(folder.path()), words).key;
        assert_ne!(key(&WORDS), key(&["http://here", "transfer bob", "6"]));
        assert_ne!(Pending::within(None, &WORDS).key, Pending::within(None, &WORDS).key);
    }
}
