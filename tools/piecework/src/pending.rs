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

use piecework_api::{Client, ClientError};
use piecework_model::{Code, Digest};
use rand::RngExt as _;

use crate::{failure::Failure, places, private};

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

/// Carries out the request of these words under a key of its own, which the same command has again until its outcome is known.
pub async fn once<T>(
    client: &Client,
    words: &[&str],
    request: impl AsyncFnOnce(&str) -> Result<T, ClientError>,
) -> Result<T, Failure> {
    let account = client.own_account().await?.id.to_string();
    let pending = Pending::of(client, &account, words);
    pending.tell();
    let outcome = request(&pending.key).await.map_err(|error| queued(error.into()));
    pending.ended(&outcome);
    outcome
}

/// On the command line, the same command is the same request.
pub fn queued(failure: Failure) -> Failure {
    match failure {
        Failure::Refused {
            mut refusal,
            retry_after,
        } if refusal.code.is_one_of(&QUEUED) => {
            let hint = "run the same command again to see whether it is final; it takes effect once";
            refusal.hint = Some(hint.to_owned());
            Failure::Refused { refusal, retry_after }
        }
        other => other,
    }
}

/// The ledger will carry it out.
const QUEUED: [Code; 3] = [Code::TransferQueued, Code::TransactionQueued, Code::TransactionPending];

impl Pending {
    /// The request of these words to this server by this account.
    pub fn of(client: &Client, account: &str, words: &[&str]) -> Self {
        Self::look(client, account, words).unwrap_or_else(|place| place.keep(&fresh()))
    }

    /// What an earlier run of the command left, or where to keep it.
    pub fn look(client: &Client, account: &str, words: &[&str]) -> Result<Self, Place> {
        let folder = places::pending_dir().ok();
        Self::within(folder.as_deref(), &[&[client.base(), account][..], words].concat())
    }

    fn within(folder: Option<&Path>, words: &[&str]) -> Result<Self, Place> {
        let name = Digest::of(words.join("\0").as_bytes()).to_string();
        let place = folder.map(|folder| folder.join(&name[..32]));
        match place.as_deref().and_then(kept) {
            Some(key) => Ok(Self {
                key,
                place,
                is_repeated: true,
            }),
            None => Err(Place(place)),
        }
    }

    /// Says that this is not a new request.
    pub fn tell(&self) {
        if self.is_repeated {
            eprintln!("an earlier run of this command got no answer; repeating the same request");
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

/// Where a request's key can be kept, if anywhere.
pub struct Place(Option<PathBuf>);

impl Place {
    pub fn keep(self, key: &str) -> Pending {
        Pending {
            key: key.to_owned(),
            place: self.0.filter(|place| keep(place, key).is_ok()),
            is_repeated: false,
        }
    }
}

fn fresh() -> String {
    format!("cli-{:032x}", rand::rng().random::<u128>())
}

/// Refusals of requests that may have been carried out, or will be.
const OPEN: [Code; 6] = [
    Code::TransferQueued,
    Code::TransactionQueued,
    Code::TransactionPending,
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
    use std::io::Write as _;
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = private::create(place)?;
    file.write_all(key.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use piecework_api::errors::Refusal;

    use super::*;

    const WORDS: [&str; 3] = ["http://here", "transfer bob", "5"];

    fn within(folder: Option<&Path>, words: &[&str]) -> Pending {
        Pending::within(folder, words).unwrap_or_else(|place| place.keep(&fresh()))
    }

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
        let pending = || within(Some(folder.path()), &WORDS);
        let first = pending();
        assert!(!first.is_repeated);
        let key = first.key.clone();
        for code in OPEN {
            assert_eq!(pending().key, key);
            pending().ended(&refused(code));
        }
        for open in [unanswered(), refused(Code::TransactionQueued)] {
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
        let pending = || within(Some(folder.path()), &WORDS);
        let first = pending();
        let key = first.key.clone();
        first.ended(&refused(Code::TransferInsufficient));
        assert_ne!(pending().key, key);
    }

    #[test]
    fn other_words_are_another_request_and_nothing_is_needed_to_keep_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = |words: &[&str]| within(Some(folder.path()), words).key;
        assert_ne!(key(&WORDS), key(&["http://here", "transfer bob", "6"]));
        assert_ne!(within(None, &WORDS).key, within(None, &WORDS).key);
    }
}
