//! Each provider's standing: in memory for every decision, stored with every finding.

use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;
use piecework_model::AccountId;
use piecework_scheduler::{Finding, SCORE_MAX, Standing, Trust};

use crate::{Answer, codecs, failure::store, providers::Providers};

/// account -> [`Standing`].
const SPACE: &str = "standing";

#[derive(Default)]
pub(crate) struct Standings {
    known: DashMap<AccountId, Known>,
    /// One writer at a time: an older standing never overwrites a newer one.
    writing: tokio::sync::Mutex<()>,
}

/// One provider's, shared by all its runs.
pub(crate) type Known = Arc<Mutex<Standing>>;

/// What is known of a provider; nothing, of a new one.
pub(crate) async fn of(providers: &Providers, provider: AccountId) -> Answer<Known> {
    if let Some(known) = providers.standings.known.get(&provider) {
        return Ok(known.clone());
    }
    let bytes = providers
        .ground
        .store
        .value(SPACE, &provider.to_string())
        .await
        .map_err(store)?;
    let standing = match bytes {
        Some(bytes) => codecs::from_json(&bytes)?,
        None => Standing::default(),
    };
    let entry = providers.standings.known.entry(provider);
    Ok(entry.or_insert_with(|| Arc::new(Mutex::new(standing))).clone())
}

/// Of a provider in this process: the controller does not check itself.
pub(crate) fn own(providers: &Providers, provider: AccountId) -> Known {
    let standing = Standing {
        score: SCORE_MAX,
        ..Standing::default()
    };
    let known = Arc::new(Mutex::new(standing));
    providers.standings.known.insert(provider, known.clone());
    known
}

pub(crate) fn trust(providers: &Providers, provider: AccountId) -> Trust {
    let known = providers.standings.known.get(&provider);
    known.map_or(Trust::New, |known| known.lock().trust())
}

/// Takes a finding into account from the next decision on. A failure to write it is logged: it counts until a restart.
pub(crate) async fn note(providers: &Providers, provider: AccountId, finding: Finding) {
    tracing::info!(%provider, ?finding, "checked a provider's result");
    change(providers, provider, |standing| standing.note(finding)).await;
}

/// A reference job begins there now.
pub(crate) async fn note_reference(providers: &Providers, provider: AccountId, now_ms: u64) {
    change(providers, provider, |standing| standing.reference_at_ms = now_ms).await;
}

async fn change(providers: &Providers, provider: AccountId, change: impl FnOnce(&mut Standing) + Send) {
    if let Err(refusal) = try_change(providers, provider, change).await {
        tracing::error!(%provider, %refusal, "saving a provider's standing failed");
    }
}

async fn try_change(
    providers: &Providers,
    provider: AccountId,
    change: impl FnOnce(&mut Standing) + Send,
) -> Answer<()> {
    let known = of(providers, provider).await?;
    let _turn = providers.standings.writing.lock().await;
    let (before, after) = {
        let mut standing = known.lock();
        let before = standing.trust();
        change(&mut standing);
        (before, standing.clone())
    };
    if before != after.trust() {
        tracing::warn!(%provider, from = %before, to = %after.trust(), "a provider's trust changed");
    }
    codecs::put_json(&providers.ground, SPACE, &provider.to_string(), &after).await
}
