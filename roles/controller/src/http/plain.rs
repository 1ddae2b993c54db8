//! `/fn/{owner}/{name}/...`: a function as a plain URL.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use piecework_api::{
    accounts::Scope,
    execute::{HttpAnswer, HttpEvent},
    routes,
    server::read_bytes,
};
use serde_json::Value;

use super::{Anyone, HttpError, HttpResult, INPUT_BYTES_MAX, Path, Shared, execute};
use crate::{
    accounts::rates::{self, Counted},
    calls::invoke,
    failure::{failed, refusal, refuse},
    functions,
};

pub(super) async fn root(
    state: Shared,
    anyone: Anyone,
    Path((owner, name)): Path<(String, String)>,
    request: Request,
) -> HttpResult<Response> {
    call(state, anyone, owner, name, String::new(), request).await
}

pub(super) async fn below(
    state: Shared,
    anyone: Anyone,
    Path((owner, name, path)): Path<(String, String, String)>,
    request: Request,
) -> HttpResult<Response> {
    call(state, anyone, owner, name, path, request).await
}

async fn call(
    State(controller): Shared,
    anyone: Anyone,
    owner: String,
    name: String,
    path: String,
    request: Request,
) -> HttpResult<Response> {
    let missing = || {
        refusal(
            "function.not_found",
            format!("there is no function {owner}/{name} that you may call"),
        )
    };
    let (Ok(owner_name), Ok(function_name)) = (owner.parse(), name.parse()) else {
        return Err(missing().into());
    };
    let live = functions::named(&controller, &owner_name, &function_name).await;
    let live = match live {
        Ok(live) => live,
        Err(refused) if refused.code == "function.not_found" => return Err(unknown(&anyone, missing())),
        Err(other) => return Err(other.into()),
    };
    if !live.function.public {
        match &anyone.0 {
            Some(caller) if caller.account == live.function.owner => caller.needs(Scope::Invoke)?,
            _ => return Err(unknown(&anyone, missing())),
        }
    }
    if anyone.0.is_none() {
        rates::count(&controller, Counted::Public(live.function.owner), &live.limits)?;
    }
    let event = event(path, request).await?;
    let invocation = execute::plain_invocation(live, event);
    let done = invoke::run(controller, invocation).await?;
    let job = execute::job_header(done.id);
    if let Some(error) = done.error {
        return Err(HttpError(error));
    }
    let mut response = shape(&done.output.unwrap_or_default())?;
    response.headers_mut().insert(routes::JOB_ID_HEADER, job);
    Ok(response)
}

/// Whoever has no token is told to bring one, whether the function exists or not.
fn unknown(anyone: &Anyone, missing: Box<piecework_api::errors::Refusal>) -> HttpError {
    match anyone.0 {
        Some(_) => HttpError(missing),
        None => HttpError(refusal(
            "auth.missing_token",
            "the function is not public: send `Authorization: Bearer ...`",
        )),
    }
}

async fn event(path: String, request: Request) -> HttpResult<Bytes> {
    let (parts, body) = request.into_parts();
    let bytes = read_bytes(body, INPUT_BYTES_MAX).await?;
    let query = match axum::extract::Query::<BTreeMap<String, String>>::try_from_uri(&parts.uri) {
        Ok(axum::extract::Query(query)) => query,
        Err(error) => return Ok(refuse("query.malformed", format!("the query cannot be read: {error}"))?),
    };
    let (body, body_base64) = body_of(&parts.headers, &bytes);
    let event = HttpEvent {
        method: parts.method.to_string(),
        path: format!("/{path}"),
        query,
        headers: headers_of(&parts.headers),
        body,
        body_base64,
    };
    Ok(serde_json::to_vec(&event)
        .map_err(|error| failed("write an event", &error))?
        .into())
}

fn body_of(headers: &HeaderMap, bytes: &[u8]) -> (Option<Value>, Option<String>) {
    if bytes.is_empty() {
        return (None, None);
    }
    let json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.starts_with("application/json") || kind.contains("+json"));
    if json && let Ok(value) = serde_json::from_slice(bytes) {
        return (Some(value), None);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(Value::String(text.to_owned())), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// What is meant for the platform stays here.
fn headers_of(headers: &HeaderMap) -> BTreeMap<String, String> {
    let kept = headers
        .iter()
        .filter(|(name, _)| **name != header::AUTHORIZATION && **name != header::COOKIE);
    kept.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}

/// Puts an output into an HTTP answer by its shape.
fn shape(output: &[u8]) -> HttpResult<Response> {
    let plain = || Ok(typed("application/json", output.to_vec()));
    match output.first() {
        Some(b'{' | b'"') => {}
        _ => return plain(),
    }
    let Ok(value) = serde_json::from_slice::<Value>(output) else {
        return plain();
    };
    match value {
        Value::String(text) => Ok(typed("text/plain; charset=utf-8", text.into_bytes())),
        Value::Object(ref fields) if fields.len() == 1 && fields.contains_key("$bytes") => {
            match fields["$bytes"].as_str().and_then(|text| STANDARD.decode(text).ok()) {
                Some(bytes) => Ok(typed("application/octet-stream", bytes)),
                None => plain(),
            }
        }
        Value::Object(ref fields) if fields.get("status").is_some_and(Value::is_u64) => {
            match serde_json::from_value::<HttpAnswer>(value.clone()) {
                Ok(answer) => explicit(answer),
                Err(_) => plain(),
            }
        }
        _ => plain(),
    }
}

fn typed(kind: &'static str, body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response()
}

/// A function decides about its own answer, not about the connection or the platform's headers.
fn explicit(answer: HttpAnswer) -> HttpResult<Response> {
    let invalid = |why: &str| {
        HttpError(refusal(
            "function.output_invalid",
            format!("the function's HTTP answer: {why}"),
        ))
    };
    let status = StatusCode::from_u16(answer.status).map_err(|_| invalid("no such status"))?;
    if !(200..600).contains(&answer.status) {
        return Err(invalid("a status is 200 to 599"));
    }
    let (kind, body) = match (answer.body, answer.body_base64) {
        (Some(_), Some(_)) => return Err(invalid("give body or body_base64, not both")),
        (None, None) => (None, Vec::new()),
        (Some(Value::String(text)), None) => (Some("text/plain; charset=utf-8"), text.into_bytes()),
        (Some(value), None) => (Some("application/json"), value.to_string().into_bytes()),
        (None, Some(encoded)) => (
            Some("application/octet-stream"),
            STANDARD
                .decode(encoded)
                .map_err(|_| invalid("body_base64 does not decode"))?,
        ),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    if let Some(kind) = kind {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    for (name, value) in answer.headers {
        let name = HeaderName::try_from(name).map_err(|_| invalid("a header's name is not one"))?;
        let value = HeaderValue::try_from(value).map_err(|_| invalid("a header's value is not one"))?;
        if !is_the_connections(&name) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

fn is_the_connections(name: &HeaderName) -> bool {
    [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TRAILER,
        header::TE,
    ]
    .contains(name)
        || name.as_str() == routes::JOB_ID_HEADER
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(output: &str) -> (u16, String) {
        let response = shape(output.as_bytes()).expect("an answer");
        let kind = response
            .headers()
            .get(header::CONTENT_TYPE)
            .map(|kind| kind.to_str().expect("ASCII").to_owned());
        (response.status().as_u16(), kind.unwrap_or_default())
    }

    #[test]
    fn an_output_answers_by_its_shape() {
        assert_eq!(kind_of("[1]"), (200, "application/json".into()));
        assert_eq!(kind_of("\"hi\""), (200, "text/plain; charset=utf-8".into()));
        assert_eq!(
            kind_of(r#"{"$bytes":"AAE="}"#),
            (200, "application/octet-stream".into())
        );
        assert_eq!(
            kind_of(r#"{"status":201,"body":"x"}"#),
            (201, "text/plain; charset=utf-8".into())
        );
        assert_eq!(kind_of(r#"{"status":"done"}"#), (200, "application/json".into()));
        assert_eq!(kind_of(r#"{"status":404,"other":1}"#), (200, "application/json".into()));
        let named = r#"{"status":200,"headers":{"Content-Type":"text/html"},"body":"<p>"}"#;
        assert_eq!(kind_of(named), (200, "text/html".into()));
    }

    #[test]
    fn a_function_cannot_speak_for_the_connection() {
        let output = br#"{"status":200,"headers":{"transfer-encoding":"chunked","x-job-id":"job_0","x-mine":"1"}}"#;
        let response = shape(output).expect("an answer");
        assert!(!response.headers().contains_key(header::TRANSFER_ENCODING));
        assert!(!response.headers().contains_key(routes::JOB_ID_HEADER));
        assert!(response.headers().contains_key("x-mine"));
        assert!(shape(br#"{"status":100}"#).is_err());
        assert!(shape(br#"{"status":200,"headers":{"a\nb":"c"}}"#).is_err());
    }
}
