//! Splits a function's calls between its versions, and other decisions of its owner.

use std::{collections::BTreeMap, sync::Arc};

use piecework_api::functions::{SetTraffic, ShareView, TrafficView};
use piecework_model::Code;
use piecework_store::{Function, Traffic};
use serde_json::json;

use crate::{
    Answer,
    accounts::{audit, auth::Caller},
    clock::{now_ms, timestamp},
    failure::{refuse, store},
    functions::{self, Functions, Live},
};

/// Versions that get calls at one time: each has warm instances of its own.
const VERSIONS_MAX: usize = 10;
const SHARE_MAX: u32 = 1_000;
/// Percent of all calls.
const WHOLE: u32 = 100;
const ERRORS_PERMILLE_MAX: u32 = 1_000;
const ERRORS_PERMILLE_DEFAULT: u32 = 100;
const CALLS_MIN: std::ops::RangeInclusive<u32> = 1..=100_000;
const CALLS_MIN_DEFAULT: u32 = 20;
/// Percent of a canary that `deploy` may ask for.
const CANARY_PERCENT: std::ops::RangeInclusive<u32> = 1..=99;

/// Versions beside the live one that get calls, and with what share.
pub(crate) struct Split {
    pub(crate) own: u32,
    pub(crate) others: Vec<(u32, Arc<Live>)>,
}

impl Split {
    fn total(&self) -> u32 {
        self.others.iter().fold(self.own, |total, (share, _)| total + share)
    }

    /// The version that a draw below [`Split::total`] falls on; `None` for the live one.
    fn at(&self, draw: u32) -> Option<&Arc<Live>> {
        let mut below = self.own;
        for (share, live) in &self.others {
            if (below..below + share).contains(&draw) {
                return Some(live);
            }
            below += share;
        }
        None
    }
}

/// The version that takes this call.
pub(crate) fn pick(live: &Arc<Live>) -> Arc<Live> {
    let Some(split) = live.split.as_ref().filter(|split| split.total() > 0) else {
        return live.clone();
    };
    let draw = rand::RngExt::random_range(&mut rand::rng(), 0..split.total());
    split.at(draw).unwrap_or(live).clone()
}

fn bad<T>(message: impl Into<String>) -> Answer<T> {
    refuse(Code::TrafficBadWeights, message)
}

/// Shares that do not name the live version are percentages: it has the rest.
fn checked(body: &SetTraffic, live: u32) -> Answer<Traffic> {
    let mut weights = body.weights.clone();
    if weights.is_empty() {
        return bad(format!("name 1 to {VERSIONS_MAX} versions with their shares"));
    }
    if weights.keys().eq([&live]) && weights[&live] != WHOLE {
        return bad(format!(
            "version {live} is live and gets what the other versions do not: name another version with its share"
        ));
    }
    let named = weights.values().fold(0, |sum: u32, share| sum.saturating_add(*share));
    match WHOLE.checked_sub(named) {
        _ if weights.contains_key(&live) => {}
        Some(0) => {}
        Some(rest) => drop(weights.insert(live, rest)),
        None => {
            return bad(format!(
                "the shares are {named} percent without the live version {live}; name it too, or keep them within 100"
            ));
        }
    }
    if weights.len() > VERSIONS_MAX {
        return bad(format!("name 1 to {VERSIONS_MAX} versions with their shares"));
    }
    if weights.values().any(|share| *share > SHARE_MAX) || weights.values().all(|share| *share == 0) {
        return bad(format!("shares must be 0 to {SHARE_MAX}, and not all zero"));
    }
    let errors_permille_max = body.errors_permille_max.unwrap_or(ERRORS_PERMILLE_DEFAULT);
    let calls_min = body.calls_min.unwrap_or(CALLS_MIN_DEFAULT);
    if errors_permille_max > ERRORS_PERMILLE_MAX || !CALLS_MIN.contains(&calls_min) {
        return bad("errors_permille_max must be 0 to 1000, and calls_min 1 to 100000");
    }
    Ok(Traffic {
        weights,
        errors_permille_max,
        calls_min,
        since_ms: now_ms(),
    })
}

/// What a deploy with `canary` asks for.
pub(crate) fn canary(percent: u32, live: u32, canary: u32) -> Traffic {
    Traffic {
        weights: BTreeMap::from([(live, 100 - percent), (canary, percent)]),
        errors_permille_max: ERRORS_PERMILLE_DEFAULT,
        calls_min: CALLS_MIN_DEFAULT,
        since_ms: now_ms(),
    }
}

/// Refuses an invalid percentage with `traffic.bad_weights`.
pub(crate) fn check_canary(percent: Option<u32>) -> Answer<()> {
    match percent {
        Some(percent) if !CANARY_PERCENT.contains(&percent) => bad("a canary must get 1 to 99 percent of the calls"),
        Some(_) | None => Ok(()),
    }
}

/// `PUT /functions/{id}/traffic`. Refuses with `traffic.bad_weights` and `version.not_found`.
pub(crate) async fn set(functions: &Functions, caller: &Caller, live: &Live, body: &SetTraffic) -> Answer<()> {
    let function = &live.function;
    let traffic = checked(body, function.live_version)?;
    for version in traffic.weights.keys() {
        if functions
            .ground
            .store
            .version(function.id, *version)
            .await
            .map_err(store)?
            .is_none()
        {
            return refuse(
                Code::VersionNotFound,
                format!("`{}` has no version {version}", function.name),
            );
        }
    }
    let detail = json!({"weights": traffic.weights, "errors_permille_max": traffic.errors_permille_max,
        "calls_min": traffic.calls_min});
    functions::change_policy(functions, function.id, |policy, _| {
        policy.traffic = Some(traffic);
        true
    })
    .await?;
    audit::own(
        &functions.accounts,
        caller.account,
        ("traffic", "set"),
        function.name.as_str(),
        detail,
    )
    .await
}

/// `DELETE /functions/{id}/traffic`: all calls to the live version.
pub(crate) async fn end(functions: &Functions, caller: &Caller, function: &Function) -> Answer<()> {
    let ended = functions::change_policy(functions, function.id, |policy, _| policy.traffic.take().is_some());
    if ended.await? {
        audit::own(
            &functions.accounts,
            caller.account,
            ("traffic", "ended"),
            function.name.as_str(),
            json!({}),
        )
        .await?;
    }
    Ok(())
}

/// `POST /functions/{id}/release`: lifts the quarantine of every version.
pub(crate) async fn release(functions: &Functions, caller: &Caller, function: &Function) -> Answer<()> {
    let mut versions = Vec::new();
    let released = functions::change_policy(functions, function.id, |policy, _| {
        versions = std::mem::take(&mut policy.quarantined).into_keys().collect();
        !versions.is_empty()
    });
    if released.await? {
        functions.watch.forget(function.id);
        let detail = json!({"versions": versions});
        audit::own(
            &functions.accounts,
            caller.account,
            ("quarantine", "released"),
            function.name.as_str(),
            detail,
        )
        .await?;
    }
    Ok(())
}

/// `POST /functions/{id}/stop` and `/start`: sets whether it takes calls. Running jobs finish. Idempotent.
pub(crate) async fn set_stopped(functions: &Functions, caller: &Caller, live: &Live, stopped: bool) -> Answer<()> {
    let function = &live.function;
    let changed = functions::change_policy(functions, function.id, |policy, _| {
        std::mem::replace(&mut policy.stopped, stopped) != stopped
    });
    if !changed.await? {
        return Ok(());
    }
    if stopped {
        for seen in functions.providers.all().iter() {
            seen.link.forget(function.id, live.version.version);
        }
    }
    let action = if stopped { "stopped" } else { "started" };
    let detail = json!({"function": function.id});
    audit::own(
        &functions.accounts,
        caller.account,
        ("function", action),
        function.name.as_str(),
        detail,
    )
    .await
}

/// How a function's calls are spread now.
pub(crate) fn view(functions: &Functions, function: &Function) -> Option<TrafficView> {
    let traffic = function.policy.traffic.as_ref()?;
    let share = |(version, weight): (&u32, &u32)| {
        let trial = functions.watch.trial((function.id, *version), traffic);
        ShareView {
            version: *version,
            weight: *weight,
            live: *version == function.live_version,
            calls: trial.calls,
            errors: trial.errors,
        }
    };
    Some(TrafficView {
        versions: traffic.weights.iter().map(share).collect(),
        errors_permille_max: traffic.errors_permille_max,
        calls_min: traffic.calls_min,
        since: timestamp(traffic.since_ms),
    })
}

/// The view without a split: all calls go to the live version.
pub(crate) fn undivided(function: &Function) -> TrafficView {
    TrafficView {
        versions: vec![ShareView {
            version: function.live_version,
            weight: 100,
            live: true,
            calls: 0,
            errors: 0,
        }],
        errors_permille_max: ERRORS_PERMILLE_DEFAULT,
        calls_min: CALLS_MIN_DEFAULT,
        since: timestamp(function.updated_at_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(weights: &[(u32, u32)]) -> SetTraffic {
        SetTraffic {
            weights: weights.iter().copied().collect(),
            ..SetTraffic::default()
        }
    }

    #[test]
    fn a_split_needs_a_share_above_zero() {
        for weights in [
            &[][..],
            &[(1, 0), (2, 0)],
            &[(1, 1_001)],
            &[(2, 101)],
            &[(2, 50), (3, 51)],
            &[(1, 50)],
        ] {
            let refused = checked(&body(weights), 1).expect_err("no split");
            assert_eq!(refused.code, Code::TrafficBadWeights);
        }
        let split = checked(&body(&[(3, 90), (4, 10)]), 3).expect("a split");
        assert_eq!((split.errors_permille_max, split.calls_min), (100, 20));
        for (weights, due) in [
            (&[(2, 50)][..], &[(1, 50), (2, 50)][..]),
            (&[(2, 100)], &[(2, 100)]),
            (&[(1, 0), (2, 500)], &[(1, 0), (2, 500)]),
            (&[(1, 0), (2, 50)], &[(1, 0), (2, 50)]),
            (&[(2, 0)], &[(1, 100), (2, 0)]),
            (&[(1, 100)], &[(1, 100)]),
        ] {
            let split = checked(&body(weights), 1).expect("a split");
            assert_eq!(split.weights, due.iter().copied().collect(), "{weights:?}");
        }
        assert!(check_canary(Some(100)).is_err() && check_canary(Some(99)).is_ok() && check_canary(None).is_ok());
    }
}
