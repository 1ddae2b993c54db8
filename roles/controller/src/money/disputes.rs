//! Answers providers' claims: one for a job that was done and paid under another ticket is refuted.
//!
//! ```text
//! JobClaimed -> kept -- the job's own ticket --> the outbox settles it, which takes the claim's place
//!                  '--- another ticket of it --> once that is paid: its receipt, sealed again -> Challenge
//! ```
//! What is kept outlives this process and goes when the claim's window is over. A claim for a job that nobody else did
//! stands: the payer ordered it, and its own word refutes nothing.

use std::{sync::Arc, time::Duration};

use piecework_ledger::{Action, Challenge, Event, Evidence, JobChange, Key, OfJob, PayClaims, Value};
use piecework_model::{AccountId, Code, JobId, LeaseId, MerkleProof, Receipt, Seal, Sealed};
use piecework_queue::Unsealed;
use piecework_store::Put;
use serde::{Deserialize, Serialize};

use crate::{
    Answer,
    again::again,
    codecs,
    failure::{chain, rejected, store},
    money::{Money, leases},
};

const SPACE: &str = "claim";
const EVERY: Duration = Duration::from_secs(2);
const PAGE: u32 = 200;

/// A claim that waits for its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claimed {
    lease: LeaseId,
    provider: AccountId,
    sequence: u64,
    job: JobId,
    until_height: u64,
}

/// What is to be kept of a claim on a lease that this controller pays from.
pub(crate) async fn note(money: &Money, event: &Event) -> Answer<Option<Put>> {
    let Some(of) = event.of_job() else { return Ok(None) };
    let until_height = match of.change {
        JobChange::Claimed { until_height } => until_height,
        JobChange::Opened
        | JobChange::Metered
        | JobChange::Received
        | JobChange::Paid { .. }
        | JobChange::Refuted
        | JobChange::Released
        | JobChange::Mismatched => return Ok(None),
    };
    let OfJob {
        lease,
        provider,
        sequence,
        job,
        ..
    } = of;
    let Some(Value::Lease(record)) = money.ground.chain.get(&Key::Lease(lease)).await.map_err(chain)? else {
        return Ok(None);
    };
    if !record.payer_keys.contains(&money.ground.payer) {
        return Ok(None);
    }
    tracing::warn!(%lease, %provider, %job, until_height, "a provider claims a job on the ledger");
    let claimed = Claimed {
        lease,
        provider,
        sequence,
        job,
        until_height,
    };
    codecs::json(SPACE, &format!("{lease}/{provider}/{sequence}"), &claimed).map(Some)
}

/// Whether a payment was for the ticket whose answer this controller took. A claim may be for another one of the job, and
/// any payer's settlement may name any job: then the job is still to be settled.
pub(crate) async fn is_of_its_ticket(money: &Money, event: &Event) -> Answer<bool> {
    let Some(of) = event.of_job() else {
        return Ok(false);
    };
    let record = money.ground.store.job(of.job).await.map_err(store)?;
    let taken = record.and_then(|record| record.receipt());
    Ok(taken.is_some_and(|receipt| {
        (receipt.lease, receipt.provider, receipt.sequence) == (of.lease, of.provider, of.sequence)
    }))
}

/// Whether the job that the event is about ran here, and from this lease.
pub(crate) async fn is_of_its_lease(money: &Money, event: &Event) -> Answer<bool> {
    let Some((lease, job)) = event.lease_job() else {
        return Ok(false);
    };
    let record = money.ground.store.job(job).await.map_err(store)?;
    let settlement = record.and_then(|record| record.settlement);
    Ok(settlement.is_some_and(|settlement| settlement.lease == lease))
}

/// Goes through the claims again and again, until shutdown.
pub(crate) async fn run(money: Arc<Money>) {
    again(&money.ground, EVERY, "claims", || round(&money)).await;
}

async fn round(money: &Money) -> Answer<()> {
    let mut after: Option<String> = None;
    loop {
        let page = money.ground.store.list_values(SPACE, "", after.as_deref(), PAGE);
        let page = page.await.map_err(store)?;
        for (key, bytes) in page.items {
            let claimed: Claimed = codecs::from_json(&bytes)?;
            let over = claimed.until_height < money.ground.chain.status().height;
            let is_ended = match over {
                true => is_paid(money, &claimed).await,
                false => is_ended(money, &claimed).await,
            };
            if is_ended {
                money.ground.store.take_value(SPACE, &key).await.map_err(store)?;
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Has a claim paid whose window is over, where its provider has not done so: a closing lease waits for that.
async fn is_paid(money: &Money, claimed: &Claimed) -> bool {
    let pay = Action::PayClaims(PayClaims {
        lease: claimed.lease,
        provider: claimed.provider,
        sequences: vec![claimed.sequence],
    });
    match leases::submit_as_payer(money, pay).await {
        Ok(_) => true,
        Err(refusal) if refusal.code.is_one_of(&[Code::ClaimNone, Code::LeaseClosed]) => true,
        Err(refusal) => {
            tracing::warn!(job = %claimed.job, %refusal, "a claim is not paid yet although its window ended");
            false
        }
    }
}

/// What stands in the way of one claim's answer does not keep the others waiting.
async fn is_ended(money: &Money, claimed: &Claimed) -> bool {
    match refute(money, claimed).await {
        Ok(is_ended) => is_ended,
        Err(refusal) => {
            tracing::warn!(job = %claimed.job, provider = %claimed.provider, %refusal, "a claim has not been answered yet");
            false
        }
    }
}

/// Whether the claim has come to its end.
async fn refute(money: &Money, claimed: &Claimed) -> Answer<bool> {
    let place = Key::OpenJob(claimed.lease, claimed.provider, claimed.sequence);
    if money.ground.chain.get(&place).await.map_err(chain)?.is_none() {
        return Ok(true);
    }
    let Some(record) = money.ground.store.job(claimed.job).await.map_err(store)? else {
        return Ok(false);
    };
    let (Some(receipt), Some(settlement), true) = (record.receipt(), &record.settlement, record.paid) else {
        return Ok(false);
    };
    let lane = (receipt.lease, receipt.provider);
    if (receipt.provider, receipt.sequence) == (claimed.provider, claimed.sequence) {
        return Ok(false);
    }
    let unsealed = Unsealed {
        receipt: receipt.clone(),
        mark: settlement.mark,
    };
    // Where that provider is away, it is asked again until the window is over.
    let Ok(link) = money.providers.link(receipt.provider) else {
        return Ok(false);
    };
    let seal = link.seal_receipts(lane, vec![unsealed]).await.map_err(rejected)?;
    let challenge = refutation((claimed.lease, claimed.provider, claimed.sequence), receipt, &seal);
    let done = leases::submit_as_payer(money, Action::Challenge(challenge)).await?;
    tracing::info!(job = %claimed.job, provider = %claimed.provider, height = done.height, "a claim was refuted");
    Ok(true)
}

/// Refutes the claim of `(lease, provider, sequence)` by the receipt of the ticket under which the job was paid, which its
/// provider has sealed alone.
fn refutation(claimed: (LeaseId, AccountId, u64), paid: Receipt, seal: &Seal) -> Challenge {
    let (lease, provider, sequence) = claimed;
    let shown = Sealed {
        member: paid,
        proof: MerkleProof::default(),
        count: seal.count,
        signature: seal.signature,
    };
    Challenge {
        lease,
        provider,
        sequence,
        evidence: Evidence::Replaced(Box::new(shown)),
    }
}
