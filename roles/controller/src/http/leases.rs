//! `/leases`: credits held to pay for runs, closing them, and who may use them.

use axum::{Json, body::Body, extract::State};
use piecework_api::{
    accounts::Scope,
    errors::ErrorBody,
    ledger::{AddPayer, LeaseTerms, LeaseView},
    page::{List, PageQuery},
    routes,
};
use piecework_ledger::Lease;
use piecework_model::{Code, LeaseId, PublicKey};

use super::{Authenticated, BODY_BYTES_MAX, HttpResult, Path, Query, Shared, page, read_body};
use crate::{
    Answer, Controller, codecs,
    failure::{refuse, rejected},
    money::closing,
};

/// Lists the caller's leases: the one that pays for runs, and those that are closing.
#[utoipa::path(get, path = routes::LEASES, tag = "ledger", params(PageQuery), responses(
    (status = 200, body = List<LeaseView>), (status = "default", body = ErrorBody)))]
pub(super) async fn list(
    State(controller): Shared,
    authenticated: Authenticated,
    Query(query): Query<PageQuery>,
) -> HttpResult<Json<List<LeaseView>>> {
    let caller = authenticated.with(Scope::View)?;
    let mut ids: Vec<LeaseId> = codecs::remembered_lease(&controller.ground, caller.account)
        .await?
        .into_iter()
        .collect();
    for closing in closing::of(&controller.money, caller.account).await? {
        if !ids.contains(&closing.lease) {
            ids.push(closing.lease);
        }
    }
    let mut items = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(lease) = closing::on_ledger(&controller.money, id).await? {
            items.push(view(&controller, id, lease).await);
        }
    }
    page(items, &query, |lease| lease.id.to_string())
}

async fn view(controller: &Controller, id: LeaseId, lease: Lease) -> LeaseView {
    let developer = controller.ground.account_name(lease.developer).await;
    let provider = controller.ground.name_of(lease.provider).await;
    LeaseView::of(id, lease, developer, provider)
}

async fn shown(controller: &Controller, id: LeaseId) -> Answer<Json<LeaseView>> {
    match closing::on_ledger(&controller.money, id).await? {
        Some(lease) => Ok(Json(view(controller, id, lease).await)),
        None => refuse(Code::LeaseNotFound, format!("the ledger has no lease {id}")),
    }
}

fn lease_id(text: &str) -> Answer<LeaseId> {
    text.parse().map_err(rejected)
}

/// Shows the terms that a lease needs for this controller to use it. For developers who keep their own keys; for others
/// the controller opens and tops up leases itself.
#[utoipa::path(get, path = routes::LEASE_TERMS, tag = "ledger", responses(
    (status = 200, body = LeaseTerms), (status = "default", body = ErrorBody)))]
pub(super) async fn terms(State(controller): Shared, authenticated: Authenticated) -> HttpResult<Json<LeaseTerms>> {
    authenticated.with(Scope::View)?;
    let tuning = &controller.ground.tuning;
    Ok(Json(LeaseTerms {
        controller: controller.ground.account,
        payer_key: controller.ground.payer,
        price_caps: tuning.price_caps.into(),
        exposure_ucr: tuning.exposure_ucr,
        budget_ucr: tuning.budget_step_ucr,
    }))
}

/// Closes one of the caller's leases: no new jobs are ordered from it, and the unspent part is free again when its
/// window is over (`expires_at_height`). The next call opens another lease.
#[utoipa::path(post, path = routes::LEASE_CLOSE, tag = "ledger", params(("id" = String, Path)), responses(
    (status = 200, body = LeaseView), (status = "default", body = ErrorBody)))]
pub(super) async fn close(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
) -> HttpResult<Json<LeaseView>> {
    let caller = authenticated.with(Scope::Admin)?;
    let id = lease_id(&id)?;
    closing::close(&controller.money, caller, id).await?;
    Ok(shown(&controller, id).await?)
}

/// Lets another controller pay from one of the caller's leases, so that it can continue if this controller is lost.
#[utoipa::path(post, path = routes::LEASE_PAYERS, tag = "ledger", params(("id" = String, Path)), request_body = AddPayer,
    responses((status = 200, body = LeaseView), (status = "default", body = ErrorBody)))]
pub(super) async fn add_payer(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(id): Path<String>,
    body: Body,
) -> HttpResult<Json<LeaseView>> {
    let caller = authenticated.with(Scope::Admin)?;
    let body: AddPayer = read_body(body, BODY_BYTES_MAX).await?;
    let id = lease_id(&id)?;
    closing::delegate(&controller.money, caller, id, (body.key, true)).await?;
    Ok(shown(&controller, id).await?)
}

/// Revokes a controller's key. What the key has sealed can be claimed for one more window.
#[utoipa::path(delete, path = routes::LEASE_PAYER, tag = "ledger", params(("id" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = LeaseView), (status = "default", body = ErrorBody)))]
pub(super) async fn remove_payer(
    State(controller): Shared,
    authenticated: Authenticated,
    Path((id, key)): Path<(String, String)>,
) -> HttpResult<Json<LeaseView>> {
    let caller = authenticated.with(Scope::Admin)?;
    let id = lease_id(&id)?;
    let Ok(key) = key.parse::<PublicKey>() else {
        return Ok(refuse(Code::LeasePayerUnknown, "the payer key must be 64 hex digits")?);
    };
    closing::delegate(&controller.money, caller, id, (key, false)).await?;
    Ok(shown(&controller, id).await?)
}
