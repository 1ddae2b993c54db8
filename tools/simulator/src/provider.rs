//! Providers: the real rules for tickets, lanes, receipts and claims, and what some of them do besides.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use piecework_ledger::{Action, BatchTicket, Claim, Key, Value};
use piecework_model::{AccountId, Code, Counters, LeaseId, Limits, NetworkId, Rejection};
use piecework_provider::{
    claims::{Papers, Patience, Shown},
    lanes::Lanes,
    receipts::{Receipts, Seen},
    tickets,
};
use piecework_queue::{Delivery, Order, Profile};
use piecework_sandbox::{Finished, Outcome, Streamed};
use rand::RngExt as _;

use crate::{
    bug::Bug,
    developer::lease_id,
    peers::Peer,
    setup::{CORES, PRICES, controller_key, provider_key},
    wire::{Message, Node},
    world::World,
};

/// Longer than a settlement takes without faults.
const CLAIM_AFTER_MS: u64 = 3_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Honest,
    /// Says that runs used four times what they did.
    OverReports,
    /// Claims everything at once, again and again, at the highest price there is.
    ClaimsTwice,
    /// Answers late or never, and claims.
    Dawdles,
    /// Sends every answer again, altered.
    Replays,
}

impl Behaviour {
    pub const ALL: [Self; 5] = [
        Self::Honest,
        Self::OverReports,
        Self::ClaimsTwice,
        Self::Dawdles,
        Self::Replays,
    ];
}

pub struct Provider {
    pub behaviour: Behaviour,
    pub account: AccountId,
    profile: Profile,
    skew_ms: u64,
    /// Of these what was begun is durable, and what is at stake is not.
    lanes: Lanes,
    /// In memory: gone with a crash.
    running: BTreeMap<u64, Arc<Order>>,
    /// Durable.
    pub papers: Papers,
    receipts: Receipts,
}

/// What a run used is told apart from how long it seems to take here.
const SEEN: Seen = Seen {
    cores: CORES,
    took: Duration::from_secs(3_600),
};

impl Provider {
    pub fn new(number: u8, behaviour: Behaviour, network: NetworkId, skew_ms: u64) -> Self {
        let key = provider_key(number);
        let account = AccountId::of(&key.public());
        let profile = Profile {
            account,
            name: format!("provider-{number}"),
            prices: PRICES,
            cores: CORES,
            memory_bytes: 1 << 30,
            slots: 16,
            region: String::new(),
            labels: Vec::new(),
            probes: Vec::new(),
            egress: None,
            free_for: None,
        };
        Self {
            behaviour,
            account,
            profile,
            skew_ms,
            lanes: Lanes::default(),
            running: BTreeMap::new(),
            papers: Papers::default(),
            receipts: Receipts::new(key, network),
        }
    }

    fn begin(&mut self, order: &Arc<Order>, network: &NetworkId, now_ms: u64) -> Result<(), Rejection> {
        let payers = HashSet::from([controller_key().public()]);
        tickets::check(order, &self.profile, &payers, network, now_ms + self.skew_ms)?;
        self.lanes.begin(order)?;
        self.running.insert(order.ticket.sequence, order.clone());
        Ok(())
    }
}

/// What a run of the job really uses: known to all, so that it can be checked.
pub fn used(sequence: u64) -> Counters {
    let cpu_us = 5_000 + sequence * 7_919 % 60_000;
    Counters {
        cpu_us,
        // At least what its slot counts as.
        memory_byte_ms: Limits::SLOT_BYTES * cpu_us.div_ceil(1_000),
        egress_bytes: 0,
    }
}

impl World {
    pub fn provider(&mut self, number: u8, message: Message) {
        let at = usize::from(number);
        match message {
            Message::Order(order) => self.take_order(number, &order),
            Message::Ended(sequence) => self.end_run(number, sequence),
            Message::Seal(seal, sequences) => {
                let (provider, network) = (&mut self.providers[at], self.network);
                if provider.lanes.accept_seal(&seal, &sequences, &network).is_ok() {
                    provider.papers.sealed(&seal, &sequences, &network);
                    for sequence in &sequences {
                        self.check_sealed((number, *sequence));
                    }
                }
                let taken = Message::SealTaken(number, sequences);
                self.send(Node::Provider(number), Node::Controller, taken);
            }
            Message::AskSeal(receipts) => {
                let provider = &mut self.providers[at];
                let Some(first) = receipts.first() else { return };
                let lane = (first.receipt.lease, provider.account);
                let sequences = receipts.iter().map(|unsealed| unsealed.receipt.sequence).collect();
                if let Ok(seal) = provider.receipts.seal(lane, &receipts) {
                    let sealed = Message::ReceiptsSealed(number, sequences, seal);
                    self.send(Node::Provider(number), Node::Controller, sealed);
                }
            }
            Message::Tick => {
                self.collect(number);
                self.after(250, Node::Provider(number), Message::Tick);
            }
            Message::Restart => {
                self.faults.down.remove(&Node::Provider(number));
                let provider = &mut self.providers[at];
                provider.lanes = provider.lanes.restarted();
                provider.running.clear();
            }
            Message::Submit(_)
            | Message::Proposal(..)
            | Message::Vote(..)
            | Message::Final(_)
            | Message::Answer(..)
            | Message::SealTaken(..)
            | Message::ReceiptsSealed(..) => unreachable!("a provider was sent what is not for providers"),
        }
    }

    fn take_order(&mut self, number: u8, order: &Arc<Order>) {
        let (now, network) = (self.now, self.network);
        let provider = &mut self.providers[usize::from(number)];
        let sequence = order.ticket.sequence;
        match provider.begin(order, &network, now) {
            Ok(()) => {
                let dawdles = provider.behaviour == Behaviour::Dawdles && sequence.is_multiple_of(3);
                let delay = match dawdles {
                    true => self.rng.random_range(2_000..6_000),
                    false => used(sequence).cpu_us / 1_000 + 1,
                };
                self.after(delay, Node::Provider(number), Message::Ended(sequence));
            }
            // The order came twice: the first one is answered.
            Err(refused) if refused.code == Code::TicketReplayed => {}
            Err(refused) => {
                let answer = Message::Answer(number, sequence, Err(refused));
                self.send(Node::Provider(number), Node::Controller, answer);
            }
        }
    }

    fn end_run(&mut self, number: u8, sequence: u64) {
        let provider = &mut self.providers[usize::from(number)];
        let Some(order) = provider.running.remove(&sequence) else {
            return;
        };
        let honest = used(sequence);
        let factor = if provider.behaviour == Behaviour::OverReports {
            4
        } else {
            1
        };
        let counters = Counters {
            cpu_us: honest.cpu_us * factor,
            ..honest
        };
        let finished = Finished {
            outcome: Outcome::Returned(Bytes::from(sequence.to_string())),
            logs: piecework_sandbox::Logs::default(),
            counters,
            memory_peak_bytes: 32 << 20,
            duration: Duration::from_micros(honest.cpu_us),
            reusable: true,
        };
        let (receipt, mark) = provider
            .receipts
            .write((&order.ticket, None), &finished, &Streamed::default(), &SEEN);
        provider.lanes.finish(&receipt);
        provider
            .papers
            .ran(&order.ticket, order.payer, order.seal.as_ref(), &receipt, self.now);
        if order.seal.is_some() {
            self.check_sealed((number, sequence));
        }
        let delivery = Delivery {
            receipt,
            mark,
            finished,
            cold: false,
            pull_us: 0,
            is_cut: false,
        };
        self.answer(number, sequence, delivery);
    }

    fn answer(&mut self, number: u8, sequence: u64, delivery: Delivery) {
        let (from, to) = (Node::Provider(number), Node::Controller);
        if self.providers[usize::from(number)].behaviour == Behaviour::Replays {
            let mut dearer = delivery.clone();
            dearer.receipt.price_ucr += 1;
            let mut another = delivery.clone();
            another.receipt.sequence += 1;
            for altered in [dearer, another] {
                let of = altered.receipt.sequence;
                self.send(from, to, Message::Answer(number, of, Ok(Box::new(altered))));
            }
        }
        self.send(from, to, Message::Answer(number, sequence, Ok(Box::new(delivery))));
    }

    /// What a provider gets by itself, as the real one decides it; the greedy one waits for nothing.
    fn collect(&mut self, number: u8) {
        let Some(peer) = self.peer_of(Node::Provider(number)) else {
            return;
        };
        let at = usize::from(number);
        let provider = &mut self.providers[at];
        let greedy = provider.behaviour == Behaviour::ClaimsTwice;
        let patience = Patience {
            now_ms: self.now,
            claim_after_ms: if greedy { 0 } else { CLAIM_AFTER_MS },
        };
        let lane = (lease_id(), provider.account);
        let peer = &self.peers[peer];
        let Some(shown) = shown(peer, &provider.papers, lane) else {
            return;
        };
        let steps = provider.papers.next(lane, &shown, patience);
        for action in steps.actions() {
            let action = match action {
                Action::Claim(_) if self.bug == Some(Bug::ProvidersNeverClaim) => continue,
                Action::PayClaims(_) if self.bug == Some(Bug::NobodyPaysClaims) => continue,
                Action::Claim(claim) if greedy => Action::Claim(dear(claim)),
                action => action,
            };
            self.submit(Node::Provider(number), &provider_key(number), action);
        }
    }
}

/// The lane as one peer has it.
fn shown<'a>(peer: &'a Peer, papers: &Papers, (lease, provider): (LeaseId, AccountId)) -> Option<Shown<'a>> {
    let Some(Value::Lease(record)) = peer.state.get(&Key::Lease(lease)) else {
        return None;
    };
    let lane = match peer.state.get(&Key::Lane(lease, provider)) {
        Some(Value::Lane(lane)) => Some(lane),
        Some(_) | None => None,
    };
    let open = |sequence: u64| match peer.state.get(&Key::OpenJob(lease, provider, sequence)) {
        Some(Value::OpenJob(job)) => Some((sequence, job.claimed_until)),
        Some(_) | None => None,
    };
    Some(Shown {
        height: peer.height(),
        lease: record.state,
        lane,
        open: papers.unpaid(lease).into_iter().filter_map(open).collect(),
        // Nothing is opened ahead here.
        pressing: Default::default(),
    })
}

/// As much as the tickets allow.
fn dear(mut claim: Claim) -> Claim {
    for ticket in claim.batches.iter_mut().flat_map(|batch| &mut batch.tickets) {
        if let BatchTicket::Claimed(job) = ticket {
            let most = job.ticket.limits.counters_max(CORES);
            job.metered.counters = most;
            let price = job.ticket.prices.price(&most).unwrap_or(u64::MAX);
            job.metered.price_ucr = price.min(job.ticket.price_max_ucr);
        }
    }
    claim
}
