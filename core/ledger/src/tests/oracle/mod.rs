//! What random histories must come to, reckoned without the contracts: papers, payments, holds and balances.

mod claims;
mod forgeries;

use std::collections::BTreeMap;

use piecework_model::{Code, Credits, LeaseId};
use proptest::prelude::*;

use self::{
    claims::{ClaimOp, claim_op},
    forgeries::{Forgery, forgery},
};
use super::{
    accounts::transfer,
    committee::pay_peers,
    jobs,
    leases::{close, expire, top_up},
    offers::offer,
    world::*,
};
use crate::*;

const PROVIDERS: [Who; 2] = [Who::Provider, Who::OtherProvider];
/// Which papers of which job an honest settlement carries.
#[derive(Clone, Copy, Debug)]
pub struct Papers {
    sequence: u64,
    receipt: bool,
    ack: bool,
}

#[derive(Clone, Debug)]
pub enum Op {
    OpenLease(u16),
    TopUp(u8, u16),
    Close(u8),
    Expire(u8),
    PassBlocks(u8),
    Settle(u8, bool, Vec<Papers>),
    OpenJobs(u8, bool, Vec<u64>),
    Transfer(bool, u32),
    PutOffer,
    DropOffer,
    Claim(u8, bool, ClaimOp),
    PayPeers,
    Forge(u8, Forgery),
    Replay(u8),
}

pub fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..50).prop_map(|mut ops| {
        ops.insert(0, Op::OpenLease(3_000));
        ops
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => (1u16..3_000).prop_map(Op::OpenLease),
        1 => (any::<u8>(), 1u16..500).prop_map(|(lease, amount)| Op::TopUp(lease, amount)),
        1 => any::<u8>().prop_map(Op::Close),
        1 => any::<u8>().prop_map(Op::Expire),
        1 => (1u8..12).prop_map(Op::PassBlocks),
        10 => (any::<u8>(), any::<bool>(), papers()).prop_map(|(lease, lane, papers)| Op::Settle(lease, lane, papers)),
        2 => (any::<u8>(), any::<bool>(), prop::collection::btree_set(0u64..40, 1..4))
            .prop_map(|(lease, lane, sequences)| Op::OpenJobs(lease, lane, sequences.into_iter().collect())),
        2 => (any::<bool>(), 0u32..600_000).prop_map(|(back, amount)| Op::Transfer(back, amount)),
        1 => Just(Op::PutOffer),
        1 => Just(Op::DropOffer),
        6 => (any::<u8>(), any::<bool>(), claim_op()).prop_map(|(lease, lane, op)| Op::Claim(lease, lane, op)),
        1 => Just(Op::PayPeers),
        4 => (any::<u8>(), forgery()).prop_map(|(lease, forgery)| Op::Forge(lease, forgery)),
        4 => any::<u8>().prop_map(Op::Replay),
    ]
}

fn papers() -> impl Strategy<Value = Vec<Papers>> {
    prop::collection::btree_map(0u64..40, 0u8..4, 1..6).prop_map(|jobs| {
        let papers = |(sequence, which): (u64, u8)| Papers {
            sequence,
            receipt: which != 1,
            ack: which != 2,
        };
        jobs.into_iter().map(papers).collect()
    })
}

/// The one job that has this sequence: honest parties never issue two.
fn honest(sequence: u64) -> Job {
    let price = 13 + sequence * 7 % 90;
    job(sequence, price).at_most(price + sequence % 30)
}

#[derive(Clone, Copy, Default)]
struct Known {
    receipt: bool,
    ack: bool,
    claimed_until: Option<u64>,
    paid: bool,
    refuted: bool,
}

impl Known {
    /// What is done with takes no papers any more.
    fn is_done(self) -> bool {
        self.paid || self.refuted
    }
}

type Jobs = BTreeMap<(Who, u64), Known>;

#[derive(Clone)]
struct KnownLease {
    id: LeaseId,
    budget: i128,
    drains_until: Option<u64>,
    closed: bool,
    jobs: Jobs,
}

impl KnownLease {
    fn claims(&self) -> usize {
        self.jobs.values().filter(|known| known.claimed_until.is_some()).count()
    }
}

fn paid_sum(jobs: &Jobs, only: Option<Who>) -> i128 {
    let counts = |who: &Who| only.is_none_or(|only| only == *who);
    jobs.iter()
        .filter(|((who, _), known)| known.paid && counts(who))
        .map(|((_, sequence), _)| i128::from(honest(*sequence).price_ucr))
        .sum()
}

fn drawn(jobs: &Jobs) -> i128 {
    jobs.iter()
        .filter(|(_, known)| !known.refuted)
        .map(|((_, sequence), known)| {
            let job = honest(*sequence);
            i128::from(if known.receipt {
                job.price_ucr
            } else {
                job.price_max_ucr
            })
        })
        .sum()
}

/// A world, and what it must look like.
pub struct Oracle {
    world: World,
    leases: Vec<KnownLease>,
    transferred: i128,
    has_offer: bool,
    /// Of the peers' pool, to the controller, who owns the only peer.
    peers_paid: i128,
    accepted: Vec<SignedTransaction>,
}

impl Oracle {
    /// Plays the history; panics where the ledger differs from what it must be.
    pub fn play(ops: &[Op]) {
        let mut genesis = genesis();
        genesis.params.lane_intervals_max = 1_000;
        let mut oracle = Self {
            world: World::of(&genesis),
            leases: Vec::new(),
            transferred: 0,
            has_offer: false,
            peers_paid: 0,
            accepted: Vec::new(),
        };
        for op in ops {
            oracle.step(op);
            oracle.verify();
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::OpenLease(budget) => self.open_lease(i128::from(*budget)),
            Op::TopUp(lease, amount) => self.top_up(*lease, i128::from(*amount)),
            Op::Close(lease) => self.close(*lease),
            Op::Expire(lease) => self.expire(*lease),
            Op::PassBlocks(blocks) => self.world.pass_blocks(u64::from(*blocks)),
            Op::Settle(lease, lane, papers) => self.settle(*lease, *lane, papers),
            Op::OpenJobs(lease, lane, sequences) => self.open_jobs(*lease, *lane, sequences),
            Op::Transfer(back, amount) => self.transfer(*back, i128::from(*amount)),
            Op::PutOffer => self.put_offer(),
            Op::DropOffer => self.drop_offer(),
            Op::Claim(lease, lane, op) => self.claim_step(*lease, *lane, op),
            Op::PayPeers => self.pay_peers(),
            Op::Forge(lease, forgery) => self.forge(*lease, *forgery),
            Op::Replay(nth) => self.replay(*nth),
        }
    }

    fn send(&mut self, who: Who, action: Action, expect: Result<(), Code>) -> Vec<Event> {
        let signed = self.world.sign(who, action);
        match (self.world.send(signed.clone()), expect) {
            (Ok(events), Ok(())) => {
                self.accepted.push(signed);
                events
            }
            (told, Err(code)) => {
                refused(told, code);
                Vec::new()
            }
            (told, Ok(())) => panic!("{told:?} instead of acceptance"),
        }
    }

    fn nth(&self, lease: u8) -> usize {
        usize::from(lease) % self.leases.len()
    }

    fn free(&self, who: Who) -> i128 {
        self.world.account(who).available().0
    }

    fn next_height(&self) -> u64 {
        self.world.height + 1
    }

    fn open_lease(&mut self, budget: i128) {
        let nonce = self.world.account(Who::Developer).nonce;
        let covered = self.free(Who::Developer) >= budget;
        let expect = if covered {
            Ok(())
        } else {
            Err(Code::LeaseInsufficientFunds)
        };
        self.send(Who::Developer, Action::OpenLease(lease_terms(budget)), expect);
        if covered {
            self.leases.push(KnownLease {
                id: LeaseId::of(Who::Developer.id(), nonce),
                budget,
                drains_until: None,
                closed: false,
                jobs: Jobs::new(),
            });
        }
    }

    /// Why nothing new can be put into the lease, if so.
    fn not_open(lease: &KnownLease) -> Result<(), Code> {
        match (lease.closed, lease.drains_until) {
            (true, _) => Err(Code::LeaseClosed),
            (false, Some(_)) => Err(Code::LeaseDraining),
            (false, None) => Ok(()),
        }
    }

    fn top_up(&mut self, lease: u8, amount: i128) {
        let nth = self.nth(lease);
        let covered = self.free(Who::Developer) >= amount;
        let expect = Self::not_open(&self.leases[nth]).and(if covered {
            Ok(())
        } else {
            Err(Code::LeaseInsufficientFunds)
        });
        self.send(Who::Developer, top_up(self.leases[nth].id, amount), expect);
        if expect.is_ok() {
            self.leases[nth].budget += amount;
        }
    }

    fn close(&mut self, lease: u8) {
        let nth = self.nth(lease);
        let expect = Self::not_open(&self.leases[nth]);
        self.send(Who::Developer, close(self.leases[nth].id), expect);
        if expect.is_ok() {
            self.leases[nth].drains_until = Some(self.world.height + u64::from(WINDOW));
        }
    }

    fn expire(&mut self, lease: u8) {
        let (nth, height) = (self.nth(lease), self.next_height());
        let expect = match (self.leases[nth].closed, self.leases[nth].drains_until) {
            (true, _) => Err(Code::LeaseClosed),
            (false, None) => Err(Code::LeaseNotDraining),
            (false, Some(until)) if height <= until => Err(Code::LeaseStillDraining),
            (false, Some(_)) if self.leases[nth].claims() > 0 => Err(Code::LeaseClaimsPending),
            (false, Some(_)) => Ok(()),
        };
        self.send(Who::Stranger, expire(self.leases[nth].id), expect);
        self.leases[nth].closed |= expect.is_ok();
    }

    fn settle(&mut self, lease: u8, lane: bool, papers: &[Papers]) {
        let (nth, provider) = (self.nth(lease), PROVIDERS[usize::from(lane)]);
        let jobs: Vec<Job> = papers
            .iter()
            .map(|papers| Job {
                receipt: papers.receipt,
                ack: papers.ack,
                ..honest(papers.sequence)
            })
            .collect();
        let after = with_papers(&self.leases[nth].jobs, provider, papers);
        let expect = self.settlement_expectation(nth, &after);
        let settle = settlement(&self.world.network, self.leases[nth].id, provider, &jobs);
        let events = self.send(Who::Controller, Action::Settle(settle), expect);
        if expect.is_ok() {
            let before = std::mem::replace(&mut self.leases[nth].jobs, after);
            let now_paid = |sequence: &u64| {
                let key = (provider, *sequence);
                self.leases[nth].jobs[&key].paid && !before.get(&key).is_some_and(|known| known.paid)
            };
            let expected: Vec<u64> = papers.iter().map(|papers| papers.sequence).filter(now_paid).collect();
            assert_eq!(paid(&events), expected);
        }
    }

    fn settlement_expectation(&self, nth: usize, after: &Jobs) -> Result<(), Code> {
        let lease = &self.leases[nth];
        let over = lease.drains_until.is_some_and(|until| self.next_height() > until);
        if lease.closed || over {
            Err(Code::LeaseClosed)
        } else if drawn(after) > lease.budget {
            Err(Code::SettleBudget)
        } else {
            Ok(())
        }
    }

    fn open_jobs(&mut self, lease: u8, lane: bool, sequences: &[u64]) {
        let (nth, provider) = (self.nth(lease), PROVIDERS[usize::from(lane)]);
        let mut after = self.leases[nth].jobs.clone();
        for sequence in sequences {
            after.entry((provider, *sequence)).or_default();
        }
        let expect = Self::not_open(&self.leases[nth]).and_then(|()| self.settlement_expectation(nth, &after));
        let jobs: Vec<Job> = sequences.iter().map(|sequence| honest(*sequence)).collect();
        let mut action = jobs::open(self.leases[nth].id, &jobs);
        if let Action::OpenJobs(open) = &mut action {
            open.provider = provider.id();
        }
        self.send(Who::Controller, action, expect);
        if expect.is_ok() {
            self.leases[nth].jobs = after;
        }
    }

    /// From the developer to the thief, or back.
    fn transfer(&mut self, back: bool, amount: i128) {
        let (from, to, signed) = match back {
            false => (Who::Developer, Who::Thief, amount),
            true => (Who::Thief, Who::Developer, -amount),
        };
        let expect = match amount {
            0 => Err(Code::TransferNotPositive),
            _ if self.free(from) < amount => Err(Code::TransferInsufficient),
            _ => Ok(()),
        };
        self.send(from, transfer(to, amount), expect);
        if expect.is_ok() {
            self.transferred += signed;
        }
    }

    fn put_offer(&mut self) {
        let put = offer(self.next_height() + 1);
        self.send(Who::Provider, Action::PutOffer(put), Ok(()));
        self.has_offer = true;
    }

    fn drop_offer(&mut self) {
        let expect = if self.has_offer {
            Ok(())
        } else {
            Err(Code::OfferUnknown)
        };
        self.send(Who::Provider, Action::DropOffer(DropOffer {}), expect);
        self.has_offer = false;
    }

    fn pay_peers(&mut self) {
        let due = self.world.pools().peers.0;
        let expect = if due > 0 { Ok(()) } else { Err(Code::PeersNothingToPay) };
        self.send(Who::Thief, pay_peers(), expect);
        self.peers_paid += due;
    }

    /// Whatever was accepted once: sent again it changes nothing.
    fn replay(&mut self, nth: u8) {
        let Some(signed) = self
            .accepted
            .get(usize::from(nth) % self.accepted.len().max(1))
            .cloned()
        else {
            return;
        };
        let before = self.world.state.clone();
        self.world.send(signed).ok();
        assert_eq!(self.world.state, before, "a replay changed something");
    }

    /// Every balance is what the papers say.
    fn verify(&self) {
        let world = &self.world;
        let paid: i128 = self.leases.iter().map(|lease| paid_sum(&lease.jobs, None)).sum();
        assert_eq!(world.posted(Who::Developer), GRANT.0 - paid - self.transferred);
        assert_eq!(world.posted(Who::Thief), GRANT.0 + self.transferred);
        let still_held = |lease: &&KnownLease| !lease.closed;
        let held = self.leases.iter().filter(still_held);
        let held: i128 = held.map(|lease| lease.budget - paid_sum(&lease.jobs, None)).sum();
        assert_eq!(world.held(Who::Developer), held);
        assert_eq!(world.held(Who::Provider), if self.has_offer { DEPOSIT.0 } else { 0 });
        self.verify_commissions();
        assert_eq!(world.supply(), GRANT.0 * Who::GRANTED.len() as i128);
    }

    fn verify_commissions(&self) {
        let (mut controller, mut peers, mut insurance) = (0, 0, 0);
        for provider in PROVIDERS {
            let mut earned = 0;
            for lease in &self.leases {
                let paid = paid_sum(&lease.jobs, Some(provider));
                let commission = paid * i128::from(COMMISSION_PPM) / 1_000_000;
                earned += paid - commission;
                controller += (commission + 1) / 4;
                peers += commission / 2;
                insurance += commission - commission / 2 - (commission + 1) / 4;
            }
            assert_eq!(self.world.posted(provider), GRANT.0 + earned);
        }
        assert_eq!(
            self.world.posted(Who::Controller),
            GRANT.0 + controller + self.peers_paid
        );
        let (peers, insurance) = (Credits(peers - self.peers_paid), Credits(insurance));
        assert_eq!(self.world.pools(), Pools { peers, insurance });
    }
}

fn with_papers(jobs: &Jobs, provider: Who, papers: &[Papers]) -> Jobs {
    let mut after = jobs.clone();
    for papers in papers {
        let known = after.entry((provider, papers.sequence)).or_default();
        if !known.is_done() {
            known.receipt |= papers.receipt;
            known.ack |= papers.ack;
            let claimed = known.claimed_until.is_some();
            known.paid = known.receipt && known.ack && (!claimed || (papers.receipt && papers.ack));
        }
        if known.is_done() {
            known.claimed_until = None;
        }
    }
    after
}
