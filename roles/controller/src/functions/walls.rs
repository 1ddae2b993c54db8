//! In which sandbox a version's calls run, where that was left to the controller: where they start soonest, or where they cost less.
//!
//! The scheduler's [`WallChoice`] decides by what the runs have cost. What it decided is part of the function's policy, like what was
//! found to need the jail; the figures are in memory, and a restart begins them anew.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use piecework_model::{AccountId, BackendName, Code, FunctionId};
use piecework_scheduler::{COMPUTES_US, Comparison, Cost, Middle, Move, Reason, Wall, WallChoice, misfit};
use piecework_store::{BackendReason, Function, Moved, Policy};

use crate::{
    Answer,
    clock::now_ms,
    functions::{self, Functions, Live, fallback, live},
    providers::seen::Wants as _,
};

type Key = (FunctionId, u32);

/// Versions whose runs are compared at one time, some 2 KiB each: of one account, and in all.
const OF_ACCOUNT_MAX: usize = 256;
const ALL_MAX: usize = 4_096;
/// Versions of one function whose choice is remembered, the newest: those that get calls are among them.
const CHOSEN_MAX: usize = 64;

/// What the versions' runs have cost of late: only of versions that compute.
#[derive(Default)]
pub(crate) struct Walls(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    versions: HashMap<Key, Version>,
    /// Counts what was noted.
    noted: u64,
}

struct Version {
    owner: AccountId,
    choice: WallChoice,
    noted: u64,
}

/// The wall of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) wall: Wall,
    /// It is not the one that the version's calls go to: the call is there to see what it costs.
    pub(crate) is_look: bool,
}

impl Taken {
    /// For the log of a job that ran elsewhere than others of its version.
    pub(crate) fn told(self) -> Option<&'static str> {
        match (self.is_look, self.wall) {
            (false, Wall::Usual | Wall::Other) => None,
            (true, Wall::Other) => Some("this call ran in the jail to see whether it costs less there than in wasm"),
            (true, Wall::Usual) => {
                Some("this call ran in wasm to see whether it still costs more there than in the jail")
            }
        }
    }
}

impl Walls {
    /// The wall of the next call of a version whose calls go to `on`.
    fn next(&self, key: Key, on: Wall, draw: u64) -> Wall {
        let mut seen = self.0.lock();
        match seen.versions.get_mut(&key) {
            Some(version) => {
                // Somebody else may have changed the policy.
                if version.choice.on() != on {
                    version.choice = WallChoice::new(on);
                }
                version.choice.next(draw)
            }
            None => on,
        }
    }

    fn note(&self, (key, owner): (Key, AccountId), (on, wall): (Wall, Wall), cost: Cost) -> Option<Move> {
        let mut seen = self.0.lock();
        seen.noted += 1;
        let noted = seen.noted;
        if !seen.versions.contains_key(&key) {
            // Short calls are not worth a place.
            if on == Wall::Usual && cost.cpu_us < COMPUTES_US {
                return None;
            }
            seen.make_room(owner);
        }
        let version = seen.versions.entry(key).or_insert_with(|| Version {
            owner,
            choice: WallChoice::new(on),
            noted,
        });
        version.noted = noted;
        version.choice.note(wall, cost)
    }

    fn bar(&self, key: Key) {
        if let Some(version) = self.0.lock().versions.get_mut(&key) {
            version.choice.bar();
        }
    }

    pub(crate) fn forget(&self, function: FunctionId) {
        self.0.lock().versions.retain(|(of, _), _| *of != function);
    }

    fn comparison(&self, key: Key) -> Option<Comparison> {
        self.0.lock().versions.get(&key)?.choice.comparison()
    }
}

impl Seen {
    /// Forgets the version that ran the longest ago: of the account if it has many, of all if there are too many.
    fn make_room(&mut self, owner: AccountId) {
        let own = self.versions.values().filter(|version| version.owner == owner).count();
        if own < OF_ACCOUNT_MAX && self.versions.len() < ALL_MAX {
            return;
        }
        let may_go = self
            .versions
            .iter()
            .filter(|(_, version)| own < OF_ACCOUNT_MAX || version.owner == owner);
        let oldest = may_go.min_by_key(|(_, version)| version.noted).map(|(key, _)| *key);
        self.versions.remove(&oldest.expect("there are some"));
    }
}

/// The wall that a version's calls go to, if there is a choice: not where its developer named the sandbox, it was found to need the
/// jail, or its results are compared between computers.
fn on(live: &Live) -> Option<Wall> {
    let (version, policy) = (&live.version, &live.function.policy);
    let is_free = matches!(version.backend_reason, BackendReason::Chosen(_))
        && !policy.moved.contains_key(&version.version)
        && version.rerun_percent == 0
        && !version.strict;
    match (version.backend, policy.chosen.contains_key(&version.version)) {
        (BackendName::Wasm, false) if is_free => Some(Wall::Usual),
        (BackendName::Jail, true) if is_free => Some(Wall::Other),
        (_, _) => None,
    }
}

/// The version in the wall that takes this call. `may_look`: the call could run a second time.
pub(crate) async fn pick(
    functions: &Functions,
    live: Arc<Live>,
    (draw, may_look): (u64, bool),
) -> (Arc<Live>, Option<Taken>) {
    let Some(on) = on(&live) else { return (live, None) };
    if on == Wall::Other && !fallback::has_jail(functions, live.version.language) {
        return match opposite(functions, &live, on).await {
            Ok(usual) => (usual, None),
            Err(_) => (live, None),
        };
    }
    let key = (live.function.id, live.version.version);
    let wall = if may_look {
        functions.walls.next(key, on, draw)
    } else {
        on
    };
    let taken = Taken {
        wall,
        is_look: wall != on,
    };
    if !taken.is_look {
        return (live, Some(taken));
    }
    match opposite(functions, &live, on).await {
        Ok(there) if somebody_runs(functions, &there) => (there, Some(taken)),
        Ok(_) => {
            functions.walls.bar(key);
            (live, None)
        }
        Err(refusal) => {
            tracing::warn!(function = %live.function.id, %refusal, "a version was not looked at in another sandbox");
            (live, None)
        }
    }
}

/// The version in the wall that its calls do not go to, for one call.
async fn opposite(functions: &Functions, live: &Live, on: Wall) -> Answer<Arc<Live>> {
    let version = live.version.version;
    let mut function: Function = live.function.clone();
    match on {
        Wall::Usual => drop(function.policy.chosen.insert(version, chosen(live, String::new()))),
        Wall::Other => drop(function.policy.chosen.remove(&version)),
    }
    let there = live::of_version(functions, &function, version, live.limits).await?;
    Ok(Arc::new(there))
}

/// Whether a provider that is here would take it, now or when it has a slot.
fn somebody_runs(functions: &Functions, live: &Live) -> bool {
    functions.providers.all().iter().any(|seen| {
        let reason = misfit(&seen.candidate(live.wanted()), live.request());
        matches!(reason, None | Some(Reason::NoFreeSlot | Reason::NoFreeMemory))
    })
}

/// The version in wasm, for a call that the jail did not take although it was sent there to save something; `None` where there is
/// nothing else to try.
pub(crate) async fn back(
    functions: &Functions,
    live: &Live,
    (taken, code): (Option<Taken>, Option<Code>),
) -> Answer<Option<Arc<Live>>> {
    let is_the_walls = matches!(
        code,
        Some(
            Code::ProviderNone
                | Code::SandboxUnavailable
                | Code::SandboxUnsupported
                | Code::FunctionLoadFailed
                | Code::FunctionNoHandler
                | Code::FunctionSyntaxError
        )
    );
    if !is_the_walls || taken.is_none_or(|taken| taken.wall == Wall::Usual) {
        return Ok(None);
    }
    functions.walls.bar((live.function.id, live.version.version));
    opposite(functions, live, Wall::Other).await.map(Some)
}

/// What a run that ended well has cost there. If calls go to another wall because of it, the next one does when this returns.
pub(crate) async fn note(functions: &Functions, live: &Live, taken: Taken, cost: Cost) -> Answer<()> {
    let key = (live.function.id, live.version.version);
    let on = match taken.is_look {
        true => taken.wall.opposite(),
        false => taken.wall,
    };
    let noted = functions.walls.note((key, live.function.owner), (on, taken.wall), cost);
    let Some(made) = noted else { return Ok(()) };
    let reason = reason(made);
    tracing::info!(function = %live.function.id, version = key.1, reason, "a version's calls move to another sandbox");
    let moved = chosen(live, reason);
    let changes = functions::change_policy(functions, live.function.id, |policy, _| {
        change(policy, key.1, made.to, moved)
    });
    changes.await.map(drop)
}

fn change(policy: &mut Policy, version: u32, to: Wall, moved: Moved) -> bool {
    match to {
        Wall::Other => {
            policy.chosen.insert(version, moved);
            while policy.chosen.len() > CHOSEN_MAX {
                policy.chosen.pop_first();
            }
            true
        }
        Wall::Usual => policy.chosen.remove(&version).is_some(),
    }
}

fn chosen(live: &Live, reason: String) -> Moved {
    Moved {
        code: live.version.code,
        reason,
        at_ms: now_ms(),
    }
}

/// Of a move, in a sentence.
fn reason(made: Move) -> String {
    format!("its calls cost less there: {}", figures(made.by))
}

fn figures(by: Comparison) -> String {
    let side = |middle: Middle| {
        format!(
            "{} ucr and {:.1} ms",
            middle.price_ucr,
            middle.duration_us as f64 / 1_000.0
        )
    };
    format!(
        "the median call costs {} in wasm, {} in the jail",
        side(by.usual),
        side(by.other)
    )
}

/// Why the version runs where it does, for its developer; with what the other sandbox came to, if that was tried.
pub(crate) fn told(functions: &Functions, live: &Live) -> String {
    let reason = live.version.backend_reason.to_string();
    if on(live) != Some(Wall::Usual) {
        return reason;
    }
    match functions.walls.comparison((live.function.id, live.version.version)) {
        Some(by) => format!("{reason}; its calls cost no less in the jail: {}", figures(by)),
        None => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(account: u16, number: u16) -> (Key, AccountId) {
        let (mut owner, mut function) = ([0; 20], [0; 12]);
        owner[..2].copy_from_slice(&account.to_be_bytes());
        function[..2].copy_from_slice(&account.to_be_bytes());
        function[2..4].copy_from_slice(&number.to_be_bytes());
        ((FunctionId(function), 1), AccountId(owner))
    }

    fn cost(cpu_us: u64) -> Cost {
        Cost {
            cpu_us,
            price_ucr: cpu_us,
            duration_us: cpu_us,
            cold: false,
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_for_an_account_and_in_all() {
        let walls = Walls::default();
        let note = |account, number, cpu_us| {
            walls.note(key(account, number), (Wall::Usual, Wall::Usual), cost(cpu_us));
            walls.0.lock().versions.contains_key(&key(account, number).0)
        };
        assert!(!note(1, 0, COMPUTES_US - 1), "short calls take no place");
        assert!(note(2, 0, COMPUTES_US));
        for number in 0..1_000 {
            assert!(note(1, number, COMPUTES_US));
        }
        assert_eq!(walls.0.lock().versions.len(), OF_ACCOUNT_MAX + 1);
        assert!(note(2, 0, 1), "another's is there, also after a short run");
        for account in 3..40 {
            for number in 0..200 {
                assert!(note(account, number, COMPUTES_US));
            }
        }
        assert_eq!(walls.0.lock().versions.len(), ALL_MAX);
        walls.forget(key(39, 7).0.0);
        assert_eq!(walls.0.lock().versions.len(), ALL_MAX - 1);
    }
}
