//! `/transfers`, `/statement`, `/offers`, `/providers`: money and providers.

use axum::{Json, body::Body, extract::State, http::HeaderMap};
use piecework_api::{
    accounts::Scope,
    errors::ErrorBody,
    ledger::{CreateTransfer, OfferView, ProviderView, StandingView, StatementLine, StatementQuery, TransferView},
    page::{List, PageQuery},
    routes,
};
use piecework_ledger::{Key, Params, Value};
use piecework_model::{Code, Credits};
use piecework_scheduler::Standing;

use super::{Authenticated, BODY_BYTES_MAX, Created, HttpResult, Query, Shared, execute::idempotency, page, read_body};
use crate::{
    Answer, Controller,
    accounts::{
        self,
        transfers::{self, BOOKED, Booking, MEMOS, Order, Purpose},
    },
    clock::timestamp,
    codecs,
    failure::{self, chain, refusal, refuse, store},
    functions::placement,
    money::statements,
    providers::seen::Seen,
};

async fn params(controller: &Controller) -> Answer<Params> {
    match controller.ground.chain.get(&Key::Params).await.map_err(chain)? {
        Some(Value::Params(params)) => Ok(params),
        Some(_) | None => refuse(Code::LedgerUnavailable, "the ledger has no parameters yet"),
    }
}

pub(super) async fn commission_ppm(controller: &Controller) -> Answer<u32> {
    Ok(params(controller).await?.commission_ppm)
}

const MEMO_LENGTH_MAX: usize = 100;

/// Control characters would reach the terminals and spreadsheets of others.
fn is_memo(text: &str) -> bool {
    text.chars().count() <= MEMO_LENGTH_MAX && !text.chars().any(char::is_control)
}

/// Transfers credits and responds when the transfer is final on the ledger. With an `Idempotency-Key`, a transfer that is not
/// final after some seconds is refused with `transfer.queued` and goes on. If you repeat the request with the same key, nothing
/// more moves and you get the first response.
#[utoipa::path(post, path = routes::TRANSFERS, tag = "ledger", request_body = CreateTransfer,
    params(("Idempotency-Key" = Option<String>, Header)), responses(
    (status = 201, body = TransferView), (status = "default", body = ErrorBody)))]
pub(super) async fn transfer(
    State(controller): Shared,
    authenticated: Authenticated,
    headers: HeaderMap,
    body: Body,
) -> HttpResult<Created<TransferView>> {
    let caller = authenticated.with(Scope::Admin)?;
    let body: CreateTransfer = read_body(body, BODY_BYTES_MAX).await?;
    if body.memo.as_deref().is_some_and(|memo| !is_memo(memo)) {
        return Ok(refuse(
            Code::TransferBadMemo,
            "the memo is over 100 characters or contains control characters",
        )?);
    }
    if !body.amount_ucr.is_positive() {
        let mut refused = refusal(Code::TransferNotPositive, "the amount must be above zero");
        refused.field = Some("amount_ucr".into());
        return Err(refused.into());
    }
    let request = format!("{} {}", body.to, body.amount_ucr);
    let key = idempotency(caller, &headers, request.as_bytes(), b"")?;
    let order = Order {
        from: caller.account,
        from_name: caller.name.to_string(),
        to: accounts::find(&controller.accounts, &body.to).await?,
        amount: body.amount_ucr,
        purpose: Purpose::Transfer(body.memo),
    };
    match key {
        Some(key) => Ok(Created(transfers::once(&controller.accounts, order, key).await?)),
        None => {
            let sent = accounts::transfer(&controller.accounts, order.from, order.to, order.amount).await?;
            Ok(Created(transfers::view(&controller.accounts, &order, &sent).await?))
        }
    }
}

/// Lists the movements on the caller's account, newest first.
#[utoipa::path(get, path = routes::STATEMENT, tag = "ledger", params(StatementQuery), responses(
    (status = 200, body = List<StatementLine>), (status = "default", body = ErrorBody)))]
pub(super) async fn statement(
    State(controller): Shared,
    authenticated: Authenticated,
    Query(query): Query<StatementQuery>,
) -> HttpResult<Json<List<StatementLine>>> {
    let caller = authenticated.with(Scope::View)?;
    let limit = PageQuery {
        limit: query.limit,
        cursor: None,
    }
    .limit();
    let (mut before, mut posted) = match &query.cursor {
        Some(cursor) => statement_cursor(cursor)?,
        None => (
            None,
            accounts::on_ledger(&controller.accounts, caller.account).await?.posted,
        ),
    };
    let space = statements::statement_space(caller.account);
    let store = &controller.ground.store;
    let mut items = Vec::new();
    'pages: for _ in 0..STATEMENT_PAGES_MAX {
        let page = store
            .list_values(&space, "", before.as_deref(), limit)
            .await
            .map_err(failure::store)?;
        before = page.next;
        let last = page.items.len().saturating_sub(1);
        for (nth, (key, bytes)) in page.items.into_iter().enumerate() {
            let line: statements::Line = codecs::from_json(&bytes)?;
            let at = timestamp(line.at_ms);
            if query.from.is_some_and(|from| at < from) {
                // Newest first: all others are older.
                before = None;
                break 'pages;
            }
            if query.to.is_none_or(|to| at < to) {
                items.push(statement_line(&controller, &line, posted).await?);
            }
            posted = match posted.0.checked_sub(line.amount.0) {
                Some(before) => Credits(before),
                None => return Ok(refuse(Code::CursorMalformed, "pass the `next` of a page as cursor")?),
            };
            if items.len() == limit as usize {
                before = before.or((nth < last).then_some(key.clone())).map(|_| key);
                break 'pages;
            }
        }
        if before.is_none() {
            break;
        }
    }
    Ok(Json(List {
        items,
        next: before.map(|key| format!("{key}.{posted}")),
    }))
}

/// Pages of the statement that are read for one page of a time: what is passed over is read quickly, and not without end.
const STATEMENT_PAGES_MAX: u32 = 200;

/// `key.posted`: where the next page begins and what was owned there.
fn statement_cursor(cursor: &str) -> Answer<(Option<String>, Credits)> {
    let parsed = cursor
        .rsplit_once('.')
        .and_then(|(key, posted)| Some((key.to_owned(), posted.parse::<i128>().ok()?)));
    match parsed {
        Some((key, posted)) => Ok((Some(key), Credits(posted))),
        None => refuse(Code::CursorMalformed, "pass the `next` of a page as cursor"),
    }
}

async fn statement_line(controller: &Controller, line: &statements::Line, posted: Credits) -> Answer<StatementLine> {
    let (kind, detail) = match line.kind.as_str() {
        "transfer" => transferred_for(controller, &line.transaction.to_string()).await?,
        other => (other.to_owned(), None),
    };
    let counterparty = controller.ground.name_of(line.counterparty).await;
    Ok(StatementLine {
        at: timestamp(line.at_ms),
        height: line.height,
        kind,
        counterparty,
        detail,
        jobs: line.jobs,
        amount_ucr: line.amount,
        posted_ucr: posted,
        transaction: Some(line.transaction),
    })
}

/// What a transfer was for, and the reference or memo that came with it.
async fn transferred_for(controller: &Controller, transaction: &str) -> Answer<(String, Option<String>)> {
    let values = &controller.ground.store;
    if let Some(booked) = values.value(BOOKED, transaction).await.map_err(store)? {
        let booking: Booking = codecs::from_json(&booked)?;
        return Ok((booking.kind.as_str().to_owned(), Some(booking.reference)));
    }
    let memo = values.value(MEMOS, transaction).await.map_err(store)?;
    let memo = memo.map(|memo| codecs::from_text(&memo)).transpose()?;
    Ok(("transfer".to_owned(), memo))
}

/// Lists the providers' offers on the ledger.
#[utoipa::path(get, path = routes::OFFERS, tag = "ledger", params(PageQuery), security(()), responses(
    (status = 200, body = List<OfferView>), (status = "default", body = ErrorBody)))]
pub(super) async fn offers(
    State(controller): Shared,
    Query(query): Query<PageQuery>,
) -> HttpResult<Json<List<OfferView>>> {
    let mut items = Vec::new();
    for seen in controller.providers.all().iter().filter(|seen| seen.is_listed()) {
        let profile = seen.link.profile();
        let key = Key::Offer(profile.account);
        if let Some(Value::Offer(offer)) = controller.ground.chain.get(&key).await.map_err(chain)? {
            items.push(OfferView {
                provider_id: profile.account,
                provider: controller.ground.account_name(profile.account).await,
                prices: offer.prices.into(),
                cores: offer.resources.cores,
                memory_bytes: offer.resources.memory_bytes,
                disk_bytes: offer.resources.disk_bytes,
                backends: offer.backends,
                region: offer.region,
                labels: offer.labels,
                expires_at_height: offer.expires_at_height,
                deposit_ucr: offer.deposit,
            });
        }
    }
    page(items, &query, |offer| offer.provider_id.to_string())
}

/// Lists the providers that this controller knows; those that left are listed for an hour.
#[utoipa::path(get, path = routes::PROVIDERS, tag = "ledger", params(PageQuery), responses(
    (status = 200, body = List<ProviderView>), (status = "default", body = ErrorBody)))]
pub(super) async fn providers(
    State(controller): Shared,
    authenticated: Authenticated,
    Query(query): Query<PageQuery>,
) -> HttpResult<Json<List<ProviderView>>> {
    authenticated.with(Scope::View)?;
    let mut items = Vec::new();
    for seen in controller.providers.all().iter().filter(|seen| seen.is_listed()) {
        items.push(provider_view(&controller, seen).await?);
    }
    page(items, &query, |provider| provider.id.to_string())
}

pub(crate) async fn provider_view(controller: &Controller, seen: &Seen) -> Answer<ProviderView> {
    let (profile, load) = (seen.link.profile(), seen.link.load());
    let (jobs_done, earned) = earned_by(controller, profile.account).await?;
    let working = profile.probes.iter().filter(|probe| probe.works);
    let owner = placement::owner_of(&controller.functions, profile.account).await?;
    let is_anothers = owner != profile.account;
    Ok(ProviderView {
        id: profile.account,
        name: controller.ground.account_name(profile.account).await,
        state: seen.state(),
        owner: match is_anothers {
            true => Some(controller.ground.account_name(owner).await),
            false => None,
        },
        region: profile.region.clone(),
        labels: profile.labels.clone(),
        backends: working.map(|probe| probe.backend.to_string()).collect(),
        slots: profile.slots,
        running: load.running,
        warm_instances: load.instances,
        jobs_done,
        earned_ucr: earned,
        last_seen_at: Some(timestamp(crate::clock::now_ms().saturating_sub(seen.link.silent_ms()))),
        prices: Some(profile.prices.into()),
        standing: standing(&seen.standing.lock()),
    })
}

fn standing(standing: &Standing) -> StandingView {
    StandingView {
        trust: standing.trust().to_string(),
        score: standing.score,
        right: standing.right,
        wrong: standing.wrong,
        overclaimed: standing.overclaimed,
        cpu_us_per_unit: standing.cpu_us_per_unit,
    }
}

/// Jobs paid and what they brought, over the lanes of the leases that this controller knows.
async fn earned_by(controller: &Controller, provider: piecework_model::AccountId) -> Answer<(u64, Credits)> {
    let (mut jobs, mut earned) = (0, 0);
    for book in controller.money.leases.books() {
        if let Some(Value::Lane(lane)) = controller
            .ground
            .chain
            .get(&Key::Lane(book.lease, provider))
            .await
            .map_err(chain)?
        {
            jobs += lane.jobs;
            earned += lane.paid.0 - lane.commission.0;
        }
    }
    Ok((jobs, Credits(earned)))
}
