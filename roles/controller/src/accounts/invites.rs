//! Invites: who may register, as what, and with which credits; also for an account that is there already.

use piecework_api::accounts::{CreateAccount, CreateInvite, InviteCreated, Role};
use piecework_ledger::{Action, Key, SetLimit, Transfer, Value};
use piecework_model::{AccountId, Code, Credits, Digest, Roles};
use piecework_store::Idempotency;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Answer,
    accounts::{
        Accounts, audit,
        auth::{Caller, random_text},
        members::{custodial_key, moved, own_key, send},
    },
    clock::{now_ms, timestamp},
    codecs,
    failure::{Refusal, chain, refuse, store},
};

const INVITES: &str = "invite";
/// How the spaces of invites that were asked for with a key begin, one for each account.
const REMEMBERED: &str = "invited/";
/// Characters of a code that the audit record shows: `inv_` and a quarter of the rest.
const INVITE_SHOWN: usize = 12;
/// Twice what an offer's deposit usually is.
const PROVIDER_GRANT: Credits = Credits(2_000_000);
const INVITE_TTL_DEFAULT_S: u64 = 7 * 86_400;
/// Of one account, not yet used nor expired.
const OPEN_MAX: usize = 100;
/// Read at once.
const PAGE: u32 = 1_000;
const TTL_MIN_S: u64 = 60;
const TTL_MAX_S: u64 = 365 * 86_400;

#[derive(Serialize, Deserialize)]
pub(super) struct Invite {
    pub(super) inviter: AccountId,
    roles: Vec<Role>,
    grant: Credits,
    #[serde(default)]
    lend: Credits,
    expires_at_ms: u64,
}

/// Refuses with `invite.wrong_role`, and with `invite.no_deposit` where a computer's account could never offer anything.
pub(super) async fn granted_roles(accounts: &Accounts, body: &CreateAccount, invite: Option<&Invite>) -> Answer<Roles> {
    let wanted: &[Role] = if body.roles.is_empty() {
        &[Role::Developer]
    } else {
        &body.roles
    };
    let allowed: &[Role] = match invite {
        Some(invite) if !invite.roles.is_empty() => &invite.roles,
        Some(_) | None => &[Role::Developer, Role::Provider],
    };
    if let Some(role) = wanted.iter().find(|role| !allowed.contains(role)) {
        let message = format!(
            "the invite is not for the role `{}`; nothing was registered",
            role.as_str()
        );
        return Err(Refusal::new(Code::InviteWrongRole, message)
            .hint(format!(
                "ask for one made with `piecework invite --role {}`",
                role.as_str()
            ))
            .into());
    }
    if let (&[Role::Provider], Some(invite)) = (wanted, invite) {
        check_deposit(accounts, invite).await?;
    }
    Ok(wanted.iter().copied().collect())
}

/// A provider has earned nothing when it puts its offer on the ledger: what the offer's deposit holds comes with the invite.
async fn check_deposit(accounts: &Accounts, invite: &Invite) -> Answer<()> {
    let deposit = match accounts.ground.chain.get(&Key::Params).await.map_err(chain)? {
        Some(Value::Params(params)) => params.offer_deposit,
        Some(_) | None => return refuse(Code::LedgerUnavailable, "the ledger has no parameters yet"),
    };
    if invite.grant >= deposit {
        return Ok(());
    }
    let message = format!(
        "the invite brings {} ucr, but a provider's offer needs a deposit of {deposit} ucr; nothing was registered",
        invite.grant
    );
    Err(Refusal::new(Code::InviteNoDeposit, message)
        .hint("ask for one made with `piecework invite --role provider`")
        .into())
}

/// Nothing came of it: it can be used again.
pub(super) async fn give_back(accounts: &Accounts, code: &str, invite: &Invite) -> Answer<()> {
    codecs::put_json(&accounts.ground, INVITES, code, invite).await
}

/// `POST /invites/accept`: an account that is there already gets what the invite promises, its roles too.
pub(crate) async fn accept(accounts: &Accounts, caller: &Caller, code: &str) -> Answer<()> {
    let Some(invite) = take(accounts, Some(code)).await? else {
        return refuse(Code::InviteBad, "the invite is unknown, used or expired");
    };
    let accepted = add_roles(accounts, caller, &invite).await;
    if accepted.is_err() {
        give_back(accounts, code, &invite).await?;
    }
    accepted?;
    let detail = json!({"roles": invite.roles, "grant_ucr": invite.grant, "inviter": invite.inviter});
    audit::own(
        accounts,
        caller.account,
        ("invite", "accepted"),
        caller.name.as_str(),
        detail,
    )
    .await?;
    keep_promises(accounts, &invite, caller.account).await
}

async fn add_roles(accounts: &Accounts, caller: &Caller, invite: &Invite) -> Answer<()> {
    if invite.inviter == caller.account {
        return refuse(Code::InviteBad, "the invite is your own; it is for somebody else");
    }
    let Some(mut user) = accounts
        .ground
        .store
        .user_by_account(caller.account)
        .await
        .map_err(store)?
    else {
        return refuse(Code::AccountNotFound, "the account is not known here");
    };
    let roles = Role::ALL.into_iter().filter(|role| user.roles.has(*role));
    user.roles = roles.chain(invite.roles.iter().copied()).collect();
    accounts.ground.store.update_user(&user).await.map_err(store)?;
    accounts.auth.forget_account(caller.account);
    Ok(())
}

pub(super) async fn take(accounts: &Accounts, code: Option<&str>) -> Answer<Option<Invite>> {
    let Some(code) = code else {
        if accounts.ground.tuning.open_registration {
            return Ok(None);
        }
        return refuse(Code::InviteRequired, "this network requires an invite to register");
    };
    let bad = || {
        let refused = Refusal::new(Code::InviteBad, "the invite is unknown, used or expired");
        Err(refused
            .hint("ask for another one, made with `piecework invite`; for a computer, with `--role provider`")
            .into())
    };
    let Some(bytes) = accounts.ground.store.take_value(INVITES, code).await.map_err(store)? else {
        return bad();
    };
    let invite: Invite = codecs::from_json(&bytes)?;
    if invite.expires_at_ms <= now_ms() {
        bad()
    } else {
        Ok(Some(invite))
    }
}

/// What the inviter promised. If the inviter's credits no longer cover it, the account still exists, and the log says
/// so.
pub(super) async fn keep_promises(accounts: &Accounts, invite: &Invite, to: AccountId) -> Answer<()> {
    let Some(key) = custodial_key(accounts, invite.inviter).await? else {
        return Ok(());
    };
    if invite.grant.is_positive() {
        let action = Action::Transfer(Transfer {
            to,
            amount: invite.grant,
        });
        match send(accounts, invite.inviter, &key, action).await {
            Ok(sent) => moved(accounts, invite.inviter, to, invite.grant, &sent).await?,
            Err(refusal) => tracing::warn!(%refusal, account = %to, "paying an invite's grant failed"),
        }
    }
    if invite.lend.is_positive() {
        let action = Action::SetLimit(SetLimit {
            account: to,
            limit: invite.lend,
        });
        if let Err(refusal) = send(accounts, invite.inviter, &key, action).await {
            tracing::warn!(%refusal, account = %to, "granting an invite's loan failed");
        }
    }
    Ok(())
}

/// Calls `each` with every invite that nobody has used.
async fn for_each(accounts: &Accounts, mut each: impl FnMut(String, Invite)) -> Answer<()> {
    let mut after = None::<String>;
    loop {
        let page = accounts.ground.store.list_values(INVITES, "", after.as_deref(), PAGE);
        let page = page.await.map_err(store)?;
        for (code, bytes) in page.items {
            each(code, codecs::from_json(&bytes)?);
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

async fn open_of(accounts: &Accounts, account: AccountId) -> Answer<usize> {
    let (mut open, now_ms) = (0, now_ms());
    for_each(accounts, |_, invite| {
        open += usize::from(invite.inviter == account && invite.expires_at_ms > now_ms);
    })
    .await?;
    Ok(open)
}

/// Those that have expired go. Gives their number.
pub(super) async fn forget_expired(accounts: &Accounts, now_ms: u64) -> Answer<usize> {
    let mut expired = Vec::new();
    for_each(accounts, |code, invite| {
        if invite.expires_at_ms <= now_ms {
            expired.push((INVITES.to_owned(), code));
        }
    })
    .await?;
    accounts
        .ground
        .store
        .replace_values(&expired, &[])
        .await
        .map_err(store)?;
    Ok(expired.len())
}

/// Keys whose invites are used or have expired: as many stay as invites may be open. Gives their number.
pub(super) async fn forget_closed(accounts: &Accounts) -> Answer<usize> {
    let ground = &accounts.ground;
    let mut forgotten = 0;
    for (space, _) in ground.store.crowded_spaces(REMEMBERED, 0).await.map_err(store)? {
        let mut after = None::<String>;
        loop {
            let page = ground.store.list_values(&space, "", after.as_deref(), PAGE);
            let page = page.await.map_err(store)?;
            let mut closed = Vec::new();
            for (key, bytes) in page.items {
                let code = codecs::from_json::<Remembered>(&bytes)?.answer.code;
                if ground.store.value(INVITES, &code).await.map_err(store)?.is_none() {
                    closed.push((space.clone(), key));
                }
            }
            ground.store.replace_values(&closed, &[]).await.map_err(store)?;
            forgotten += closed.len();
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(forgotten)
}

/// What a request with a key was answered.
#[derive(Serialize, Deserialize)]
struct Remembered {
    request: Digest,
    answer: InviteCreated,
}

/// `POST /invites` with a key: the same request has the same invite. One that nobody was told of, because the server ended in
/// between, is used by nobody. Refuses with `idempotency.conflict`.
pub(crate) async fn create_once(
    accounts: &Accounts,
    caller: &Caller,
    body: CreateInvite,
    key: Idempotency,
) -> Answer<InviteCreated> {
    let space = format!("{REMEMBERED}{}", caller.account);
    let _turn = accounts.booking.lock().await;
    let earlier = accounts.ground.store.value(&space, &key.key).await.map_err(store)?;
    match earlier
        .map(|bytes| codecs::from_json::<Remembered>(&bytes))
        .transpose()?
    {
        Some(earlier) if earlier.request == key.request => Ok(earlier.answer),
        Some(_) => refuse(
            Code::IdempotencyConflict,
            "the idempotency key was already used with a different request",
        ),
        None => {
            let answer = create(accounts, caller, body).await?;
            let remembered = Remembered {
                request: key.request,
                answer,
            };
            codecs::put_json(&accounts.ground, &space, &key.key, &remembered).await?;
            Ok(remembered.answer)
        }
    }
}

/// `POST /invites`.
pub(crate) async fn create(accounts: &Accounts, caller: &Caller, body: CreateInvite) -> Answer<InviteCreated> {
    let privileged = body
        .roles
        .iter()
        .any(|role| matches!(role, Role::Peer | Role::Controller));
    if privileged && !caller.operator {
        return refuse(Code::AuthScope, "only an operator can invite peers and controllers");
    }
    let seconds = body.expires_in_s.unwrap_or(INVITE_TTL_DEFAULT_S);
    if !(TTL_MIN_S..=TTL_MAX_S).contains(&seconds) {
        return refuse(Code::TokenBadExpiry, "the expiry must be between 60 s and a year");
    }
    if !caller.operator && open_of(accounts, caller.account).await? >= OPEN_MAX {
        let message = format!("the account has {OPEN_MAX} invites that nobody has used");
        return Err(Refusal::new(Code::InviteTooMany, message)
            .hint("wait until some are used or expire")
            .into());
    }
    // A provider's offer needs a deposit before it has earned anything.
    let becomes_provider = body.roles.contains(&Role::Provider);
    let deposit = if becomes_provider {
        PROVIDER_GRANT
    } else {
        Credits::ZERO
    };
    let grant = body.grant_ucr.unwrap_or(deposit);
    let lend = body.lend_ucr.unwrap_or(Credits::ZERO);
    if grant.is_negative() || lend.is_negative() {
        return refuse(Code::TransferNotPositive, "a grant or a loan cannot be negative");
    }
    if grant.is_positive() || lend.is_positive() {
        // Nobody else could keep the promise when somebody registers.
        let command =
            "transfer NAME AMOUNT --key FILE` or `lend` once the account is there; until then `invite --grant 0";
        own_key(accounts, caller.account, command).await?;
    }
    let roles = if body.roles.is_empty() {
        vec![Role::Developer]
    } else {
        body.roles
    };
    let expires_at_ms = now_ms() + seconds * 1_000;
    let invite = Invite {
        inviter: caller.account,
        roles: roles.clone(),
        grant,
        lend,
        expires_at_ms,
    };
    let code = random_text("inv_", 16);
    codecs::put_json(&accounts.ground, INVITES, &code, &invite).await?;
    let grant_ucr = grant.is_positive().then_some(grant);
    let lend_ucr = lend.is_positive().then_some(lend);
    // Of the code only as much as tells invites apart: whoever has the whole of it registers.
    let target = &code[..INVITE_SHOWN];
    let detail = json!({"roles": roles, "grant_ucr": grant_ucr, "lend_ucr": lend_ucr, "expires_in_s": seconds});
    audit::own(accounts, caller.account, ("invite", "created"), target, detail).await?;
    Ok(InviteCreated {
        code,
        roles,
        grant_ucr,
        lend_ucr,
        expires_at: timestamp(expires_at_ms),
    })
}
