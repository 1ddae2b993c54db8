//! `/ledger/status`, `/ledger/blocks`, `/ledger/raw/blocks`, `/ledger/events`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::header,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::StreamExt as _;
use piecework_api::{
    errors::ErrorBody,
    ledger::{BlockDetail, BlockEventsQuery, BlockView, BlocksQuery, LedgerStatus},
    page::{List, PageQuery},
    routes,
    server::{HttpResult, Path, Query, refuse},
};
use piecework_chain::{FinalBlock, wire};
use piecework_chain_http::view::block_view;
use piecework_model::{Code, Credits, Digest};
use piecework_serve::Caller;

use super::{Explorer, Shared, failed, pages::page, state, views};

/// `application/octet-stream`, in the encoding of [`wire`].
pub(super) fn raw_answer<T: borsh::BorshSerialize>(value: &T) -> Response {
    let bytes = borsh::to_vec(value).expect("a vector accepts every byte");
    ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
}

/// Shows the ledger's height, its peers and its pools.
#[utoipa::path(get, path = routes::LEDGER_STATUS, tag = "ledger", security(()), responses(
    (status = 200, body = LedgerStatus), (status = "default", body = ErrorBody)))]
pub(super) async fn status(State(explorer): Shared) -> HttpResult<Json<LedgerStatus>> {
    let (status, now) = (explorer.chain.status(), std::time::Instant::now());
    let params = state::params_of(&explorer).await?;
    let pools = state::pools_of(&explorer).await?;
    Ok(Json(LedgerStatus {
        network: status.network,
        height: status.height,
        head: status.block,
        state_root: status.state_root,
        finalized_at: (status.last_block_at_ms > 0).then(|| views::timestamp(status.last_block_at_ms)),
        peers: state::peer_views(&explorer).await?,
        peer_count: status.peers,
        pools_ucr: Credits(pools.peers.0 + pools.insurance.0),
        peers_pool_ucr: pools.peers,
        commission_permille: params.commission_ppm / 1_000,
        queued: status.queued,
        silent_ms: Some(u64::try_from(explorer.pulse.silent_for(now).as_millis()).unwrap_or(u64::MAX)),
        stalled: explorer.pulse.stalled_for(now).is_some(),
        rules: Some(state::rules_view(&explorer).await?),
    }))
}

/// Lists blocks, newest first, including empty ones.
#[utoipa::path(get, path = routes::LEDGER_BLOCKS, tag = "ledger", params(PageQuery), security(()), responses(
    (status = 200, body = List<BlockView>), (status = "default", body = ErrorBody)))]
pub(super) async fn list(State(explorer): Shared, Query(query): Query<PageQuery>) -> HttpResult<Json<List<BlockView>>> {
    let head = explorer.chain.status().height;
    let from = match query.cursor.as_deref().map(str::parse::<u64>) {
        None => head,
        Some(Ok(height)) => height.min(head),
        Some(Err(_)) => return Ok(refuse(Code::CursorMalformed, "pass the `next` of a page as cursor")?),
    };
    let mut items = Vec::new();
    let last = from.saturating_sub(u64::from(query.limit()) - 1).max(1);
    for height in (last..=from).rev() {
        if let Some(block) = explorer.chain.block(height).await.map_err(failed)? {
            items.push(block_view(&block));
        }
    }
    Ok(Json(List {
        items,
        next: (last > 1).then(|| (last - 1).to_string()),
    }))
}

/// By height, or by digest.
async fn find(explorer: &Explorer, which: &str) -> HttpResult<Arc<FinalBlock>> {
    let found = if let Ok(height) = which.parse::<u64>() {
        explorer.chain.block(height).await.map_err(failed)?
    } else if let Ok(digest) = which.parse::<Digest>() {
        explorer.chain.block_by_digest(digest).await.map_err(failed)?
    } else {
        return Ok(refuse(
            Code::BlockBadHeight,
            "use a block's height (a whole number) or its digest (64 hex digits)",
        )?);
    };
    match found {
        Some(block) => Ok(block),
        None => Ok(refuse(
            Code::BlockNotFound,
            format!("the ledger has no block {which} yet"),
        )?),
    }
}

/// Shows a block with its transactions, by height or by digest.
#[utoipa::path(get, path = routes::LEDGER_BLOCK, tag = "ledger", params(("height" = String, Path)), security(()),
    responses((status = 200, body = BlockDetail), (status = "default", body = ErrorBody)))]
pub(super) async fn show(State(explorer): Shared, caller: Caller, Path(which): Path<String>) -> HttpResult<Response> {
    let block = find(&explorer, &which).await?;
    let key = format!("block {}", block.height);
    page(&explorer, caller, key, detail(&explorer, block)).await
}

async fn detail(explorer: &Explorer, block: Arc<FinalBlock>) -> HttpResult<BlockDetail> {
    let mut names = views::Names::new(&*explorer.chain);
    let mut items = Vec::with_capacity(block.transactions.len());
    for index in 0..block.transactions.len() {
        items.extend(views::transaction(&mut names, &block, index).await);
    }
    Ok(BlockDetail {
        block: block_view(&block),
        items,
    })
}

/// Returns a block for programs: header, transactions, outcomes and certificate, in borsh.
#[utoipa::path(get, path = routes::LEDGER_BLOCK_RAW, tag = "ledger", params(("height" = String, Path)), security(()),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
    (status = "default", body = ErrorBody)))]
pub(super) async fn raw(State(explorer): Shared, Path(which): Path<String>) -> HttpResult<Response> {
    let block = find(&explorer, &which).await?;
    Ok(raw_answer(&wire::Block::from(&*block)))
}

/// Blocks of one page.
const PAGE_BLOCKS_MAX: u32 = 256;
/// A page ends with the block that fills it: a full block has up to 8 MiB.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Longer than a heartbeat, shorter than what proxies take for a dead connection.
const WAIT_MS_MAX: u32 = 30_000;

/// Returns blocks from a height on, for programs, in borsh. Can wait for the first one.
#[utoipa::path(get, path = routes::LEDGER_RAW_BLOCKS, tag = "ledger", params(BlocksQuery), security(()),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
    (status = "default", body = ErrorBody)))]
pub(super) async fn raw_page(
    State(explorer): Shared,
    caller: Caller,
    Query(query): Query<BlocksQuery>,
) -> HttpResult<Response> {
    let from = query.from.max(1);
    let wait = Duration::from_millis(query.wait_ms.unwrap_or(0).min(WAIT_MS_MAX).into());
    if !wait.is_zero() {
        let _place = explorer.reader(caller)?;
        explorer.reach(from, wait).await;
    }
    let head = explorer.chain.status();
    let count = u64::from(query.count.unwrap_or(PAGE_BLOCKS_MAX).clamp(1, PAGE_BLOCKS_MAX));
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    for height in from..from.saturating_add(count).min(head.height.saturating_add(1)) {
        let Some(block) = explorer.chain.block(height).await.map_err(failed)? else {
            break;
        };
        let block = wire::Block::from(&*block);
        bytes += borsh::object_length(&block).expect("a counter accepts every byte");
        blocks.push(block);
        if bytes >= PAGE_BYTES_MAX {
            break;
        }
    }
    let head = head.into();
    Ok(raw_answer(&wire::Page { head, blocks }))
}

/// Streams server-sent events: `block`, with a BlockView and the height as its id, from a given height or as blocks
/// become final.
#[utoipa::path(get, path = routes::LEDGER_EVENTS, tag = "ledger", params(BlockEventsQuery), security(()), responses(
    (status = 200, body = BlockView, content_type = "text/event-stream"), (status = "default", body = ErrorBody)))]
pub(super) async fn events(
    State(explorer): Shared,
    caller: Caller,
    Query(query): Query<BlockEventsQuery>,
) -> HttpResult<Response> {
    let place = explorer.reader(caller)?;
    const KEEP_ALIVE: Duration = Duration::from_secs(15);
    let from = query.from.unwrap_or_else(|| explorer.chain.status().height + 1);
    let blocks = explorer.chain.blocks_from(from);
    let events = blocks
        .take_until(explorer.shutdown.clone().cancelled_owned())
        .map(move |block| {
            // Given back with the stream.
            let _ = &place;
            let data = serde_json::to_string(&block_view(&block)).unwrap_or_default();
            Ok::<_, Infallible>(Event::default().event("block").id(block.height.to_string()).data(data))
        });
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

impl Explorer {
    /// Whether block `height` is final here, or becomes so in time.
    pub(super) async fn reach(&self, height: u64, within: Duration) -> bool {
        if self.chain.status().height >= height {
            return true;
        }
        let mut blocks = self.chain.blocks_from(height);
        tokio::select! {
            next = tokio::time::timeout(within, blocks.next()) => matches!(next, Ok(Some(_))),
            () = self.shutdown.cancelled() => false,
        }
    }
}
