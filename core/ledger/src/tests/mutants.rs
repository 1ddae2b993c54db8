//! The tests can fail: with any one rule broken, the histories that must hold do not.

use super::properties::play_histories;
use crate::mutant::Mutant;

/// Enough for each mutant; most show within the first ten.
const HISTORIES: u32 = 300;

#[test]
fn every_broken_rule_is_noticed() {
    let missed: Vec<Mutant> = Mutant::ALL
        .into_iter()
        .filter(|mutant| matches!(mutant.during(|| play_histories(HISTORIES, 0)), Ok(Ok(()))))
        .collect();
    assert_eq!(missed, [], "these broken rules were not noticed");
}
