//! `/ledger/transactions`.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use piecework_api::{
    errors::{ErrorBody, Refusal},
    ledger::{SubmitTransaction, TransactionAccepted, TransactionView},
    routes,
    server::{Caller, Created, HttpError, HttpResult, Path, refusal, refuse},
};
use piecework_chain::Final;
use piecework_ledger::{Action, SignedTransaction, TransactionId};
use piecework_model::{Code, Digest};

use super::{Explorer, Shared, failed, not_taken, read_in_time, views};

/// The largest transaction in hex, and the JSON around it.
const BODY_BYTES_MAX: usize = 1_100_000;
/// Longer than a block takes on a busy network; a caller that wants to wait longer asks again.
const FINAL_WITHIN: Duration = Duration::from_secs(30);

/// Shows a transaction on the ledger and its outcome.
#[utoipa::path(get, path = routes::LEDGER_TRANSACTION, tag = "ledger", params(("id" = String, Path)), security(()),
    responses((status = 200, body = TransactionView), (status = "default", body = ErrorBody)))]
pub(super) async fn show(State(explorer): Shared, Path(id): Path<String>) -> HttpResult<Json<TransactionView>> {
    let missing = || refusal(Code::TransactionNotFound, format!("the ledger has no transaction {id}"));
    let digest = id.parse::<Digest>().map_err(|_| missing())?;
    let found = explorer
        .chain
        .transaction(TransactionId(digest))
        .await
        .map_err(failed)?;
    let (height, index) = found.ok_or_else(missing)?;
    Ok(Json(view(&explorer, height, index).await?.ok_or_else(missing)?))
}

async fn view(explorer: &Explorer, height: u64, index: u32) -> HttpResult<Option<TransactionView>> {
    let Some(block) = explorer.chain.block(height).await.map_err(failed)? else {
        return Ok(None);
    };
    let mut names = views::Names::new(&*explorer.chain);
    Ok(views::transaction(&mut names, &block, index as usize).await)
}

/// Accepts a signed transaction from anyone, in the ledger's encoding. Responds when it is final, or with `Prefer:
/// respond-async` as soon as it is queued. Sending the same transaction again is not an error.
#[utoipa::path(post, path = routes::LEDGER_TRANSACTIONS, tag = "ledger", request_body = SubmitTransaction, security(()),
    params(("Prefer" = Option<String>, Header)), responses((status = 201, body = TransactionView),
    (status = 202, body = TransactionAccepted), (status = "default", body = ErrorBody)))]
pub(super) async fn submit(
    State(explorer): Shared,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> HttpResult<Response> {
    explorer.limiter.transaction(caller)?;
    let body: SubmitTransaction = read_in_time(body, BODY_BYTES_MAX).await?;
    let signed = decode(&body.transaction)?;
    if matches!(signed.transaction.action, Action::Register(_)) {
        explorer.limiter.registration(caller)?;
    }
    let prefer = headers.get("prefer").and_then(|value| value.to_str().ok());
    if prefer.is_some_and(|prefer| prefer.contains(routes::RESPOND_ASYNC)) {
        let accepted = queue(&explorer, signed).await?;
        return Ok((StatusCode::ACCEPTED, Json(accepted)).into_response());
    }
    let done = executed(&explorer, signed, FINAL_WITHIN).await?;
    match view(&explorer, done.height, done.index).await? {
        Some(view) => Ok(Created(view).into_response()),
        None => Ok(refuse(
            Code::LedgerUnavailable,
            "cannot read the transaction's block at the moment",
        )?),
    }
}

pub(super) async fn executed(explorer: &Explorer, signed: SignedTransaction, within: Duration) -> HttpResult<Final> {
    let id = signed.id();
    match tokio::time::timeout(within, explorer.chain.submit_and_wait(signed)).await {
        Ok(done) => done.map_err(not_taken),
        Err(_) => Err(HttpError(Box::new(pending(id)))),
    }
}

fn decode(text: &str) -> HttpResult<SignedTransaction> {
    let decoded = hex::decode(text).ok().and_then(|bytes| borsh::from_slice(&bytes).ok());
    match decoded {
        Some(signed) => Ok(signed),
        None => {
            let refusal = Refusal::new(Code::BodyMalformed, "`transaction` is not a signed transaction in hex");
            Err(HttpError(Box::new(refusal.field("transaction"))))
        }
    }
}

async fn queue(explorer: &Explorer, signed: SignedTransaction) -> HttpResult<TransactionAccepted> {
    let id = explorer.chain.submit(signed).await.map_err(not_taken)?;
    let place = explorer.chain.transaction(id).await.map_err(failed)?;
    Ok(TransactionAccepted {
        id: id.0,
        network: explorer.chain.network(),
        height: place.map(|(height, _)| height),
    })
}

fn pending(id: TransactionId) -> Refusal {
    Refusal::new(
        Code::TransactionPending,
        format!("transaction {} is queued but not final yet", id.0),
    )
    .hint("query it by its id, or send it again; it takes effect only once")
}
