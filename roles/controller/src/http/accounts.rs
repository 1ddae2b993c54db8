//! `/accounts`, `/sessions`, `/tokens`, `/invites`: who somebody is and what a token may do.

use axum::{Json, body::Body, extract::State, http::StatusCode};
use piecework_api::{
    accounts::{
        AccountQuery, AccountView, ChallengeView, CreateAccount, CreateChallenge, CreateInvite, CreateSession,
        CreateToken, InviteCreated, OwnProvider, OwnerView, PayLoan, Scope, SetLoan, TokenCreated, TokenView,
    },
    errors::ErrorBody,
    page::{List, PageQuery},
    routes,
};
use piecework_model::AccountId;
use serde_json::json;

use super::{Authenticated, BODY_BYTES_MAX, Created, HttpResult, Path, Query, Shared, page, read_body};
use crate::{
    Answer, Controller,
    accounts::{self, audit, auth},
    clock::{now_ms, timestamp},
    failure::{refuse, store},
    http::views,
};

async fn view(controller: &Controller, id: AccountId) -> Answer<AccountView> {
    let account = accounts::on_ledger(controller, id).await?;
    let sponsor = controller.name_of(account.sponsor).await;
    let owner = controller.name_of(account.owner).await;
    let height = controller.chain.status().height;
    Ok(AccountView::of(id, &account, height, sponsor, owner))
}

/// Registers: with a password the controller keeps the key, with a public key its owner does.
#[utoipa::path(post, path = routes::ACCOUNTS, tag = "accounts", request_body = CreateAccount, security(()), responses(
    (status = 201, body = AccountView), (status = "default", body = ErrorBody)))]
pub(super) async fn create(State(controller): Shared, body: Body) -> HttpResult<Created<AccountView>> {
    let body: CreateAccount = read_body(body, BODY_BYTES_MAX).await?;
    let account = accounts::register(&controller, body).await?;
    Ok(Created(view(&controller, account).await?))
}

/// An account on the ledger, by name or id: open to all, as the ledger is. With `proof=true`, what shows its balances to
/// anybody who holds the genesis file.
#[utoipa::path(get, path = routes::ACCOUNT, tag = "accounts", params(("name" = String, Path), AccountQuery), security(()),
    responses((status = 200, body = AccountView), (status = "default", body = ErrorBody)))]
pub(super) async fn show(
    State(controller): Shared,
    Path(name): Path<String>,
    Query(query): Query<AccountQuery>,
) -> HttpResult<Json<AccountView>> {
    let account = accounts::find(&controller, &name).await?;
    let mut view = view(&controller, account).await?;
    if query.proof {
        view.proof = Some(accounts::proof(&controller, account).await?);
    }
    Ok(Json(view))
}

#[utoipa::path(get, path = routes::ACCOUNT_OWN, tag = "accounts", responses(
    (status = 200, body = AccountView), (status = "default", body = ErrorBody)))]
pub(super) async fn own(State(controller): Shared, authenticated: Authenticated) -> HttpResult<Json<AccountView>> {
    Ok(Json(view(&controller, authenticated.0.account).await?))
}

/// How far below zero the account may go: the caller, its sponsor, has so much held meanwhile. Raised by the sponsor alone,
/// lowered by either side, never below what is owed or in use.
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
    let account = accounts::find(&controller, &name).await?;
    accounts::lend(&controller, caller.account, account, body.limit_ucr).await?;
    Ok(Json(view(&controller, account).await?))
}

/// The caller, who lends to the account, pays of what it owes; the loan is smaller by as much.
#[utoipa::path(post, path = routes::ACCOUNT_LOAN_PAYMENTS, tag = "accounts", params(("name" = String, Path)),
    request_body = PayLoan, responses((status = 200, body = AccountView), (status = "default", body = ErrorBody)))]
pub(super) async fn pay_loan(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(name): Path<String>,
    body: Body,
) -> HttpResult<Json<AccountView>> {
    let caller = authenticated.with(Scope::Admin)?;
    let body: PayLoan = read_body(body, BODY_BYTES_MAX).await?;
    let account = accounts::find(&controller, &name).await?;
    accounts::cover(&controller, caller.account, account, body.amount_ucr).await?;
    Ok(Json(view(&controller, account).await?))
}

/// Gives the caller's account a new key, where the controller keeps it; other accounts post a transaction that their owner signed.
#[utoipa::path(post, path = routes::ACCOUNT_ROTATE_KEY, tag = "accounts", responses(
    (status = 200, body = AccountView), (status = "default", body = ErrorBody)))]
pub(super) async fn rotate_key(
    State(controller): Shared,
    authenticated: Authenticated,
) -> HttpResult<Json<AccountView>> {
    let caller = authenticated.with(Scope::Admin)?;
    accounts::rotate_key(&controller, caller.account).await?;
    Ok(Json(view(&controller, caller.account).await?))
}

/// Signs for the ledger that a computer's account is the caller's own: its jobs for the caller pay no commission then.
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
        accounts::vouch(&controller, caller.account, &body.public_key).await?,
    ))
}

#[utoipa::path(post, path = routes::SESSION_CHALLENGES, tag = "accounts", request_body = CreateChallenge, security(()),
    responses((status = 201, body = ChallengeView), (status = "default", body = ErrorBody)))]
pub(super) async fn challenge(State(controller): Shared, body: Body) -> HttpResult<Created<ChallengeView>> {
    let body: CreateChallenge = read_body(body, BODY_BYTES_MAX).await?;
    let (challenge, ttl) = controller.auth.challenge(&body.name);
    let expires_at = timestamp(now_ms() + u64::try_from(ttl.as_millis()).unwrap_or(0));
    Ok(Created(ChallengeView {
        challenge,
        network: controller.network,
        expires_at,
    }))
}

/// Logs in by password or by a signed challenge; the token may do everything the account may, for 30 days.
#[utoipa::path(post, path = routes::SESSIONS, tag = "accounts", request_body = CreateSession, security(()), responses(
    (status = 201, body = TokenCreated), (status = "default", body = ErrorBody)))]
pub(super) async fn log_in(State(controller): Shared, body: Body) -> HttpResult<Created<TokenCreated>> {
    let body: CreateSession = read_body(body, BODY_BYTES_MAX).await?;
    let user = auth::prove(&controller, &body).await?;
    let expires = Some(now_ms() + auth::SESSION_TTL_MS);
    let (token, record) = auth::issue(&controller, user.account, "session", Scope::ALL.into(), expires).await?;
    let by = if body.password.is_some() { "password" } else { "key" };
    audit::own(
        &controller,
        user.account,
        ("session", "opened"),
        record.id.as_str(),
        json!({"by": by}),
    )
    .await?;
    Ok(Created(TokenCreated {
        token,
        view: views::token(&record, user.name.as_str()),
    }))
}

const TOKEN_TTL_DEFAULT_S: u64 = 90 * 86_400;
const TOKEN_TTL_S: std::ops::RangeInclusive<u64> = 60..=365 * 86_400;
const LABEL_LENGTH_MAX: usize = 100;

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
        return Ok(refuse("token.bad_expiry", "an expiry is between 60 s and a year")?);
    }
    if body.scopes.is_empty() {
        return Ok(refuse(
            "token.bad_scope",
            "a token needs at least one scope: deploy, invoke, view or admin",
        )?);
    }
    if body.label.chars().count() > LABEL_LENGTH_MAX {
        return Ok(refuse("body.malformed", "a label has at most 100 characters")?);
    }
    let all = caller.scopes.contains(&Scope::Admin);
    if let Some(scope) = body.scopes.iter().find(|scope| !all && !caller.scopes.contains(scope)) {
        let message = format!("a token cannot give `{}`, which it does not hold", scope.as_str());
        return Ok(refuse("token.scope_not_held", message)?);
    }
    let expires = Some(now_ms() + seconds * 1_000);
    let scopes = body.scopes.into_iter().collect();
    let (token, record) = auth::issue(&controller, caller.account, &body.label, scopes, expires).await?;
    let detail = json!({"label": record.label, "scopes": record.scopes, "expires_in_s": seconds});
    audit::own(
        &controller,
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

/// Oldest first.
#[utoipa::path(get, path = routes::TOKENS, tag = "accounts", params(PageQuery), responses(
    (status = 200, body = List<TokenView>), (status = "default", body = ErrorBody)))]
pub(super) async fn list_tokens(
    State(controller): Shared,
    authenticated: Authenticated,
    Query(query): Query<PageQuery>,
) -> HttpResult<Json<List<TokenView>>> {
    let caller = authenticated.with(Scope::Admin)?;
    let tokens = controller.store.list_tokens(caller.account).await.map_err(store)?;
    let views = tokens
        .iter()
        .map(|token| views::token(token, caller.name.as_str()))
        .collect();
    page(views, &query, |token: &TokenView| token.id.clone())
}

#[utoipa::path(delete, path = routes::TOKEN, tag = "accounts", params(("id" = String, Path)), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(super) async fn delete_token(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
) -> HttpResult<StatusCode> {
    let caller = authenticated.with(Scope::Admin)?;
    if !controller
        .store
        .delete_token(caller.account, &id)
        .await
        .map_err(store)?
    {
        return Ok(refuse(
            "token.not_found",
            format!("no token of yours has the id `{id}`"),
        )?);
    }
    controller.auth.forget(&id);
    audit::own(&controller, caller.account, ("token", "deleted"), id, json!({})).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = routes::INVITES, tag = "accounts", request_body = CreateInvite, responses(
    (status = 201, body = InviteCreated), (status = "default", body = ErrorBody)))]
pub(super) async fn invite(
    State(controller): Shared,
    authenticated: Authenticated,
    body: Body,
) -> HttpResult<Created<InviteCreated>> {
    let caller = authenticated.with(Scope::Admin)?;
    let body: CreateInvite = read_body(body, BODY_BYTES_MAX).await?;
    Ok(Created(accounts::invite(&controller, caller, body).await?))
}
