//! `/ledger/jobs/{id}`: what the ledger itself has of a job, whichever controller ran it.

use std::{collections::HashMap, sync::Arc};

use axum::{Json, extract::State};
use piecework_api::{
    errors::{ErrorBody, Refusal},
    ledger::{LedgerJob, LedgerJobEvent},
    routes,
    server::{HttpError, HttpResult, Path},
};
use piecework_chain::FinalBlock;
use piecework_ledger::{Action, Event, Key, Value};
use piecework_model::{AccountId, JobId, LeaseId};

use super::{Explorer, Shared, failed, views};

/// A job's changes, and what its settlement says of it.
#[utoipa::path(get, path = routes::LEDGER_JOB, tag = "ledger", params(("id" = String, Path)), security(()), responses(
    (status = 200, body = LedgerJob), (status = "default", body = ErrorBody)))]
pub(super) async fn show(State(explorer): Shared, Path(text): Path<String>) -> HttpResult<Json<LedgerJob>> {
    let Ok(id) = text.parse::<JobId>() else {
        return Err(missing(&text));
    };
    let heights = explorer.index.job(id);
    if heights.is_empty() {
        return Err(missing(&text));
    }
    Ok(Json(Reader::new(&explorer).read(id, heights).await?))
}

pub(super) fn missing(text: &str) -> HttpError {
    let refusal = Refusal::new(
        "job.not_found",
        format!("this peer knows of no settlement of job {text}"),
    );
    HttpError(Box::new(refusal.hint(
        "a job is here once its receipt is settled; of very old ones only their blocks are, which the controller names",
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

    /// A job that the block at `height` speaks of, and maybe others.
    pub(super) async fn job(&mut self, id: JobId, height: u64) -> HttpResult<LedgerJob> {
        let mut heights = self.explorer.index.job(id);
        if heights.is_empty() {
            heights.push(height);
        }
        self.read(id, heights).await
    }

    async fn read(&mut self, id: JobId, heights: Vec<u64>) -> HttpResult<LedgerJob> {
        let mut found = Found::default();
        for height in heights {
            if let Some(block) = self.block(height).await? {
                found.read(id, &block);
            }
        }
        found.view(self.explorer, id).await
    }
}

/// What a job's blocks say of it.
#[derive(Default)]
struct Found {
    lane: Option<(LeaseId, AccountId)>,
    paid: bool,
    settled: Option<serde_json::Value>,
    events: Vec<LedgerJobEvent>,
}

impl Found {
    fn read(&mut self, id: JobId, block: &FinalBlock) {
        for (signed, outcome) in block.transactions.iter().zip(&block.outcomes) {
            let Ok(events) = &outcome.result else { continue };
            for event in events.iter().filter(|event| event.job() == Some(id)) {
                self.paid |= matches!(event, Event::JobPaid { .. });
                self.events.push(view(event, block, outcome.id.0));
                self.read_action(id, &signed.transaction.action);
            }
        }
    }

    fn read_action(&mut self, id: JobId, action: &Action) {
        match action {
            Action::Settle(settle) => {
                self.lane = Some((settle.lease, settle.provider));
                let settled = settle.jobs.iter().find(|job| job.job == id);
                self.settled = settled.and_then(|job| {
                    let mut value = serde_json::to_value(job).ok()?;
                    value["code"] = serde_json::to_value(settle.codes.get(usize::from(job.code))?).ok()?;
                    Some(value)
                });
            }
            Action::OpenJobs(open) => self.lane = Some((open.lease, open.provider)),
            Action::PayClaims(pay) => self.lane = Some((pay.lease, pay.provider)),
            _ => {}
        }
    }

    async fn view(self, explorer: &Explorer, id: JobId) -> HttpResult<LedgerJob> {
        let mut names = views::Names::new(&*explorer.chain);
        let (mut developer, mut provider) = (None, None);
        if let Some((lease, account)) = self.lane {
            provider = Some(names.of(account).await);
            if let Some(Value::Lease(lease)) = explorer.chain.get(&Key::Lease(lease)).await.map_err(failed)? {
                developer = Some(names.of(lease.developer).await);
            }
        }
        Ok(LedgerJob {
            id,
            lease: self.lane.map(|(lease, _)| lease),
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
