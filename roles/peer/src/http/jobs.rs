//! `/ledger/jobs/{id}`: a job as recorded on the ledger, whichever controller ran it.

use std::{collections::HashMap, sync::Arc};

use axum::{Json, extract::State};
use piecework_api::{
    errors::{ErrorBody, Refusal},
    ledger::{LedgerJob, LedgerJobEvent, LedgerJobQuery},
    routes,
    server::{HttpError, HttpResult, Path, Query},
};
use piecework_chain::FinalBlock;
use piecework_ledger::{Action, Event, Key, Value};
use piecework_model::{AccountId, Code, JobId, LeaseId};

use super::{Explorer, Shared, failed, views};

/// Shows a job's changes and its settlement. Controllers choose job ids, so different leases can have different jobs
/// with the same id: `lease` selects one, else the lease that used the id first; the others are listed.
#[utoipa::path(get, path = routes::LEDGER_JOB, tag = "ledger", params(("id" = String, Path), LedgerJobQuery), security(()),
    responses((status = 200, body = LedgerJob), (status = "default", body = ErrorBody)))]
pub(super) async fn show(
    State(explorer): Shared,
    Path(text): Path<String>,
    Query(query): Query<LedgerJobQuery>,
) -> HttpResult<Json<LedgerJob>> {
    let Ok(id) = text.parse::<JobId>() else {
        return Err(missing(&text));
    };
    let all = explorer.index.leases_of(id);
    let wanted = |lease: &LeaseId| query.lease.as_ref().is_none_or(|wanted| *wanted == lease.to_string());
    let Some((lease, heights)) = all.iter().find(|(lease, _)| wanted(lease)).cloned() else {
        return Err(missing(&text));
    };
    let mut job = Reader::new(&explorer).read((lease, id), heights).await?;
    let others = all.iter().map(|(lease, _)| *lease).filter(|other| *other != lease);
    job.other_leases = others.take(OTHERS_MAX).collect();
    Ok(Json(job))
}

/// Leases in a response; anybody with an account can open more.
const OTHERS_MAX: usize = 16;

pub(super) fn missing(text: &str) -> HttpError {
    let refusal = Refusal::new(
        Code::JobNotFound,
        format!("this peer knows no settlement of job {text}"),
    );
    HttpError(Box::new(refusal.hint(
        "a job appears once its receipt is settled; for a very old job, ask the controller for its blocks",
    )))
}

/// Reads jobs out of their blocks: those of one list share most of them.
pub(super) struct Reader<'a> {
    explorer: &'a Explorer,
    blocks: HashMap<u64, Arc<FinalBlock>>,
}

/// Blocks at hand, of up to 8 MiB.
const BLOCKS_MAX: usize = 8;

impl<'a> Reader<'a> {
    pub(super) fn new(explorer: &'a Explorer) -> Self {
        Self {
            explorer,
            blocks: HashMap::new(),
        }
    }

    pub(super) async fn block(&mut self, height: u64) -> HttpResult<Option<Arc<FinalBlock>>> {
        if let Some(block) = self.blocks.get(&height) {
            return Ok(Some(block.clone()));
        }
        let block = self.explorer.chain.block(height).await.map_err(failed)?;
        if let Some(block) = &block {
            if self.blocks.len() >= BLOCKS_MAX {
                self.blocks.clear();
            }
            self.blocks.insert(height, block.clone());
        }
        Ok(block)
    }

    /// A job of a lease that the block at `height` speaks of, and maybe others.
    pub(super) async fn job(&mut self, (lease, id): (LeaseId, JobId), height: u64) -> HttpResult<LedgerJob> {
        let mut heights = self.explorer.index.job(id, lease);
        if heights.is_empty() {
            heights.push(height);
        }
        self.read((lease, id), heights).await
    }

    async fn read(&mut self, job: (LeaseId, JobId), heights: Vec<u64>) -> HttpResult<LedgerJob> {
        let mut found = Found::of(job);
        for height in heights {
            if let Some(block) = self.block(height).await? {
                found.read(&block);
            }
        }
        found.view(self.explorer).await
    }
}

/// What a job's blocks say of it.
struct Found {
    lease: LeaseId,
    id: JobId,
    /// Of the last that was ordered to run it.
    provider: Option<AccountId>,
    paid: bool,
    settled: Option<serde_json::Value>,
    events: Vec<LedgerJobEvent>,
}

impl Found {
    fn of((lease, id): (LeaseId, JobId)) -> Self {
        Self {
            lease,
            id,
            provider: None,
            paid: false,
            settled: None,
            events: Vec::new(),
        }
    }

    fn read(&mut self, block: &FinalBlock) {
        let job = Some((self.lease, self.id));
        for (signed, outcome) in block.transactions.iter().zip(&block.outcomes) {
            let Ok(events) = &outcome.result else { continue };
            for event in events.iter().filter(|event| event.lease_job() == job) {
                self.paid |= matches!(event, Event::JobPaid { .. });
                self.events.push(view(event, block, outcome.id.0));
                self.read_action(&signed.transaction.action);
            }
        }
    }

    fn read_action(&mut self, action: &Action) {
        match action {
            Action::Settle(settle) => {
                self.provider = Some(settle.provider);
                let settled = settle.jobs.iter().find(|job| job.job == self.id);
                self.settled = settled.and_then(|job| {
                    let mut value = serde_json::to_value(job).ok()?;
                    value["code"] = serde_json::to_value(settle.codes.get(usize::from(job.code))?).ok()?;
                    Some(value)
                });
            }
            Action::OpenJobs(open) => self.provider = Some(open.provider),
            Action::PayClaims(pay) => self.provider = Some(pay.provider),
            Action::Register(_)
            | Action::RotateKey(_)
            | Action::Transfer(_)
            | Action::PutOffer(_)
            | Action::DropOffer(_)
            | Action::OpenLease(_)
            | Action::TopUp(_)
            | Action::DelegatePayer(_)
            | Action::CloseLease(_)
            | Action::ExpireLease(_)
            | Action::ReleaseJobs(_)
            | Action::Claim(_)
            | Action::Challenge(_)
            | Action::ReportMismatch(_)
            | Action::SetLimit(_)
            | Action::CoverDebt(_)
            | Action::Propose(_)
            | Action::Vote(_)
            | Action::PayPeers(_) => {}
        }
    }

    async fn view(self, explorer: &Explorer) -> HttpResult<LedgerJob> {
        let mut names = views::Names::new(&*explorer.chain);
        let provider = match self.provider {
            Some(account) => Some(names.of(account).await),
            None => None,
        };
        let developer = match explorer.chain.get(&Key::Lease(self.lease)).await.map_err(failed)? {
            Some(Value::Lease(lease)) => Some(names.of(lease.developer).await),
            Some(_) | None => None,
        };
        Ok(LedgerJob {
            id: self.id,
            lease: Some(self.lease),
            other_leases: Vec::new(),
            developer,
            provider,
            paid: self.paid,
            settled: self.settled,
            events: self.events,
        })
    }
}

fn view(event: &Event, block: &FinalBlock, transaction: piecework_model::Digest) -> LedgerJobEvent {
    let body = serde_json::to_value(event).unwrap_or_default();
    LedgerJobEvent {
        kind: body["event"].as_str().unwrap_or_default().to_owned(),
        height: block.height,
        at: views::timestamp(block.timestamp_ms),
        transaction,
        body,
    }
}
