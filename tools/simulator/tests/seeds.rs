//! The seeds of every change: nothing goes wrong with them, twice alike; and with a bug put in something does.
#![allow(clippy::unwrap_used)]

use clap::ValueEnum as _;
use piecework_simulator::{Bug, Report, run};

/// A second each or less.
const SEEDS: u64 = 12;

#[test]
fn every_seed_holds_and_comes_to_the_same_history_twice() {
    let reports: Vec<Report> = (0..SEEDS)
        .map(|seed| {
            let first = run(seed, None, false).unwrap_or_else(|violation| panic!("{violation}"));
            assert_eq!(run(seed, None, false).unwrap(), first, "seed {seed} has two histories");
            first
        })
        .collect();
    let sum = |count: fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    assert!(sum(|report| report.paid) > 500, "the networks have worked");
    assert!(sum(|report| report.claimed) > 20, "some providers had to claim");
    assert!(sum(|report| report.refuted) > 0, "some claims were refuted");
    assert!(sum(|report| report.lies) > 0, "somebody lied");
    assert!(sum(|report| report.crashes) > 20, "nodes have crashed");
    let histories: std::collections::BTreeSet<_> = reports.iter().map(|report| report.history).collect();
    assert_eq!(histories.len() as u64, SEEDS, "seeds differ");
}

#[test]
fn every_bug_is_noticed_with_these_seeds() {
    let missed: Vec<&Bug> = Bug::value_variants()
        .iter()
        .filter(|bug| (0..SEEDS).all(|seed| run(seed, Some(**bug), false).is_ok()))
        .collect();
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
