//! How a lease begins, grows and ends.

use piecework_model::{Code, Credits, LeaseId};

use super::{accounts::transfer, world::*};
use crate::*;

pub fn close(lease: LeaseId) -> Action {
    Action::CloseLease(CloseLease { lease })
}

pub fn expire(lease: LeaseId) -> Action {
    Action::ExpireLease(ExpireLease { lease })
}

pub fn top_up(lease: LeaseId, amount: i128) -> Action {
    let amount = Credits(amount);
    Action::TopUp(TopUp { lease, amount })
}

pub fn delegate(lease: LeaseId, who: Who, add: bool) -> Action {
    let key = who.public();
    Action::DelegatePayer(DelegatePayer {
        lease,
        key,
        add,
        mailbox: false,
    })
}

#[test]
fn a_budget_is_held_and_not_moved() {
    let mut world = World::new();
    let lease = world.open_lease(600_000);
    assert_eq!(
        (world.posted(Who::Developer), world.held(Who::Developer)),
        (GRANT.0, 600_000)
    );
    refused(
        world.act(Who::Developer, transfer(Who::Thief, 400_001)),
        Code::TransferInsufficient,
    );
    refused(
        world.act(Who::Developer, top_up(lease, 400_001)),
        Code::LeaseInsufficientFunds,
    );
    world.act(Who::Developer, top_up(lease, 400_000)).unwrap();
    assert_eq!(world.held(Who::Developer), GRANT.0);
    assert_eq!(world.lease(lease).budget, GRANT);
}

#[test]
fn a_lease_id_is_known_before_its_transaction_is_executed() {
    let mut world = World::new();
    assert_eq!(world.open_lease(10), LeaseId::of(Who::Developer.id(), 0));
    assert_eq!(world.open_lease(10), LeaseId::of(Who::Developer.id(), 1));
}

#[test]
pub fn only_the_developer_tops_up_delegates_and_closes() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    for action in [top_up(lease, 5), delegate(lease, Who::Thief, true), close(lease)] {
        refused(world.act(Who::Thief, action), Code::LeaseNotYours);
    }
}

#[test]
fn a_lost_controller_is_replaced() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    world.act(Who::Developer, delegate(lease, Who::Mailbox, true)).unwrap();
    world
        .act(Who::Developer, delegate(lease, Who::Controller, false))
        .unwrap();
    refused(world.settle(lease, &[job(0, 10)]), Code::SettleNotPayer);
    let settle = world.settlement(lease, &[job(0, 10)]);
    assert_eq!(paid(&world.act(Who::Mailbox, Action::Settle(settle)).unwrap()), [0]);
}

#[test]
fn a_controller_in_the_place_of_a_lost_one_acks_as_well() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    world.change_lease(lease, |lease| lease.mailboxes = vec![Who::Controller.public()]);
    let change = |who: Who, add, mailbox| {
        let key = who.public();
        Action::DelegatePayer(DelegatePayer {
            lease,
            key,
            add,
            mailbox,
        })
    };
    world.act(Who::Developer, change(Who::Stranger, true, false)).unwrap();
    let settle = Action::Settle(world.settlement(lease, &[job(0, 10)]));
    refused(world.act(Who::Stranger, settle.clone()), Code::SettleBadAcks);
    world.act(Who::Developer, change(Who::Stranger, false, true)).unwrap();
    world.act(Who::Developer, change(Who::Stranger, true, true)).unwrap();
    assert_eq!(paid(&world.act(Who::Stranger, settle).unwrap()), [0]);
    world.act(Who::Developer, change(Who::Controller, false, true)).unwrap();
    assert_eq!(world.lease(lease).mailboxes, [Who::Stranger.public()]);
    world.change_lease(lease, |lease| {
        lease.mailboxes = vec![Who::Mailbox.public(); KEYS_PER_LEASE_MAX]
    });
    refused(
        world.act(Who::Developer, change(Who::Thief, true, true)),
        Code::LeaseTooManyPayers,
    );
}

#[test]
fn a_draining_lease_pays_up_to_its_last_height_and_opens_nothing() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    world.act(Who::Developer, close(lease)).unwrap();
    let until = world.height + u64::from(WINDOW);
    assert_eq!(world.lease(lease).state, LeaseState::Draining { until_height: until });
    refused(world.act(Who::Developer, top_up(lease, 5)), Code::LeaseDraining);
    refused(world.act(Who::Developer, close(lease)), Code::LeaseDraining);
    let open = OpenJobs {
        lease,
        provider: Who::Provider.id(),
        tickets: vec![job(7, 10).ticket()],
    };
    refused(world.act(Who::Controller, Action::OpenJobs(open)), Code::LeaseDraining);
    world.height = until - 1;
    assert_eq!(paid(&world.settle(lease, &[job(0, 10)]).unwrap()), [0]);
    assert_eq!(world.height, until);
    refused(world.settle(lease, &[job(1, 10)]), Code::LeaseClosed);
}

#[test]
fn expiring_frees_what_is_left_once_and_whoever_asks() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    world.settle(lease, &[job(0, 300), job(1, 200).only_receipt()]).unwrap();
    refused(world.act(Who::Thief, expire(lease)), Code::LeaseNotDraining);
    world.act(Who::Developer, close(lease)).unwrap();
    world.pass_blocks(u64::from(WINDOW) - 1);
    refused(world.act(Who::Thief, expire(lease)), Code::LeaseStillDraining);
    let freed = Credits(700);
    assert_eq!(
        world.act(Who::Stranger, expire(lease)),
        Ok(vec![Event::LeaseClosed { lease, freed }])
    );
    assert_eq!(
        (world.posted(Who::Developer), world.held(Who::Developer)),
        (GRANT.0 - 300, 0)
    );
    assert_eq!(world.lease(lease).open_jobs, 0);
    refused(world.act(Who::Stranger, expire(lease)), Code::LeaseClosed);
    refused(world.settle(lease, &[job(1, 200).only_ack()]), Code::LeaseClosed);
    for action in [top_up(lease, 1), close(lease), delegate(lease, Who::Thief, true)] {
        refused(world.act(Who::Developer, action), Code::LeaseClosed);
    }
}

#[test]
fn an_expiry_carries_a_signature_that_fits() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    world.act(Who::Developer, close(lease)).unwrap();
    world.pass_blocks(u64::from(WINDOW));
    let mut signed = world.sign(Who::Stranger, expire(lease));
    signed.key = Who::Developer.public();
    refused(world.send(signed), Code::TransactionBadSignature);
}

#[test]
fn the_parties_of_a_lease_are_known() {
    let mut world = World::new();
    for change in [
        |terms: &mut OpenLease| terms.controller = Who::Stranger.id(),
        |terms: &mut OpenLease| terms.provider = Some(Who::Stranger.id()),
    ] {
        let mut terms = lease_terms(10);
        change(&mut terms);
        refused(
            world.act(Who::Developer, Action::OpenLease(terms)),
            Code::AccountUnknown,
        );
    }
}
