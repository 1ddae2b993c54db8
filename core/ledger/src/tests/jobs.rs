//! Jobs recorded ahead of their run.

use piecework_model::{Code, Credits, JobId, LeaseId};

use super::world::*;
use crate::*;

pub fn open(lease: LeaseId, jobs: &[Job]) -> Action {
    Action::OpenJobs(OpenJobs {
        lease,
        provider: Who::Provider.id(),
        tickets: jobs.iter().map(Job::ticket).collect(),
    })
}

#[test]
pub fn an_open_job_reserves_its_maximum_until_it_is_paid() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    let ahead = job(4, 250).at_most(600);
    world.act(Who::Controller, open(lease, &[ahead])).unwrap();
    assert_eq!(
        (world.lease(lease).reserved, world.lease(lease).open_jobs),
        (Credits(600), 1)
    );
    refused(world.settle(lease, &[job(5, 401)]), Code::SettleBudget);
    world.settle(lease, &[ahead.only_receipt()]).unwrap();
    assert_eq!(world.lease(lease).reserved, Credits(250));
    assert_eq!(paid(&world.settle(lease, &[ahead.only_ack()]).unwrap()), [4]);
    let after = world.lease(lease);
    assert_eq!(
        (after.reserved, after.used, after.open_jobs),
        (Credits(0), Credits(250), 0)
    );
    assert_eq!(world.open_job(lease, Who::Provider, 4), None);
}

#[test]
fn opening_again_does_nothing_before_and_after_payment() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    let ahead = job(4, 250);
    let signed = world.sign(Who::Controller, open(lease, &[ahead]));
    let told = world.block(&[signed.clone(), signed.clone()]);
    assert_eq!(told[0].as_ref().map(Vec::len), Ok(1));
    assert_eq!(told[1], Ok(vec![]));
    world.settle(lease, &[ahead]).unwrap();
    assert_eq!(world.send(signed), Ok(vec![]));
    assert_eq!(world.lease(lease).open_jobs, 0);
}

#[test]
fn what_was_opened_is_what_is_settled() {
    let mut world = World::new();
    let lease = world.open_lease(10_000);
    world.act(Who::Controller, open(lease, &[job(0, 100)])).unwrap();
    refused(
        world.act(Who::Controller, open(lease, &[job(0, 101)])),
        Code::SettleJobMismatch,
    );
    refused(
        world.settle(lease, &[job(0, 100).at_most(200)]),
        Code::SettleJobMismatch,
    );
    let change: [fn(&mut Settle); 3] = [
        |settle| settle.jobs[0].job = JobId([3; 16]),
        |settle| settle.jobs[0].input = piecework_model::Digest::of(b"else"),
        |settle| settle.codes[0] = piecework_model::Digest::of(b"else"),
    ];
    for change in change {
        let mut settle = world.settlement(lease, &[job(0, 100)]);
        change(&mut settle);
        settle.receipts = seal_receipts(&world.network, &settle, &Who::Provider.key());
        refused(
            world.act(Who::Controller, Action::Settle(settle)),
            Code::SettleJobMismatch,
        );
    }
    assert_eq!(paid(&world.settle(lease, &[job(0, 100)]).unwrap()), [0]);
}

#[test]
fn opening_is_for_payers_on_the_leases_lane_within_its_budget() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    refused(
        world.act(Who::Provider, open(lease, &[job(0, 1)])),
        Code::SettleNotPayer,
    );
    refused(
        world.act(Who::Controller, open(lease, &[job(0, 600), job(1, 401)])),
        Code::SettleBudget,
    );
    refused(
        world.act(Who::Controller, open(lease, &[job(1, 1), job(1, 1)])),
        Code::SettleNotAscending,
    );
    refused(world.act(Who::Controller, open(lease, &[])), Code::SettleEmpty);
    world.change_lease(lease, |lease| lease.provider = Some(Who::OtherProvider.id()));
    refused(
        world.act(Who::Controller, open(lease, &[job(0, 1)])),
        Code::SettleOtherProvider,
    );
}

pub fn release(lease: LeaseId, sequences: &[u64]) -> Action {
    Action::ReleaseJobs(ReleaseJobs {
        lease,
        provider: Who::Provider.id(),
        sequences: sequences.to_vec(),
    })
}

#[test]
pub fn what_was_opened_and_came_to_nothing_is_free_again_after_its_window() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    let (nothing, metered) = (job(0, 600).at_most(700), job(1, 100));
    world.act(Who::Controller, open(lease, &[nothing, metered])).unwrap();
    let opened = world.height;
    world.settle(lease, &[metered.only_receipt()]).unwrap();
    refused(world.act(Who::Controller, release(lease, &[0, 1])), Code::ReleaseNotDue);
    world.pass_blocks(opened + u64::from(WINDOW) - world.height - 1);
    refused(world.act(Who::Controller, release(lease, &[0])), Code::ReleaseNotDue);
    refused(world.act(Who::Provider, release(lease, &[0])), Code::SettleNotPayer);
    refused(
        world.act(Who::Controller, release(lease, &[1, 0])),
        Code::SettleNotAscending,
    );
    refused(world.act(Who::Controller, release(lease, &[])), Code::SettleEmpty);
    let signed = world.sign(Who::Controller, release(lease, &[0, 1, 7]));
    let told = world.send(signed.clone()).unwrap();
    assert!(matches!(told[..], [Event::JobReleased { sequence: 0, .. }]), "{told:?}");
    let after = world.lease(lease);
    assert_eq!((after.reserved, after.open_jobs), (Credits(100), 1));
    assert_eq!(world.open_job(lease, Who::Provider, 0), None);
    // Nothing that is sent again brings it back, and it is never paid.
    refused(world.send(signed), Code::ReleaseNone);
    assert_eq!(world.act(Who::Controller, open(lease, &[nothing])), Ok(vec![]));
    assert_eq!(paid(&world.settle(lease, &[nothing, metered]).unwrap()), [1]);
    world.change_lease(lease, |lease| lease.state = LeaseState::Closed);
    refused(world.act(Who::Controller, release(lease, &[0])), Code::LeaseClosed);
}
