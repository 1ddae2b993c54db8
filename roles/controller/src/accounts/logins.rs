//! Logins: a password or a signed challenge, and what is done about those who try.
//!
//! ```text
//! name of the right form -> by key:      challenge, signature                      (never slowed)
//!                        -> by password: address, address and name -> wait -> one verification at a time
//! ```

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use piecework_api::accounts::{CreateSession, verify_login};
use piecework_model::{AccountId, Code, OwnerName};
use piecework_serve::{Caller as Address, Crowd};
use piecework_store::User;
use serde_json::json;
use tokio::{runtime::Handle, sync::Semaphore};

use crate::{
    Answer,
    accounts::{
        Accounts, audit,
        challenges::Challenges,
        throttle::{Patience, Throttle},
    },
    clock::{now_ms, timestamp},
    failure::{failed, refuse, store},
};

/// Of one address for one name. The first few cost no time; then each waits longer than the one before, up to
/// [`WAIT_MAX`]; an address that goes on is refused.
const OF_A_NAME: Patience = Patience {
    failures_max: 20,
    forgets: Duration::from_secs(30),
};
const FREE: u32 = 5;
const WAIT_MIN: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(4);
/// Of one address for all names, passwords and invites: a class behind one address mistypes less.
const OF_AN_ADDRESS: Patience = Patience {
    failures_max: 60,
    forgets: Duration::from_secs(2),
};
/// Passwords hashed at one time: each takes 19 MiB and tens of milliseconds of a core.
const HASHED_AT_ONCE: usize = 1;
/// Who waits for that, in all and of one address: a second or two.
const WAITING_MAX: usize = 64;
const WAITING_OF_AN_ADDRESS_MAX: usize = 32;
/// Accounts whose failed logins are counted for the audit record, and for how long they are counted together.
const ACCOUNTS_WATCHED_MAX: usize = 4_096;
const WATCHED_FOR: Duration = Duration::from_secs(3_600);

/// Whoever tries to log in.
pub(crate) struct Logins {
    pub(crate) challenges: Challenges,
    throttle: Throttle,
    background: Handle,
    hashing: Semaphore,
    waiting: Crowd,
    failed: Mutex<HashMap<AccountId, Failed>>,
}

/// Failed logins of an account since then.
#[derive(Clone, Copy)]
struct Failed {
    count: u32,
    since: Instant,
    since_ms: u64,
}

impl Logins {
    pub(crate) fn new(background: Handle) -> Self {
        Self {
            challenges: Challenges::default(),
            throttle: Throttle::default(),
            background,
            hashing: Semaphore::new(HASHED_AT_ONCE),
            waiting: Crowd::new(WAITING_MAX, WAITING_OF_AN_ADDRESS_MAX),
            failed: Mutex::default(),
        }
    }

    /// Counts an attempt with a password; how long it has to wait. Refuses with `auth.rate_limited`.
    fn count(&self, from: Address, name: &OwnerName) -> Answer<Duration> {
        let now = Instant::now();
        let pair = (from, name.as_str());
        let failures = match self.throttle.may(from, OF_AN_ADDRESS, now) {
            true => self.throttle.attempt(pair, OF_A_NAME, now),
            false => None,
        };
        let Some(failures) = failures else {
            return too_many();
        };
        self.throttle.attempt(from, OF_AN_ADDRESS, now);
        Ok(wait_after(failures))
    }

    fn forgive(&self, from: Address, name: &OwnerName) {
        self.throttle.forgive((from, name.as_str()));
        self.throttle.take_back(from);
    }

    /// Refuses with `auth.rate_limited` an address that has failed too often, whatever it tries.
    pub(crate) fn check(&self, from: Address) -> Answer<()> {
        match self.throttle.may(from, OF_AN_ADDRESS, Instant::now()) {
            true => Ok(()),
            false => too_many(),
        }
    }

    pub(crate) fn failed(&self, from: Address) {
        self.throttle.attempt(from, OF_AN_ADDRESS, Instant::now());
    }

    /// One more failed login of this account, and how many there were since when, where that is to be recorded: the first
    /// one and then whenever their number has doubled, so that no flood fills the record.
    fn note(&self, account: AccountId) -> Option<Failed> {
        let mut failed = self.failed.lock();
        if failed.len() >= ACCOUNTS_WATCHED_MAX {
            failed.retain(|_, seen| seen.since.elapsed() < WATCHED_FOR);
        }
        if failed.len() >= ACCOUNTS_WATCHED_MAX && !failed.contains_key(&account) {
            return None;
        }
        let begun = Failed {
            count: 0,
            since: Instant::now(),
            since_ms: now_ms(),
        };
        let seen = failed.entry(account).or_insert(begun);
        if seen.since.elapsed() >= WATCHED_FOR {
            *seen = begun;
        }
        seen.count = seen.count.saturating_add(1);
        seen.count.is_power_of_two().then_some(*seen)
    }
}

fn too_many<T>() -> Answer<T> {
    refuse(
        Code::AuthRateLimited,
        "too many failed attempts from this address; wait a minute, or log in with a key",
    )
}

/// Nothing at first; then twice as long each time.
fn wait_after(failures: u32) -> Duration {
    match failures.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(more) => WAIT_MAX.min(WAIT_MIN * 2_u32.saturating_pow(more.min(16))),
    }
}

/// The user that a password or a signed challenge proves. Refuses with `auth.bad_credentials`, whatever was wrong, with
/// `auth.rate_limited` and `server.busy`.
pub(crate) async fn prove(accounts: &Accounts, session: &CreateSession, from: Address) -> Answer<User> {
    // Nothing is kept, nor done, for what cannot be a name.
    let Ok(name) = session.name.parse::<OwnerName>() else {
        return wrong();
    };
    match (&session.password, &session.challenge, &session.signature) {
        (Some(password), None, None) => by_password(accounts, &name, password, from).await,
        (None, Some(challenge), Some(signature)) => {
            let Some(fresh) = accounts.auth.logins.challenges.check(challenge, &name) else {
                return wrong();
            };
            let user = accounts.ground.store.user_by_name(&name).await.map_err(store)?;
            let verify = |user: &User| {
                verify_login(
                    &user.public_key,
                    &accounts.ground.network,
                    name.as_str(),
                    challenge,
                    signature,
                )
                .is_ok()
            };
            match user.filter(verify) {
                Some(user) if accounts.auth.logins.challenges.spend(&fresh) => Ok(user),
                Some(_) | None => wrong(),
            }
        }
        _ => refuse(
            Code::BodyMalformed,
            "send either a password, or a challenge and a signature",
        ),
    }
}

fn wrong<T>() -> Answer<T> {
    refuse(
        Code::AuthBadCredentials,
        "the name, password, challenge or signature is wrong",
    )
}

async fn by_password(accounts: &Accounts, name: &OwnerName, password: &str, from: Address) -> Answer<User> {
    let logins = &accounts.auth.logins;
    let wait = logins.count(from, name)?;
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let user = accounts.ground.store.user_by_name(name).await.map_err(store)?;
    let hash = user.as_ref().and_then(|user| user.password_hash.clone());
    let is_right = {
        // Who is slowed down waits without a place.
        let Some(_place) = logins.waiting.enter(from) else {
            return refuse(Code::ServerBusy, "too many logins at once; retry in a second");
        };
        verify_password(logins, password.to_owned(), hash).await?
    };
    match user {
        Some(user) if is_right => {
            logins.forgive(from, name);
            Ok(user)
        }
        Some(user) => {
            record_failed(accounts, &user, from).await?;
            wrong()
        }
        None => wrong(),
    }
}

async fn record_failed(accounts: &Accounts, user: &User, from: Address) -> Answer<()> {
    let Some(failed) = accounts.auth.logins.note(user.account) else {
        return Ok(());
    };
    let detail = json!({"failures": failed.count, "since": timestamp(failed.since_ms), "from": from.0.to_string()});
    let action = ("login", "failed");
    audit::record(accounts, (None, user.account), action, user.name.as_str(), detail).await
}

/// Takes as long for an unknown name as for a known one.
async fn verify_password(logins: &Logins, password: String, hash: Option<String>) -> Answer<bool> {
    /// Hash of a random password that nobody knows.
    const NOBODY: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$y6Yd2Bfpzzd1T2cDkMfJgLDyMPk1aBL6Yk0N3ZS0wHs";
    let known = hash.is_some();
    let hash = hash.unwrap_or_else(|| NOBODY.to_owned());
    let verified = hashing(logins, move || piecework_store::verify_password(&password, &hash)).await?;
    Ok(known && verified)
}

/// The hash of a new password, when it is its turn.
pub(crate) async fn hash_password(accounts: &Accounts, password: String) -> Answer<String> {
    let hashed = hashing(&accounts.auth.logins, move || piecework_store::hash_password(&password)).await?;
    hashed.map_err(store)
}

/// One at a time, on a thread that no call waits for.
async fn hashing<T: Send + 'static>(logins: &Logins, work: impl FnOnce() -> T + Send + 'static) -> Answer<T> {
    let _turn = logins.hashing.acquire().await.expect("it is never closed");
    let done = logins.background.spawn_blocking(work).await;
    done.map_err(|error| failed("hash a password", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> Address {
        Address([10, 0, 0, last].into())
    }

    #[tokio::test]
    async fn guesses_slow_down_their_own_address_and_no_other() {
        let logins = Logins::new(Handle::current());
        let ada: OwnerName = "ada".parse().expect("a name");
        let waits: Vec<u128> = (0..10)
            .map(|_| logins.count(from(1), &ada).expect("let through").as_millis())
            .collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 250, 500, 1_000, 2_000, 4_000]);
        for _ in 10..20 {
            logins.count(from(1), &ada).expect("slow");
        }
        assert_eq!(
            logins.count(from(1), &ada).expect_err("enough").code,
            Code::AuthRateLimited
        );
        assert!(logins.count(from(2), &ada).expect("the owner").is_zero());
        logins.forgive(from(1), &ada);
        assert!(logins.count(from(1), &ada).expect("the right password").is_zero());
    }

    #[tokio::test]
    async fn one_address_does_not_go_through_many_names() {
        let logins = Logins::new(Handle::current());
        let name = |number: u32| format!("name-{number}").parse().expect("a name");
        let tried = (0..100).take_while(|number| logins.count(from(1), &name(*number)).is_ok());
        assert_eq!(tried.count(), 60);
        assert_eq!(logins.check(from(1)).expect_err("refused").code, Code::AuthRateLimited);
        assert!(logins.check(from(2)).is_ok());
    }

    #[tokio::test]
    async fn a_flood_of_failed_logins_is_a_few_entries() {
        let logins = Logins::new(Handle::current());
        let account = AccountId([1; 20]);
        let recorded: Vec<u32> = (0..1_000)
            .filter_map(|_| logins.note(account))
            .map(|failed| failed.count)
            .collect();
        assert_eq!(recorded, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    }
}
