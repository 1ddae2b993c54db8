//! The peers' votes, their parameters and their earnings.

use piecework_model::{AccountId, Code, Credits, Domain, PublicKey, SecretKey};

use super::world::*;
use crate::*;

const OWNERS: [Who; 4] = [Who::Controller, Who::Mailbox, Who::Provider, Who::OtherProvider];
const EPOCH: u64 = 20;

pub fn peer_key(number: u8) -> SecretKey {
    SecretKey::from_seed([100 + number; 32])
}

/// A network of four peers, each with an owner of its own.
pub fn four_peers() -> World {
    let mut genesis = genesis();
    genesis.peers = (0u8..)
        .zip(OWNERS)
        .map(|(number, owner)| GenesisPeer {
            key: peer_key(number).public(),
            owner: owner.name().parse().unwrap(),
            address: "peer.example:7000".into(),
        })
        .collect();
    World::of(&genesis)
}

pub fn add_peer(world: &World, number: u8, owner: Who) -> Change {
    let key = peer_key(number);
    Change::AddPeer(AddPeer {
        key: key.public(),
        owner: owner.id(),
        address: "late.example:7000".into(),
        proof: key.sign(Domain::Owner, &world.network, &owner.id()),
    })
}

pub fn propose(change: &Change) -> Action {
    let change = change.clone();
    Action::Propose(Propose { change })
}

pub fn vote(proposer: Who, change: &Change) -> Action {
    Action::Vote(Vote {
        proposer: proposer.id(),
        change: change.digest(),
    })
}

pub fn pay_peers() -> Action {
    Action::PayPeers(PayPeers {})
}

impl World {
    pub fn committee(&self) -> Committee {
        match self.state.get(&Key::Committee) {
            Some(Value::Committee(committee)) => committee.clone(),
            other => panic!("no committee but {other:?}"),
        }
    }

    /// Proposed by the first owner, voted for by as many others.
    pub fn carry(&mut self, change: &Change, votes: usize) -> Told {
        let mut told = self.act(OWNERS[0], propose(change));
        for owner in &OWNERS[1..=votes] {
            told = self.act(*owner, vote(OWNERS[0], change));
        }
        told
    }
}

fn keys(peers: &[Peer]) -> Vec<PublicKey> {
    peers.iter().map(|peer| peer.key).collect()
}

pub fn new_params(change: impl FnOnce(&mut Params)) -> Change {
    let mut params = genesis().params;
    change(&mut params);
    Change::SetParams(params)
}

#[test]
pub fn a_change_is_carried_by_more_than_two_thirds() {
    let mut world = four_peers();
    let change = add_peer(&world, 9, Who::Developer);
    world.carry(&change, 1).unwrap();
    assert_eq!(world.committee().next, None, "two of four are not enough");
    let told = world.act(OWNERS[2], vote(OWNERS[0], &change)).unwrap();
    assert!(matches!(
        told[..],
        [Event::ChangeVoted { .. }, Event::PeersChanged { from_height: 40, .. }]
    ));
    refused(world.act(OWNERS[3], vote(OWNERS[0], &change)), Code::ProposalUnknown);

    let mut three = genesis();
    three.peers = (0u8..)
        .zip(&OWNERS[..3])
        .map(|(number, owner)| GenesisPeer {
            key: peer_key(number).public(),
            owner: owner.name().parse().unwrap(),
            address: "peer.example:7000".into(),
        })
        .collect();
    let mut world = World::of(&three);
    world.carry(&new_params(|params| params.commission_ppm = 1), 1).unwrap();
    assert_eq!(
        world.params().commission_ppm,
        COMMISSION_PPM,
        "two of three are two thirds, not more"
    );
}

#[test]
pub fn a_new_peer_makes_blocks_from_the_epoch_after_the_next() {
    let mut world = four_peers();
    world.height = 15;
    let change = add_peer(&world, 9, Who::Developer);
    world.carry(&change, 2).unwrap();
    let committee = world.committee();
    let next = committee.pending(world.height).unwrap();
    assert_eq!(next.from_height, 2 * EPOCH);
    assert_eq!(committee.at(2 * EPOCH - 1).len(), 4);
    let after = committee.at(2 * EPOCH);
    assert_eq!(after.len(), 5);
    assert!(after.windows(2).all(|pair| pair[0].key < pair[1].key));
    let new = after.iter().find(|peer| peer.key == peer_key(9).public()).unwrap();
    assert_eq!((new.owner, new.since_height), (Who::Developer.id(), 2 * EPOCH));
    assert_eq!(committee.pending(2 * EPOCH), None);
}

#[test]
fn a_change_that_carries_in_the_last_block_of_an_epoch_is_final_before_it_matters() {
    for (height, from_height) in [(18, 40), (19, 40), (20, 60), (39, 60)] {
        let mut world = World::new();
        world.height = height - 1;
        let change = add_peer(&world, 9, Who::Developer);
        world.act(Who::Controller, propose(&change)).unwrap();
        assert_eq!(world.committee().next.unwrap().from_height, from_height);
    }
}

#[test]
pub fn one_change_of_the_peers_waits_at_a_time() {
    let mut world = four_peers();
    let (first, second) = (
        add_peer(&world, 9, Who::Developer),
        Change::RemovePeer(peer_key(1).public()),
    );
    world.carry(&first, 2).unwrap();
    refused(world.carry(&second, 2), Code::PeersChangePending);
    world.height = 2 * EPOCH - 1;
    world.act(OWNERS[2], vote(OWNERS[0], &second)).unwrap();
    assert_eq!(world.committee().at(world.height).len(), 5);
    let next = world.committee().next.unwrap();
    assert_eq!(next.from_height, 2 * EPOCH, "three of five are not enough");
    world.act(OWNERS[3], vote(OWNERS[0], &second)).unwrap();
    let next = world.committee().next.unwrap();
    assert_eq!((next.from_height, next.peers.len()), (4 * EPOCH, 4));
    assert!(!keys(&next.peers).contains(&peer_key(1).public()));
    assert_eq!(world.committee().peers.len(), 5);
}

#[test]
pub fn only_owners_of_present_peers_propose_and_vote_and_each_once() {
    let mut world = four_peers();
    let change = new_params(|params| params.commission_ppm = 0);
    refused(world.act(Who::Thief, propose(&change)), Code::PeersNotOwner);
    world.act(OWNERS[0], propose(&change)).unwrap();
    refused(world.act(Who::Thief, vote(OWNERS[0], &change)), Code::PeersNotOwner);
    refused(world.act(OWNERS[0], vote(OWNERS[0], &change)), Code::ProposalVoted);
    world.act(OWNERS[1], vote(OWNERS[0], &change)).unwrap();
    refused(world.act(OWNERS[1], vote(OWNERS[0], &change)), Code::ProposalVoted);
}

#[test]
fn an_owner_votes_with_all_its_peers_and_only_while_they_are_peers() {
    let mut world = four_peers();
    world.carry(&add_peer(&world, 9, OWNERS[0]), 2).unwrap();
    world.height = 2 * EPOCH - 1;
    let change = new_params(|params| params.commission_ppm = 0);
    world.act(OWNERS[0], propose(&change)).unwrap();
    world.act(OWNERS[1], vote(OWNERS[0], &change)).unwrap();
    assert_eq!(world.params().commission_ppm, COMMISSION_PPM);
    world.act(OWNERS[2], vote(OWNERS[0], &change)).unwrap();
    assert_eq!(world.params().commission_ppm, 0, "2 + 1 + 1 of 5");
}

#[test]
fn an_exchanged_or_expired_proposal_is_not_voted_for() {
    let mut world = four_peers();
    let (first, second) = (
        new_params(|params| params.commission_ppm = 0),
        new_params(|params| params.commission_ppm = 200_000),
    );
    world.act(OWNERS[0], propose(&first)).unwrap();
    world.act(OWNERS[0], propose(&second)).unwrap();
    refused(world.act(OWNERS[1], vote(OWNERS[0], &first)), Code::ProposalChanged);
    world.pass_blocks(PROPOSAL_BLOCKS);
    refused(world.act(OWNERS[1], vote(OWNERS[0], &second)), Code::ProposalExpired);
}

#[test]
pub fn parameters_are_in_force_at_once_and_within_their_bounds() {
    let mut world = World::new();
    let set = |world: &mut World, change| world.act(Who::Controller, propose(&change));
    let told = set(&mut world, new_params(|params| params.window_blocks = 77)).unwrap();
    assert!(matches!(
        told[..],
        [Event::ChangeProposed { .. }, Event::ParamsChanged {}]
    ));
    let lease = world.open_lease(10);
    assert_eq!(world.lease(lease).window_blocks, 77);
    refused(
        set(&mut world, new_params(|params| params.commission_ppm = 200_001)),
        Code::GenesisBadParams,
    );
    refused(
        set(&mut world, new_params(|params| params.epoch_blocks = 30)),
        Code::ParamsFixed,
    );
}

#[test]
fn a_lane_above_a_lowered_limit_goes_on_as_long_as_it_does_not_grow() {
    let mut world = World::new();
    let lease = world.open_lease(1_000);
    let sparse: Vec<Job> = (0..4).map(|nth| job(nth * 2, 1)).collect();
    world.settle(lease, &sparse).unwrap();
    let change = new_params(|params| params.lane_intervals_max = 2);
    world.act(Who::Controller, propose(&change)).unwrap();
    refused(world.settle(lease, &[job(20, 1)]), Code::SettleTooManyGaps);
    world.settle(lease, &[job(7, 1)]).unwrap();
    world.settle(lease, &[job(1, 1)]).unwrap();
    assert_eq!(world.lane(lease, Who::Provider).taken, [(0, 3), (4, 5), (6, 8)]);
}

#[test]
pub fn peers_are_added_by_who_holds_their_key() {
    let mut world = World::new();
    let act = |world: &mut World, change: &Change| world.act(Who::Controller, propose(change));
    type Case = (fn(&mut AddPeer), Code);
    let change: [Case; 7] = [
        (|add| add.owner = Who::Thief.id(), Code::PeersBadProof),
        (|add| add.key = peer_key(8).public(), Code::PeersBadProof),
        (|add| add.key = PublicKey([9; 32]), Code::PeersExists),
        (|add| add.owner = Who::Stranger.id(), Code::AccountUnknown),
        (|add| add.address = "nowhere".into(), Code::PeersBadAddress),
        (|add| add.address = "a b:70".into(), Code::PeersBadAddress),
        (|add| add.address = "x".repeat(261), Code::TransactionTooLarge),
    ];
    for (change, code) in change {
        let Change::AddPeer(mut add) = add_peer(&world, 9, Who::Developer) else {
            unreachable!()
        };
        change(&mut add);
        refused(act(&mut world, &Change::AddPeer(add)), code);
    }
    for address in ["host:0", ":70", "host:70000", "host:", "hö:70"] {
        let Change::AddPeer(mut add) = add_peer(&world, 9, Who::Developer) else {
            unreachable!()
        };
        add.address = address.into();
        refused(act(&mut world, &Change::AddPeer(add)), Code::PeersBadAddress);
    }
    refused(
        act(&mut world, &Change::RemovePeer(peer_key(9).public())),
        Code::PeersUnknown,
    );
    refused(
        act(&mut world, &Change::RemovePeer(PublicKey([9; 32]))),
        Code::PeersLast,
    );
}

#[test]
pub fn the_peers_pool_goes_to_their_owners_to_the_last_ucr_that_divides() {
    let mut world = four_peers();
    refused(world.act(Who::Thief, pay_peers()), Code::PeersNothingToPay);
    let lease = world.open_lease(100_000);
    world.settle(lease, &[job(0, 1_000)]).unwrap();
    assert_eq!(world.pools().peers, Credits(15));
    let before = world.posted(Who::OtherProvider);
    let told = world.act(Who::Thief, pay_peers()).unwrap();
    assert_eq!(told.len(), 4);
    assert_eq!(world.posted(Who::OtherProvider), before + 3);
    assert_eq!((world.pools().peers, world.pools().insurance), (Credits(3), Credits(8)));
    assert_eq!(world.supply(), GRANT.0 * 6);
    refused(world.act(Who::Thief, pay_peers()), Code::PeersNothingToPay);
}

#[test]
fn what_was_earned_before_a_change_goes_to_the_peers_before_it() {
    let mut world = four_peers();
    let lease = world.open_lease(100_000);
    world.settle(lease, &[job(0, 1_000)]).unwrap();
    let before = world.posted(Who::Mailbox);
    world.carry(&Change::RemovePeer(peer_key(1).public()), 2).unwrap();
    assert_eq!(world.posted(Who::Mailbox), before + 3);
    world.height = 2 * EPOCH - 1;
    world.settle(lease, &[job(1, 1_000)]).unwrap();
    world.act(Who::Thief, pay_peers()).unwrap();
    assert_eq!(world.posted(Who::Mailbox), before + 3, "no peer any more");
    assert_eq!(world.pools().peers, Credits(0), "3 + 15 among three");
}

#[test]
fn a_full_committee_takes_no_more() {
    let mut world = World::new();
    let peer = |number: u32| Peer {
        key: PublicKey([(number % 251) as u8; 32]),
        owner: AccountId::of(&Who::Controller.public()),
        address: "peer.example:7000".into(),
        since_height: 0,
    };
    let committee = Committee {
        peers: (0..500).map(peer).collect(),
        next: None,
    };
    world.state.insert(Key::Committee, Value::Committee(committee));
    let change = add_peer(&world, 9, Who::Developer);
    refused(world.act(Who::Controller, propose(&change)), Code::PeersTooMany);
}
