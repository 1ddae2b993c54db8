//! What must hold after every block, and what must have come of everything in the end.

use std::collections::{BTreeMap, BTreeSet};

use piecework_ledger::{Event, Genesis, Key, LeaseState, Outcome, Value};
use piecework_model::{AccountId, Counters, Digest, JobId, Receipt, Ticket};

use crate::{
    Consensus,
    controller::place_of,
    peers::State,
    provider::{Behaviour, used},
    setup::{CORES, LIMITS, PEERS, PRICES, developer_key},
    wire::Node,
    world::World,
};

type Place = (u8, u64);

/// The network as somebody sees it who sees everything.
pub struct Checks {
    supply: i128,
    blocks: Vec<(Digest, Digest)>,
    /// Of each height.
    events: Vec<Vec<Event>>,
    tickets: BTreeMap<Place, Ticket>,
    ordered_ms: BTreeMap<Place, u64>,
    /// From order to answer, as the controller saw it.
    seen_ms: BTreeMap<Place, u64>,
    /// Receipts that the controller took: their callers have been answered.
    accepted: BTreeMap<Place, Receipt>,
    answered: BTreeSet<JobId>,
    paid: BTreeMap<Place, u64>,
    claimed: BTreeSet<Place>,
    refuted: BTreeSet<Place>,
    /// Run, with the payer's seal over the ticket: its provider can prove that it is owed.
    sealed: BTreeSet<Place>,
    jobs_paid: BTreeMap<JobId, Place>,
}

impl Checks {
    pub fn new(genesis: &Genesis) -> Self {
        Self {
            supply: genesis.grants.iter().map(|grant| grant.amount.0).sum(),
            blocks: Vec::new(),
            events: Vec::new(),
            tickets: BTreeMap::new(),
            ordered_ms: BTreeMap::new(),
            seen_ms: BTreeMap::new(),
            accepted: BTreeMap::new(),
            answered: BTreeSet::new(),
            paid: BTreeMap::new(),
            claimed: BTreeSet::new(),
            refuted: BTreeSet::new(),
            sealed: BTreeSet::new(),
            jobs_paid: BTreeMap::new(),
        }
    }

    pub fn height(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub fn state(&self) -> Digest {
        self.blocks.last().map(|(_, state)| *state).unwrap_or_default()
    }
}

impl World {
    /// What the ledger says since `followed`, as far as the reader's peer has come; moves `followed` on.
    pub fn events_since(&mut self, reader: Node, followed: &mut usize) -> Vec<Event> {
        let Some(peer) = self.peer_of(reader) else {
            return Vec::new();
        };
        let height = self.peers[peer].height() as usize;
        let from = std::mem::replace(followed, height.max(*followed));
        self.checks.events[from..*followed].concat()
    }

    pub fn check_ticket(&mut self, ticket: &Ticket) {
        let place = place_of(ticket.provider, ticket.sequence);
        self.checks.ordered_ms.insert(place, self.now);
        if self.checks.tickets.insert(place, ticket.clone()).is_some() {
            self.breaks(format!("two tickets of the sequence {place:?}"));
        }
    }

    pub fn check_sealed(&mut self, place: Place) {
        self.checks.sealed.insert(place);
    }

    pub fn check_accepted(&mut self, receipt: &Receipt) {
        let place = place_of(receipt.provider, receipt.sequence);
        if let Some(ordered_ms) = self.checks.ordered_ms.get(&place) {
            self.checks.seen_ms.insert(place, self.now - ordered_ms);
        }
        self.checks.answered.insert(receipt.job);
        self.checks.accepted.insert(place, receipt.clone());
    }

    /// After a peer has applied a block. The first to do so is held against the rules, the others against the first.
    pub fn check_block(&mut self, number: u8, height: u64, found: (Digest, Digest), outcomes: &[Outcome]) {
        let at = height as usize - 1;
        match self.checks.blocks.get(at) {
            Some(known) if *known == found => return,
            Some(_) => return self.breaks(format!("peer {number} has another block at height {height}")),
            None => self.checks.blocks.push(found),
        }
        let supply = supply(&self.peers[usize::from(number)].state);
        if supply != self.checks.supply {
            self.breaks(format!("{supply} ucr instead of {}", self.checks.supply));
        }
        let events: Vec<Event> = outcomes
            .iter()
            .flat_map(|outcome| outcome.result.iter().flatten())
            .cloned()
            .collect();
        self.report.rejected += outcomes.iter().filter(|outcome| outcome.result.is_err()).count() as u64;
        for outcome in outcomes {
            if let Err(refused) = &outcome.result {
                self.trace(|| format!("block {height}: {refused}"));
            }
        }
        for event in &events {
            self.trace(|| format!("block {height}: {event:?}"));
            self.check_event(event);
        }
        self.report.height = height;
        self.checks.events.push(events);
    }

    fn check_event(&mut self, event: &Event) {
        match event {
            Event::JobPaid {
                provider,
                sequence,
                job,
                price_ucr,
                ..
            } => {
                self.check_payment(place_of(*provider, *sequence), *job, *price_ucr);
            }
            Event::JobClaimed { provider, sequence, .. } => {
                self.report.claimed += 1;
                self.checks.claimed.insert(place_of(*provider, *sequence));
            }
            Event::JobRefuted { provider, sequence, .. } => {
                self.report.refuted += 1;
                self.checks.refuted.insert(place_of(*provider, *sequence));
            }
            _ => {}
        }
    }

    fn check_payment(&mut self, place: Place, job: JobId, price_ucr: u64) {
        self.report.paid += 1;
        if self.checks.paid.insert(place, price_ucr).is_some() {
            return self.breaks(format!("{place:?} is paid twice"));
        }
        let Some(ticket) = self.checks.tickets.get(&place) else {
            return self.breaks(format!("{place:?} is paid without a ticket"));
        };
        if ticket.job != job || price_ucr > ticket.price_max_ucr {
            return self.breaks(format!("{place:?} is paid {price_ucr} ucr, against its ticket"));
        }
        if !self.checks.claimed.contains(&place) && price_ucr > self.worth(place) {
            let worth = self.worth(place);
            return self.breaks(format!("{place:?} is paid {price_ucr} ucr for what is worth {worth}"));
        }
        let before = self.checks.jobs_paid.insert(job, place);
        // Who else than the controller knows that two tickets are for one job, and which of them was answered? If it is
        // gone, or has lost the job in a crash, each who ran it has a claim of its own (decisions/006).
        let known = !self.controller_is_gone() && self.checks.answered.contains(&job);
        if let Some(before) = before.filter(|_| known) {
            self.breaks(format!("job {job} is paid at {before:?} and again at {place:?}"));
        }
    }

    /// The most that a settlement may pay: of an honest provider what the run used, of others what the controller can have
    /// seen, which is all cores for as long as it waited.
    fn worth(&self, (number, sequence): Place) -> u64 {
        let seen_ms = self.checks.seen_ms.get(&(number, sequence)).copied().unwrap_or(0);
        let wall_ms = seen_ms + 2;
        let honest = self.providers[usize::from(number)].behaviour == Behaviour::Honest;
        let counters = match honest {
            true => used(sequence),
            false => Counters {
                cpu_us: wall_ms * 1_000 * u64::from(CORES),
                memory_byte_ms: wall_ms * LIMITS.memory_bytes,
                egress_bytes: 0,
            },
        };
        PRICES.price(&counters).unwrap_or(u64::MAX)
    }

    /// At the end: everybody agrees, nothing is held, and whoever worked honestly is paid.
    pub fn check_drained(&mut self) {
        if let Some(says) = self.undrained() {
            self.breaks(format!("in the end {says}"));
        }
    }

    /// Something that has not come to its end yet.
    pub fn undrained(&mut self) -> Option<String> {
        let height = self.checks.height();
        // The engine goes on making blocks.
        let under_way = match self.consensus {
            Consensus::Model => 0,
            Consensus::Engine => 2,
        };
        let readers: Vec<u8> = (0..PEERS).filter(|number| self.is_read(*number)).collect();
        let late = |number: &&u8| self.peers[usize::from(**number)].height() + under_way < height;
        if let Some(number) = readers.iter().find(late) {
            return Some(format!("peer {number} is not at height {height}"));
        }
        match self.lease(Node::Developer).map(|lease| lease.state) {
            Some(LeaseState::Closed) => {}
            other => return Some(format!("the lease is {other:?}")),
        }
        let developer = Key::Account(AccountId::of(&developer_key().public()));
        let reader = readers.first().map(|number| &self.peers[usize::from(*number)]);
        let held = match reader.and_then(|peer| peer.state.get(&developer)) {
            Some(Value::Account(account)) => account.held.0,
            Some(_) | None => 0,
        };
        if held != 0 {
            return Some(format!("the developer's account still holds {held} ucr"));
        }
        let owes = self.controller.owes();
        if !self.controller_is_gone() && self.is_up(Node::Controller) && owes > 0 {
            return Some(format!("the controller owes {owes} jobs"));
        }
        self.unpaid_work()
    }

    /// What the controller took is paid. If the controller vanished: what lies with the provider under a seal.
    fn unpaid_work(&self) -> Option<String> {
        let unpaid = |place: &&Place| !self.checks.paid.contains_key(place);
        let answered = self.checks.accepted.keys().find(unpaid);
        if let Some(place) = answered.filter(|_| self.vanishes_ms.is_none()) {
            return Some(format!("{place:?} was answered and is not paid"));
        }
        let ended = |place: &&Place| self.checks.paid.contains_key(place) || self.checks.refuted.contains(place);
        let honest = |(number, _): &&Place| self.providers[usize::from(*number)].behaviour == Behaviour::Honest;
        let mut sealed = self.checks.sealed.iter().filter(honest);
        let missing = sealed.find(|place| !ended(place))?;
        Some(format!("{missing:?} was run under a seal and is not paid"))
    }
}

fn supply(state: &State) -> i128 {
    state
        .iter()
        .map(|(key, value)| match (key, value) {
            (Key::Account(_), Value::Account(account)) => account.posted.0,
            (Key::Pools, Value::Pools(pools)) => pools.peers.0 + pools.insurance.0,
            _ => 0,
        })
        .sum()
}
