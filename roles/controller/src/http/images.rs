//! `/images/parts`: the layers of container images, in parts, before the deploy that names them.

use axum::{Json, body::Body, extract::State, http::StatusCode};
use piecework_api::{
    accounts::Scope,
    errors::ErrorBody,
    functions::{PartsQuery, PartsView},
    routes,
};
use piecework_image::PART_BYTES;
use piecework_model::{Code, Digest};

use super::{Authenticated, BODY_BYTES_MAX, HttpResult, Path, Shared, read_body, read_bytes};
use crate::{failure::refuse, functions::images};

/// Says which parts of an image's layers have to be uploaded. Answers for the caller's account alone: what others have is not told.
#[utoipa::path(post, path = routes::IMAGE_PARTS, tag = "functions", request_body = PartsQuery, responses(
    (status = 200, body = PartsView), (status = "default", body = ErrorBody)))]
pub(super) async fn missing(
    State(controller): Shared,
    authenticated: Authenticated,
    body: Body,
) -> HttpResult<Json<PartsView>> {
    let caller = authenticated.with(Scope::Deploy)?;
    caller.needs_developer()?;
    let query: PartsQuery = read_body(body, BODY_BYTES_MAX).await?;
    let missing = images::missing(&controller.functions, caller.account, query.parts).await?;
    Ok(Json(PartsView { missing }))
}

/// Uploads one part of a layer, as it is. It is kept for an hour, and for as long as an image of the account has it.
#[utoipa::path(put, path = routes::IMAGE_PART, tag = "functions",
    params(("digest" = String, Path, description = "BLAKE3 of the part")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(super) async fn upload(
    State(controller): Shared,
    authenticated: Authenticated,
    Path(digest): Path<String>,
    body: Body,
) -> HttpResult<StatusCode> {
    let caller = authenticated.with(Scope::Deploy)?;
    caller.needs_developer()?;
    let Ok(digest) = digest.parse::<Digest>() else {
        return Ok(refuse(
            Code::IdMalformed,
            "the digest of a part is 64 hexadecimal digits",
        )?);
    };
    let bytes = read_bytes(body, PART_BYTES as usize).await?;
    images::upload(&controller.functions, caller.account, digest, bytes).await?;
    Ok(StatusCode::NO_CONTENT)
}
