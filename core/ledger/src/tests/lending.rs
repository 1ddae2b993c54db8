//! Mutual credit after registration: more, less, and what becomes of a debt.

use piecework_model::{Code, Credits};

use super::{
    accounts::{registration, sponsored, transfer},
    world::*,
};
use crate::*;

pub fn set_limit(who: Who, limit: i128) -> Action {
    Action::SetLimit(SetLimit {
        account: who.id(),
        limit: Credits(limit),
    })
}

pub fn cover(who: Who, amount: i128) -> Action {
    Action::CoverDebt(CoverDebt {
        account: who.id(),
        amount: Credits(amount),
    })
}

/// The thief lends the stranger 400.
pub fn lent() -> World {
    let mut world = World::new();
    let register = sponsored(&world, Who::Thief, 400);
    world.act(Who::Stranger, Action::Register(register)).unwrap();
    world
}

#[test]
pub fn a_sponsor_lends_more_or_less_of_its_own() {
    let mut world = lent();
    world.act(Who::Thief, set_limit(Who::Stranger, 1_000)).unwrap();
    assert_eq!(
        (world.held(Who::Thief), world.account(Who::Stranger).limit),
        (1_000, Credits(1_000))
    );
    refused(
        world.act(Who::Thief, set_limit(Who::Stranger, GRANT.0 + 1)),
        Code::AccountSponsorLimit,
    );
    for limit in [-1, i128::MIN] {
        refused(
            world.act(Who::Thief, set_limit(Who::Stranger, limit)),
            Code::AccountSponsorLimit,
        );
    }
    world.act(Who::Stranger, transfer(Who::Provider, 300)).unwrap();
    refused(
        world.act(Who::Thief, set_limit(Who::Stranger, 299)),
        Code::AccountLimitInUse,
    );
    world.act(Who::Thief, set_limit(Who::Stranger, 300)).unwrap();
    assert_eq!(world.held(Who::Thief), 300);
    assert_eq!(world.supply(), GRANT.0 * 6);
}

#[test]
fn a_hold_needs_its_limit_as_much_as_a_debt_does() {
    let mut world = lent();
    world.act(Who::Stranger, Action::OpenLease(lease_terms(400))).unwrap();
    refused(
        world.act(Who::Thief, set_limit(Who::Stranger, 399)),
        Code::AccountLimitInUse,
    );
}

#[test]
fn only_the_sponsor_lends_and_only_the_account_gives_back() {
    let mut world = lent();
    refused(
        world.act(Who::Provider, set_limit(Who::Stranger, 500)),
        Code::AccountNotSponsor,
    );
    refused(
        world.act(Who::Stranger, set_limit(Who::Stranger, 500)),
        Code::AccountNotSponsor,
    );
    world.act(Who::Stranger, set_limit(Who::Stranger, 100)).unwrap();
    assert_eq!(world.held(Who::Thief), 100);
    world.act(Who::Stranger, set_limit(Who::Stranger, 0)).unwrap();
    assert_eq!(world.account(Who::Stranger).sponsor, None);
    refused(
        world.act(Who::Stranger, set_limit(Who::Stranger, 0)),
        Code::AccountNotSponsor,
    );
    world.act(Who::Provider, set_limit(Who::Stranger, 70)).unwrap();
    assert_eq!(world.account(Who::Stranger).sponsor, Some(Who::Provider.id()));
    assert_eq!((world.held(Who::Thief), world.held(Who::Provider)), (0, 70));
    refused(
        world.act(Who::Provider, set_limit(Who::Provider, 5)),
        Code::AccountNotSponsor,
    );
}

#[test]
fn what_was_lent_to_a_sponsor_can_be_lent_on_but_not_twice() {
    let mut world = lent();
    world
        .act(
            Who::Mailbox,
            Action::Transfer(Transfer {
                to: Who::Provider.id(),
                amount: GRANT,
            }),
        )
        .unwrap();
    world.act(Who::Stranger, set_limit(Who::Mailbox, 400)).unwrap();
    refused(
        world.act(Who::Stranger, transfer(Who::Provider, 1)),
        Code::TransferInsufficient,
    );
    refused(
        world.act(Who::Thief, set_limit(Who::Stranger, 399)),
        Code::AccountLimitInUse,
    );
    world.act(Who::Mailbox, transfer(Who::Provider, 400)).unwrap();
    world.act(Who::Stranger, cover(Who::Mailbox, 400)).unwrap();
    world.act(Who::Thief, cover(Who::Stranger, 400)).unwrap();
    assert_eq!(world.posted(Who::Thief), GRANT.0 - 400);
    assert_eq!((world.posted(Who::Stranger), world.posted(Who::Mailbox)), (0, 0));
    assert_eq!(world.supply(), GRANT.0 * 6);
}

#[test]
pub fn a_sponsor_covers_the_debt_out_of_what_it_holds_for_it() {
    let mut world = lent();
    world.act(Who::Stranger, transfer(Who::Provider, 300)).unwrap();
    world.act(Who::Thief, transfer(Who::Provider, GRANT.0 - 400)).unwrap();
    refused(
        world.act(Who::Thief, transfer(Who::Stranger, 1)),
        Code::TransferInsufficient,
    );
    for amount in [0, -1, 301] {
        refused(world.act(Who::Thief, cover(Who::Stranger, amount)), Code::AccountNoDebt);
    }
    refused(
        world.act(Who::Provider, cover(Who::Stranger, 1)),
        Code::AccountNotSponsor,
    );
    world.act(Who::Thief, cover(Who::Stranger, 200)).unwrap();
    let account = world.account(Who::Stranger);
    assert_eq!((account.posted, account.limit), (Credits(-100), Credits(200)));
    assert_eq!((world.posted(Who::Thief), world.held(Who::Thief)), (200, 200));
    world.act(Who::Thief, cover(Who::Stranger, 100)).unwrap();
    world.act(Who::Thief, set_limit(Who::Stranger, 0)).unwrap();
    assert_eq!((world.posted(Who::Thief), world.held(Who::Thief)), (100, 0));
    assert_eq!(world.supply(), GRANT.0 * 6);
}

#[test]
fn an_account_that_owes_nothing_needs_no_sponsor() {
    let mut world = World::new();
    world
        .act(Who::Stranger, Action::Register(registration("stranger")))
        .unwrap();
    refused(world.act(Who::Thief, cover(Who::Stranger, 1)), Code::AccountNotSponsor);
    refused(
        world.act(Who::Thief, set_limit(Who::Developer, -1)),
        Code::AccountSponsorLimit,
    );
}
