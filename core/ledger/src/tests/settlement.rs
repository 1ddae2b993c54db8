//! Who is paid what, when and how often.

use piecework_model::{Code, Credits, Digest};

use super::{accounts::owned, world::*};
use crate::*;

#[test]
fn a_payment_moves_from_the_hold_to_the_provider_less_the_commission() {
    let mut world = World::new();
    let lease = world.open_lease(100_000);
    world.settle(lease, &[job(0, 1_000)]).unwrap();
    assert_eq!(
        (world.posted(Who::Developer), world.held(Who::Developer)),
        (GRANT.0 - 1_000, 99_000)
    );
    assert_eq!(world.posted(Who::Provider), GRANT.0 + 970);
    assert_eq!(world.posted(Who::Controller), GRANT.0 + 7);
    let (peers, insurance) = (Credits(15), Credits(8));
    assert_eq!(world.pools(), Pools { peers, insurance });
}

#[test]
fn settling_twice_pays_once_in_one_block_and_across_blocks() {
    let mut world = World::new();
    let lease = world.open_lease(100_000);
    let settle = Action::Settle(world.settlement(lease, &[job(0, 1_000), job(1, 500)]));
    let signed = world.sign(Who::Controller, settle);
    let told = world.block(&[signed.clone(), signed.clone()]);
    assert_eq!(paid(told[0].as_ref().unwrap()), [0, 1]);
    assert_eq!(told[1], Ok(vec![]));
    let after = world.state.clone();
    assert_eq!(world.send(signed), Ok(vec![]));
    assert_eq!(world.state, after);
}

#[test]
fn a_batch_that_repeats_some_jobs_pays_the_others() {
    let mut world = World::new();
    let lease = world.open_lease(100_000);
    world.settle(lease, &[job(5, 100), job(7, 100)]).unwrap();
    assert_eq!(
        paid(&world.settle(lease, &[job(5, 100), job(6, 100), job(7, 100)]).unwrap()),
        [6]
    );
    assert_eq!(world.lane(lease, Who::Provider).taken, [(5, 8)]);
    assert_eq!(world.lease(lease).used, Credits(300));
}

#[test]
fn a_taken_sequence_cannot_be_used_again_with_another_job() {
    let mut world = World::new();
    let lease = world.open_lease(100_000);
    world.settle(lease, &[job(0, 100)]).unwrap();
    assert_eq!(world.settle(lease, &[job(0, 50_000)]), Ok(vec![]));
    assert_eq!(world.posted(Who::Developer), GRANT.0 - 100);
}

#[test]
fn lanes_of_one_lease_do_not_share_sequences() {
    let mut world = World::new();
    let lease = world.open_lease(100_000);
    world.settle(lease, &[job(0, 100)]).unwrap();
    let other = settlement(&world.network, lease, Who::OtherProvider, &[job(0, 100)]);
    assert_eq!(paid(&world.act(Who::Controller, Action::Settle(other)).unwrap()), [0]);
    assert_eq!(world.posted(Who::OtherProvider), GRANT.0 + 97);
}

#[test]
fn one_receipt_cannot_be_used_on_another_lane_or_lease_or_network() {
    let mut world = World::new();
    let (lease, second) = (world.open_lease(1_000), world.open_lease(1_000));
    let settle = world.settlement(lease, &[job(0, 100)]);
    for change in [
        |settle: &mut Settle, _| settle.provider = Who::OtherProvider.id(),
        |settle: &mut Settle, second| settle.lease = second,
    ] {
        let mut stolen = settle.clone();
        change(&mut stolen, second);
        refused(
            world.act(Who::Controller, Action::Settle(stolen)),
            Code::SettleBadReceipts,
        );
    }
    let mut other = genesis();
    other.created_at_ms += 1;
    let elsewhere = settlement(&other.network_id(), lease, Who::Provider, &[job(0, 100)]);
    refused(
        world.act(Who::Controller, Action::Settle(elsewhere)),
        Code::SettleBadReceipts,
    );
}

#[test]
fn every_field_of_a_receipt_is_under_the_providers_seal() {
    let mut world = World::new();
    let lease = world.open_lease(100_000);
    let change: [fn(&mut SettledJob); 8] = [
        |job| job.sequence += 1,
        |job| job.job.0[0] ^= 1,
        |job| job.input.0[0] ^= 1,
        |job| job.metered.as_mut().unwrap().output.0[0] ^= 1,
        |job| job.metered.as_mut().unwrap().status = piecework_model::JobStatus::Failed,
        |job| job.metered.as_mut().unwrap().counters.cpu_us += 1,
        |job| job.metered.as_mut().unwrap().price_ucr -= 1,
        |job| job.metered.as_mut().unwrap().duration_us += 1,
    ];
    for change in change {
        let mut settle = world.settlement(lease, &[job(0, 100)]);
        change(&mut settle.jobs[0]);
        refused(
            world.act(Who::Controller, Action::Settle(settle)),
            Code::SettleBadReceipts,
        );
    }
    let mut settle = world.settlement(lease, &[job(0, 100)]);
    settle.codes[0] = Digest::of(b"other code");
    refused(
        world.act(Who::Controller, Action::Settle(settle)),
        Code::SettleBadReceipts,
    );
}

#[test]
fn a_seal_is_of_one_kind() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    let mut settle = world.settlement(lease, &[job(0, 100)]);
    let lane = (settle.lease, settle.provider);
    for domain in [piecework_model::Domain::Acks, piecework_model::Domain::Tickets] {
        let leaves = receipt_leaves(&settle);
        let seal = piecework_model::Seal::sign(&Who::Provider.key(), domain, &world.network, lane, &leaves);
        settle.receipts = Some(seal.signature);
        refused(
            world.act(Who::Controller, Action::Settle(settle.clone())),
            Code::SettleBadReceipts,
        );
    }
}

#[test]
fn a_rotated_provider_key_seals_from_then_on() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    let mut settle = world.settlement(lease, &[job(0, 100)]);
    let rotate = super::accounts::rotation(&world, Who::Provider, Who::Stranger);
    world.act(Who::Provider, Action::RotateKey(rotate)).unwrap();
    refused(
        world.act(Who::Controller, Action::Settle(settle.clone())),
        Code::SettleBadReceipts,
    );
    settle.receipts = seal_receipts(&world.network, &settle, &Who::Stranger.key());
    assert_eq!(paid(&world.act(Who::Controller, Action::Settle(settle)).unwrap()), [0]);
}

#[test]
fn another_mailbox_can_seal_the_acks() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    world.change_lease(lease, |lease| lease.mailboxes = vec![Who::Mailbox.public()]);
    let jobs = [job(0, 100), job(1, 100).only_receipt(), job(2, 100)];
    let mut settle = world.settlement(lease, &jobs);
    refused(
        world.act(Who::Controller, Action::Settle(settle.clone())),
        Code::SettleBadAcks,
    );
    settle.acks = Some(seal_acks(&world.network, &settle, &Who::Thief.key(), &jobs));
    refused(
        world.act(Who::Controller, Action::Settle(settle.clone())),
        Code::SettleBadAcks,
    );
    settle.acks.as_mut().unwrap().0 = Who::Mailbox.public();
    refused(
        world.act(Who::Controller, Action::Settle(settle.clone())),
        Code::SettleBadAcks,
    );
    settle.acks = Some(seal_acks(&world.network, &settle, &Who::Mailbox.key(), &jobs));
    assert_eq!(
        paid(&world.act(Who::Controller, Action::Settle(settle)).unwrap()),
        [0, 2]
    );

    let late = [job(1, 100).only_ack()];
    let mut settle = world.settlement(lease, &late);
    settle.acks = Some(seal_acks(&world.network, &settle, &Who::Mailbox.key(), &late));
    let told = world.act(Who::Controller, Action::Settle(settle.clone()));
    assert_eq!(paid(&told.unwrap()), [1]);
    assert_eq!(world.act(Who::Controller, Action::Settle(settle)), Ok(vec![]));
}

#[test]
fn an_ack_of_another_output_pays_nothing() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    world.change_lease(lease, |lease| lease.mailboxes = vec![Who::Mailbox.public()]);
    let mut settle = world.settlement(lease, &[job(0, 100)]);
    settle.acks = Some(seal_acks(&world.network, &settle, &Who::Mailbox.key(), &[job(1, 100)]));
    refused(world.act(Who::Controller, Action::Settle(settle)), Code::SettleBadAcks);
}

#[test]
fn the_first_receipt_of_a_job_stands() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    world.settle(lease, &[job(0, 100).at_most(500).only_receipt()]).unwrap();
    refused(
        world.settle(lease, &[job(0, 200).at_most(500)]),
        Code::SettleJobMismatch,
    );
    assert_eq!(
        world.settle(lease, &[job(0, 100).at_most(500).only_receipt()]),
        Ok(vec![])
    );
    assert_eq!(paid(&world.settle(lease, &[job(0, 100).at_most(500)]).unwrap()), [0]);
}

#[test]
fn a_settlement_over_the_budget_changes_nothing_at_all() {
    let mut world = World::new();
    let lease = world.open_lease(250);
    let before = world.state.clone();
    refused(
        world.settle(lease, &[job(0, 100), job(1, 100), job(2, 51)]),
        Code::SettleBudget,
    );
    assert_eq!(world.state, before);
    world.settle(lease, &[job(0, 100), job(1, 100), job(2, 50)]).unwrap();
    assert_eq!(world.held(Who::Developer), 0);
}

#[test]
fn papers_that_wait_keep_their_price_in_the_budget() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    world.settle(lease, &[job(0, 300).at_most(800).only_receipt()]).unwrap();
    world.settle(lease, &[job(1, 300).at_most(700).only_ack()]).unwrap();
    refused(world.settle(lease, &[job(2, 1)]), Code::SettleBudget);
    world.settle(lease, &[job(1, 300).at_most(700).only_receipt()]).unwrap();
    assert_eq!(paid(&world.settle(lease, &[job(2, 400)]).unwrap()), [2]);
}

#[test]
pub fn between_accounts_of_one_owner_there_is_no_commission() {
    let mut world = World::new();
    let register = owned(&world, Who::Developer);
    world.act(Who::Stranger, Action::Register(register)).unwrap();
    let lease = world.open_lease(100_000);
    for (provider, sequence) in [(Who::Stranger, 0), (Who::Developer, 1)] {
        let settle = settlement(&world.network, lease, provider, &[job(sequence, 10_000)]);
        world.act(Who::Controller, Action::Settle(settle)).unwrap();
    }
    assert_eq!(world.posted(Who::Stranger), 10_000);
    assert_eq!(
        (world.posted(Who::Developer), world.held(Who::Developer)),
        (GRANT.0 - 10_000, 80_000)
    );
    assert_eq!(world.pools(), Pools::default());
    for who in [Who::Developer, Who::Provider] {
        world.change_account(who, |account| account.owner = Some(Who::Thief.id()));
    }
    world.settle(lease, &[job(0, 10_000)]).unwrap();
    assert_eq!(world.pools(), Pools::default());
}

#[test]
fn commission_does_not_depend_on_how_jobs_are_batched() {
    let jobs: Vec<Job> = (0..40).map(|sequence| job(sequence, 17 + sequence % 5)).collect();
    let end = |batch: usize| {
        let mut world = World::new();
        let lease = world.open_lease(100_000);
        for jobs in jobs.chunks(batch) {
            world.settle(lease, jobs).unwrap();
        }
        (
            world.posted(Who::Provider),
            world.posted(Who::Controller),
            world.pools(),
        )
    };
    assert_eq!(end(1), end(40));
    assert_eq!(end(1), end(7));
}

#[test]
fn gaps_are_bounded_and_closing_them_makes_room() {
    let mut world = World::new();
    let lease = world.open_lease(100_000);
    let sparse: Vec<Job> = (0..8).map(|nth| job(nth * 2, 10)).collect();
    world.settle(lease, &sparse).unwrap();
    refused(world.settle(lease, &[job(100, 10)]), Code::SettleTooManyGaps);
    world.settle(lease, &[job(1, 10)]).unwrap();
    world.settle(lease, &[job(100, 10)]).unwrap();
    assert_eq!(world.lane(lease, Who::Provider).taken.len(), 8);
}

#[test]
fn a_lease_with_one_provider_pays_no_other() {
    let mut world = World::new();
    let lease = world.open_lease(100_000);
    world.change_lease(lease, |lease| lease.provider = Some(Who::OtherProvider.id()));
    refused(world.settle(lease, &[job(0, 10)]), Code::SettleOtherProvider);
}
