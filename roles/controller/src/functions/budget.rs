//! What a function may cost in a calendar month: spent is what its jobs of this month were billed.
//!
//! A call begins while what was spent, and the most that the running ones can cost, is below the budget: it is overshot by
//! one call's price at the most.
//!
//! Code that is tried for a function spends its budget, and its jobs are of no function that stays: what they cost is kept apart.

use std::sync::Arc;

use dashmap::DashMap;
use jiff::{Timestamp, tz::TimeZone};
use parking_lot::Mutex;
use piecework_api::errors::Refusal;
use piecework_model::{Code, FunctionId};
use piecework_store::{Function, MetricScope};
use serde_json::json;

use crate::{
    Answer,
    accounts::{audit, auth::Caller},
    clock::now_ms,
    codecs,
    failure::{failed, store},
    functions::{
        self, Functions, Live,
        suspects::{Suspect, Suspicion},
    },
};

const DAY_MS: u64 = 86_400_000;
/// Percent of a budget at which its owner is told.
const ALERTS: [u64; 2] = [80, 100];

/// Of the functions with a budget.
#[derive(Default)]
pub(crate) struct Budgets {
    all: DashMap<FunctionId, Arc<Mutex<Spending>>>,
    /// Held from reading what tries have spent to writing it.
    noting: tokio::sync::Mutex<()>,
}

/// By function: when the month began, and what tries have spent in it.
const TRIED: &str = "tried";
/// Read and removed at once.
const PAGE: u32 = 1_000;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spending {
    pub(crate) month_began_at_ms: u64,
    pub(crate) spent_ucr: u64,
    /// Of it, by code that was tried for the function.
    tried_ucr: u64,
    /// The most that running jobs can cost.
    running_ucr: u64,
    /// Percent that the owner was told of in this month.
    told: u64,
}

impl Spending {
    fn take(&mut self, budget_ucr: u64, price_max_ucr: u64) -> bool {
        let free = self.spent_ucr.saturating_add(self.running_ucr) < budget_ucr;
        if free {
            self.running_ucr = self.running_ucr.saturating_add(price_max_ucr);
        }
        free
    }

    /// The highest alert that is due and was not given.
    fn due(&mut self, budget_ucr: u64) -> Option<u64> {
        let percent = u128::from(self.spent_ucr) * 100 / u128::from(budget_ucr.max(1));
        let due = ALERTS.into_iter().rev().find(|alert| percent >= u128::from(*alert))?;
        let news = due > self.told;
        self.told = self.told.max(due);
        news.then_some(due)
    }
}

/// What one running job may cost; given back when dropped.
pub(crate) struct Hold {
    spending: Arc<Mutex<Spending>>,
    /// Whether the job is of code that is tried for the function.
    is_try: bool,
    price_max_ucr: u64,
}

impl Hold {
    /// The job cost this much.
    pub(crate) fn spend(&self, price_ucr: u64) {
        let mut spending = self.spending.lock();
        spending.spent_ucr = spending.spent_ucr.saturating_add(price_ucr);
        if self.is_try {
            spending.tried_ucr = spending.tried_ucr.saturating_add(price_ucr);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut spending = self.spending.lock();
        spending.running_ucr = spending.running_ucr.saturating_sub(self.price_max_ucr);
    }
}

fn month_of(now_ms: u64) -> Answer<u64> {
    let began = i64::try_from(now_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .and_then(|now| now.to_zoned(TimeZone::UTC).first_of_month().ok())
        .and_then(|first| first.start_of_day().ok());
    let began = began.and_then(|began| u64::try_from(began.timestamp().as_millisecond()).ok());
    began.ok_or_else(|| failed("find the month", &now_ms))
}

/// What the function spent in this month.
pub(crate) async fn spending(functions: &Functions, function: FunctionId) -> Answer<Spending> {
    Ok(*of(functions, function).await?.lock())
}

/// Of what a run of this counts towards.
fn counted(live: &Live) -> FunctionId {
    live.budget_of.unwrap_or(live.function.id)
}

async fn of(functions: &Functions, function: FunctionId) -> Answer<Arc<Mutex<Spending>>> {
    let month_began_at_ms = month_of(now_ms())?;
    let known = functions.budgets.all.get(&function).map(|entry| entry.value().clone());
    if let Some(spending) = known {
        let mut state = spending.lock();
        if state.month_began_at_ms != month_began_at_ms {
            *state = Spending {
                month_began_at_ms,
                running_ucr: state.running_ucr,
                ..Spending::default()
            };
        }
        drop(state);
        return Ok(spending);
    }
    // What has ended and is not in the tables yet counts as well.
    functions.ground.store.flush().await.map_err(store)?;
    let scope = MetricScope::Function(function);
    let points = functions
        .ground
        .store
        .points(scope, month_began_at_ms, now_ms() + 1, DAY_MS);
    let points: u64 = points.await.map_err(store)?.iter().map(|point| point.price_ucr).sum();
    let tried_ucr = tried(functions, function, month_began_at_ms).await?;
    let spending = Spending {
        month_began_at_ms,
        spent_ucr: points.saturating_add(tried_ucr),
        tried_ucr,
        ..Spending::default()
    };
    let entry = functions.budgets.all.entry(function);
    Ok(entry.or_insert_with(|| Arc::new(Mutex::new(spending))).value().clone())
}

async fn tried(functions: &Functions, function: FunctionId, month_began_at_ms: u64) -> Answer<u64> {
    let kept = functions.ground.store.value(TRIED, &function.to_string()).await;
    let kept: Option<(u64, u64)> = kept
        .map_err(store)?
        .map(|bytes| codecs::from_json(&bytes))
        .transpose()?;
    let of_this_month = kept.filter(|(month, _)| *month == month_began_at_ms);
    Ok(of_this_month.map_or(0, |(_, tried_ucr)| tried_ucr))
}

/// A try has ended: what tries have spent is known after a restart as well.
pub(crate) async fn keep_tried(functions: &Functions, live: &Live) -> Answer<()> {
    let Some(function) = live.budget_of.filter(|_| live.function.policy.budget_ucr.is_some()) else {
        return Ok(());
    };
    let _in_turn = functions.budgets.noting.lock().await;
    let now = spending(functions, function).await?;
    let kept = (now.month_began_at_ms, now.tried_ucr);
    codecs::put_json(&functions.ground, TRIED, &function.to_string(), &kept).await
}

/// What tries have spent in months that are over.
pub(crate) async fn forget_tried(functions: &Functions) -> Answer<()> {
    let month = month_of(now_ms())?;
    let values = &functions.ground.store;
    let mut after = None::<String>;
    loop {
        let page = values
            .list_values(TRIED, "", after.as_deref(), PAGE)
            .await
            .map_err(store)?;
        let mut takes = Vec::new();
        for (function, bytes) in page.items {
            let (began_at_ms, _): (u64, u64) = codecs::from_json(&bytes)?;
            if began_at_ms != month {
                takes.push((TRIED.to_owned(), function));
            }
        }
        values.replace_values(&takes, &[]).await.map_err(store)?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// `PUT /functions/{id}/budget`; zero takes it away.
pub(crate) async fn set(functions: &Functions, caller: &Caller, function: &Function, budget_ucr: u64) -> Answer<()> {
    let changed = functions::change_policy(functions, function.id, |policy, _| {
        let before = policy.budget_ucr;
        policy.budget_ucr = Some(budget_ucr).filter(|budget| *budget > 0);
        policy.budget_ucr != before
    });
    if changed.await? {
        forget(functions, function.id);
        let detail = json!({"budget_ucr": budget_ucr});
        audit::own(
            &functions.accounts,
            caller.account,
            ("budget", "set"),
            function.name.as_str(),
            detail,
        )
        .await?;
    }
    Ok(())
}

/// The budget was set anew: alerts are given again.
pub(crate) fn forget(functions: &Functions, function: FunctionId) {
    if let Some(spending) = functions.budgets.all.get(&function) {
        spending.lock().told = 0;
    }
}

/// Takes a call's most out of the budget. Refuses with `function.budget_spent`; nothing where there is no budget.
pub(crate) async fn hold(functions: &Functions, live: &Live, price_max_ucr: u64) -> Answer<Option<Hold>> {
    let Some(budget_ucr) = live.function.policy.budget_ucr else {
        return Ok(None);
    };
    let spending = of(functions, counted(live)).await?;
    if !spending.lock().take(budget_ucr, price_max_ucr) {
        return Err(spent(live, budget_ucr, &spending.lock()));
    }
    Ok(Some(Hold {
        spending,
        is_try: live.budget_of.is_some(),
        price_max_ucr,
    }))
}

/// Whether the budget lets anything begin. Refuses with `function.budget_spent`.
pub(crate) async fn check(functions: &Functions, live: &Live) -> Answer<()> {
    let Some(budget_ucr) = live.function.policy.budget_ucr else {
        return Ok(());
    };
    let now = spending(functions, counted(live)).await?;
    if now.spent_ucr < budget_ucr {
        return Ok(());
    }
    Err(spent(live, budget_ucr, &now))
}

fn spent(live: &Live, budget_ucr: u64, spending: &Spending) -> Box<Refusal> {
    let message = format!(
        "{} ucr of the {budget_ucr} ucr that `{}` may cost in a month are spent, and running jobs may take {} ucr more; \
         nothing ran",
        spending.spent_ucr, live.function.name, spending.running_ucr
    );
    let refusal = Refusal::new(Code::FunctionBudgetSpent, message)
        .hint("its owner may raise it: `piecework function NAME --budget AMOUNT`, 0 for none")
        .details(
            json!({"budget_ucr": budget_ucr, "spent_ucr": spending.spent_ucr, "running_ucr": spending.running_ucr}),
        );
    Box::new(refusal)
}

/// Tells the owner, once in a month for each mark, that the budget is going: in the audit record and in `/events`.
pub(crate) async fn alert(functions: &Functions, live: &Live) -> Answer<()> {
    let Some(budget_ucr) = live.function.policy.budget_ucr else {
        return Ok(());
    };
    let spending = of(functions, counted(live)).await?;
    let (due, spent_ucr) = {
        let mut spending = spending.lock();
        (spending.due(budget_ucr), spending.spent_ucr)
    };
    let Some(percent) = due else { return Ok(()) };
    let function = &live.function;
    let detail = json!({"percent": percent, "budget_ucr": budget_ucr, "spent_ucr": spent_ucr});
    tracing::warn!(function = %function.id, percent, "a function has used much of its budget");
    functions.ground.events.function("budget", function, &detail);
    let suspect = Suspect {
        function: counted(live),
        suspicion: Suspicion::Budget,
    };
    functions.suspects.add(suspect, function.owner);
    audit::record(
        &functions.accounts,
        (None, function.owner),
        ("budget", "alert"),
        function.name.as_str(),
        detail,
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_jobs_count_at_their_most_and_the_overshoot_is_one_of_them() {
        let mut spending = Spending::default();
        assert!(spending.take(100, 5_000), "nothing is spent yet");
        assert!(!spending.take(100, 5_000), "the running one may take all of it");
        spending.running_ucr = 0;
        spending.spent_ucr = 99;
        assert!(spending.take(100, 5_000));
        spending.running_ucr = 0;
        spending.spent_ucr = 100;
        assert!(!spending.take(100, 1));
    }

    #[test]
    fn each_mark_is_told_once() {
        let mut spending = Spending {
            spent_ucr: 79,
            ..Spending::default()
        };
        assert_eq!(spending.due(100), None);
        spending.spent_ucr = 85;
        assert_eq!((spending.due(100), spending.due(100)), (Some(80), None));
        spending.spent_ucr = 300;
        assert_eq!((spending.due(100), spending.due(100)), (Some(100), None));
    }

    #[test]
    fn a_month_begins_on_its_first_at_midnight() {
        assert_eq!(month_of(1_767_225_600_000 + 5 * DAY_MS), Ok(1_767_225_600_000));
    }
}
