//! How the originals could be cheated, and that it is refused here.

use piecework_model::{Code, Credits};

use super::{
    accounts::{registration, transfer},
    leases::close,
    world::*,
};
use crate::*;

#[test]
fn cheat_1_moving_anyones_credits_the_original_succeeds_ours_refused_with_wrong_key() {
    let mut world = World::new();
    let transaction = Transaction {
        sender: Who::Developer.id(),
        nonce: 0,
        action: transfer(Who::Thief, 1_000),
    };
    let mut signed = SignedTransaction::sign(transaction, &Who::Thief.key(), &world.network);
    refused(world.send(signed.clone()), Code::TransactionWrongKey);
    signed.key = Who::Developer.public();
    refused(world.send(signed), Code::TransactionBadSignature);
    assert_eq!(world.posted(Who::Thief), GRANT.0);
}

#[test]
fn cheat_2_negative_self_and_lost_transfers_the_original_succeeds_ours_refused() {
    let mut world = World::new();
    for amount in [0, -1, -1_000, i128::MIN] {
        refused(
            world.act(Who::Thief, transfer(Who::Developer, amount)),
            Code::TransferNotPositive,
        );
    }
    refused(world.act(Who::Thief, transfer(Who::Thief, 10)), Code::TransferSelf);
    refused(world.act(Who::Thief, transfer(Who::Stranger, 10)), Code::AccountUnknown);
    refused(
        world.act(Who::Thief, transfer(Who::Developer, i128::MAX)),
        Code::TransferInsufficient,
    );
    assert_eq!(world.supply(), GRANT.0 * 6);
}

#[test]
fn cheat_3_registering_with_a_balance_the_original_succeeds_ours_has_no_field_for_it() {
    let mut world = World::new();
    world
        .act(Who::Stranger, Action::Register(registration("stranger")))
        .unwrap();
    assert_eq!(world.posted(Who::Stranger), 0);
    refused(
        world.act(Who::Stranger, transfer(Who::Thief, 1)),
        Code::TransferInsufficient,
    );
}

#[test]
fn cheat_4_taking_the_controllers_name_the_original_succeeds_ours_refused_with_name_taken() {
    let mut world = World::new();
    let told = world.act(Who::Stranger, Action::Register(registration("controller")));
    refused(told, Code::AccountNameTaken);
}

#[test]
fn cheat_5_reporting_any_run_time_the_original_succeeds_ours_refused_with_price_above_ticket() {
    let mut world = World::new();
    let lease = world.open_lease(100_000);
    refused(
        world.settle(lease, &[job(0, 501).at_most(500)]),
        Code::SettlePriceAboveTicket,
    );
    let mut settle = world.settlement(lease, &[job(0, 400)]);
    settle.jobs[0].metered.as_mut().unwrap().counters.cpu_us = 399;
    settle.receipts = seal_receipts(&world.network, &settle, &Who::Provider.key());
    refused(
        world.act(Who::Controller, Action::Settle(settle)),
        Code::SettlePriceAboveCaps,
    );
    assert_eq!(world.posted(Who::Provider), GRANT.0);
}

#[test]
fn cheat_7_the_ack_before_the_receipt_the_original_never_pays_ours_pays_once_in_either_order() {
    let both = job(3, 1_000);
    for (first, second) in [
        (both.only_receipt(), both.only_ack()),
        (both.only_ack(), both.only_receipt()),
    ] {
        let mut world = World::new();
        let lease = world.open_lease(1_000);
        assert_eq!(paid(&world.settle(lease, &[first]).unwrap()), []);
        assert_eq!(world.posted(Who::Developer), GRANT.0);
        assert_eq!(paid(&world.settle(lease, &[second]).unwrap()), [3]);
        assert_eq!(world.posted(Who::Provider), GRANT.0 + 970);
        for again in [first, second, both] {
            assert_eq!(world.settle(lease, &[again]), Ok(vec![]));
        }
        assert_eq!(world.posted(Who::Developer), GRANT.0 - 1_000);
    }
}

#[test]
fn cheat_7_paid_without_funds_the_original_marks_it_paid_ours_refused_with_budget() {
    let mut world = World::new();
    let lease = world.open_lease(999);
    refused(world.settle(lease, &[job(0, 1_000)]), Code::SettleBudget);
    assert_eq!(world.posted(Who::Provider), GRANT.0);
}

#[test]
fn cheat_8_payments_lost_in_conflicts_the_original_loses_them_ours_pays_all_of_one_block() {
    let mut world = World::new();
    let lease = world.open_lease(100_000);
    let block: Vec<_> = (0..50)
        .map(|sequence| {
            let settle = world.settlement(lease, &[job(sequence, 10)]);
            world.sign(Who::Controller, Action::Settle(settle))
        })
        .collect();
    let told = world.block(&block);
    assert!(told.iter().all(|told| paid(told.as_ref().unwrap()).len() == 1));
    assert_eq!(world.lane(lease, Who::Provider).jobs, 50);
    assert_eq!(world.posted(Who::Developer), GRANT.0 - 500);
}

#[test]
fn cheat_14_taking_the_deposit_without_proof_the_original_succeeds_ours_refused_with_bad_receipts() {
    let mut world = World::new();
    let lease = world.open_lease(100_000);
    let mut settle = world.settlement(lease, &[job(0, 1_000)]);
    refused(
        world.act(Who::Provider, Action::Settle(settle.clone())),
        Code::SettleNotPayer,
    );
    settle.receipts = seal_receipts(&world.network, &settle, &Who::Thief.key());
    refused(
        world.act(Who::Controller, Action::Settle(settle)),
        Code::SettleBadReceipts,
    );
    assert_eq!(world.posted(Who::Provider), GRANT.0);
}

#[test]
fn cheat_15_withdrawing_before_the_provider_claims_the_original_succeeds_ours_refused_with_still_draining() {
    let mut world = World::new();
    let lease = world.open_lease(100_000);
    world.act(Who::Developer, close(lease)).unwrap();
    let expire = Action::ExpireLease(ExpireLease { lease });
    refused(world.act(Who::Developer, expire), Code::LeaseStillDraining);
    refused(
        world.act(Who::Developer, transfer(Who::Thief, GRANT.0 - 99_999)),
        Code::TransferInsufficient,
    );
    assert_eq!(paid(&world.settle(lease, &[job(0, 1_000)]).unwrap()), [0]);
}

#[test]
fn overflow_is_refused_wherever_a_number_comes_in() {
    let mut world = World::new();
    let lease = world.open_lease(100_000);
    let huge = job(0, u64::MAX);
    refused(world.settle(lease, &[huge]), Code::SettleBudget);
    refused(
        world.settle(lease, &[huge.only_ack(), job(1, u64::MAX).only_ack()]),
        Code::SettleBudget,
    );
    refused(world.settle(lease, &[job(u64::MAX, 1)]), Code::SettleNotAscending);
    let mut settle = world.settlement(lease, &[huge]);
    settle.jobs[0].metered.as_mut().unwrap().counters.memory_byte_ms = u64::MAX;
    settle.receipts = seal_receipts(&world.network, &settle, &Who::Provider.key());
    refused(world.act(Who::Controller, Action::Settle(settle)), Code::SettleBudget);
    for budget in [i128::MAX, GRANT.0 + 1] {
        refused(
            world.act(Who::Developer, Action::OpenLease(lease_terms(budget))),
            Code::LeaseInsufficientFunds,
        );
        let amount = Credits(budget);
        refused(
            world.act(Who::Developer, Action::TopUp(TopUp { lease, amount })),
            Code::LeaseInsufficientFunds,
        );
    }
    for budget in [i128::MIN, -1, 0] {
        refused(
            world.act(Who::Developer, Action::OpenLease(lease_terms(budget))),
            Code::LeaseBadBudget,
        );
        let amount = Credits(budget);
        refused(
            world.act(Who::Developer, Action::TopUp(TopUp { lease, amount })),
            Code::LeaseBadBudget,
        );
    }
}

#[test]
fn caps_that_overflow_refuse_instead_of_paying() {
    let mut world = World::new();
    let mut terms = lease_terms(100_000);
    terms.price_caps.cpu_ucr_per_s = u64::MAX;
    let lease = match world.act(Who::Developer, Action::OpenLease(terms)).unwrap().remove(0) {
        Event::LeaseOpened { lease, .. } => lease,
        other => panic!("{other:?}"),
    };
    let mut settle = world.settlement(lease, &[job(0, 10)]);
    settle.jobs[0].metered.as_mut().unwrap().counters.cpu_us = u64::MAX;
    settle.receipts = seal_receipts(&world.network, &settle, &Who::Provider.key());
    refused(
        world.act(Who::Controller, Action::Settle(settle)),
        Code::SettlePriceAboveCaps,
    );
}
