//! `/portal/session`: signing in and out with a browser.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::AppendHeaders,
};
use piecework_api::{
    accounts::CreateSession,
    errors::ErrorBody,
    portal::{OpenPortalSession, PortalSessionView},
    routes,
};
use piecework_model::Code;
use piecework_serve::Caller as Address;
use serde_json::json;

use super::Gate;
use crate::{
    Controller,
    accounts::{audit, auth},
    clock::{now_ms, timestamp},
    failure::{refuse, store},
    http::{Authenticated, Created, HttpError, HttpResult, STRANGERS_BODY_BYTES_MAX, Shared, accounts, read_body},
};

type WithCookie<T> = (AppendHeaders<[(header::HeaderName, String); 1]>, T);

fn with_cookie<T>(cookie: String, answer: T) -> WithCookie<T> {
    (AppendHeaders([(header::SET_COOKIE, cookie)]), answer)
}

/// Shows whose session the browser's cookie is. Like all of `/portal/api`, it is for pages of the portal only.
#[utoipa::path(get, path = routes::PORTAL_SESSION, tag = "portal", responses(
    (status = 200, body = PortalSessionView), (status = "default", body = ErrorBody)))]
pub(in crate::http) async fn show(
    State(controller): Shared,
    authenticated: Authenticated,
) -> HttpResult<Json<PortalSessionView>> {
    view(&controller, &authenticated.0).await.map(Json)
}

async fn view(controller: &Controller, caller: &auth::Caller) -> HttpResult<PortalSessionView> {
    Ok(PortalSessionView {
        account: accounts::view(controller, caller.account).await?,
        scopes: caller.scopes.iter().copied().collect(),
        operator: caller.operator,
        expires_at: caller.expires_at_ms.map(timestamp),
    })
}

/// Signs a browser in with a password, a signed challenge or a token. The session's secret is in a cookie that no script can read.
#[utoipa::path(post, path = routes::PORTAL_SESSION, tag = "portal", request_body = OpenPortalSession, security(()), responses(
    (status = 201, body = PortalSessionView), (status = "default", body = ErrorBody)))]
pub(in crate::http) async fn open(
    State(controller): Shared,
    from: Address,
    body: Body,
) -> HttpResult<WithCookie<Created<PortalSessionView>>> {
    let body: OpenPortalSession = read_body(body, STRANGERS_BODY_BYTES_MAX).await?;
    let token = match body {
        OpenPortalSession {
            token: Some(token),
            name: None,
            password: None,
            challenge: None,
            signature: None,
        } => by_token(&controller, token.trim(), from).await?,
        OpenPortalSession {
            token: None,
            name: Some(name),
            password,
            challenge,
            signature,
        } if password.is_some() || signature.is_some() => {
            let session = CreateSession {
                name,
                password,
                challenge,
                signature,
            };
            accounts::open_session(&controller, &session, auth::PORTAL_LABEL, from)
                .await?
                .token
        }
        OpenPortalSession { .. } => {
            let message = "send a name with a password or with a signed challenge, or a token";
            return Ok(refuse(Code::BodyMalformed, message)?);
        }
    };
    let caller = auth::caller_of(&controller.accounts, &token, from).await?;
    let cookie = Gate::new(&controller).cookie(&token);
    Ok(with_cookie(cookie, Created(view(&controller, &caller).await?)))
}

/// A session that ends with the token, so that signing out does not end the token.
async fn by_token(controller: &Controller, token: &str, from: Address) -> HttpResult<String> {
    let caller = auth::caller_of(&controller.accounts, token, from).await?;
    let session_end = now_ms() + auth::SESSION_TTL_MS;
    let expires = caller.expires_at_ms.map_or(session_end, |own| own.min(session_end));
    let ends = (Some(expires), Some(caller.token_id.clone()));
    let scopes = caller.scopes.clone();
    let issued = auth::issue(&controller.accounts, caller.account, auth::PORTAL_LABEL, scopes, ends);
    let (text, record) = issued.await?;
    auth::bound_sessions(&controller.accounts, caller.account, Some(&caller.token_id)).await?;
    let opened = ("session", "opened");
    audit::own(
        &controller.accounts,
        caller.account,
        opened,
        record.id.as_str(),
        json!({"by": "token"}),
    )
    .await?;
    Ok(text)
}

/// Signs the browser out: the session's secret is worth nothing any more. It is not an error to be signed out already.
#[utoipa::path(delete, path = routes::PORTAL_SESSION, tag = "portal", responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(in crate::http) async fn close(
    State(controller): Shared,
    authenticated: Result<Authenticated, HttpError>,
) -> HttpResult<WithCookie<StatusCode>> {
    if let Ok(Authenticated(caller)) = authenticated {
        let deleted = controller.ground.store.delete_token(caller.account, &caller.token_id);
        deleted.await.map_err(store)?;
        controller.accounts.auth.forget_account(caller.account);
        let closed = ("session", "closed");
        audit::own(
            &controller.accounts,
            caller.account,
            closed,
            caller.token_id.as_str(),
            json!({}),
        )
        .await?;
    }
    Ok(with_cookie(Gate::new(&controller).no_cookie(), StatusCode::NO_CONTENT))
}
