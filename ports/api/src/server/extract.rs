//! Extractors whose refusals look like all others.

use axum::{extract::FromRequestParts, http::request::Parts};
use piecework_model::Code;
use serde::de::DeserializeOwned;

use super::{HttpError, HttpResult, refusal, refuse};

/// Query parameters; an unknown or malformed one is named.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> HttpResult<Self> {
        let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let reader = serde_urlencoded::Deserializer::new(pairs);
        serde_path_to_error::deserialize(reader).map(Self).map_err(|error| {
            let path = error.path().to_string();
            let mut refusal = refusal(Code::QueryMalformed, error.into_inner().to_string());
            refusal.field = (path != ".").then_some(path);
            HttpError(refusal)
        })
    }
}

/// A path parameter that is not valid UTF-8 names nothing.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> HttpResult<Self> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Ok(refuse(Code::PathNotFound, "the path is not valid")?),
        }
    }
}
