//! `/audit` and `/accounts/{name}/limits`: the audit log, and limits that an operator sets for an account.

use axum::{Json, body::Body, extract::State};
use piecework_api::{
    accounts::Scope,
    audit::{AccountLimits, AuditQuery, AuditView, UsageView},
    errors::ErrorBody,
    page::{List, PageQuery},
    routes,
};
use piecework_model::Code;
use piecework_store::{AuditEntry, AuditFilter};
use serde_json::{Value, json};

use super::{Authenticated, BODY_BYTES_MAX, HttpResult, Path, Query, Shared, read_body};
use crate::{
    Controller,
    accounts::{self, audit, rates},
    clock::timestamp,
    failure::{refuse, store},
    quotas,
};

/// Lists changes, newest first. An operator's token sees everything, any other token sees what its account did or owns.
#[utoipa::path(get, path = routes::AUDIT, tag = "accounts", params(AuditQuery), responses(
    (status = 200, body = List<AuditView>), (status = "default", body = ErrorBody)))]
pub(super) async fn list(
    State(controller): Shared,
    authenticated: Authenticated,
    Query(query): Query<AuditQuery>,
) -> HttpResult<Json<List<AuditView>>> {
    let caller = authenticated.with(Scope::View)?;
    let before = match query.cursor.as_deref().map(str::parse::<u64>) {
        Some(Err(_)) => return Ok(refuse(Code::CursorMalformed, "pass the `next` of a page as cursor")?),
        Some(Ok(id)) => Some(id),
        None => None,
    };
    let page = PageQuery {
        limit: query.limit,
        cursor: None,
    };
    let filter = AuditFilter {
        account: (!caller.operator).then_some(caller.account),
        action: query.action,
        target: query.target,
        before,
        limit: page.limit(),
    };
    let page = controller.ground.store.audit(&filter).await.map_err(store)?;
    let mut items = Vec::with_capacity(page.items.len());
    for entry in page.items {
        items.push(view(&controller, entry).await);
    }
    Ok(Json(List {
        items,
        next: page.next.map(|id| id.to_string()),
    }))
}

async fn view(controller: &Controller, entry: AuditEntry) -> AuditView {
    let change = entry.change;
    let actor = match change.actor {
        Some(actor) => controller.ground.account_name(actor).await,
        None => "platform".to_owned(),
    };
    AuditView {
        id: entry.id,
        at: timestamp(change.at_ms),
        actor,
        owner: controller.ground.account_name(change.owner).await,
        action: change.action,
        target: change.target,
        detail: serde_json::from_str(&change.detail).unwrap_or(Value::Null),
    }
}

/// Shows an account's limits, to its owner and to operators.
#[utoipa::path(get, path = routes::ACCOUNT_LIMITS, tag = "accounts", params(("name" = String, Path)), responses(
    (status = 200, body = AccountLimits), (status = "default", body = ErrorBody)))]
pub(super) async fn limits(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(name): Path<String>,
) -> HttpResult<Json<AccountLimits>> {
    let caller = authenticated.with(Scope::View)?;
    let account = accounts::find(&controller.accounts, &name).await?;
    if account != caller.account {
        caller.needs_operator()?;
    }
    Ok(Json(rates::limits(&controller.accounts, account).await?))
}

/// Shows what an account keeps on the server and may keep, to its owner and to operators.
#[utoipa::path(get, path = routes::ACCOUNT_USAGE, tag = "accounts", params(("name" = String, Path)), responses(
    (status = 200, body = UsageView), (status = "default", body = ErrorBody)))]
pub(super) async fn usage(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(name): Path<String>,
) -> HttpResult<Json<UsageView>> {
    let caller = authenticated.with(Scope::View)?;
    let account = accounts::find(&controller.accounts, &name).await?;
    if account != caller.account {
        caller.needs_operator()?;
    }
    Ok(Json(quotas::view(&controller.ground, account).await?))
}

/// Replaces an account's limits; operators only.
#[utoipa::path(put, path = routes::ACCOUNT_LIMITS, tag = "accounts", params(("name" = String, Path)),
    request_body = AccountLimits, responses(
    (status = 200, body = AccountLimits), (status = "default", body = ErrorBody)))]
pub(super) async fn set_limits(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(name): Path<String>,
    body: Body,
) -> HttpResult<Json<AccountLimits>> {
    let caller = authenticated.with(Scope::Admin)?;
    caller.needs_operator()?;
    let body: AccountLimits = read_body(body, BODY_BYTES_MAX).await?;
    let account = accounts::find(&controller.accounts, &name).await?;
    rates::set(&controller.accounts, account, body).await?;
    let who = (Some(caller.account), account);
    audit::record(&controller.accounts, who, ("limits", "set"), name, json!(body)).await?;
    Ok(Json(body))
}
