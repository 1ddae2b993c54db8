//! The conditions that operators are told of.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use piecework_disk::{Level, Reading};

use super::Alerts;
use crate::{
    Answer,
    functions::suspects::{self, Suspect, Suspicion},
};

/// One that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) rule: &'static str,
    pub(super) subject: String,
    pub(super) message: String,
    pub(super) suspect: Option<Suspect>,
}

/// The ledger's height, and since when.
#[derive(Default)]
pub(super) struct Seen(Option<(u64, Instant)>);

impl Seen {
    /// How long the ledger has been silent.
    fn silent_for(&mut self, height: u64, now: Instant) -> Duration {
        match self.0 {
            Some((seen, since)) if seen == height => now.duration_since(since),
            Some(_) | None => {
                self.0 = Some((height, now));
                Duration::ZERO
            }
        }
    }
}

/// All that are there now, by rule and subject.
pub(super) async fn conditions(alerts: &Alerts) -> Answer<BTreeMap<String, Condition>> {
    let ground = &alerts.ground;
    let mut found = disk(&ground.disk.reading());
    let silent = alerts
        .seen
        .lock()
        .silent_for(ground.chain.status().height, Instant::now());
    found.extend(stall(silent, ground.tuning.stall_after));
    let certificate = alerts.certificate.as_ref().and_then(|told| told.borrow().clone());
    found.extend(certificate.map(|message| Condition {
        rule: "certificate",
        subject: String::new(),
        message,
        suspect: None,
    }));
    for suspect in alerts.functions.suspects.all() {
        match suspects::look(&alerts.functions, suspect).await? {
            Some((subject, message)) => found.push(Condition {
                rule: match suspect.suspicion {
                    Suspicion::Budget => "budget",
                    Suspicion::Quarantine => "quarantine",
                },
                subject,
                message,
                suspect: Some(suspect),
            }),
            None => alerts.functions.suspects.clear(&suspect),
        }
    }
    let key = |condition: &Condition| format!("{}/{}", condition.rule, condition.subject);
    Ok(found
        .into_iter()
        .map(|condition| (key(&condition), condition))
        .collect())
}

/// A low disk, and one that is nearly full beside it.
fn disk(reading: &Reading) -> Vec<Condition> {
    let condition = |subject: &str, message: String| Condition {
        rule: "disk",
        subject: subject.to_owned(),
        message,
        suspect: None,
    };
    let free = reading.free_bytes >> 20;
    let low = || {
        let reserve = reading.marks.reserve_bytes >> 20;
        let message =
            format!("{free} MiB of the disk with the data are free; below {reserve} MiB, new work is refused.");
        condition("low", message)
    };
    match reading.level {
        Level::Ample => Vec::new(),
        Level::Low => vec![low()],
        Level::Reserved => {
            let message = format!("{free} MiB of the disk with the data are free: new work and data are refused.");
            vec![low(), condition("reserved", message)]
        }
    }
}

fn stall(silent: Duration, after: Duration) -> Option<Condition> {
    (silent >= after).then(|| Condition {
        rule: "stall",
        subject: String::new(),
        message: "No block of the ledger becomes final: calls are answered, and nothing is paid. \
                  `piecework ledger status` shows which peers are silent."
            .to_owned(),
        suspect: None,
    })
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_fuller_disk_is_another_condition() {
        let reading = |level| Reading {
            level,
            ..Reading::default()
        };
        let subjects = |level| -> Vec<String> {
            let found = disk(&reading(level)).into_iter();
            found.map(|condition| condition.subject).collect()
        };
        assert_eq!(subjects(Level::Ample), [""; 0]);
        assert_eq!(subjects(Level::Low), ["low"]);
        assert_eq!(subjects(Level::Reserved), ["low", "reserved"]);
    }

    #[test]
    fn the_ledger_is_silent_since_its_last_block() {
        let (mut seen, began) = (Seen::default(), Instant::now());
        let at = |s| began + Duration::from_secs(s);
        assert_eq!(seen.silent_for(7, at(0)), Duration::ZERO);
        assert_eq!(seen.silent_for(7, at(20)), Duration::from_secs(20));
        assert_eq!(seen.silent_for(8, at(30)), Duration::ZERO);
        assert_eq!(stall(Duration::from_secs(12), Duration::from_secs(13)), None);
        assert!(stall(Duration::from_secs(13), Duration::from_secs(13)).is_some());
    }
}
