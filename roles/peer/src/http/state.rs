//! `/ledger/accounts`, `/ledger/offers`, `/ledger/leases`, `/ledger/peers`, `/ledger/params`, `/ledger/genesis`, and
//! the raw value of any key.

use axum::{Json, extract::State, response::Response};
use piecework_api::{
    accounts::{AccountQuery, AccountView},
    errors::ErrorBody,
    ledger::{HistoryQuery, LeaseView, NextRulesView, OfferView, PeerView, RulesView, ValueQuery},
    page::{List, PageQuery},
    routes,
    server::{HttpResult, Path, Query, refuse},
};
use piecework_chain::wire;
use piecework_ledger::{Key, Params, Peer, Pools, Rules, Value};
use piecework_model::{AccountId, Code, LeaseId, OwnerName};

use super::{BEHIND_WITHIN, Explorer, Shared, blocks::raw_answer, failed, proofs, views};

/// A key in hex; a lane's is the longest.
const KEY_HEX_MAX: usize = 512;

/// Returns a value of the state, in borsh.
#[utoipa::path(get, path = routes::LEDGER_RAW_VALUE, tag = "ledger", params(("key" = String, Path), ValueQuery),
    security(()), responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
    (status = "default", body = ErrorBody)))]
pub(super) async fn value(
    State(explorer): Shared,
    Path(key): Path<String>,
    Query(query): Query<ValueQuery>,
) -> HttpResult<Response> {
    let bytes = (key.len() <= KEY_HEX_MAX).then(|| hex::decode(&key).ok()).flatten();
    let Some(key) = bytes.and_then(|bytes| borsh::from_slice::<Key>(&bytes).ok()) else {
        return Ok(refuse(
            Code::ValueBadKey,
            "the key must be in the ledger's encoding, in hex",
        )?);
    };
    if !explorer.reach(query.at_least.unwrap_or(0), BEHIND_WITHIN).await {
        return Ok(refuse(
            Code::LedgerBehind,
            "this peer has not seen the requested block yet",
        )?);
    }
    let height = explorer.chain.status().height;
    let value = explorer.chain.get(&key).await.map_err(failed)?;
    Ok(raw_answer(&wire::StateValue {
        network: explorer.chain.network(),
        height,
        value,
    }))
}

pub(super) async fn params_of(explorer: &Explorer) -> HttpResult<Params> {
    match explorer.chain.get(&Key::Params).await.map_err(failed)? {
        Some(Value::Params(params)) => Ok(params),
        Some(_) | None => Ok(refuse(Code::LedgerUnavailable, "the ledger has no parameters yet")?),
    }
}

pub(super) async fn pools_of(explorer: &Explorer) -> HttpResult<Pools> {
    match explorer.chain.get(&Key::Pools).await.map_err(failed)? {
        Some(Value::Pools(pools)) => Ok(pools),
        Some(_) | None => Ok(Pools::default()),
    }
}

/// As far as they are known now; from the next block on.
pub(super) async fn rules_view(explorer: &Explorer) -> HttpResult<RulesView> {
    let rules = match explorer.chain.get(&Key::Rules).await.map_err(failed)? {
        Some(Value::Rules(rules)) => rules,
        Some(_) | None => Rules::default(),
    };
    let height = explorer.chain.status().height + 1;
    Ok(RulesView {
        number: rules.at(height),
        next: rules.pending(height).map(|next| NextRulesView {
            number: next.rules,
            from_height: next.from_height,
        }),
    })
}

/// The peers that hold now, then those that come.
pub(super) async fn peer_views(explorer: &Explorer) -> HttpResult<Vec<PeerView>> {
    let Some(Value::Committee(committee)) = explorer.chain.get(&Key::Committee).await.map_err(failed)? else {
        return Ok(Vec::new());
    };
    let next_height = explorer.chain.status().height + 1;
    let holding = committee.at(next_height);
    let mut names = views::Names::new(&*explorer.chain);
    let mut peers = Vec::new();
    for peer in holding {
        peers.push(peer_view(explorer, &mut names, peer, None).await);
    }
    if let Some(next) = committee.pending(next_height) {
        let new = |peer: &&Peer| !holding.iter().any(|held| held.key == peer.key);
        for peer in next.peers.iter().filter(new) {
            peers.push(peer_view(explorer, &mut names, peer, Some(next.from_height)).await);
        }
    }
    Ok(peers)
}

async fn peer_view(
    explorer: &Explorer,
    names: &mut views::Names<'_>,
    peer: &Peer,
    from_height: Option<u64>,
) -> PeerView {
    let last = explorer.pulse.last_of(peer.key);
    PeerView {
        key: peer.key,
        owner: Some(names.of(peer.owner).await),
        address: Some(peer.address.clone()),
        since_height: peer.since_height,
        from_height,
        here: explorer.here == Some(peer.key),
        last_proposed_height: last.map(|last| last.height),
        last_proposed_at: last.map(|last| views::timestamp(last.at_ms)),
    }
}

/// Lists the current and the next peers.
#[utoipa::path(get, path = routes::LEDGER_PEERS, tag = "ledger", security(()), responses(
    (status = 200, body = List<PeerView>), (status = "default", body = ErrorBody)))]
pub(super) async fn peers(State(explorer): Shared) -> HttpResult<Json<List<PeerView>>> {
    Ok(Json(List::all(peer_views(&explorer).await?)))
}

/// Shows the parameters in force.
#[utoipa::path(get, path = routes::LEDGER_PARAMS, tag = "ledger", security(()), responses(
    (status = 200, body = serde_json::Value), (status = "default", body = ErrorBody)))]
pub(super) async fn params(State(explorer): Shared) -> HttpResult<Json<Params>> {
    Ok(Json(params_of(&explorer).await?))
}

/// Returns the network's genesis file. Trust it only as far as you trust this peer; its digest is the network's id.
#[utoipa::path(get, path = routes::LEDGER_GENESIS, tag = "ledger", security(()), responses(
    (status = 200, body = serde_json::Value), (status = "default", body = ErrorBody)))]
pub(super) async fn genesis(State(explorer): Shared) -> Json<piecework_ledger::Genesis> {
    Json(explorer.genesis.clone())
}

pub(super) async fn account_id(explorer: &Explorer, name_or_id: &str) -> HttpResult<AccountId> {
    if let Ok(id) = name_or_id.parse() {
        return Ok(id);
    }
    let found = match name_or_id.parse::<OwnerName>() {
        Ok(name) => explorer.chain.get(&Key::Name(name)).await.map_err(failed)?,
        Err(_) => None,
    };
    match found {
        Some(Value::Name(account)) => Ok(account),
        Some(_) | None => Ok(refuse(
            Code::AccountNotFound,
            format!("no account has the name `{name_or_id}`"),
        )?),
    }
}

async fn account_view(explorer: &Explorer, id: AccountId) -> HttpResult<Option<AccountView>> {
    let height = explorer.chain.status().height;
    match explorer.chain.get(&Key::Account(id)).await.map_err(failed)? {
        Some(Value::Account(account)) => {
            let mut names = views::Names::new(&*explorer.chain);
            Ok(Some(views::account(&mut names, id, &account, height).await))
        }
        Some(_) | None => Ok(None),
    }
}

/// Shows an account, by name or id. With `proof=true`, adds a proof of the balances that anyone with the genesis file
/// can check.
#[utoipa::path(get, path = routes::LEDGER_ACCOUNT, tag = "ledger", params(("name" = String, Path), AccountQuery), security(()),
    responses((status = 200, body = AccountView), (status = "default", body = ErrorBody)))]
pub(super) async fn account(
    State(explorer): Shared,
    Path(name): Path<String>,
    Query(query): Query<AccountQuery>,
) -> HttpResult<Json<AccountView>> {
    let id = account_id(&explorer, &name).await?;
    match account_view(&explorer, id).await? {
        Some(mut view) => {
            if query.proof {
                view.proof = Some(proofs::of_account(&explorer, id).await?);
            }
            Ok(Json(view))
        }
        None => Ok(refuse(Code::AccountNotFound, format!("no account has the id {id}"))?),
    }
}

/// A page of ids, in their order, from the cursor on.
fn page(explorer: &Explorer, query: &PageQuery, offers: bool) -> HttpResult<(Vec<AccountId>, Option<String>)> {
    explorer.check_complete()?;
    let from = match query.cursor.as_deref().map(str::parse::<AccountId>) {
        None => AccountId([0; 20]),
        Some(Ok(id)) => id,
        Some(Err(_)) => return Ok(refuse(Code::CursorMalformed, "pass the `next` of a page as cursor")?),
    };
    let limit = query.limit() as usize;
    let mut ids = explorer.index.ids(offers, from, limit + 1);
    let next = (ids.len() > limit).then(|| ids.pop()).flatten();
    Ok((ids, next.map(|id| id.to_string())))
}

/// Lists all accounts, in the order of their ids.
#[utoipa::path(get, path = routes::LEDGER_ACCOUNTS, tag = "ledger", params(PageQuery), security(()), responses(
    (status = 200, body = List<AccountView>), (status = "default", body = ErrorBody)))]
pub(super) async fn accounts(
    State(explorer): Shared,
    Query(query): Query<PageQuery>,
) -> HttpResult<Json<List<AccountView>>> {
    let (ids, next) = page(&explorer, &query, false)?;
    let mut items = Vec::with_capacity(ids.len());
    for id in ids {
        items.extend(account_view(&explorer, id).await?);
    }
    Ok(Json(List { items, next }))
}

/// Lists current offers, in the order of their providers' ids.
#[utoipa::path(get, path = routes::LEDGER_OFFERS, tag = "ledger", params(PageQuery), security(()), responses(
    (status = 200, body = List<OfferView>), (status = "default", body = ErrorBody)))]
pub(super) async fn offers(
    State(explorer): Shared,
    Query(query): Query<PageQuery>,
) -> HttpResult<Json<List<OfferView>>> {
    let (ids, next) = page(&explorer, &query, true)?;
    let mut names = views::Names::new(&*explorer.chain);
    let mut items = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(Value::Offer(offer)) = explorer.chain.get(&Key::Offer(id)).await.map_err(failed)? {
            items.push(views::offer(&mut names, id, offer).await);
        }
    }
    Ok(Json(List { items, next }))
}

/// Lists all leases, newest first; with `account`, those of one developer.
#[utoipa::path(get, path = routes::LEDGER_LEASES, tag = "ledger", params(HistoryQuery), security(()), responses(
    (status = 200, body = List<LeaseView>), (status = "default", body = ErrorBody)))]
pub(super) async fn leases(
    State(explorer): Shared,
    Query(query): Query<HistoryQuery>,
) -> HttpResult<Json<List<LeaseView>>> {
    explorer.check_complete()?;
    let from = match query.cursor.as_deref().map(lease_cursor) {
        None => None,
        Some(Some(place)) => Some(place),
        Some(None) => return Ok(refuse(Code::CursorMalformed, "pass the `next` of a page as cursor")?),
    };
    let developer = match &query.account {
        Some(name) => Some(account_id(&explorer, name).await?),
        None => None,
    };
    let limit = query.limit() as usize;
    let mut places = explorer.index.leases(from, developer, limit + 1);
    let next = (places.len() > limit).then(|| places.pop()).flatten();
    let mut names = views::Names::new(&*explorer.chain);
    let mut items = Vec::with_capacity(places.len());
    for (height, id) in places {
        if let Some(Value::Lease(lease)) = explorer.chain.get(&Key::Lease(id)).await.map_err(failed)? {
            let mut view = views::lease(&mut names, id, lease).await;
            view.opened_at_height = Some(height);
            items.push(view);
        }
    }
    let next = next.map(|(height, id)| format!("{height}.{id}"));
    Ok(Json(List { items, next }))
}

fn lease_cursor(text: &str) -> Option<(u64, LeaseId)> {
    let (height, id) = text.split_once('.')?;
    Some((height.parse().ok()?, id.parse().ok()?))
}

impl Explorer {
    /// Refuses lists that are made from the history until all of it has been read.
    pub(super) fn check_complete(&self) -> HttpResult<()> {
        match self.index.is_complete() {
            true => Ok(()),
            false => Ok(refuse(
                Code::LedgerIndexing,
                "this peer is still reading the ledger's history",
            )?),
        }
    }
}

/// Shows a lease.
#[utoipa::path(get, path = routes::LEDGER_LEASE, tag = "ledger", params(("id" = String, Path)), security(()), responses(
    (status = 200, body = LeaseView), (status = "default", body = ErrorBody)))]
pub(super) async fn lease(State(explorer): Shared, Path(text): Path<String>) -> HttpResult<Json<LeaseView>> {
    let found = match text.parse::<LeaseId>() {
        Ok(id) => explorer
            .chain
            .get(&Key::Lease(id))
            .await
            .map_err(failed)?
            .map(|value| (id, value)),
        Err(_) => None,
    };
    match found {
        Some((id, Value::Lease(lease))) => {
            let mut names = views::Names::new(&*explorer.chain);
            Ok(Json(views::lease(&mut names, id, lease).await))
        }
        Some(_) | None => Ok(refuse(Code::LeaseNotFound, format!("the ledger has no lease {text}"))?),
    }
}
