//! Authentication: bearer tokens and their scopes.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::sync::Cache;
use piecework_api::audit::AccountLimits;
use piecework_api::{accounts::Scope, errors::Refusal};
use piecework_model::{AccountId, Code, OwnerName, Roles};
use piecework_serve::Caller as Address;
use piecework_store::{StoreFailure, Token};
use rand::RngExt as _;
use tokio::runtime::Handle;

use crate::{
    Answer,
    accounts::{
        Accounts,
        audit::{self, Reads},
        logins::Logins,
        throttle::{Patience, Throttle},
    },
    clock::now_ms,
    failure::{refuse, store},
};

/// A caller with a valid token.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) account: AccountId,
    pub(crate) name: OwnerName,
    pub(crate) scopes: BTreeSet<Scope>,
    pub(crate) operator: bool,
    pub(crate) roles: Roles,
    pub(crate) limits: AccountLimits,
    pub(crate) token_id: String,
    pub(crate) expires_at_ms: Option<u64>,
}

impl Caller {
    /// Refuses with `auth.operator`.
    pub(crate) fn needs_operator(&self) -> Answer<()> {
        if self.operator {
            return Ok(());
        }
        refuse(Code::AuthOperator, "only an operator of this network can do this")
    }

    /// Refuses with `auth.role`.
    pub(crate) fn needs_developer(&self) -> Answer<()> {
        if self.roles.developer || self.operator {
            return Ok(());
        }
        let message = format!("`{}` is not a developer, so it has no functions", self.name);
        Err(Refusal::new(Code::AuthRole, message)
            .hint("log in with a developer's account, or ask the operator for `piecework invite --role developer`")
            .into())
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
    pub(crate) logins: Logins,
    pub(crate) reads: Reads,
    /// Addresses that send tokens which are none.
    bad_tokens: Throttle,
}

/// Long enough to spare the store, short enough that a changed role shows soon.
const CALLER_TTL: Duration = Duration::from_secs(60);
const CALLERS_MAX: u64 = 100_000;
pub(crate) const SESSION_TTL_MS: u64 = 30 * 86_400_000;
/// Each bad token costs a look into the store: an address may send some that have expired, and then ten a second.
const BAD_TOKENS: Patience = Patience {
    failures_max: 100,
    forgets: Duration::from_millis(100),
};

impl Auth {
    /// Passwords are verified on threads of `background`: a login waits for nobody's call, and no call for a login.
    pub(crate) fn new(background: Handle) -> Self {
        Self {
            callers: Cache::builder()
                .max_capacity(CALLERS_MAX)
                .time_to_live(CALLER_TTL)
                .build(),
            logins: Logins::new(background),
            reads: audit::reads(),
            bad_tokens: Throttle::default(),
        }
    }

    /// Whether it was a good token a moment ago.
    pub(crate) fn knows(&self, token: &str) -> bool {
        self.callers.contains_key(&Token::hash_of(token))
    }

    /// What is known of an account's tokens is read anew.
    pub(crate) fn forget_account(&self, account: AccountId) {
        self.forget_where(|caller| caller.account == account);
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
}

/// How every token of the platform begins.
pub(crate) const TOKEN_PREFIX: &str = "pw_";

/// `prefix` and so many random bytes in hex.
pub(crate) fn random_text(prefix: &str, bytes: usize) -> String {
    let mut random = vec![0; bytes];
    rand::rng().fill(&mut random[..]);
    format!("{prefix}{}", hex::encode(random))
}

/// The caller of a bearer token. Refuses with `auth.bad_token`, and with `rate.limited` where the address has sent too many
/// such.
pub(crate) async fn caller_of(accounts: &Accounts, token: &str, from: Address) -> Answer<Arc<Caller>> {
    let hash = Token::hash_of(token);
    let caller = match accounts.auth.callers.get(&hash) {
        Some(caller) => caller,
        None => {
            let bad_tokens = &accounts.auth.bad_tokens;
            if bad_tokens.attempt(from, BAD_TOKENS, Instant::now()).is_none() {
                let refusal = Refusal::new(
                    Code::RateLimited,
                    "too many requests with a bad token from this address",
                );
                return Err(Box::new(refusal.hint("retry in a second")));
            }
            let caller = look_up(accounts, hash).await?;
            bad_tokens.take_back(from);
            caller
        }
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
        scopes: token.scopes,
        operator: user.operator,
        roles: user.roles,
        limits: crate::accounts::rates::limits(accounts, user.account).await?,
        token_id: token.id,
        expires_at_ms: token.expires_at_ms,
    });
    accounts.auth.callers.insert(hash, caller.clone());
    Ok(caller)
}

/// Makes and stores a token; its text is returned once and kept nowhere. `parent` is the token that it was made with, and goes
/// with.
pub(crate) async fn issue(
    accounts: &Accounts,
    account: AccountId,
    label: &str,
    scopes: BTreeSet<Scope>,
    (expires_at_ms, parent): (Option<u64>, Option<String>),
) -> Answer<(String, Token)> {
    let text = random_text(TOKEN_PREFIX, 32);
    let token = Token {
        id: random_text("tok_", 8),
        hash: Token::hash_of(&text),
        account,
        scopes,
        label: label.to_owned(),
        created_at_ms: now_ms(),
        expires_at_ms,
        parent,
    };
    match accounts.ground.store.insert_token(&token).await {
        Ok(()) => {}
        // Revoked in this moment.
        Err(StoreFailure::NotFound { .. }) => {
            return refuse(Code::AuthBadToken, "the token is unknown, expired or revoked");
        }
        Err(failure) => return Err(store(failure)),
    }
    Ok((text, token))
}

/// How a browser's session is called among an account's tokens.
pub(crate) const PORTAL_LABEL: &str = "portal";
/// Of an account's sessions these many stay, the newest: nobody is logged in at more places at once.
const SESSIONS_MAX: usize = 64;
/// Of those that were opened with one token, so that whoever found it closes none of the others.
const SESSIONS_OF_TOKEN_MAX: usize = 8;

/// Whether somebody is logged in by it, other than by a token that was made for a program.
pub(crate) fn is_session(token: &Token) -> bool {
    token.label == PORTAL_LABEL || (token.parent.is_none() && token.expires_at_ms.is_some())
}

/// Closes the oldest sessions of the kind that was just opened: by a login, or with the token `parent`.
pub(crate) async fn bound_sessions(accounts: &Accounts, account: AccountId, parent: Option<&str>) -> Answer<()> {
    let most = match parent {
        None => SESSIONS_MAX,
        Some(_) => SESSIONS_OF_TOKEN_MAX,
    };
    let tokens = accounts.ground.store.list_tokens(account).await.map_err(store)?;
    let is_such = |token: &Token| is_session(token) && token.parent.as_deref() == parent;
    let mut sessions: Vec<Token> = tokens.into_iter().filter(is_such).collect();
    sessions.sort_by_key(|token| token.created_at_ms);
    let surplus = sessions.len().saturating_sub(most);
    for old in sessions.drain(..surplus) {
        accounts
            .ground
            .store
            .delete_token(account, &old.id)
            .await
            .map_err(store)?;
    }
    if surplus > 0 {
        accounts.auth.forget_account(account);
    }
    Ok(())
}
