//! `/deposits` and `/withdrawals`: credits booked in and out against something outside of the ledger.

use axum::{Json, body::Body, extract::State, http::HeaderMap};
use piecework_api::{
    accounts::Scope,
    bookings::{
        CreateDeposit, CreateWithdrawal, DeclineWithdrawal, DepositView, SettleWithdrawal, WithdrawalView,
        WithdrawalsQuery,
    },
    errors::ErrorBody,
    page::{List, PageQuery},
    routes,
};

use super::{Authenticated, BODY_BYTES_MAX, Created, HttpResult, Path, Query, Shared, execute::idempotency, read_body};
use crate::accounts::bookings;

/// Books credits in: they move from the operator's account; operators only. The reference is the idempotency key: the same
/// reference with the same account and amount moves nothing more, with others it is refused.
#[utoipa::path(post, path = routes::DEPOSITS, tag = "ledger", request_body = CreateDeposit, responses(
    (status = 201, body = DepositView), (status = "default", body = ErrorBody)))]
pub(super) async fn deposit(
    State(controller): Shared,
    authenticated: Authenticated,
    body: Body,
) -> HttpResult<Created<DepositView>> {
    let caller = authenticated.with(Scope::Admin)?;
    caller.needs_operator()?;
    let body: CreateDeposit = read_body(body, BODY_BYTES_MAX).await?;
    Ok(Created(bookings::add(&controller.accounts, caller, body).await?))
}

/// Lists deposits by reference; operators only.
#[utoipa::path(get, path = routes::DEPOSITS, tag = "ledger", params(PageQuery), responses(
    (status = 200, body = List<DepositView>), (status = "default", body = ErrorBody)))]
pub(super) async fn deposits(
    State(controller): Shared,
    authenticated: Authenticated,
    Query(query): Query<PageQuery>,
) -> HttpResult<Json<List<DepositView>>> {
    authenticated.with(Scope::View)?.needs_operator()?;
    let page = bookings::deposits(&controller.accounts, query.cursor.as_deref(), query.limit());
    let (items, next) = page.await?;
    Ok(Json(List { items, next }))
}

/// Asks for credits of the caller's account to be paid outside of the ledger. They move to the operator's account until an
/// operator settles or declines. With an `Idempotency-Key`, a repeated request is the same withdrawal.
#[utoipa::path(post, path = routes::WITHDRAWALS, tag = "ledger", request_body = CreateWithdrawal,
    params(("Idempotency-Key" = Option<String>, Header)), responses(
    (status = 201, body = WithdrawalView), (status = "default", body = ErrorBody)))]
pub(super) async fn withdraw(
    State(controller): Shared,
    authenticated: Authenticated,
    headers: HeaderMap,
    body: Body,
) -> HttpResult<Created<WithdrawalView>> {
    let caller = authenticated.with(Scope::Admin)?;
    let body: CreateWithdrawal = read_body(body, BODY_BYTES_MAX).await?;
    let request = format!("{} {}", body.amount_ucr, body.pay_to);
    let key = idempotency(caller, &headers, request.as_bytes(), b"")?;
    Ok(Created(
        bookings::request(&controller.accounts, caller, body, key).await?,
    ))
}

/// Lists the caller's withdrawals, or those of all accounts for an operator.
#[utoipa::path(get, path = routes::WITHDRAWALS, tag = "ledger", params(WithdrawalsQuery), responses(
    (status = 200, body = List<WithdrawalView>), (status = "default", body = ErrorBody)))]
pub(super) async fn withdrawals(
    State(controller): Shared,
    authenticated: Authenticated,
    Query(query): Query<WithdrawalsQuery>,
) -> HttpResult<Json<List<WithdrawalView>>> {
    let caller = authenticated.with(Scope::View)?;
    if query.all {
        caller.needs_operator()?;
    }
    let (items, next) = bookings::withdrawals(&controller.accounts, caller, &query).await?;
    Ok(Json(List { items, next }))
}

/// Notes that a withdrawal was paid outside of the ledger; operators only. The reference settles one withdrawal.
#[utoipa::path(post, path = routes::WITHDRAWAL_SETTLE, tag = "ledger", params(("id" = String, Path)),
    request_body = SettleWithdrawal, responses(
    (status = 200, body = WithdrawalView), (status = "default", body = ErrorBody)))]
pub(super) async fn settle(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
    body: Body,
) -> HttpResult<Json<WithdrawalView>> {
    let caller = authenticated.with(Scope::Admin)?;
    caller.needs_operator()?;
    let body: SettleWithdrawal = read_body(body, BODY_BYTES_MAX).await?;
    Ok(Json(
        bookings::settle(&controller.accounts, caller, &id, &body.reference).await?,
    ))
}

/// Returns a withdrawal's credits to the account; operators only.
#[utoipa::path(post, path = routes::WITHDRAWAL_DECLINE, tag = "ledger", params(("id" = String, Path)),
    request_body = DeclineWithdrawal, responses(
    (status = 200, body = WithdrawalView), (status = "default", body = ErrorBody)))]
pub(super) async fn decline(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
    body: Body,
) -> HttpResult<Json<WithdrawalView>> {
    let caller = authenticated.with(Scope::Admin)?;
    caller.needs_operator()?;
    let body: DeclineWithdrawal = read_body(body, BODY_BYTES_MAX).await?;
    Ok(Json(
        bookings::decline(&controller.accounts, caller, &id, &body.reason).await?,
    ))
}
