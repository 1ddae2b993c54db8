//! Functions of which operators may have to hear: noted when something happens, and looked at until it is over.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use piecework_model::{AccountId, FunctionId};
use serde::{Deserialize, Serialize};

use super::{Functions, budget};
use crate::{Answer, failure::store};

/// Each is a look into the store every few seconds.
const SUSPECTS_MAX: usize = 500;
/// Of one account: an operator who is told of twenty knows whom to ask about the others.
const SUSPECTS_OF_ACCOUNT_MAX: usize = 20;
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

/// Each with the account of its function.
#[derive(Default)]
pub(crate) struct Suspects(Mutex<BTreeMap<Suspect, AccountId>>);

impl Suspects {
    /// Where there is no room for more, the account that has the most gives up one for an account that has fewer.
    pub(crate) fn add(&self, suspect: Suspect, owner: AccountId) {
        let mut all = self.0.lock();
        if all.contains_key(&suspect) {
            return;
        }
        let mut by_account: HashMap<AccountId, usize> = HashMap::new();
        for of in all.values() {
            *by_account.entry(*of).or_default() += 1;
        }
        let own = by_account.get(&owner).copied().unwrap_or(0);
        if own >= SUSPECTS_OF_ACCOUNT_MAX {
            return;
        }
        if all.len() >= SUSPECTS_MAX {
            let most = by_account.into_iter().max_by_key(|(account, count)| (*count, *account));
            let Some((account, _)) = most.filter(|(_, count)| *count > own + 1) else {
                return;
            };
            let gives = all.iter().rev().find(|(_, of)| **of == account);
            let gives = *gives.expect("it has the most").0;
            all.remove(&gives);
        }
        all.insert(suspect, owner);
    }

    pub(crate) fn clear(&self, suspect: &Suspect) {
        self.0.lock().remove(suspect);
    }

    pub(crate) fn all(&self) -> Vec<Suspect> {
        self.0.lock().keys().copied().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn suspect(account: u16, number: u8) -> (Suspect, AccountId) {
        let mut owner = [0; 20];
        owner[..2].copy_from_slice(&account.to_be_bytes());
        let mut function = [number; 12];
        function[..2].copy_from_slice(&account.to_be_bytes());
        let suspect = Suspect {
            function: FunctionId(function),
            suspicion: Suspicion::Quarantine,
        };
        (suspect, AccountId(owner))
    }

    #[test]
    fn functions_of_a_few_accounts_leave_room_for_those_of_others() {
        let suspects = Suspects::default();
        let add = |account, number| {
            let (suspect, owner) = suspect(account, number);
            suspects.add(suspect, owner);
            suspects.all().contains(&suspect)
        };
        let watched = (0..200).filter(|number| add(1, *number)).count();
        assert_eq!(watched, SUSPECTS_OF_ACCOUNT_MAX);
        for account in 2..100 {
            for number in 0..20 {
                add(account, number);
            }
        }
        assert_eq!(suspects.all().len(), SUSPECTS_MAX);
        for account in 1_000..1_000 + SUSPECTS_MAX as u16 / 2 {
            assert!(add(account, 0), "one that has none gets a place");
            assert!(add(account, 0), "and is watched once");
        }
        assert_eq!(suspects.all().len(), SUSPECTS_MAX);
        suspects.clear(&suspect(1_000, 0).0);
        assert!(add(1_000, 1));
    }
}
