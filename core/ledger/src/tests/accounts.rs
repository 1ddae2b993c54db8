//! Registration, keys, transfers.

use piecework_model::{AccountId, Code, Credits, Domain, Signature};

use super::world::*;
use crate::*;

pub fn registration(name: &str) -> Register {
    Register {
        name: name.parse().unwrap(),
        roles: Roles::default(),
        sponsor: None,
        owner: None,
    }
}

pub fn sponsored(world: &World, sponsor: Who, limit: i128) -> Register {
    let terms = (Who::Stranger.id(), Credits(limit));
    let signature = sponsor.key().sign(Domain::Sponsor, &world.network, &terms);
    Register {
        sponsor: Some((sponsor.id(), Credits(limit), signature)),
        ..registration("stranger")
    }
}

pub fn owned(world: &World, owner: Who) -> Register {
    let signature = owner.key().sign(Domain::Owner, &world.network, &Who::Stranger.id());
    Register {
        owner: Some((owner.id(), signature)),
        ..registration("stranger")
    }
}

pub fn rotation(world: &World, who: Who, new: Who) -> RotateKey {
    RotateKey {
        new_key: new.public(),
        proof: new.key().sign(Domain::Owner, &world.network, &who.id()),
    }
}

pub fn transfer(to: Who, amount: i128) -> Action {
    let (to, amount) = (to.id(), Credits(amount));
    Action::Transfer(Transfer { to, amount })
}

#[test]
fn a_registered_account_starts_with_nothing_and_its_next_nonce_is_one() {
    let mut world = World::new();
    let told = world.act(Who::Stranger, Action::Register(registration("stranger")));
    let account = Who::Stranger.id();
    assert_eq!(told, Ok(vec![Event::AccountRegistered { account }]));
    let account = world.account(Who::Stranger);
    assert_eq!((account.posted, account.held, account.limit), Default::default());
    assert_eq!(account.nonce, 1);
    world.act(Who::Developer, transfer(Who::Stranger, 5)).unwrap();
    world.act(Who::Stranger, transfer(Who::Developer, 5)).unwrap();
}

#[test]
fn a_registration_cannot_be_repeated_nor_sent_for_another_key() {
    let mut world = World::new();
    let first = world.sign(Who::Stranger, Action::Register(registration("stranger")));
    world.send(first.clone()).unwrap();
    refused(world.send(first), Code::AccountExists);
    let mut other = world.sign(Who::Thief, Action::Register(registration("other")));
    other.transaction.sender = AccountId([1; 20]);
    refused(world.send(other), Code::TransactionWrongKey);
}

#[test]
pub fn the_sponsor_cannot_spend_what_it_lent() {
    let mut world = World::new();
    let register = sponsored(&world, Who::Thief, 400_000);
    world.act(Who::Stranger, Action::Register(register)).unwrap();
    assert_eq!(world.held(Who::Thief), 400_000);
    refused(
        world.act(Who::Thief, transfer(Who::Provider, 600_001)),
        Code::TransferInsufficient,
    );
    world.act(Who::Stranger, transfer(Who::Provider, 400_000)).unwrap();
    assert_eq!(world.posted(Who::Stranger), -400_000);
    refused(
        world.act(Who::Stranger, transfer(Who::Provider, 1)),
        Code::TransferInsufficient,
    );
    assert_eq!(world.supply(), GRANT.0 * 6);
}

#[test]
pub fn a_sponsor_is_bound_by_what_it_signed() {
    let mut world = World::new();
    let mut register = sponsored(&world, Who::Thief, 100);
    register.sponsor.as_mut().unwrap().1 = Credits(200);
    refused(
        world.act(Who::Stranger, Action::Register(register)),
        Code::AccountSponsorSignature,
    );
    for limit in [0, -5, GRANT.0 + 1, i128::MAX, i128::MIN] {
        let register = sponsored(&world, Who::Thief, limit);
        refused(
            world.act(Who::Stranger, Action::Register(register)),
            Code::AccountSponsorLimit,
        );
    }
}

#[test]
pub fn an_owner_signs_for_its_accounts() {
    let mut world = World::new();
    let mut forged = owned(&world, Who::Thief);
    forged.owner.as_mut().unwrap().0 = Who::Developer.id();
    refused(
        world.act(Who::Stranger, Action::Register(forged)),
        Code::AccountOwnerSignature,
    );
    let register = owned(&world, Who::Developer);
    world.act(Who::Stranger, Action::Register(register)).unwrap();
    assert_eq!(world.account(Who::Stranger).owner, Some(Who::Developer.id()));
}

#[test]
fn after_a_rotation_only_the_new_key_signs() {
    let mut world = World::new();
    let rotate = rotation(&world, Who::Thief, Who::Stranger);
    world.act(Who::Thief, Action::RotateKey(rotate)).unwrap();
    refused(
        world.act(Who::Thief, transfer(Who::Provider, 1)),
        Code::TransactionWrongKey,
    );
    let transaction = Transaction {
        sender: Who::Thief.id(),
        nonce: 1,
        action: transfer(Who::Provider, 1),
    };
    let signed = SignedTransaction::sign(transaction, &Who::Stranger.key(), &world.network);
    world.send(signed).unwrap();
    assert_eq!(world.posted(Who::Thief), GRANT.0 - 1);
}

#[test]
pub fn a_key_that_one_does_not_hold_cannot_be_rotated_to() {
    let mut world = World::new();
    let mut rotate = rotation(&world, Who::Thief, Who::Stranger);
    rotate.new_key = Who::Developer.public();
    refused(world.act(Who::Thief, Action::RotateKey(rotate)), Code::AccountKeyProof);
}

#[test]
fn nonces_are_used_in_order_and_once() {
    let mut world = World::new();
    let first = world.sign(Who::Thief, transfer(Who::Provider, 1));
    let third = world.sign_with(Who::Thief, 2, transfer(Who::Provider, 1));
    refused(world.send(third.clone()), Code::TransactionFutureNonce);
    world.send(first.clone()).unwrap();
    refused(world.send(first.clone()), Code::TransactionStaleNonce);
    let second = world.sign(Who::Thief, transfer(Who::Provider, 1));
    let told = world.block(&[second.clone(), third, second]);
    assert!(told[0].is_ok() && told[1].is_ok());
    refused(told[2].clone(), Code::TransactionStaleNonce);
    assert_eq!(world.posted(Who::Thief), GRANT.0 - 3);
}

#[test]
fn a_rejected_transaction_changes_nothing_not_even_the_nonce() {
    let mut world = World::new();
    let before = world.state.clone();
    refused(
        world.act(Who::Thief, transfer(Who::Provider, GRANT.0 + 1)),
        Code::TransferInsufficient,
    );
    assert_eq!(world.state, before);
}

#[test]
fn a_signature_counts_on_one_network_and_for_one_kind_of_message() {
    let mut world = World::new();
    let mut other = genesis();
    other.network_name = "other".into();
    let elsewhere = World::of(&other).sign(Who::Thief, transfer(Who::Provider, 1));
    refused(world.send(elsewhere), Code::TransactionBadSignature);

    let mut signed = world.sign(Who::Thief, transfer(Who::Provider, 1));
    signed.signature = Who::Thief
        .key()
        .sign(Domain::Request, &world.network, &signed.transaction);
    refused(world.send(signed.clone()), Code::TransactionBadSignature);
    signed.signature = Signature([0; 64]);
    refused(world.send(signed), Code::TransactionBadSignature);
}

#[test]
fn an_altered_transaction_is_refused() {
    let mut world = World::new();
    let mut signed = world.sign(Who::Developer, transfer(Who::Provider, 1));
    signed.transaction.action = transfer(Who::Thief, 1_000);
    refused(world.send(signed), Code::TransactionBadSignature);
}

/// The view of somebody who has verified one transaction before.
struct Knows<'a>(&'a World, TransactionId);

impl View for Knows<'_> {
    fn get(&self, key: &Key) -> Option<Value> {
        self.0.state.get(key).cloned()
    }

    fn has_verified(&self, id: &TransactionId) -> bool {
        *id == self.1
    }
}

#[test]
fn a_signature_is_computed_again_unless_that_very_transaction_was_verified() {
    let world = World::new();
    let forged = |amount| {
        let mut signed = world.sign(Who::Developer, transfer(Who::Provider, amount));
        signed.signature.0[5] ^= 1; // shows whether anybody looks
        signed
    };
    let context = BlockContext {
        network: world.network,
        height: 1,
    };
    let view = Knows(&world, forged(1).id());
    assert_eq!(check(&view, &context, &forged(1)), Ok(()));
    let refused = check(&view, &context, &forged(2)).unwrap_err();
    assert_eq!(refused.code, Code::TransactionBadSignature);
}
