//! Where the credits come from.

use piecework_model::{AccountId, Code, Credits};

use super::world::*;
use crate::*;

#[track_caller]
pub fn refused_genesis(change: impl FnOnce(&mut Genesis)) -> piecework_model::Rejection {
    let mut genesis = genesis();
    change(&mut genesis);
    genesis.state().unwrap_err()
}

#[test]
fn the_state_before_block_one_holds_the_grants_and_the_peers() {
    let world = World::new();
    assert_eq!(world.supply(), GRANT.0 * Who::GRANTED.len() as i128);
    assert_eq!(world.account(Who::Developer).nonce, 0);
    let committee = world.state.get(&Key::Committee);
    let Some(Value::Committee(committee)) = committee else {
        panic!("no committee")
    };
    assert_eq!(committee.at(1), committee.peers);
    assert_eq!(committee.peers[0].owner, AccountId::of(&Who::Controller.public()));
}

#[test]
fn the_network_id_covers_every_grant() {
    let mut other = genesis();
    other.grants[0].amount = Credits(GRANT.0 + 1);
    assert_ne!(genesis().network_id(), other.network_id());
}

#[test]
fn a_genesis_out_of_bounds_is_refused() {
    let change: [fn(&mut Params); 10] = [
        |params| params.commission_ppm = 200_001,
        |params| params.offer_deposit = Credits(-1),
        |params| params.offer_deposit = Credits(i128::MAX),
        |params| params.window_blocks = 0,
        |params| params.window_blocks = u32::MAX,
        |params| params.jobs_per_settlement_max = JOBS_PER_SETTLEMENT_MAX + 1,
        |params| params.transactions_per_block_max = 0,
        |params| params.lane_intervals_max = 0,
        |params| params.epoch_blocks = 3,
        |params| params.epoch_blocks = u32::MAX,
    ];
    for change in change {
        let refused = refused_genesis(|genesis| change(&mut genesis.params));
        assert_eq!(refused.code, Code::GenesisBadParams);
    }
}

#[test]
fn the_supply_is_bounded() {
    for amount in [-1, SUPPLY_UCR_MAX + 1, SUPPLY_UCR_MAX, i128::MAX, i128::MIN] {
        let refused = refused_genesis(|genesis| genesis.grants[0].amount = Credits(amount));
        assert_eq!(refused.code, Code::GenesisBadGrant, "{amount}");
    }
}

#[test]
fn names_and_keys_are_given_once() {
    let change: [fn(&mut Genesis); 3] = [
        |genesis| genesis.grants[1].name = genesis.grants[0].name.clone(),
        |genesis| genesis.grants[1].key = genesis.grants[0].key,
        |genesis| genesis.peers.push(genesis.peers[0].clone()),
    ];
    for change in change {
        assert_eq!(refused_genesis(change).code, Code::GenesisDuplicate);
    }
}
