//! A short summary of a transaction, for the explorer's lists.

use std::collections::BTreeMap;

use piecework_ledger::Event;

/// Like `12 jobs paid, 1 job claimed`; in the order of the first of each kind.
pub(super) fn events(events: &[Event]) -> String {
    let mut counts: BTreeMap<usize, (u32, Words)> = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        let words = words(event);
        match counts.values_mut().find(|(_, known)| *known == words) {
            Some((count, _)) => *count += 1,
            None => drop(counts.insert(at, (1, words))),
        }
    }
    let parts: Vec<String> = counts.values().map(|(count, words)| words.text(*count)).collect();
    match parts.is_empty() {
        true => "nothing new".to_owned(),
        false => parts.join(", "),
    }
}

/// One, several, and what became of them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Words(&'static str, &'static str, &'static str);

impl Words {
    fn text(self, count: u32) -> String {
        let Self(one, several, done) = self;
        match count {
            1 => format!("1 {one} {done}"),
            _ => format!("{count} {several} {done}"),
        }
    }
}

fn words(event: &Event) -> Words {
    let job = |done| Words("job", "jobs", done);
    match event {
        Event::AccountRegistered { .. } => Words("account", "accounts", "registered"),
        Event::KeyRotated { .. } => Words("key", "keys", "rotated"),
        Event::CreditsTransferred { .. } => Words("transfer", "transfers", "made"),
        Event::OfferPut { .. } => Words("offer", "offers", "put"),
        Event::OfferDropped { .. } => Words("offer", "offers", "dropped"),
        Event::LeaseOpened { .. } => Words("lease", "leases", "opened"),
        Event::LeaseToppedUp { .. } => Words("lease", "leases", "topped up"),
        Event::PayerDelegated { .. } => Words("payer", "payers", "changed"),
        Event::JobOpened { .. } => job("opened"),
        Event::JobMetered { .. } => job("metered"),
        Event::JobReceived { .. } => job("received"),
        Event::JobPaid { .. } => job("paid"),
        Event::JobClaimed { .. } => job("claimed"),
        Event::JobRefuted { .. } => job("refuted"),
        Event::JobReleased { .. } => job("released"),
        Event::LeaseDraining { .. } => Words("lease", "leases", "closing"),
        Event::LeaseClosed { .. } => Words("lease", "leases", "closed"),
        Event::MismatchReported { .. } => Words("mismatch", "mismatches", "reported"),
        Event::LimitSet { .. } => Words("limit", "limits", "set"),
        Event::DebtCovered { .. } => Words("debt", "debts", "covered"),
        Event::ChangeProposed { .. } => Words("change", "changes", "proposed"),
        Event::ChangeVoted { .. } => Words("vote", "votes", "cast"),
        Event::PeersChanged { .. } => Words("change of peers", "changes of peers", "carried"),
        Event::ParamsChanged {} => Words("change of parameters", "changes of parameters", "carried"),
        Event::PeerPaid { .. } => Words("peer", "peers", "paid"),
    }
}

#[cfg(test)]
mod tests {
    use piecework_model::{AccountId, JobId, LeaseId};

    use super::*;

    #[test]
    fn events_of_one_kind_are_counted_and_named() {
        let (lease, provider, job) = (LeaseId::default(), AccountId::default(), JobId::default());
        let metered = |sequence| Event::JobMetered {
            lease,
            provider,
            sequence,
            job,
        };
        let closing = Event::LeaseDraining { lease, until_height: 5 };
        assert_eq!(
            events(&[metered(0), closing, metered(1)]),
            "2 jobs metered, 1 lease closing"
        );
        assert_eq!(events(&[]), "nothing new");
    }
}
