//! What a transaction moved, as lines of its accounts' statements.

use std::collections::BTreeMap;

use piecework_chain::FinalBlock;
use piecework_ledger::{Event, Key, SignedTransaction, Value};
use piecework_model::{AccountId, Credits, LeaseId};
use piecework_store::Put;
use serde::{Deserialize, Serialize};

use crate::{Answer, codecs, failure::chain, money::Money};

/// One movement of a statement, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) at_ms: u64,
    pub(crate) height: u64,
    pub(crate) kind: String,
    pub(crate) counterparty: Option<AccountId>,
    pub(crate) jobs: u32,
    pub(crate) amount: Credits,
    pub(crate) transaction: piecework_model::Digest,
}

/// How the spaces of all statements begin.
pub(super) const STATEMENTS: &str = "statement/";

pub(crate) fn statement_space(account: AccountId) -> String {
    format!("{STATEMENTS}{account}")
}

/// The lines of the transaction at `index` of the block. Their keys say their place, so that writing them again changes
/// nothing.
pub(super) async fn of(
    money: &Money,
    block: &FinalBlock,
    index: u32,
    (signed, events): (&SignedTransaction, &[Event]),
) -> Answer<Vec<Put>> {
    let payer = match events.iter().find_map(paying_lease) {
        Some(lease) => developer_of(money, lease).await?,
        None => None,
    };
    let lines = lines(block, signed, events, payer).into_iter().enumerate();
    let puts = lines.map(|(part, (account, line))| {
        // Counted down, so that the order of keys is newest first.
        let key = format!("{:016x}-{:08x}-{part:02x}", u64::MAX - block.height, u32::MAX - index);
        codecs::json(&statement_space(account), &key, &line)
    });
    puts.collect()
}

/// All jobs that one transaction pays are paid from one lease.
fn paying_lease(event: &Event) -> Option<LeaseId> {
    match event {
        Event::JobPaid { lease, .. } => Some(*lease),
        Event::AccountRegistered { .. }
        | Event::KeyRotated { .. }
        | Event::CreditsTransferred { .. }
        | Event::OfferPut { .. }
        | Event::OfferDropped { .. }
        | Event::LeaseOpened { .. }
        | Event::LeaseToppedUp { .. }
        | Event::PayerDelegated { .. }
        | Event::JobOpened { .. }
        | Event::JobMetered { .. }
        | Event::JobReceived { .. }
        | Event::LeaseDraining { .. }
        | Event::LeaseClosed { .. }
        | Event::JobClaimed { .. }
        | Event::JobRefuted { .. }
        | Event::MismatchReported { .. }
        | Event::LimitSet { .. }
        | Event::DebtCovered { .. }
        | Event::ChangeProposed { .. }
        | Event::ChangeVoted { .. }
        | Event::PeersChanged { .. }
        | Event::ParamsChanged {}
        | Event::PeerPaid { .. }
        | Event::RulesChanged { .. }
        | Event::JobReleased { .. } => None,
    }
}

/// What a transaction moved, by account. Each event of the ledger is named here: one that moves credits and has no line
/// would make every balance of a statement wrong.
fn lines(
    block: &FinalBlock,
    signed: &SignedTransaction,
    events: &[Event],
    payer: Option<AccountId>,
) -> Vec<(AccountId, Line)> {
    let line = |kind: &str, counterparty, jobs, amount| Line {
        at_ms: block.timestamp_ms,
        height: block.height,
        kind: kind.to_owned(),
        counterparty,
        jobs,
        amount,
        transaction: signed.id().0,
    };
    let mut lines = Vec::new();
    let mut lanes: BTreeMap<AccountId, (u32, i128, i128)> = BTreeMap::new();
    for event in events {
        match event {
            Event::CreditsTransferred { from, to, amount } => {
                lines.push((*from, line("transfer", Some(*to), 0, Credits(-amount.0))));
                lines.push((*to, line("transfer", Some(*from), 0, *amount)));
            }
            Event::DebtCovered {
                sponsor,
                account,
                amount,
            } => {
                lines.push((*sponsor, line("debt_covered", Some(*account), 0, Credits(-amount.0))));
                lines.push((*account, line("debt_covered", Some(*sponsor), 0, *amount)));
            }
            Event::PeerPaid { owner, amount, .. } => lines.push((*owner, line("peer_share", None, 0, *amount))),
            Event::JobPaid {
                provider,
                price_ucr,
                commission_ucr,
                ..
            } => {
                let (jobs, paid, earned) = lanes.entry(*provider).or_default();
                *jobs += 1;
                *paid += i128::from(*price_ucr);
                *earned += i128::from(*price_ucr) - i128::from(*commission_ucr);
            }
            // These move nothing: what a lease or a job keeps aside is still its account's.
            Event::AccountRegistered { .. }
            | Event::KeyRotated { .. }
            | Event::OfferPut { .. }
            | Event::OfferDropped { .. }
            | Event::LeaseOpened { .. }
            | Event::LeaseToppedUp { .. }
            | Event::PayerDelegated { .. }
            | Event::JobOpened { .. }
            | Event::JobMetered { .. }
            | Event::JobReceived { .. }
            | Event::LeaseDraining { .. }
            | Event::LeaseClosed { .. }
            | Event::JobClaimed { .. }
            | Event::JobRefuted { .. }
            | Event::MismatchReported { .. }
            | Event::LimitSet { .. }
            | Event::ChangeProposed { .. }
            | Event::ChangeVoted { .. }
            | Event::PeersChanged { .. }
            | Event::ParamsChanged {}
            | Event::RulesChanged { .. }
            | Event::JobReleased { .. } => {}
        }
    }
    for (provider, (jobs, paid, earned)) in lanes {
        lines.push((provider, line("jobs_earned", payer, jobs, Credits(earned))));
        if let Some(developer) = payer {
            lines.push((developer, line("jobs_paid", Some(provider), jobs, Credits(-paid))));
        }
    }
    lines
}

async fn developer_of(money: &Money, lease: LeaseId) -> Answer<Option<AccountId>> {
    match money.ground.chain.get(&Key::Lease(lease)).await.map_err(chain)? {
        Some(Value::Lease(lease)) => Ok(Some(lease.developer)),
        Some(_) | None => Ok(None),
    }
}
