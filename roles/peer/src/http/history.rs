//! `/ledger/transactions` and `/ledger/jobs` as lists: the history from its newest block down.
//!
//! Nothing is kept for them: a page reads blocks, passing over those that hold nothing, until it is full or has looked
//! at enough, and says where the next one begins.

use std::{collections::HashMap, fmt, str::FromStr, sync::Arc};

use axum::{Json, extract::State};
use piecework_api::{
    errors::ErrorBody,
    ledger::{HistoryQuery, LedgerJob, TransactionView},
    page::List,
    routes,
    server::{HttpResult, Query, refuse},
};
use piecework_chain::FinalBlock;
use piecework_ledger::{Action, Event, JobChange, Key, SignedTransaction, Value};
use piecework_model::{AccountId, Code, LeaseId};

use super::{Explorer, Shared, failed, jobs, state, views};

/// Transactions or jobs that one page looks at, most of which it passes over where those of one account are asked for.
/// A page ends with the block in which this many are reached.
const LOOKED_AT_MAX: usize = 5_000;
/// A job shows all its changes: a hundred of them are some hundred kilobytes.
const JOBS_MAX: u32 = 100;

/// An entry of a block; the entries of a list go down from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    height: u64,
    index: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.height, self.index)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (height, index) = text.split_once('.').ok_or(())?;
        Ok(Self {
            height: height.parse().map_err(|_| ())?,
            index: index.parse().map_err(|_| ())?,
        })
    }
}

impl Place {
    const fn last_of(height: u64) -> Self {
        Self {
            height,
            index: u32::MAX,
        }
    }

    fn start(explorer: &Explorer, cursor: Option<&str>) -> HttpResult<Self> {
        let head = explorer.chain.status().height;
        match cursor.map(str::parse::<Self>) {
            None => Ok(Self::last_of(head)),
            Some(Ok(place)) if place.height <= head => Ok(place),
            Some(Ok(_) | Err(())) => Ok(refuse(Code::CursorMalformed, "pass the `next` of a page as cursor")?),
        }
    }

    /// How many of the block's entries are left.
    fn left(self, entries: usize) -> usize {
        entries.min((self.index as usize).saturating_add(1))
    }

    /// After `left` entries of the block at `self` are still to come.
    fn below(self, left: usize, block: &FinalBlock) -> Self {
        match u32::try_from(left) {
            Ok(left @ 1..) => Self {
                height: self.height,
                index: left - 1,
            },
            Ok(0) | Err(_) => Self::last_of(block.previous_busy),
        }
    }

    /// Nothing has happened in block 0.
    fn next(self) -> Option<String> {
        (self.height > 0).then(|| self.to_string())
    }
}

async fn account_of(explorer: &Explorer, query: &HistoryQuery) -> HttpResult<Option<AccountId>> {
    match &query.account {
        Some(name) => Ok(Some(state::account_id(explorer, name).await?)),
        None => Ok(None),
    }
}

/// Lists transactions, newest first. With `account`, those it sent, and transfers and settlements to it; a page may
/// then be short or empty and still have a `next`.
#[utoipa::path(get, path = routes::LEDGER_TRANSACTIONS, tag = "ledger", params(HistoryQuery), security(()), responses(
    (status = 200, body = List<TransactionView>), (status = "default", body = ErrorBody)))]
pub(super) async fn transactions(
    State(explorer): Shared,
    Query(query): Query<HistoryQuery>,
) -> HttpResult<Json<List<TransactionView>>> {
    let (account, limit) = (account_of(&explorer, &query).await?, query.limit() as usize);
    let mut at = Place::start(&explorer, query.cursor.as_deref())?;
    let mut names = views::Names::new(&*explorer.chain);
    let (mut items, mut looked_at) = (Vec::new(), 0);
    while at.height > 0 && items.len() < limit && looked_at < LOOKED_AT_MAX {
        let Some(block) = explorer.chain.block(at.height).await.map_err(failed)? else {
            break;
        };
        let mut left = at.left(block.transactions.len());
        while left > 0 && items.len() < limit {
            left -= 1;
            looked_at += 1;
            if account.is_none_or(|account| concerns(&block.transactions[left], account)) {
                items.extend(views::transaction(&mut names, &block, left).await);
            }
        }
        at = at.below(left, &block);
    }
    Ok(Json(List { items, next: at.next() }))
}

fn concerns(signed: &SignedTransaction, account: AccountId) -> bool {
    let to = match &signed.transaction.action {
        Action::Transfer(transfer) => Some(transfer.to),
        Action::Settle(settle) => Some(settle.provider),
        Action::OpenJobs(open) => Some(open.provider),
        Action::ReleaseJobs(release) => Some(release.provider),
        Action::SetLimit(set) => Some(set.account),
        Action::CoverDebt(cover) => Some(cover.account),
        Action::Register(_)
        | Action::RotateKey(_)
        | Action::PutOffer(_)
        | Action::DropOffer(_)
        | Action::OpenLease(_)
        | Action::TopUp(_)
        | Action::DelegatePayer(_)
        | Action::CloseLease(_)
        | Action::ExpireLease(_)
        | Action::Claim(_)
        | Action::PayClaims(_)
        | Action::Challenge(_)
        | Action::ReportMismatch(_)
        | Action::Propose(_)
        | Action::Vote(_)
        | Action::PayPeers(_) => None,
    };
    signed.transaction.sender == account || to == Some(account)
}

/// Lists jobs in the order in which they were metered on the ledger, newest first. With `account`, those of one
/// developer or provider; a page may then be short or empty and still have a `next`.
#[utoipa::path(get, path = routes::LEDGER_JOBS, tag = "ledger", params(HistoryQuery), security(()), responses(
    (status = 200, body = List<LedgerJob>), (status = "default", body = ErrorBody)))]
pub(super) async fn jobs(
    State(explorer): Shared,
    Query(query): Query<HistoryQuery>,
) -> HttpResult<Json<List<LedgerJob>>> {
    explorer.check_complete()?;
    let account = account_of(&explorer, &query).await?;
    let limit = query.limit().min(JOBS_MAX) as usize;
    let mut at = Place::start(&explorer, query.cursor.as_deref())?;
    let (mut developers, mut reader) = (Developers::default(), jobs::Reader::new(&explorer));
    let (mut items, mut looked_at) = (Vec::new(), 0);
    while at.height > 0 && items.len() < limit && looked_at < LOOKED_AT_MAX {
        let Some(block) = reader.block(at.height).await? else {
            break;
        };
        let metered = metered(&block);
        let mut left = at.left(metered.len());
        while left > 0 && items.len() < limit {
            left -= 1;
            looked_at += 1;
            let (lease, provider, job) = metered[left];
            let shown = match account {
                None => true,
                Some(account) => provider == account || developers.of(&explorer, lease).await? == Some(account),
            };
            if shown {
                items.push(reader.job((lease, job), at.height).await?);
            }
        }
        at = at.below(left, &block);
    }
    Ok(Json(List { items, next: at.next() }))
}

/// Each job is metered once.
fn metered(block: &Arc<FinalBlock>) -> Vec<(LeaseId, AccountId, piecework_model::JobId)> {
    let results = block.outcomes.iter().filter_map(|outcome| outcome.result.as_ref().ok());
    let of_jobs = results.flatten().filter_map(Event::of_job);
    let metered = of_jobs.filter(|of| match of.change {
        JobChange::Metered => true,
        JobChange::Opened
        | JobChange::Received
        | JobChange::Paid { .. }
        | JobChange::Claimed { .. }
        | JobChange::Refuted
        | JobChange::Released
        | JobChange::Mismatched => false,
    });
    metered.map(|of| (of.lease, of.provider, of.job)).collect()
}

/// Whose each lease is, read once an answer.
#[derive(Default)]
struct Developers(HashMap<LeaseId, Option<AccountId>>);

impl Developers {
    async fn of(&mut self, explorer: &Explorer, id: LeaseId) -> HttpResult<Option<AccountId>> {
        if let Some(known) = self.0.get(&id) {
            return Ok(*known);
        }
        let developer = match explorer.chain.get(&Key::Lease(id)).await.map_err(failed)? {
            Some(Value::Lease(lease)) => Some(lease.developer),
            Some(_) | None => None,
        };
        self.0.insert(id, developer);
        Ok(developer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let place = Place { height: 7, index: 3 };
        assert_eq!(place.to_string().parse(), Ok(place));
        for wrong in ["", "7", "7.", ".3", "7.3.1", "-1.0", "7.x"] {
            assert_eq!(wrong.parse::<Place>(), Err(()), "{wrong}");
        }
    }
}
