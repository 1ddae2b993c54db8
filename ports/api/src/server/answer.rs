//! Responses and refusals on the wire.

use axum::{
    Json,
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use piecework_model::Code;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    errors::{ErrorBody, Refusal, parse_body, status_of},
    page::{List, PageQuery},
    routes,
};

/// Of an answer's error side.
pub type HttpResult<T> = Result<T, HttpError>;

/// A refusal on its way out.
#[derive(Debug)]
pub struct HttpError(pub Box<Refusal>);

/// A refusal, boxed as every handler passes it on.
pub fn refusal(code: Code, message: impl Into<String>) -> Box<Refusal> {
    Box::new(Refusal::new(code, message))
}

/// Shorthand for a refusal as a result.
pub fn refuse<T>(code: Code, message: impl Into<String>) -> Result<T, Box<Refusal>> {
    Err(refusal(code, message))
}

impl From<Box<Refusal>> for HttpError {
    fn from(refusal: Box<Refusal>) -> Self {
        Self(refusal)
    }
}

/// Seconds after which one may try again.
const RETRY_AFTER_S: &str = "1";
/// Somebody has to free some space.
const RETRY_AFTER_DISK_S: &str = "30";
/// Failed logins are counted by the minute.
const RETRY_AFTER_LOGIN_S: &str = "60";
/// Free computing of deploys comes back steadily; the hint has the time for this account.
const RETRY_AFTER_ALLOWANCE_S: &str = "300";

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let refusal = self.0;
        let status = StatusCode::from_u16(status_of(&refusal.code)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry = match refusal.code.known() {
            Some(Code::AuthRateLimited) => Some(RETRY_AFTER_LOGIN_S),
            Some(Code::DeployAllowance) => Some(RETRY_AFTER_ALLOWANCE_S),
            Some(Code::DiskLow) => Some(RETRY_AFTER_DISK_S),
            Some(
                Code::DeployBusy
                | Code::PackagesBusy
                | Code::FunctionTooMany
                | Code::RateLimited
                | Code::QuotaInputs
                | Code::ServerBusy
                | Code::ProviderNone
                | Code::LedgerUnavailable
                | Code::LedgerBehind
                | Code::LedgerIndexing
                | Code::MempoolFull,
            ) => Some(RETRY_AFTER_S),
            Some(_) | None => None,
        };
        let job = refusal.job_id;
        let mut response = (status, Json(ErrorBody { error: *refusal })).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        if let Some(job) = job {
            let value = HeaderValue::try_from(job.to_string()).expect("an id is visible ASCII");
            headers.insert(routes::JOB_ID_HEADER, value);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The page of a whole list. Refuses an invalid cursor with `cursor.malformed`.
pub fn page<T>(items: Vec<T>, query: &PageQuery, key: impl Fn(&T) -> String) -> HttpResult<Json<List<T>>> {
    match List::page(items, query, key) {
        Some(list) => Ok(Json(list)),
        None => Err(HttpError(refusal(
            Code::CursorMalformed,
            "pass the `next` of a page as cursor",
        ))),
    }
}

/// 201 with a body.
pub struct Created<T>(pub T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

/// What is read of a body that is too large, so that its sender gets to see the refusal.
const DRAINED_BYTES_MAX: usize = 64 << 20;

/// The whole body, or `body.too_large`.
pub async fn read_bytes(body: Body, bytes_max: usize) -> HttpResult<Bytes> {
    let mut parts = body.into_data_stream();
    let (mut read, mut bytes) = (0, BytesMut::new());
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| {
            refusal(
                Code::BodyMalformed,
                format!("the body did not arrive completely: {error}"),
            )
        })?;
        read += part.len();
        if read <= bytes_max {
            bytes.extend_from_slice(&part);
        } else if read > DRAINED_BYTES_MAX {
            break;
        }
    }
    if read > bytes_max {
        return Err(HttpError(refusal(
            Code::BodyTooLarge,
            format!("the body is larger than the limit of {bytes_max} bytes"),
        )));
    }
    Ok(bytes.freeze())
}

/// The body as JSON of this form; refused with the path of what does not fit.
pub async fn read_body<T: DeserializeOwned>(body: Body, bytes_max: usize) -> HttpResult<T> {
    let bytes = read_bytes(body, bytes_max).await?;
    parse_body(&bytes).map_err(|refusal| HttpError(Box::new(refusal)))
}
