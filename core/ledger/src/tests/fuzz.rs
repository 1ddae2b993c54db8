//! Bytes from strangers: a transaction is decoded to what it says and nothing else, and none harms the ledger.

use std::{fs, path::Path};

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_fuzz::attack;

use super::{
    accounts::transfer,
    claims::claim_of,
    committee::{add_peer, propose},
    jobs::open,
    offers::offer,
    world::*,
};
use crate::*;

/// The golden files whose names begin so, each the bytes of one value.
fn golden(prefix: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_one = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(prefix) && !name.ends_with(".id.hex")
    };
    let read = |path: &Path| {
        let text = fs::read_to_string(path).unwrap().replace('\n', "");
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digit).collect()
    };
    files.filter(|path| is_one(path)).map(|path| read(&path)).collect()
}

fn decoded<T: BorshSerialize + BorshDeserialize>(bytes: &[u8]) -> Option<T> {
    let value = T::try_from_slice(bytes).ok()?;
    assert_eq!(borsh::to_vec(&value).unwrap(), bytes, "one value has two spellings");
    Some(value)
}

#[test]
fn any_transaction_has_one_spelling_and_only_its_signer_can_send_it() {
    let valid = golden("transaction.");
    assert!(valid.len() > 20);
    attack(&valid, |bytes| {
        let Some(signed) = decoded::<SignedTransaction>(bytes) else {
            return false;
        };
        // None of these is signed for this network: `send` asserts that what is refused changes nothing.
        World::new().send(signed).unwrap_err();
        true
    });
}

#[test]
fn any_action_leaves_a_ledger_that_adds_up() {
    let (mut world, genesis) = (World::new(), genesis());
    let lease = world.open_lease(1_000);
    let valid = [
        Action::Settle(world.settlement(lease, &[job(0, 100), job(1, 50)])),
        Action::OpenLease(lease_terms(500)),
        Action::PutOffer(offer(1_000)),
        transfer(Who::Provider, 5),
        open(lease, &[job(3, 10)]),
        Action::Claim(claim_of(&world, lease, Who::Provider, &[&[job(4, 10)]])),
        propose(&add_peer(&world, 9, Who::Developer)),
    ];
    let valid: Vec<Vec<u8>> = valid.iter().map(|action| borsh::to_vec(action).unwrap()).collect();
    attack(&valid, |bytes| {
        let Some(action) = decoded::<Action>(bytes) else {
            return false;
        };
        let mut world = World::of(&genesis);
        assert_eq!(world.open_lease(1_000), lease);
        let before = world.supply();
        for who in [Who::Developer, Who::Controller, Who::Provider, Who::Thief] {
            // The block asserts that credits are conserved and that each debt is covered.
            let _ = world.act(who, action.clone());
        }
        assert_eq!(world.supply(), before);
        true
    });
}

#[test]
fn any_genesis_is_refused_or_adds_up() {
    attack(&golden("genesis.hex"), |bytes| {
        let Some(genesis) = decoded::<Genesis>(bytes) else {
            return false;
        };
        if genesis.state().is_ok() {
            let sum: i128 = genesis.grants.iter().map(|grant| grant.amount.0).sum();
            assert!(sum >= 0);
        }
        true
    });
}
