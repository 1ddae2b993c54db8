//! Functions declared deterministic: a share of their jobs runs once more, elsewhere, and the results are compared.
//!
//! ```text
//! first != second -> a third opinion -> who is alone with his result: unpaid, on the ledger, without trust
//!                        '-> nobody else there, or three results: nobody can tell; the contradiction is on the ledger
//! ```
//! The caller has his answer before: he waits for none of this. Every run is billed to the developer, who asked for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use piecework_api::errors::Refusal;
use piecework_ledger::{Action, ReportMismatch};
use piecework_model::{AccountId, Code, Digest, JobId, JobStatus, MerkleProof, Receipt, Salt, Sealed};
use piecework_queue::Unsealed;
use piecework_scheduler::{Finding, Verdict, rerun_percent, verdict};
use rand::RngExt as _;
use serde_json::json;

use crate::{
    Answer,
    accounts::audit,
    calls::{
        Calls,
        invoke::{self, Invocation, Purpose},
        streams::{Answering, Streams},
    },
    clock::now_ms,
    failure::{refuse, rejected},
    functions::Live,
    money::{
        leases,
        withheld::{self, Payable},
    },
    providers::standings,
};

/// A job that ran, with what it takes to run it again.
pub(crate) struct First {
    pub(crate) live: Arc<Live>,
    pub(crate) event: Bytes,
    pub(crate) parameters: Bytes,
    /// Of its digests.
    pub(crate) salt: Option<Salt>,
    pub(crate) payable: Payable,
}

/// A rerun that found no provider for so long is given up.
const RERUN_WITHIN: Duration = Duration::from_secs(30);

/// Whether this job is one of those that run twice.
pub(crate) fn is_sampled(calls: &Calls, live: &Live, receipt: &Receipt) -> bool {
    let percent = rerun_percent(
        live.version.rerun_percent,
        standings::trust(&calls.providers, receipt.provider),
    );
    receipt.status == JobStatus::Ok && rand::rng().random_range(0..100) < percent
}

/// Runs it again, compares, and pays whom there is nothing against. At shutdown it is given up.
pub(crate) async fn compare(calls: Arc<Calls>, first: First) {
    let (job, payable) = (first.payable.outgoing.receipt.job, first.payable.clone());
    let compared = tokio::select! {
        compared = try_compare(&calls, &first) => compared,
        () = calls.ground.shutdown.cancelled() => return,
    };
    if let Err(refusal) = compared {
        tracing::warn!(%job, code = %refusal.code, "comparing a result failed");
        withheld::pay_if_usual(&calls.money, payable).await;
    }
}

async fn try_compare(calls: &Arc<Calls>, first: &First) -> Answer<()> {
    let second = rerun(calls, first, &[&first.payable]).await?;
    let opinions = [&first.payable, &second];
    if result(&first.payable) == result(&second) {
        for payable in opinions {
            standings::note(&calls.providers, payable.outgoing.receipt.provider, Finding::Right).await;
            withheld::pay_if_usual(&calls.money, payable.clone()).await;
        }
        return Ok(());
    }
    let third = match rerun(calls, first, &opinions).await {
        Ok(third) => Some(third),
        Err(refusal) => {
            tracing::info!(code = %refusal.code, "no third provider is available to compare results");
            None
        }
    };
    let trusts = opinions.map(|payable| standings::trust(&calls.providers, payable.outgoing.receipt.provider));
    let found = verdict(opinions.map(result), trusts, third.as_ref().map(result));
    conclude(calls, opinions, third, found).await;
    Ok(())
}

fn result(payable: &Payable) -> Digest {
    payable.outgoing.receipt.output
}

/// The same work at a provider whose owner has not run it. Refuses if nobody ran it well.
async fn rerun(calls: &Arc<Calls>, first: &First, opinions: &[&Payable]) -> Answer<Payable> {
    let created_at_ms = now_ms();
    let has_run = opinions.iter().map(|payable| payable.outgoing.receipt.provider);
    let invocation = Invocation {
        id: invoke::new_job_id(created_at_ms),
        live: first.live.clone(),
        event: first.event.clone(),
        parameters: first.parameters.clone(),
        idempotency: None,
        deadline_ms: created_at_ms + u64::try_from(RERUN_WITHIN.as_millis()).unwrap_or(u64::MAX),
        created_at_ms,
        accepted: false,
        purpose: Purpose::Rerun {
            of: first.payable.outgoing.receipt.job,
            has_run: has_run.collect(),
            salt: first.salt,
        },
        caller: None,
        moved: None,
        wall: None,
        streams: Streams {
            answer: Answering::Discard,
            body: None,
        },
    };
    let id = invocation.id;
    let (_, payable) = invoke::aside(calls, invocation).await?;
    match payable {
        Some(payable) if payable.outgoing.receipt.status == JobStatus::Ok => Ok(payable),
        Some(payable) => {
            withheld::pay_if_usual(&calls.money, payable).await;
            Err(inconclusive(id))
        }
        None => Err(inconclusive(id)),
    }
}

fn inconclusive(job: JobId) -> Box<Refusal> {
    Box::new(
        Refusal::new(
            Code::FunctionCrashed,
            "the run that was to be compared did not end well",
        )
        .job(job),
    )
}

async fn conclude(calls: &Calls, [first, second]: [&Payable; 2], third: Option<Payable>, found: Verdict) {
    tracing::warn!(job = %first.outgoing.receipt.job, ?found, "two providers returned different results for the same input");
    match (found, &third) {
        (Verdict::First, Some(other)) => blame(calls, first, other).await,
        (Verdict::Second, Some(other)) => blame(calls, second, other).await,
        (Verdict::First, None) => blame(calls, first, second).await,
        (Verdict::Second, None) => blame(calls, second, first).await,
        (Verdict::Undecided, _) => {}
    }
    let blamed = match found {
        Verdict::First => Some(first),
        Verdict::Second => Some(second),
        Verdict::Undecided => None,
    };
    if blamed.is_none() {
        undecided(calls, first, second).await;
    }
    for payable in [Some(first), Some(second), third.as_ref()].into_iter().flatten() {
        let provider = payable.outgoing.receipt.provider;
        if blamed.is_some_and(|blamed| blamed.outgoing.receipt.provider == provider) {
            continue;
        }
        if blamed.is_some() {
            standings::note(&calls.providers, provider, Finding::Right).await;
        }
        withheld::pay_if_usual(&calls.money, payable.clone()).await;
    }
}

async fn blame(calls: &Calls, wrong: &Payable, other: &Payable) {
    let provider = wrong.outgoing.receipt.provider;
    standings::note(&calls.providers, provider, Finding::Wrong).await;
    let reason = format!(
        "its result contradicts that of job {}, which ran the same code on the same input",
        other.outgoing.receipt.job
    );
    if let Err(refusal) = withheld::refuse_payment(&calls.money, wrong, &reason).await {
        tracing::error!(%provider, %refusal, "marking a wrong result failed; a restart would pay it");
    }
    report(calls, wrong, other).await;
}

/// Nobody can tell who is right: the ledger keeps both words, and the function's owner is told that it may not be
/// deterministic.
async fn undecided(calls: &Calls, first: &Payable, second: &Payable) {
    for (doubted, other) in [(first, second), (second, first)] {
        standings::note(&calls.providers, doubted.outgoing.receipt.provider, Finding::Doubtful).await;
        report(calls, doubted, other).await;
    }
    let detail = json!({"jobs": [first.outgoing.receipt.job, second.outgoing.receipt.job]});
    let told = audit::record(
        &calls.accounts,
        (None, first.developer),
        ("function", "contradicted"),
        first.function_name.as_str(),
        detail,
    );
    if let Err(refusal) = told.await {
        tracing::warn!(%refusal, "recording a contradiction for the function's owner failed");
    }
}

/// Puts the contradiction on the ledger, under both providers' seals.
async fn report(calls: &Calls, doubted: &Payable, other: &Payable) {
    let reported = async {
        let report = ReportMismatch {
            lease: doubted.outgoing.receipt.lease,
            receipt: sealed(calls, doubted).await?,
            rerun: sealed(calls, other).await?,
        };
        leases::submit_as_payer(&calls.money, Action::ReportMismatch(Box::new(report))).await
    };
    match reported.await {
        Ok(_) => {
            calls.ground.telemetry.mismatches.inc();
        }
        Err(refusal) => {
            let provider = doubted.outgoing.receipt.provider;
            tracing::warn!(%provider, code = %refusal.code, "recording a contradiction on the ledger failed; it counts only at this controller");
        }
    }
}

/// The receipt under its provider's seal, in a batch of its own.
async fn sealed(calls: &Calls, payable: &Payable) -> Answer<Sealed<Receipt>> {
    let receipt = payable.outgoing.receipt.clone();
    let lane: (_, AccountId) = (receipt.lease, receipt.provider);
    let unsealed = Unsealed {
        receipt: receipt.clone(),
        mark: payable.outgoing.mark,
    };
    let link = calls.providers.link(receipt.provider)?;
    let seal = link.seal_receipts(lane, vec![unsealed]).await.map_err(rejected)?;
    if seal.count != 1 {
        return refuse(Code::ProviderBadResult, "the provider sealed something else");
    }
    Ok(Sealed {
        member: receipt,
        proof: MerkleProof::default(),
        count: 1,
        signature: seal.signature,
    })
}
