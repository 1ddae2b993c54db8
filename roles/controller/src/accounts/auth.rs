//! Authentication: bearer tokens, password and challenge logins, scopes.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use moka::sync::Cache;
use parking_lot::Mutex;
use piecework_api::accounts::{CreateSession, Scope, verify_login};
use piecework_api::audit::AccountLimits;
use piecework_model::{AccountId, Code, OwnerName};
use piecework_store::{Scope as StoredScope, Token, User};
use rand::RngExt as _;
use tokio::sync::Semaphore;

use crate::{
    Answer,
    accounts::Accounts,
    clock::now_ms,
    failure::{failed, refuse, store},
};

/// A caller with a valid token.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) account: AccountId,
    pub(crate) name: OwnerName,
    pub(crate) scopes: BTreeSet<Scope>,
    pub(crate) operator: bool,
    pub(crate) limits: AccountLimits,
    token_id: String,
    expires_at_ms: Option<u64>,
}

impl Caller {
    /// Refuses with `auth.operator`.
    pub(crate) fn needs_operator(&self) -> Answer<()> {
        if self.operator {
            return Ok(());
        }
        refuse(Code::AuthOperator, "only an operator of this network can do this")
    }

    /// Refuses with `auth.scope`.
    pub(crate) fn needs(&self, scope: Scope) -> Answer<()> {
        if self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin) {
            return Ok(());
        }
        refuse(
            Code::AuthScope,
            format!("the token lacks the scope `{}`", scope.as_str()),
        )
    }
}

pub(crate) struct Auth {
    /// By token hash; a deleted token is taken out at once, whatever else changes shows within the time to live.
    callers: Cache<[u8; 32], Arc<Caller>>,
    challenges: Mutex<HashMap<String, (String, Instant)>>,
    attempts: Mutex<HashMap<String, Attempts>>,
    /// Passwords verified at one time: each takes 19 MiB and tens of milliseconds of a core.
    verifying: Semaphore,
}

struct Attempts {
    left: u32,
    since: Instant,
}

/// Long enough to spare the store, short enough that a changed role shows soon.
const CALLER_TTL: Duration = Duration::from_secs(60);
const CALLERS_MAX: u64 = 100_000;
const CHALLENGE_TTL: Duration = Duration::from_secs(120);
/// More at a time only come from an attempt to fill memory.
const CHALLENGES_MAX: usize = 10_000;
/// Failed logins for one name before it has to wait: guessing a password takes ages at this rate.
const ATTEMPTS_MAX: u32 = 10;
const ATTEMPTS_WINDOW: Duration = Duration::from_secs(60);
/// A caller that tries many names at once queues behind itself and leaves the cores to others.
const VERIFYING_MAX: usize = 2;
const NAMES_WATCHED_MAX: usize = 10_000;
pub(crate) const SESSION_TTL_MS: u64 = 30 * 86_400_000;

impl Default for Auth {
    fn default() -> Self {
        Self {
            callers: Cache::builder()
                .max_capacity(CALLERS_MAX)
                .time_to_live(CALLER_TTL)
                .build(),
            challenges: Mutex::default(),
            attempts: Mutex::default(),
            verifying: Semaphore::new(VERIFYING_MAX),
        }
    }
}

impl Auth {
    /// What is known of an account's tokens is read anew.
    pub(crate) fn forget_account(&self, account: AccountId) {
        self.forget_where(|caller| caller.account == account);
    }

    pub(crate) fn forget(&self, token_id: &str) {
        self.forget_where(|caller| caller.token_id == token_id);
    }

    fn forget_where(&self, is_meant: impl Fn(&Caller) -> bool) {
        let held: Vec<_> = self
            .callers
            .iter()
            .filter(|(_, caller)| is_meant(caller))
            .map(|(hash, _)| *hash)
            .collect();
        for hash in held {
            self.callers.invalidate(&hash);
        }
    }

    /// Refuses with `auth.rate_limited` after too many failures for one name.
    fn count_attempt(&self, name: &str) -> Answer<()> {
        let now = Instant::now();
        let mut attempts = self.attempts.lock();
        if attempts.len() > NAMES_WATCHED_MAX {
            attempts.retain(|_, attempt| now.duration_since(attempt.since) < ATTEMPTS_WINDOW);
        }
        let entry = attempts.entry(name.to_owned()).or_insert(Attempts {
            left: ATTEMPTS_MAX,
            since: now,
        });
        if now.duration_since(entry.since) >= ATTEMPTS_WINDOW {
            *entry = Attempts {
                left: ATTEMPTS_MAX,
                since: now,
            };
        }
        if entry.left == 0 {
            return refuse(
                Code::AuthRateLimited,
                "too many login attempts for this name; wait a minute",
            );
        }
        entry.left -= 1;
        Ok(())
    }

    fn forgive(&self, name: &str) {
        self.attempts.lock().remove(name);
    }

    /// A text to sign once within two minutes.
    pub(crate) fn challenge(&self, name: &str) -> (String, Duration) {
        let challenge = random_text("", 24);
        let now = Instant::now();
        let mut challenges = self.challenges.lock();
        if challenges.len() >= CHALLENGES_MAX {
            challenges.retain(|_, (_, made)| now.duration_since(*made) < CHALLENGE_TTL);
        }
        if challenges.len() < CHALLENGES_MAX {
            challenges.insert(challenge.clone(), (name.to_owned(), now));
        }
        (challenge, CHALLENGE_TTL)
    }

    fn take_challenge(&self, challenge: &str, name: &str) -> bool {
        let taken = self.challenges.lock().remove(challenge);
        taken.is_some_and(|(for_name, made)| for_name == name && made.elapsed() < CHALLENGE_TTL)
    }
}

/// `prefix` and so many random bytes in hex.
pub(crate) fn random_text(prefix: &str, bytes: usize) -> String {
    let mut random = vec![0; bytes];
    rand::rng().fill(&mut random[..]);
    format!("{prefix}{}", hex::encode(random))
}

/// The caller of a bearer token. Refuses with `auth.bad_token`.
pub(crate) async fn caller_of(accounts: &Accounts, token: &str) -> Answer<Arc<Caller>> {
    let hash = Token::hash_of(token);
    let caller = match accounts.auth.callers.get(&hash) {
        Some(caller) => caller,
        None => look_up(accounts, hash).await?,
    };
    if caller.expires_at_ms.is_some_and(|expires| expires <= now_ms()) {
        return refuse(Code::AuthBadToken, "the token has expired");
    }
    Ok(caller)
}

async fn look_up(accounts: &Accounts, hash: [u8; 32]) -> Answer<Arc<Caller>> {
    let Some(token) = accounts.ground.store.token_by_hash(&hash).await.map_err(store)? else {
        return refuse(Code::AuthBadToken, "the token is unknown, expired or revoked");
    };
    let Some(user) = accounts
        .ground
        .store
        .user_by_account(token.account)
        .await
        .map_err(store)?
    else {
        return refuse(Code::AuthBadToken, "the token's account no longer exists");
    };
    let caller = Arc::new(Caller {
        account: user.account,
        name: user.name,
        scopes: token.scopes.iter().map(|held| scope(*held)).collect(),
        operator: user.roles.operator,
        limits: crate::accounts::rates::limits(accounts, user.account).await?,
        token_id: token.id,
        expires_at_ms: token.expires_at_ms,
    });
    accounts.auth.callers.insert(hash, caller.clone());
    Ok(caller)
}

/// Makes and stores a token; its text is returned once and kept nowhere.
pub(crate) async fn issue(
    accounts: &Accounts,
    account: AccountId,
    label: &str,
    scopes: BTreeSet<Scope>,
    expires_at_ms: Option<u64>,
) -> Answer<(String, Token)> {
    let text = random_text("pw_", 32);
    let token = Token {
        id: random_text("tok_", 8),
        hash: Token::hash_of(&text),
        account,
        scopes: scopes.into_iter().map(stored_scope).collect(),
        label: label.to_owned(),
        created_at_ms: now_ms(),
        expires_at_ms,
    };
    accounts.ground.store.insert_token(&token).await.map_err(store)?;
    Ok((text, token))
}

/// The user that a password or a signed challenge proves. Refuses with `auth.bad_credentials`, whatever was wrong.
pub(crate) async fn prove(accounts: &Accounts, session: &CreateSession) -> Answer<User> {
    accounts.auth.count_attempt(&session.name)?;
    let user = match session.name.parse() {
        Ok(name) => accounts.ground.store.user_by_name(&name).await.map_err(store)?,
        Err(_) => None,
    };
    let proven = match (&session.password, &session.challenge, &session.signature) {
        (Some(password), None, None) => {
            let hash = user.as_ref().and_then(|user| user.password_hash.clone());
            let _turn = accounts.auth.verifying.acquire().await.expect("never closed");
            verify_password(password.clone(), hash).await?
        }
        (None, Some(challenge), Some(signature)) => {
            let fresh = accounts.auth.take_challenge(challenge, &session.name);
            let key = user.as_ref().map(|user| user.public_key);
            let verify =
                |key| verify_login(&key, &accounts.ground.network, &session.name, challenge, signature).is_ok();
            fresh && key.is_some_and(verify)
        }
        _ => {
            return refuse(
                Code::BodyMalformed,
                "send either a password, or a challenge and a signature",
            );
        }
    };
    match user {
        Some(user) if proven => {
            accounts.auth.forgive(&session.name);
            Ok(user)
        }
        _ => refuse(
            Code::AuthBadCredentials,
            "the name, password, challenge or signature is wrong",
        ),
    }
}

/// Takes as long for an unknown name as for a known one.
async fn verify_password(password: String, hash: Option<String>) -> Answer<bool> {
    /// Hash of a random password that nobody knows.
    const NOBODY: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$y6Yd2Bfpzzd1T2cDkMfJgLDyMPk1aBL6Yk0N3ZS0wHs";
    let known = hash.is_some();
    let hash = hash.unwrap_or_else(|| NOBODY.to_owned());
    let verified = tokio::task::spawn_blocking(move || piecework_store::verify_password(&password, &hash))
        .await
        .map_err(|error| failed("verify a password", &error))?;
    Ok(known && verified)
}

pub(crate) fn scope(scope: StoredScope) -> Scope {
    match scope {
        StoredScope::Deploy => Scope::Deploy,
        StoredScope::Invoke => Scope::Invoke,
        StoredScope::View => Scope::View,
        StoredScope::Admin => Scope::Admin,
    }
}

fn stored_scope(scope: Scope) -> StoredScope {
    match scope {
        Scope::Deploy => StoredScope::Deploy,
        Scope::Invoke => StoredScope::Invoke,
        Scope::View => StoredScope::View,
        Scope::Admin => StoredScope::Admin,
    }
}
