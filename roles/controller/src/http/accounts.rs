//! `/accounts`, `/sessions`, `/tokens`, `/invites`: identity, and what a token allows.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use piecework_api::{
    accounts::{
        AcceptInvite, AccountQuery, AccountView, ChallengeView, CreateAccount, CreateChallenge, CreateInvite,
        CreateSession, CreateToken, InviteCreated, OwnProvider, OwnerView, PayLoan, Scope, SetLoan, TokenCreated,
        TokenView,
    },
    errors::ErrorBody,
    page::{List, PageQuery},
    routes,
};
use piecework_model::{AccountId, Code, OwnerName};
use piecework_serve::Caller as Address;
use serde_json::json;

use super::{
    Authenticated, BODY_BYTES_MAX, Created, HttpResult, Path, Query, STRANGERS_BODY_BYTES_MAX, Shared,
    execute::idempotency, page, read_body,
};
use crate::{
    Answer, Controller,
    accounts::{
        self, audit,
        auth::{self, Caller},
        challenges::CHALLENGE_TTL,
        invites, logins,
        transfers::{self, Order, Purpose},
    },
    clock::{now_ms, timestamp},
    failure::{failed, refuse, rejected, store},
    http::views,
};

pub(super) async fn view(controller: &Controller, id: AccountId) -> Answer<AccountView> {
    let account = accounts::on_ledger(&controller.accounts, id).await?;
    let sponsor = controller.ground.name_of(account.sponsor).await;
    let owner = controller.ground.name_of(account.owner).await;
    let height = controller.ground.chain.status().height;
    Ok(AccountView::of(id, &account, height, sponsor, owner))
}

/// Registers an account. With a password the controller keeps the key; with a public key its owner does.
#[utoipa::path(post, path = routes::ACCOUNTS, tag = "accounts", request_body = CreateAccount, security(()), responses(
    (status = 201, body = AccountView), (status = "default", body = ErrorBody)))]
pub(super) async fn create(State(controller): Shared, from: Address, body: Body) -> HttpResult<Created<AccountView>> {
    let logins = &controller.accounts.auth.logins;
    logins.check(from)?;
    let body: CreateAccount = read_body(body, STRANGERS_BODY_BYTES_MAX).await?;
    let registered = accounts::register(&controller.accounts, body).await;
    let account = registered.inspect_err(|refused| {
        if refused.code == Code::InviteBad {
            logins.failed(from);
        }
    })?;
    Ok(Created(view(&controller, account).await?))
}

/// Shows an account on the ledger, by name or id. Needs no token, because the ledger is public. With `proof=true`, adds
/// a proof of the balances that anyone with the genesis file can check.
#[utoipa::path(get, path = routes::ACCOUNT, tag = "accounts", params(("name" = String, Path), AccountQuery), security(()),
    responses((status = 200, body = AccountView), (status = "default", body = ErrorBody)))]
pub(super) async fn show(
    State(controller): Shared,
    Path(name): Path<String>,
    Query(query): Query<AccountQuery>,
) -> HttpResult<Json<AccountView>> {
    let account = accounts::find(&controller.accounts, &name).await?;
    let mut view = view(&controller, account).await?;
    if query.proof {
        view.proof = Some(accounts::proof(&controller.accounts, account).await?);
    }
    Ok(Json(view))
}

/// Shows the caller's account.
#[utoipa::path(get, path = routes::ACCOUNT_OWN, tag = "accounts", responses(
    (status = 200, body = AccountView), (status = "default", body = ErrorBody)))]
pub(super) async fn own(State(controller): Shared, authenticated: Authenticated) -> HttpResult<Json<AccountView>> {
    Ok(Json(view(&controller, authenticated.0.account).await?))
}

/// Sets how far below zero the account may go. The caller is its sponsor, whose account holds this amount meanwhile.
/// Only the sponsor can raise it; either side can lower it, but never below what is owed or in use.
#[utoipa::path(put, path = routes::ACCOUNT_LOAN, tag = "accounts", params(("name" = String, Path)), request_body = SetLoan,
    responses((status = 200, body = AccountView), (status = "default", body = ErrorBody)))]
pub(super) async fn set_loan(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(name): Path<String>,
    body: Body,
) -> HttpResult<Json<AccountView>> {
    let caller = authenticated.with(Scope::Admin)?;
    let body: SetLoan = read_body(body, BODY_BYTES_MAX).await?;
    let account = accounts::find(&controller.accounts, &name).await?;
    accounts::lend(&controller.accounts, caller.account, account, body.limit_ucr).await?;
    Ok(Json(view(&controller, account).await?))
}

/// Pays part of the account's debt. The caller is its sponsor, and the loan shrinks by the same amount. With an
/// `Idempotency-Key`, repeated requests pay once, as with transfers.
#[utoipa::path(post, path = routes::ACCOUNT_LOAN_PAYMENTS, tag = "accounts",
    params(("name" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = PayLoan, responses((status = 200, body = AccountView), (status = "default", body = ErrorBody)))]
pub(super) async fn pay_loan(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> HttpResult<Json<AccountView>> {
    let caller = authenticated.with(Scope::Admin)?;
    let body: PayLoan = read_body(body, BODY_BYTES_MAX).await?;
    let account = accounts::find(&controller.accounts, &name).await?;
    let request = format!("cover {account} {}", body.amount_ucr);
    match idempotency(caller, &headers, request.as_bytes(), b"")? {
        Some(key) => {
            let order = Order {
                from: caller.account,
                from_name: caller.name.to_string(),
                to: account,
                amount: body.amount_ucr,
                purpose: Purpose::Cover,
            };
            transfers::once(&controller.accounts, order, key).await?;
        }
        None => accounts::cover(&controller.accounts, caller.account, account, body.amount_ucr).await?,
    }
    Ok(Json(view(&controller, account).await?))
}

/// Gives the caller's account a new key, if the controller keeps the key. Otherwise the owner posts a signed
/// transaction.
#[utoipa::path(post, path = routes::ACCOUNT_ROTATE_KEY, tag = "accounts", responses(
    (status = 200, body = AccountView), (status = "default", body = ErrorBody)))]
pub(super) async fn rotate_key(
    State(controller): Shared,
    authenticated: Authenticated,
) -> HttpResult<Json<AccountView>> {
    let caller = authenticated.with(Scope::Admin)?;
    accounts::rotate_key(&controller.accounts, caller.account).await?;
    Ok(Json(view(&controller, caller.account).await?))
}

/// Signs, for the ledger, that a computer's account belongs to the caller, so that the caller's jobs there pay no
/// commission.
#[utoipa::path(post, path = routes::ACCOUNT_PROVIDERS, tag = "accounts", request_body = OwnProvider, responses(
    (status = 200, body = OwnerView), (status = "default", body = ErrorBody)))]
pub(super) async fn own_provider(
    State(controller): Shared,
    authenticated: Authenticated,
    body: Body,
) -> HttpResult<Json<OwnerView>> {
    let caller = authenticated.with(Scope::Admin)?;
    let body: OwnProvider = read_body(body, BODY_BYTES_MAX).await?;
    Ok(Json(
        accounts::vouch(&controller.accounts, caller.account, &body.public_key).await?,
    ))
}

/// Creates a challenge to sign for logging in with a key.
#[utoipa::path(post, path = routes::SESSION_CHALLENGES, tag = "accounts", request_body = CreateChallenge, security(()),
    responses((status = 201, body = ChallengeView), (status = "default", body = ErrorBody)))]
pub(super) async fn challenge(State(controller): Shared, body: Body) -> HttpResult<Created<ChallengeView>> {
    let body: CreateChallenge = read_body(body, STRANGERS_BODY_BYTES_MAX).await?;
    let name: OwnerName = body.name.parse().map_err(rejected)?;
    let challenge = controller.accounts.auth.logins.challenges.make(&name);
    let expires_at = timestamp(now_ms() + CHALLENGE_TTL.as_millis() as u64);
    Ok(Created(ChallengeView {
        challenge,
        network: controller.ground.network,
        expires_at,
    }))
}

/// Logs in with a password or a signed challenge. The token is valid for 30 days and allows everything the account may
/// do.
#[utoipa::path(post, path = routes::SESSIONS, tag = "accounts", request_body = CreateSession, security(()), responses(
    (status = 201, body = TokenCreated), (status = "default", body = ErrorBody)))]
pub(super) async fn log_in(State(controller): Shared, from: Address, body: Body) -> HttpResult<Created<TokenCreated>> {
    let body: CreateSession = read_body(body, STRANGERS_BODY_BYTES_MAX).await?;
    Ok(Created(open_session(&controller, &body, "session", from).await?))
}

pub(super) async fn open_session(
    controller: &Controller,
    body: &CreateSession,
    label: &str,
    from: Address,
) -> Answer<TokenCreated> {
    let user = logins::prove(&controller.accounts, body, from).await?;
    let expires = (Some(now_ms() + auth::SESSION_TTL_MS), None);
    let issued = auth::issue(&controller.accounts, user.account, label, Scope::ALL.into(), expires);
    let (token, record) = issued.await?;
    auth::bound_sessions(&controller.accounts, user.account, None).await?;
    let by = if body.password.is_some() { "password" } else { "key" };
    audit::own(
        &controller.accounts,
        user.account,
        ("session", "opened"),
        record.id.as_str(),
        json!({"by": by}),
    )
    .await?;
    Ok(TokenCreated {
        token,
        view: views::token(&record, user.name.as_str()),
    })
}

const TOKEN_TTL_DEFAULT_S: u64 = 90 * 86_400;
const TOKEN_TTL_S: std::ops::RangeInclusive<u64> = 60..=365 * 86_400;
const LABEL_LENGTH_MAX: usize = 100;
/// Of one account at a time.
const TOKENS_MAX: usize = 256;

/// Creates a token. Its secret is shown only once. It is valid for no longer than the token that asks for it, and is revoked
/// with it.
#[utoipa::path(post, path = routes::TOKENS, tag = "accounts", request_body = CreateToken, responses(
    (status = 201, body = TokenCreated), (status = "default", body = ErrorBody)))]
pub(super) async fn create_token(
    State(controller): Shared,
    authenticated: Authenticated,
    body: Body,
) -> HttpResult<Created<TokenCreated>> {
    let caller = authenticated.0;
    let body: CreateToken = read_body(body, BODY_BYTES_MAX).await?;
    let seconds = body.expires_in_s.unwrap_or(TOKEN_TTL_DEFAULT_S);
    if !TOKEN_TTL_S.contains(&seconds) {
        return Ok(refuse(
            Code::TokenBadExpiry,
            "the expiry must be between 60 s and a year",
        )?);
    }
    if body.scopes.is_empty() {
        return Ok(refuse(
            Code::TokenBadScope,
            "a token needs at least one scope; use deploy, invoke, view or admin",
        )?);
    }
    if body.label.chars().count() > LABEL_LENGTH_MAX {
        return Ok(refuse(Code::BodyMalformed, "the label is over 100 characters")?);
    }
    let all = caller.scopes.contains(&Scope::Admin);
    if let Some(scope) = body.scopes.iter().find(|scope| !all && !caller.scopes.contains(scope)) {
        let message = format!(
            "a token cannot grant the scope `{}`, which it does not have",
            scope.as_str()
        );
        return Ok(refuse(Code::TokenScopeNotHeld, message)?);
    }
    let expires_at = expiry(&caller, body.expires_in_s.is_some(), seconds)?;
    let tokens = controller
        .ground
        .store
        .list_tokens(caller.account)
        .await
        .map_err(store)?;
    let now = now_ms();
    let counts = |token: &&piecework_store::Token| !token.is_expired(now) && !auth::is_session(token);
    if tokens.iter().filter(counts).count() >= TOKENS_MAX {
        let message = format!("the account has {TOKENS_MAX} tokens; delete some that are not needed any more");
        return Ok(refuse(Code::TokenTooMany, message)?);
    }
    let expires = (Some(expires_at), Some(caller.token_id.clone()));
    let seconds = expires_at.saturating_sub(now) / 1_000;
    let scopes = body.scopes.into_iter().collect();
    let (token, record) = auth::issue(&controller.accounts, caller.account, &body.label, scopes, expires).await?;
    let detail = json!({"label": record.label, "scopes": record.scopes, "expires_in_s": seconds});
    audit::own(
        &controller.accounts,
        caller.account,
        ("token", "created"),
        record.id.as_str(),
        detail,
    )
    .await?;
    Ok(Created(TokenCreated {
        token,
        view: views::token(&record, caller.name.as_str()),
    }))
}

/// When a token ends that the caller makes for so many seconds. Refuses with `token.outlives` where that is asked for
/// beyond the end of the caller's own; else it ends with that.
fn expiry(caller: &Caller, is_asked_for: bool, seconds: u64) -> Answer<u64> {
    let wanted = now_ms() + seconds * 1_000;
    match caller.expires_at_ms {
        // A clock's difference is nobody's intention.
        Some(own) if is_asked_for && wanted > own + 1_000 => refuse(
            Code::TokenOutlives,
            format!(
                "the token that asks is valid until {}, and cannot make one that is valid for longer",
                timestamp(own)
            ),
        ),
        Some(own) => Ok(wanted.min(own)),
        None => Ok(wanted),
    }
}

/// Lists the caller's tokens, oldest first.
#[utoipa::path(get, path = routes::TOKENS, tag = "accounts", params(PageQuery), responses(
    (status = 200, body = List<TokenView>), (status = "default", body = ErrorBody)))]
pub(super) async fn list_tokens(
    State(controller): Shared,
    authenticated: Authenticated,
    Query(query): Query<PageQuery>,
) -> HttpResult<Json<List<TokenView>>> {
    let caller = authenticated.with(Scope::Admin)?;
    let tokens = controller
        .ground
        .store
        .list_tokens(caller.account)
        .await
        .map_err(store)?;
    let views = tokens
        .iter()
        .map(|token| views::token(token, caller.name.as_str()))
        .collect();
    page(views, &query, |token: &TokenView| token.id.clone())
}

/// Revokes a token, and all that were made with it.
#[utoipa::path(delete, path = routes::TOKEN, tag = "accounts", params(("id" = String, Path)), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(super) async fn delete_token(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
) -> HttpResult<StatusCode> {
    let caller = authenticated.with(Scope::Admin)?;
    if !controller
        .ground
        .store
        .delete_token(caller.account, &id)
        .await
        .map_err(store)?
    {
        return Ok(refuse(
            Code::TokenNotFound,
            format!("you have no token with the id `{id}`"),
        )?);
    }
    controller.accounts.auth.forget_account(caller.account);
    audit::own(
        &controller.accounts,
        caller.account,
        ("token", "deleted"),
        id,
        json!({}),
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Creates an invite for one new account. With an `Idempotency-Key`, a repeated request gets the same invite.
#[utoipa::path(post, path = routes::INVITES, tag = "accounts", request_body = CreateInvite,
    params(("Idempotency-Key" = Option<String>, Header)), responses(
    (status = 201, body = InviteCreated), (status = "default", body = ErrorBody)))]
pub(super) async fn invite(
    State(controller): Shared,
    authenticated: Authenticated,
    headers: HeaderMap,
    body: Body,
) -> HttpResult<Created<InviteCreated>> {
    let caller = authenticated.with(Scope::Admin)?;
    let body: CreateInvite = read_body(body, BODY_BYTES_MAX).await?;
    let request = serde_json::to_vec(&body).map_err(|error| failed("encode an invite", &error))?;
    let created = match idempotency(caller, &headers, &request, b"")? {
        Some(key) => invites::create_once(&controller.accounts, caller, body, key).await?,
        None => invites::create(&controller.accounts, caller, body).await?,
    };
    Ok(Created(created))
}

/// Accepts an invite with an account that is registered already: it gets the invite's credits, loan and roles.
#[utoipa::path(post, path = routes::INVITES_ACCEPT, tag = "accounts", request_body = AcceptInvite, responses(
    (status = 200, body = AccountView), (status = "default", body = ErrorBody)))]
pub(super) async fn accept_invite(
    State(controller): Shared,
    authenticated: Authenticated,
    from: Address,
    body: Body,
) -> HttpResult<Json<AccountView>> {
    let caller = authenticated.with(Scope::Admin)?;
    let logins = &controller.accounts.auth.logins;
    logins.check(from)?;
    let body: AcceptInvite = read_body(body, STRANGERS_BODY_BYTES_MAX).await?;
    let accepted = invites::accept(&controller.accounts, caller, &body.invite).await;
    accepted.inspect_err(|refused| {
        if refused.code == Code::InviteBad {
            logins.failed(from);
        }
    })?;
    Ok(Json(view(&controller, caller.account).await?))
}
