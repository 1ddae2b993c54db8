//! The controller: orders jobs, checks what comes back, settles, and refutes what is claimed wrongly.
//!
//! Numbers, exposure, receipts and settlements are the real controller's; what is kept durably is what it journals.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use piecework_controller::{LaneState, Observed, Outgoing, check_receipt, settlement};
use piecework_ledger::{Action, Challenge, Event, Evidence, LeaseState};
use piecework_model::{
    AccountId, Digest, Domain, FunctionId, JobId, Language, Receipt, Rejection, Seal, Sealed, Ticket, merkle_proof,
};
use piecework_queue::{Delivery, Order, Unsealed, Work, input_digest};
use piecework_sandbox::{BackendName, Streamed};
use rand::RngExt as _;
use tokio_util::sync::CancellationToken;

use crate::{
    bug::Bug,
    developer::lease_id,
    setup::{CORES, EXPOSURE_UCR, LIMITS, PRICES, PROVIDERS, controller_key, provider_key},
    wire::{Message, Node},
    world::{CALM_MS, World},
};

const JOBS_PER_TICK: u32 = 2;
const TICK_MS: u64 = 100;
const DEADLINE_MS: u64 = 1_500;
/// Numbers reserved at a time.
const STEP: u64 = 20;

/// Tickets under one seal.
type Batch = Vec<(u64, Digest)>;

/// A lane is known by its provider's number: there is one lease.
type Place = (u8, u64);

pub struct Controller {
    skew_ms: u64,
    // In memory.
    lanes: BTreeMap<u8, LaneState>,
    running: BTreeMap<Place, Running>,
    /// Sent, and no word of them yet.
    seals: Vec<(u8, Batch)>,
    // Durable.
    reserved: BTreeMap<u8, u64>,
    outbox: BTreeMap<Place, Outgoing>,
    tickets: BTreeMap<Place, Ticket>,
    /// Whose answer a job's caller got.
    done: BTreeMap<JobId, Place>,
    /// What shows that a claim for a job done elsewhere is wrong.
    receipts: BTreeMap<Place, Sealed<Receipt>>,
    paid: BTreeSet<Place>,
    claims: BTreeMap<Place, u64>,
    followed: usize,
    jobs: u64,
    ticks: u64,
}

struct Running {
    ticket: Ticket,
    before: Option<Place>,
    since_ms: u64,
}

impl Controller {
    pub fn new(skew_ms: u64) -> Self {
        Self {
            skew_ms,
            lanes: BTreeMap::new(),
            running: BTreeMap::new(),
            seals: Vec::new(),
            reserved: BTreeMap::new(),
            outbox: BTreeMap::new(),
            tickets: BTreeMap::new(),
            receipts: BTreeMap::new(),
            done: BTreeMap::new(),
            paid: BTreeSet::new(),
            claims: BTreeMap::new(),
            followed: 0,
            jobs: 0,
            ticks: 0,
        }
    }

    fn next_sequence(&mut self, provider: u8) -> u64 {
        let reserved = self.reserved.entry(provider).or_default();
        let lane = self.lanes.entry(provider).or_insert_with(|| LaneState::from(*reserved));
        if let Some(up_to) = lane.exhausted_at() {
            *reserved = up_to + STEP;
            lane.reserve_to(up_to + STEP);
        }
        lane.take().expect("numbers were reserved just now")
    }

    /// What waits to be settled.
    pub fn owes(&self) -> usize {
        self.outbox.len()
    }
}

fn account(provider: u8) -> AccountId {
    AccountId::of(&provider_key(provider).public())
}

impl World {
    pub fn controller(&mut self, message: Message) {
        match message {
            Message::Answer(provider, sequence, answer) => self.take_answer((provider, sequence), answer),
            Message::SealTaken(provider, taken) => {
                let of_taken = |batch: &Batch| batch.iter().map(|(sequence, _)| sequence).eq(&taken);
                let controller = &mut self.controller;
                controller
                    .seals
                    .retain(|(to, batch)| *to != provider || !of_taken(batch));
                if let Some(lane) = controller.lanes.get_mut(&provider) {
                    lane.sealed(&taken);
                }
            }
            Message::ReceiptsSealed(provider, sequences, seal) => self.settle(provider, &sequences, &seal),
            Message::Tick => {
                self.controller_tick();
                self.after(TICK_MS, Node::Controller, Message::Tick);
            }
            Message::Restart if self.controller_is_gone() => {}
            Message::Restart => self.restart_controller(),
            Message::Submit(_)
            | Message::Proposal(..)
            | Message::Vote(..)
            | Message::Final(_)
            | Message::Order(_)
            | Message::Seal(..)
            | Message::AskSeal(_)
            | Message::Ended(_) => unreachable!("the controller was sent what is not for it"),
        }
    }

    fn restart_controller(&mut self) {
        self.faults.down.remove(&Node::Controller);
        let controller = &mut self.controller;
        controller.lanes.clear();
        controller.running.clear();
        controller.seals.clear();
        match self.bug {
            Some(Bug::ControllerReusesSequences) => controller.reserved.clear(),
            Some(Bug::ControllerForgetsItsOutbox) => controller.outbox.clear(),
            Some(_) | None => {}
        }
    }

    fn controller_tick(&mut self) {
        self.controller.ticks += 1;
        self.follow_as_controller();
        self.give_up_late_runs();
        let open = self
            .lease(Node::Controller)
            .is_some_and(|lease| lease.state == LeaseState::Open);
        if open && self.now < CALM_MS {
            for _ in 0..JOBS_PER_TICK {
                self.controller.jobs += 1;
                let job = JobId::new(self.controller.jobs, [1; 10]);
                self.dispatch(job, None);
            }
        }
        if self.controller.ticks.is_multiple_of(5) {
            self.seal_tickets();
            self.ask_seals();
            self.challenge();
        }
    }

    /// Another provider than the one before, if there was one.
    fn dispatch(&mut self, job: JobId, before: Option<Place>) {
        let mut provider = self.rng.random_range(0..PROVIDERS);
        if before.is_some_and(|(late, _)| late == provider) {
            provider = (provider + 1) % PROVIDERS;
        }
        let sequence = self.controller.next_sequence(provider);
        let place = (provider, sequence);
        let (event, parameters) = (Bytes::from(job.to_string()), Bytes::new());
        let work = work();
        let ticket = Ticket {
            lease: lease_id(),
            provider: account(provider),
            sequence,
            job,
            code: work.code,
            input: input_digest(&event, &parameters),
            limits: LIMITS,
            prices: PRICES,
            price_max_ucr: LIMITS.price_max(&PRICES, CORES).expect("small numbers"),
            deadline_ms: self.now + self.controller.skew_ms + DEADLINE_MS,
            replaces: before.map(|(_, sequence)| sequence),
        };
        let seal = self.stake(provider, &ticket);
        let order = Order {
            ticket: ticket.clone(),
            payer: controller_key().public(),
            exposure_ucr: EXPOSURE_UCR,
            seal,
            work: Arc::new(work),
            event,
            parameters,
            salt: None,
            is_tentative: false,
            cancel: CancellationToken::new(),
            body: None,
            outlet: piecework_sandbox::Outlet::nowhere(),
        };
        self.check_ticket(&ticket);
        self.controller.tickets.insert(place, ticket.clone());
        let since_ms = self.now;
        self.controller.running.insert(
            place,
            Running {
                ticket,
                before,
                since_ms,
            },
        );
        self.report.ordered += 1;
        self.trace(|| format!("order {place:?} {job} in place of {before:?}"));
        self.send(
            Node::Controller,
            Node::Provider(provider),
            Message::Order(Arc::new(order)),
        );
    }

    /// Under the exposure, or under a seal of its own.
    fn stake(&mut self, provider: u8, ticket: &Ticket) -> Option<Seal> {
        let lane = self.controller.lanes.entry(provider).or_default();
        if lane.stake(ticket.sequence, ticket.leaf(), ticket.price_max_ucr, EXPOSURE_UCR) {
            return None;
        }
        let place = (ticket.lease, ticket.provider);
        Some(Seal::sign(
            &controller_key(),
            Domain::Tickets,
            &self.network,
            place,
            &[ticket.leaf()],
        ))
    }

    fn take_answer(&mut self, place: Place, answer: Result<Box<Delivery>, Rejection>) {
        let Some(running) = self.controller.running.get(&place) else {
            return; // given up, or answered before
        };
        let observed = Observed {
            us: (self.now - running.since_ms) * 1_000,
            cores: CORES,
            streamed: Streamed::default(),
            streamable_bytes: 0,
            salt: None,
        };
        let (lane, sequence) = place;
        let delivery = match answer {
            Ok(delivery) => *delivery,
            Err(_) => {
                let (job, before) = (running.ticket.job, running.before);
                self.controller.running.remove(&place);
                if let Some(lane) = self.controller.lanes.get_mut(&lane) {
                    lane.refused(sequence);
                }
                self.dispatch(job, before);
                return;
            }
        };
        let outcome = &delivery.finished.outcome;
        let checked = check_receipt(&running.ticket, &delivery.receipt, outcome, &observed);
        if checked.is_err() && self.bug != Some(Bug::ControllerBelievesReceipts) {
            self.report.lies += 1;
            self.trace(|| format!("not believed {place:?}: {checked:?}"));
            return;
        }
        let Some(running) = self.controller.running.remove(&place) else {
            return;
        };
        if let Some(lane) = self.controller.lanes.get_mut(&lane) {
            lane.ran(sequence, delivery.receipt.price_ucr);
        }
        self.trace(|| format!("answered {place:?}"));
        self.check_accepted(&delivery.receipt);
        self.controller.done.insert(delivery.receipt.job, place);
        let outgoing = Outgoing {
            receipt: delivery.receipt,
            mark: delivery.mark,
            price_max_ucr: running.ticket.price_max_ucr,
            received_at_ms: self.now + self.controller.skew_ms,
        };
        self.controller.outbox.insert(place, outgoing);
    }

    /// Runs that did not answer in time are ordered again elsewhere, once their provider must not begin any more.
    fn give_up_late_runs(&mut self) {
        let late: Vec<Place> = self
            .controller
            .running
            .iter()
            .filter(|(_, running)| self.now > running.since_ms + DEADLINE_MS)
            .map(|(place, _)| *place)
            .collect();
        for place in late {
            if let Some(running) = self.controller.running.remove(&place) {
                self.report.replaced += 1;
                self.dispatch(running.ticket.job, Some(place));
            }
        }
    }

    /// What is under way without an answer for a round is taken for lost.
    fn seal_tickets(&mut self) {
        let (lease, key) = (lease_id(), controller_key());
        for (provider, batch) in std::mem::take(&mut self.controller.seals) {
            if let Some(lane) = self.controller.lanes.get_mut(&provider) {
                lane.not_sealed(batch);
            }
        }
        for provider in 0..PROVIDERS {
            let next = |lane: &mut LaneState| Some(lane.take_finished(0)).filter(|batch| !batch.is_empty());
            while let Some(batch) = self.controller.lanes.get_mut(&provider).and_then(next) {
                let (sequences, leaves): (Vec<u64>, Vec<Digest>) = batch.iter().copied().unzip();
                let place = (lease, account(provider));
                let seal = Seal::sign(&key, Domain::Tickets, &self.network, place, &leaves);
                self.controller.seals.push((provider, batch));
                let message = Message::Seal(seal, sequences);
                self.send(Node::Controller, Node::Provider(provider), message);
            }
        }
    }

    fn ask_seals(&mut self) {
        for provider in 0..PROVIDERS {
            let waiting = self.controller.outbox.range((provider, 0)..=(provider, u64::MAX));
            let receipts: Vec<Unsealed> = waiting
                .map(|(_, outgoing)| Unsealed {
                    receipt: outgoing.receipt.clone(),
                    mark: outgoing.mark,
                })
                .take(200)
                .collect();
            if !receipts.is_empty() {
                self.send(Node::Controller, Node::Provider(provider), Message::AskSeal(receipts));
            }
        }
    }

    /// Sends what is sealed and not paid yet; the ledger skips what is.
    fn settle(&mut self, provider: u8, sequences: &[u64], seal: &Seal) {
        let sent = |sequence: &u64| self.controller.outbox.get(&(provider, *sequence)).cloned();
        let Some(batch) = sequences.iter().map(sent).collect::<Option<Vec<Outgoing>>>() else {
            return; // some were paid meanwhile: the next seal is over the others
        };
        let leaves: Vec<Digest> = batch.iter().map(|outgoing| outgoing.receipt.leaf()).collect();
        for (index, outgoing) in batch.iter().enumerate() {
            let sealed = Sealed {
                member: outgoing.receipt.clone(),
                proof: merkle_proof(&leaves, index).expect("the index is of the batch"),
                count: seal.count,
                signature: seal.signature,
            };
            self.controller
                .receipts
                .insert((provider, outgoing.receipt.sequence), sealed);
        }
        let settle = settlement((seal.lease, seal.provider), &batch, seal);
        self.submit(Node::Controller, &controller_key(), Action::Settle(settle));
    }

    fn follow_as_controller(&mut self) {
        let mut followed = self.controller.followed;
        let events = self.events_since(Node::Controller, &mut followed);
        self.controller.followed = followed;
        for event in events {
            match event {
                Event::JobPaid { provider, sequence, .. } | Event::JobRefuted { provider, sequence, .. } => {
                    let place = place_of(provider, sequence);
                    self.controller.outbox.remove(&place);
                    self.controller.claims.remove(&place);
                    if matches!(event, Event::JobPaid { .. }) {
                        self.controller.paid.insert(place);
                    }
                }
                Event::JobClaimed {
                    provider,
                    sequence,
                    until_height,
                    ..
                } => {
                    self.controller
                        .claims
                        .insert(place_of(provider, sequence), until_height);
                }
                _ => {}
            }
        }
    }

    /// Claims for jobs that were done and paid elsewhere.
    fn challenge(&mut self) {
        if self.bug == Some(Bug::ControllerNeverChallenges) {
            return;
        }
        let claims: Vec<Place> = self.controller.claims.keys().copied().collect();
        for claimed in claims {
            if let Some(challenge) = self.replacement_of(claimed) {
                self.submit(Node::Controller, &controller_key(), Action::Challenge(challenge));
            }
        }
    }

    /// The evidence, once the job is paid elsewhere.
    fn replacement_of(&mut self, claimed: Place) -> Option<Challenge> {
        let job = self.controller.tickets.get(&claimed)?.job;
        let done = *self.controller.done.get(&job)?;
        if done == claimed || !self.controller.paid.contains(&done) {
            return None;
        }
        let receipt = self.controller.receipts.get(&done)?.clone();
        Some(Challenge {
            lease: lease_id(),
            provider: account(claimed.0),
            sequence: claimed.1,
            evidence: Evidence::Replaced(Box::new(receipt)),
        })
    }
}

pub fn place_of(provider: AccountId, sequence: u64) -> Place {
    let number = (0..PROVIDERS).find(|number| account(*number) == provider);
    (number.unwrap_or(u8::MAX), sequence)
}

fn work() -> Work {
    Work {
        owner: None,
        function: FunctionId([3; 12]),
        version: 1,
        name: "simulated".into(),
        language: Language::Python,
        code: Digest::of(b"code"),
        handler: None,
        env: BTreeMap::new(),
        limits: LIMITS,
        egress: piecework_model::EgressList::default(),
        backend: BackendName::Wasm,
    }
}
