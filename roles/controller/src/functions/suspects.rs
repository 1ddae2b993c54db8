//! Functions of which operators may have to hear: noted when something happens, and looked at until it is over.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use piecework_model::FunctionId;
use serde::{Deserialize, Serialize};

use super::{Functions, budget};
use crate::{Answer, failure::store};

/// Each is a look into the store every few seconds.
const SUSPECTS_MAX: usize = 500;
/// Percent of a budget at which operators are told, like its owner.
const BUDGET_PERCENT: u128 = 80;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Suspect {
    pub(crate) function: FunctionId,
    pub(crate) suspicion: Suspicion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Suspicion {
    Budget,
    Quarantine,
}

#[derive(Default)]
pub(crate) struct Suspects(Mutex<BTreeSet<Suspect>>);

impl Suspects {
    pub(crate) fn add(&self, suspect: Suspect) {
        let mut all = self.0.lock();
        if all.len() < SUSPECTS_MAX {
            all.insert(suspect);
        }
    }

    pub(crate) fn clear(&self, suspect: &Suspect) {
        self.0.lock().remove(suspect);
    }

    pub(crate) fn all(&self) -> Vec<Suspect> {
        self.0.lock().iter().copied().collect()
    }
}

/// The function's name and what is wrong with it; nothing once that is over.
pub(crate) async fn look(functions: &Functions, suspect: Suspect) -> Answer<Option<(String, String)>> {
    let ground = &functions.ground;
    let Some(function) = ground.store.function(suspect.function).await.map_err(store)? else {
        return Ok(None);
    };
    let name = format!("{}/{}", ground.account_name(function.owner).await, function.name);
    let message = match suspect.suspicion {
        Suspicion::Quarantine => {
            let quarantined: Vec<String> = function.policy.quarantined.keys().map(u32::to_string).collect();
            (!quarantined.is_empty()).then(|| {
                let versions = quarantined.join(", ");
                format!("Version {versions} of {name} crashed too often and takes no calls.")
            })
        }
        Suspicion::Budget => match function.policy.budget_ucr {
            Some(budget) => {
                let spent = budget::spending(functions, function.id).await?.spent_ucr;
                let percent = u128::from(spent) * 100 / u128::from(budget.max(1));
                let is_much = percent >= BUDGET_PERCENT;
                is_much.then(|| {
                    format!("{name} has used {BUDGET_PERCENT} % or more of its monthly budget of {budget} ucr.")
                })
            }
            None => None,
        },
    };
    Ok(message.map(|message| (name, message)))
}
