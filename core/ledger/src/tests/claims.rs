//! A provider without its payer: what it can claim, when it is paid, and what refutes it.

use piecework_model::{
    Ack, Code, Credits, Digest, Domain, LeaseId, Limits, Receipt, Seal, Sealed, SecretKey, Ticket, leaf, merkle_proof,
};

use super::{
    jobs,
    leases::{close, delegate, expire},
    world::*,
};
use crate::*;

/// Seals of the tickets that the payer made, batch by batch.
pub fn claim_of(world: &World, lease: LeaseId, provider: Who, batches: &[&[Job]]) -> Claim {
    let batch = |jobs: &&[Job]| {
        let claimed = |job: &Job| BatchTicket::Claimed(Box::new(claimed(lease, provider, job)));
        let mut batch = TicketBatch {
            payer: Who::Controller.public(),
            signature: piecework_model::Signature([0; 64]),
            tickets: jobs.iter().map(claimed).collect(),
        };
        seal_batch(world, &mut batch, (lease, provider), &Who::Controller.key());
        batch
    };
    let mut claim = Claim {
        lease,
        batches: batches.iter().map(batch).collect(),
        acks: None,
    };
    seal_claimed_acks(world, &mut claim, provider, &Who::Mailbox.key());
    claim
}

pub fn seal_batch(world: &World, batch: &mut TicketBatch, (lease, provider): (LeaseId, Who), key: &SecretKey) {
    let leaf = |ticket: &BatchTicket| match ticket {
        BatchTicket::Claimed(job) => job.ticket.leaf(),
        BatchTicket::Other(leaf) => *leaf,
    };
    let leaves: Vec<Digest> = batch.tickets.iter().map(leaf).collect();
    let lane = (lease, provider.id());
    batch.payer = key.public();
    batch.signature = Seal::sign(key, Domain::Tickets, &world.network, lane, &leaves).signature;
}

pub fn seal_claimed_acks(world: &World, claim: &mut Claim, provider: Who, key: &SecretKey) {
    let leaves: Vec<Digest> = jobs_of(claim)
        .filter_map(|job| {
            Some(Ack {
                job: job.ticket.job,
                output: job.metered.output,
                received_at_ms: job.received_at_ms?,
            })
        })
        .map(|ack| ack.leaf())
        .collect();
    let lane = (claim.lease, provider.id());
    let seal = || Seal::sign(key, Domain::Acks, &world.network, lane, &leaves).signature;
    claim.acks = (!leaves.is_empty()).then(|| (key.public(), seal()));
}

pub fn jobs_of(claim: &Claim) -> impl Iterator<Item = &ClaimedJob> {
    let tickets = claim.batches.iter().flat_map(|batch| &batch.tickets);
    tickets.filter_map(|ticket| match ticket {
        BatchTicket::Claimed(job) => Some(&**job),
        BatchTicket::Other(_) => None,
    })
}

fn claimed(lease: LeaseId, provider: Who, job: &Job) -> ClaimedJob {
    ClaimedJob {
        ticket: ticket(lease, provider, job),
        metered: job.metered(),
        received_at_ms: job.ack.then_some(1_700_000_000_000),
    }
}

fn ticket(lease: LeaseId, provider: Who, job: &Job) -> Ticket {
    Ticket {
        lease,
        provider: provider.id(),
        sequence: job.sequence,
        job: job.id(),
        code: code(),
        input: Digest::of(b"input"),
        limits: Limits::DEFAULT,
        prices: CAPS,
        price_max_ucr: job.price_max_ucr,
        deadline_ms: 1_800_000_000_000,
        replaces: None,
    }
}

pub fn receipt(lease: LeaseId, provider: Who, job: &Job) -> Receipt {
    let metered = job.metered();
    Receipt {
        lease,
        provider: provider.id(),
        sequence: job.sequence,
        job: job.id(),
        code: code(),
        input: Digest::of(b"input"),
        output: metered.output,
        status: metered.status,
        counters: metered.counters,
        price_ucr: metered.price_ucr,
        duration_us: metered.duration_us,
    }
}

/// A member in a batch of three.
pub fn sealed<T: borsh::BorshSerialize>(
    world: &World,
    member: T,
    domain: Domain,
    (lease, provider): (LeaseId, Who),
    key: Who,
) -> Sealed<T> {
    let leaves = [Digest::of(b"before"), leaf(&member), Digest::of(b"after")];
    let lane = (lease, provider.id());
    let signature = Seal::sign(&key.key(), domain, &world.network, lane, &leaves).signature;
    Sealed {
        member,
        proof: merkle_proof(&leaves, 1).unwrap(),
        count: 3,
        signature,
    }
}

pub fn other_receipt(
    world: &World,
    (lease, provider): (LeaseId, Who),
    sequence: u64,
    other: Receipt,
    key: Who,
) -> Challenge {
    let receipt = sealed(world, other, Domain::Receipts, (lease, provider), key);
    Challenge {
        lease,
        provider: provider.id(),
        sequence,
        evidence: Evidence::OtherReceipt(Box::new(receipt)),
    }
}

/// The job of `sequence`, done by the other provider under the sequence of `again`.
pub fn replaced(world: &World, lease: LeaseId, sequence: u64, again: Job) -> Challenge {
    let mut receipt = receipt(lease, Who::OtherProvider, &again);
    receipt.job = job(sequence, 1).id();
    Challenge {
        lease,
        provider: Who::Provider.id(),
        sequence,
        evidence: Evidence::Replaced(Box::new(by_other_provider(world, lease, receipt))),
    }
}

fn by_other_provider(world: &World, lease: LeaseId, receipt: Receipt) -> Sealed<Receipt> {
    let lane = (lease, Who::OtherProvider);
    sealed(world, receipt, Domain::Receipts, lane, Who::OtherProvider)
}

pub fn pay(lease: LeaseId, sequences: &[u64]) -> Action {
    pay_lane(lease, Who::Provider, sequences)
}

pub fn pay_lane(lease: LeaseId, provider: Who, sequences: &[u64]) -> Action {
    Action::PayClaims(PayClaims {
        lease,
        provider: provider.id(),
        sequences: sequences.to_vec(),
    })
}

impl World {
    pub fn claim(&mut self, lease: LeaseId, jobs: &[Job]) -> Told {
        let claim = claim_of(self, lease, Who::Provider, &[jobs]);
        self.act(Who::Provider, Action::Claim(claim))
    }

    pub fn challenge(&mut self, challenge: Challenge) -> Told {
        self.act(Who::Controller, Action::Challenge(challenge))
    }
}

pub fn leased(budget: i128) -> (World, LeaseId) {
    let mut world = World::new();
    let lease = world.open_lease(budget);
    (world, lease)
}

#[test]
pub fn a_claim_is_paid_after_its_window_and_not_before() {
    let (mut world, lease) = leased(1_000);
    let told = world
        .claim(lease, &[job(3, 400).at_most(500).only_receipt(), job(4, 100)])
        .unwrap();
    let claims = |event: &&Event| matches!(event, Event::JobClaimed { .. });
    assert_eq!(told.iter().filter(claims).count(), 2);
    assert_eq!(
        world.lease(lease).reserved,
        Credits(500),
        "the price is kept, not the maximum"
    );
    assert_eq!(world.posted(Who::Provider), GRANT.0);
    world.pass_blocks(u64::from(WINDOW) - 1);
    refused(world.act(Who::Stranger, pay(lease, &[3, 4])), Code::ClaimNotDue);
    assert_eq!(paid(&world.act(Who::Stranger, pay(lease, &[3, 4])).unwrap()), [3, 4]);
    assert_eq!(world.posted(Who::Provider), GRANT.0 + 485);
    let after = world.lease(lease);
    assert_eq!((after.reserved, after.used), (Credits(0), Credits(500)));
    assert_eq!((after.open_jobs, after.claimed_jobs), (0, 0));
    refused(world.act(Who::Stranger, pay(lease, &[3, 4])), Code::ClaimNone);
}

#[test]
pub fn what_a_provider_claims_is_not_released() {
    let (mut world, lease) = leased(1_000);
    let ran = job(0, 100).at_most(600);
    world.act(Who::Controller, jobs::open(lease, &[ran])).unwrap();
    world.pass_blocks(u64::from(WINDOW) - 1);
    world.claim(lease, &[ran.only_receipt()]).unwrap();
    world.pass_blocks(2);
    refused(
        world.act(Who::Controller, jobs::release(lease, &[0])),
        Code::ReleaseNone,
    );
    world.pass_blocks(u64::from(WINDOW));
    assert_eq!(paid(&world.act(Who::Stranger, pay(lease, &[0])).unwrap()), [0]);
}

#[test]
pub fn a_job_is_paid_once_however_it_is_claimed_and_settled() {
    let (mut world, lease) = leased(10_000);
    world.settle(lease, &[job(0, 100)]).unwrap();
    assert_eq!(
        world.claim(lease, &[job(0, 100)]),
        Ok(vec![]),
        "settled before it was claimed"
    );
    world.claim(lease, &[job(1, 100).only_receipt()]).unwrap();
    assert_eq!(
        world.claim(lease, &[job(1, 100).only_receipt()]),
        Ok(vec![]),
        "claimed twice"
    );
    assert_eq!(
        paid(&world.settle(lease, &[job(1, 100)]).unwrap()),
        [1],
        "settled within the window"
    );
    world.pass_blocks(u64::from(WINDOW) + 1);
    refused(world.act(Who::Stranger, pay(lease, &[0, 1])), Code::ClaimNone);
    world.claim(lease, &[job(2, 100)]).unwrap();
    world.pass_blocks(u64::from(WINDOW) + 1);
    assert_eq!(paid(&world.act(Who::Stranger, pay(lease, &[2])).unwrap()), [2]);
    assert_eq!(
        world.settle(lease, &[job(2, 100)]),
        Ok(vec![]),
        "settled after the claim was paid"
    );
    assert_eq!(world.claim(lease, &[job(2, 100)]), Ok(vec![]));
    assert_eq!(world.lease(lease).used, Credits(300));
}

#[test]
fn settling_a_claim_that_has_both_papers_pays_it_at_once_and_a_receipt_alone_does_not_undo_it() {
    let (mut world, lease) = leased(10_000);
    world.claim(lease, &[job(0, 100), job(1, 100).only_receipt()]).unwrap();
    assert_eq!(paid(&world.settle(lease, &[job(0, 100)]).unwrap()), [0]);
    assert_eq!(world.settle(lease, &[job(1, 100).only_receipt()]), Ok(vec![]));
    world.pass_blocks(u64::from(WINDOW) + 1);
    assert_eq!(paid(&world.act(Who::Stranger, pay(lease, &[0, 1])).unwrap()), [1]);
}

/// Else a provider that claims too much for an acked job would send the ack again and be paid before it can be refuted.
#[test]
pub fn an_old_settlement_sent_again_does_not_cut_a_claims_window_short() {
    let (mut world, lease) = leased(10_000);
    let ack = world.settlement(lease, &[job(0, 100).at_most(500).only_ack()]);
    let ack = world.sign(Who::Controller, Action::Settle(ack));
    world.send(ack.clone()).unwrap();
    world.claim(lease, &[job(0, 500).only_receipt()]).unwrap();
    assert_eq!(world.send(ack), Ok(vec![]));
    let honest = receipt(lease, Who::Provider, &job(0, 100).at_most(500));
    let challenge = other_receipt(&world, (lease, Who::Provider), 0, honest, Who::Provider);
    world.challenge(challenge).unwrap();
    assert_eq!(world.posted(Who::Provider), GRANT.0);
}

#[test]
fn what_the_provider_sealed_for_the_payer_takes_the_place_of_what_it_claims() {
    let (mut world, lease) = leased(10_000);
    world.claim(lease, &[job(0, 400).at_most(500).only_receipt()]).unwrap();
    let told = world.settle(lease, &[job(0, 100).at_most(500)]).unwrap();
    assert_eq!(paid(&told), [0]);
    assert_eq!(world.lease(lease).used, Credits(100));
    assert_eq!(world.lease(lease).claimed_jobs, 0);
}

#[test]
fn a_settled_receipt_without_its_ack_can_be_claimed_as_it_was_settled() {
    let (mut world, lease) = leased(10_000);
    world.settle(lease, &[job(0, 100).at_most(500).only_receipt()]).unwrap();
    refused(world.claim(lease, &[job(0, 200).at_most(500)]), Code::ClaimJobMismatch);
    world.claim(lease, &[job(0, 100).at_most(500).only_receipt()]).unwrap();
    world.pass_blocks(u64::from(WINDOW) + 1);
    assert_eq!(paid(&world.act(Who::Stranger, pay(lease, &[0])).unwrap()), [0]);
}

#[test]
pub fn tickets_are_under_the_seal_of_a_payer_of_this_lane() {
    let (mut world, lease) = leased(1_000);
    let jobs: &[Job] = &[job(0, 10), job(1, 10)];
    let change: [fn(&World, &mut Claim); 4] = [
        |world, claim| {
            let lane = (claim.lease, Who::Provider);
            seal_batch(world, &mut claim.batches[0], lane, &Who::Provider.key());
        },
        |_, claim| claim.batches[0].tickets.swap(0, 1),
        |_, claim| claim.batches[0].signature.0[9] ^= 1,
        |_, claim| claim.batches[0].tickets.push(BatchTicket::Other(Digest::of(b"more"))),
    ];
    for (nth, change) in change.into_iter().enumerate() {
        let mut claim = claim_of(&world, lease, Who::Provider, &[jobs]);
        change(&world, &mut claim);
        let code = [Code::ClaimBadTickets, Code::SettleNotAscending][usize::from(nth == 1)];
        refused(world.act(Who::Provider, Action::Claim(claim)), code);
    }
    let elsewhere = claim_of(&world, lease, Who::OtherProvider, &[jobs]);
    refused(world.act(Who::Provider, Action::Claim(elsewhere)), Code::ClaimOtherLane);
}

#[test]
fn a_batch_may_hold_tickets_that_are_not_claimed() {
    let (mut world, lease) = leased(1_000);
    let mut claim = claim_of(
        &world,
        lease,
        Who::Provider,
        &[&[job(0, 10), job(1, 10)], &[job(5, 10)]],
    );
    let other = match &claim.batches[0].tickets[0] {
        BatchTicket::Claimed(job) => BatchTicket::Other(job.ticket.leaf()),
        BatchTicket::Other(_) => unreachable!(),
    };
    claim.batches[0].tickets[0] = other;
    seal_claimed_acks(&world, &mut claim, Who::Provider, &Who::Mailbox.key());
    world.act(Who::Provider, Action::Claim(claim)).unwrap();
    assert_eq!(world.lane(lease, Who::Provider).taken, [(1, 2), (5, 6)]);
}

#[test]
pub fn acks_of_a_claim_are_a_mailboxs() {
    let (mut world, lease) = leased(1_000);
    let mut claim = claim_of(&world, lease, Who::Provider, &[&[job(0, 10)]]);
    seal_claimed_acks(&world, &mut claim, Who::Provider, &Who::Thief.key());
    refused(
        world.act(Who::Provider, Action::Claim(claim.clone())),
        Code::ClaimBadAcks,
    );
    claim.acks = None;
    refused(world.act(Who::Provider, Action::Claim(claim)), Code::ClaimBadAcks);
}

#[test]
pub fn a_claim_stays_within_ticket_caps_and_budget() {
    let (mut world, lease) = leased(1_000);
    refused(
        world.claim(lease, &[job(0, 501).at_most(500)]),
        Code::ClaimPriceAboveTicket,
    );
    let mut claim = claim_of(&world, lease, Who::Provider, &[&[job(0, 100)]]);
    let BatchTicket::Claimed(claimed) = &mut claim.batches[0].tickets[0] else {
        unreachable!()
    };
    claimed.ticket.prices.cpu_ucr_per_s = 900_000;
    seal_batch(
        &world,
        &mut claim.batches[0],
        (lease, Who::Provider),
        &Who::Controller.key(),
    );
    refused(
        world.act(Who::Provider, Action::Claim(claim)),
        Code::ClaimPriceAboveTicket,
    );
    refused(world.claim(lease, &[job(0, 600), job(1, 401)]), Code::SettleBudget);
}

#[test]
fn cheat_14_claiming_without_proof_the_original_succeeds_ours_refused_with_bad_tickets() {
    let (mut world, lease) = leased(1_000);
    let mut claim = claim_of(&world, lease, Who::Provider, &[&[job(0, 1_000)]]);
    seal_batch(&world, &mut claim.batches[0], (lease, Who::Provider), &Who::Thief.key());
    refused(world.act(Who::Provider, Action::Claim(claim)), Code::ClaimBadTickets);
}

#[test]
pub fn cheat_15_closing_before_the_claim_the_original_succeeds_ours_drains_and_pays() {
    let (mut world, lease) = leased(1_000);
    world.act(Who::Developer, close(lease)).unwrap();
    world.pass_blocks(u64::from(WINDOW) - 1);
    world.claim(lease, &[job(0, 300).only_receipt()]).unwrap();
    refused(world.claim(lease, &[job(1, 300).only_receipt()]), Code::LeaseClosed);
    refused(world.act(Who::Developer, expire(lease)), Code::LeaseClaimsPending);
    world.pass_blocks(u64::from(WINDOW));
    assert_eq!(paid(&world.act(Who::Developer, pay(lease, &[0])).unwrap()), [0]);
    world.act(Who::Developer, expire(lease)).unwrap();
    assert_eq!(world.held(Who::Developer), 0);
    assert_eq!(world.posted(Who::Developer), GRANT.0 - 300);
    refused(world.act(Who::Developer, pay(lease, &[0])), Code::LeaseClosed);
}

#[test]
pub fn taking_the_payer_away_takes_no_finished_work_with_it() {
    let (mut world, lease) = leased(1_000);
    world
        .act(Who::Developer, delegate(lease, Who::Controller, false))
        .unwrap();
    world.pass_blocks(u64::from(WINDOW) - 1);
    world.claim(lease, &[job(0, 300)]).unwrap();
    refused(world.claim(lease, &[job(1, 300)]), Code::ClaimBadTickets);
}

#[test]
fn a_lease_remembers_no_more_former_payers_than_payers() {
    let (mut world, lease) = leased(1_000);
    let until = world.height + 100;
    let full = vec![(Who::Thief.public(), until); KEYS_PER_LEASE_MAX];
    world.change_lease(lease, |lease| lease.former_payers = full);
    let remove = delegate(lease, Who::Controller, false);
    refused(world.act(Who::Developer, remove.clone()), Code::LeaseTooManyPayers);
    world.pass_blocks(101);
    world.act(Who::Developer, remove).unwrap();
    assert_eq!(world.lease(lease).former_payers.len(), 1);
}

#[test]
pub fn a_receipt_that_says_something_else_refutes_a_claim() {
    let (mut world, lease) = leased(1_000);
    world.claim(lease, &[job(0, 400).at_most(500)]).unwrap();
    let honest = receipt(lease, Who::Provider, &job(0, 100).at_most(500));
    let challenge = other_receipt(&world, (lease, Who::Provider), 0, honest.clone(), Who::Provider);
    refused(
        world.act(Who::Thief, Action::Challenge(challenge.clone())),
        Code::SettleNotPayer,
    );
    let told = world.challenge(challenge.clone()).unwrap();
    assert!(matches!(told[..], [Event::JobRefuted { sequence: 0, .. }]));
    assert_eq!(world.lease(lease).reserved, Credits(0));
    assert_eq!(
        world.claim(lease, &[job(0, 400).at_most(500)]),
        Ok(vec![]),
        "once refuted, never paid"
    );
    refused(world.challenge(challenge), Code::ClaimNone);
    world.pass_blocks(u64::from(WINDOW) + 1);
    refused(world.act(Who::Provider, pay(lease, &[0])), Code::ClaimNone);
    assert_eq!(world.posted(Who::Provider), GRANT.0);
}

#[test]
pub fn what_nobody_else_signed_refutes_nothing() {
    let (mut world, lease) = leased(1_000);
    world.claim(lease, &[job(0, 400).at_most(500)]).unwrap();
    let same = receipt(lease, Who::Provider, &job(0, 400));
    let other = receipt(lease, Who::Provider, &job(0, 100));
    let elsewhere = receipt(lease, Who::Provider, &job(1, 100));
    for (receipt, key) in [
        (same, Who::Provider),
        (other.clone(), Who::Controller),
        (elsewhere, Who::Provider),
    ] {
        let challenge = other_receipt(&world, (lease, Who::Provider), 0, receipt, key);
        refused(world.challenge(challenge), Code::ChallengeNotShown);
    }
    let mut long = other_receipt(&world, (lease, Who::Provider), 0, other.clone(), Who::Provider);
    let Evidence::OtherReceipt(receipt) = &mut long.evidence else {
        unreachable!()
    };
    receipt.proof.steps = vec![receipt.proof.steps[0].clone(); 33];
    refused(world.challenge(long), Code::ChallengeNotShown);
    let late = other_receipt(&world, (lease, Who::Provider), 0, other, Who::Provider);
    world.pass_blocks(u64::from(WINDOW));
    refused(world.challenge(late), Code::ClaimTooLate);
}

#[test]
pub fn a_job_that_was_done_and_paid_elsewhere_is_not_paid_to_who_did_not_deliver_it() {
    let (mut world, lease) = leased(1_000);
    let again = job(7, 100);
    world.claim(lease, &[job(0, 400).only_receipt()]).unwrap();
    let challenge = replaced(&world, lease, 0, again);
    refused(world.challenge(challenge.clone()), Code::ChallengeNotPaid);
    let settle = settlement(&world.network, lease, Who::OtherProvider, &[again]);
    world.act(Who::Controller, Action::Settle(settle)).unwrap();
    let told = world.challenge(challenge).unwrap();
    assert!(matches!(told[..], [Event::JobRefuted { sequence: 0, .. }]));
}

#[test]
fn a_job_that_one_provider_did_under_two_tickets_is_paid_under_one() {
    let (mut world, lease) = leased(1_000);
    world.claim(lease, &[job(0, 400).only_receipt()]).unwrap();
    let again = job(7, 100);
    world.settle(lease, &[again]).unwrap();
    let mut second = receipt(lease, Who::Provider, &again);
    second.job = job(0, 1).id();
    let shown = sealed(&world, second, Domain::Receipts, (lease, Who::Provider), Who::Provider);
    let mut challenge = replaced(&world, lease, 0, again);
    challenge.evidence = Evidence::Replaced(Box::new(shown));
    world.challenge(challenge).unwrap();
}

#[test]
pub fn a_replacement_is_the_same_work_under_another_ticket() {
    let (mut world, lease) = leased(1_000);
    world.claim(lease, &[job(0, 300).only_receipt(), job(1, 300)]).unwrap();
    let again = job(7, 100);
    let settle = settlement(&world.network, lease, Who::OtherProvider, &[again]);
    world.act(Who::Controller, Action::Settle(settle)).unwrap();
    let change: [fn(&mut Receipt); 4] = [
        |receipt| receipt.lease.0[0] ^= 1,
        |receipt| receipt.job.0[0] ^= 1,
        |receipt| receipt.code = Digest::of(b"other code"),
        |receipt| receipt.input = Digest::of(b"other input"),
    ];
    for change in change {
        let mut other = receipt(lease, Who::OtherProvider, &again);
        other.job = job(0, 1).id();
        change(&mut other);
        let mut challenge = replaced(&world, lease, 0, again);
        challenge.evidence = Evidence::Replaced(Box::new(by_other_provider(&world, lease, other)));
        refused(world.challenge(challenge), Code::ChallengeNotShown);
    }
    let mut forged = replaced(&world, lease, 0, again);
    let Evidence::Replaced(shown) = &mut forged.evidence else {
        unreachable!()
    };
    shown.member.output = Digest::of(b"forged");
    refused(world.challenge(forged), Code::ChallengeNotShown);
    let mut own = replaced(&world, lease, 0, again);
    let lane = (lease, Who::Provider);
    let itself = sealed(
        &world,
        receipt(lease, Who::Provider, &job(0, 300)),
        Domain::Receipts,
        lane,
        Who::Provider,
    );
    own.evidence = Evidence::Replaced(Box::new(itself));
    refused(world.challenge(own), Code::ChallengeNotShown);
    let acknowledged = replaced(&world, lease, 1, again);
    refused(world.challenge(acknowledged), Code::ChallengeAcknowledged);
    world.challenge(replaced(&world, lease, 0, again)).unwrap();
}
