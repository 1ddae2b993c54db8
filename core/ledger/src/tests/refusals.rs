//! Every rejection that the ledger can give, met once: the table of codes and the scenarios must be the same set.

use std::collections::BTreeSet;

use borsh::BorshDeserialize;
use piecework_model::{Code, Credits, LeaseId, OwnerName, Rejection};

use super::{
    accounts::{owned, registration, rotation, sponsored, transfer},
    claims::{claim_of, other_receipt, pay, receipt, replaced},
    committee::{add_peer, four_peers, new_params, pay_peers, peer_key, propose, vote},
    genesis::refused_genesis,
    jobs,
    leases::{close, delegate, expire, top_up},
    lending::{cover, lent, set_limit},
    mismatches,
    offers::offer,
    rules::switch,
    world::*,
};
use crate::*;

type Scenario = fn() -> Rejection;

fn act(who: Who, action: Action) -> Rejection {
    World::new().act(who, action).unwrap_err()
}

fn leased(budget: i128) -> (World, LeaseId) {
    let mut world = World::new();
    let lease = world.open_lease(budget);
    (world, lease)
}

fn settled(change: impl FnOnce(&World, &mut Settle)) -> Rejection {
    let (mut world, lease) = leased(1_000);
    let mut settle = world.settlement(lease, &[job(0, 100), job(1, 100)]);
    change(&world, &mut settle);
    world.act(Who::Controller, Action::Settle(settle)).unwrap_err()
}

const TRANSACTIONS: [(Code, Scenario); 7] = [
    (Code::TransactionTooLarge, || {
        act(
            Who::Provider,
            Action::PutOffer(PutOffer {
                region: "x".repeat(65),
                ..offer(5)
            }),
        )
    }),
    (Code::TransactionWrongKey, || {
        let mut world = World::new();
        let mut signed = world.sign(Who::Thief, transfer(Who::Provider, 1));
        signed.transaction.sender = Who::Developer.id();
        world.send(signed).unwrap_err()
    }),
    (Code::TransactionBadSignature, || {
        let mut world = World::new();
        let mut signed = world.sign(Who::Thief, transfer(Who::Provider, 1));
        signed.signature.0[5] ^= 1;
        world.send(signed).unwrap_err()
    }),
    (Code::TransactionStaleNonce, || {
        let mut world = World::new();
        let signed = world.sign(Who::Thief, transfer(Who::Provider, 1));
        world.send(signed.clone()).unwrap();
        world.send(signed).unwrap_err()
    }),
    (Code::TransactionFutureNonce, || {
        let mut world = World::new();
        world
            .send(world.sign_with(Who::Thief, 1, transfer(Who::Provider, 1)))
            .unwrap_err()
    }),
    (Code::LedgerNotStarted, || {
        let mut world = World::new();
        world.state.clear();
        world.act(Who::Thief, transfer(Who::Provider, 1)).unwrap_err()
    }),
    (Code::LedgerOverflow, || {
        let mut world = World::new();
        world.change_account(Who::Thief, |account| account.nonce = u64::MAX);
        world.act(Who::Thief, transfer(Who::Provider, 1)).unwrap_err()
    }),
];

const ACCOUNTS: [(Code, Scenario); 11] = [
    (Code::AccountExists, || {
        act(Who::Thief, Action::Register(registration("thief-again")))
    }),
    (Code::AccountUnknown, || act(Who::Stranger, transfer(Who::Thief, 1))),
    (Code::AccountBadName, || {
        let name = OwnerName::try_from_slice(&borsh::to_vec("Not A Name").unwrap()).unwrap();
        act(
            Who::Stranger,
            Action::Register(Register {
                name,
                ..registration("a")
            }),
        )
    }),
    (Code::AccountNameTaken, || {
        act(Who::Stranger, Action::Register(registration("thief")))
    }),
    (Code::AccountSponsorLimit, || {
        act(
            Who::Stranger,
            Action::Register(sponsored(&World::new(), Who::Thief, GRANT.0 + 1)),
        )
    }),
    (Code::AccountSponsorSignature, || {
        let mut register = sponsored(&World::new(), Who::Thief, 5);
        register.sponsor.as_mut().unwrap().0 = Who::Developer.id();
        act(Who::Stranger, Action::Register(register))
    }),
    (Code::AccountOwnerSignature, || {
        let mut register = owned(&World::new(), Who::Thief);
        register.owner.as_mut().unwrap().0 = Who::Developer.id();
        act(Who::Stranger, Action::Register(register))
    }),
    (Code::AccountKeyProof, || {
        let mut rotate = rotation(&World::new(), Who::Thief, Who::Stranger);
        rotate.proof.0[0] ^= 1;
        act(Who::Thief, Action::RotateKey(rotate))
    }),
    (Code::TransferNotPositive, || {
        act(Who::Thief, transfer(Who::Provider, 0))
    }),
    (Code::TransferSelf, || act(Who::Thief, transfer(Who::Thief, 1))),
    (Code::TransferInsufficient, || {
        act(Who::Thief, transfer(Who::Provider, GRANT.0 + 1))
    }),
];

const OFFERS: [(Code, Scenario); 3] = [
    (Code::OfferDeposit, || {
        let mut world = World::new();
        world.act(Who::Provider, transfer(Who::Thief, GRANT.0)).unwrap();
        world.act(Who::Provider, Action::PutOffer(offer(50))).unwrap_err()
    }),
    (Code::OfferExpired, || act(Who::Provider, Action::PutOffer(offer(1)))),
    (Code::OfferUnknown, || {
        act(Who::Provider, Action::DropOffer(DropOffer {}))
    }),
];

const LEASES: [(Code, Scenario); 12] = [
    (Code::LeaseUnknown, || act(Who::Developer, top_up(LeaseId([1; 20]), 5))),
    (Code::LeaseNotYours, || {
        let (mut world, lease) = leased(10);
        world.act(Who::Thief, close(lease)).unwrap_err()
    }),
    (Code::LeaseBadBudget, || {
        act(Who::Developer, Action::OpenLease(lease_terms(0)))
    }),
    (Code::LeaseInsufficientFunds, || {
        act(Who::Developer, Action::OpenLease(lease_terms(GRANT.0 + 1)))
    }),
    (Code::LeaseNoPayer, || {
        let mut terms = lease_terms(5);
        terms.mailboxes.clear();
        act(Who::Developer, Action::OpenLease(terms))
    }),
    (Code::LeasePayerExists, || {
        let (mut world, lease) = leased(10);
        world
            .act(Who::Developer, delegate(lease, Who::Controller, true))
            .unwrap_err()
    }),
    (Code::LeasePayerUnknown, || {
        let (mut world, lease) = leased(10);
        world
            .act(Who::Developer, delegate(lease, Who::Thief, false))
            .unwrap_err()
    }),
    (Code::LeaseTooManyPayers, || {
        let (mut world, lease) = leased(10);
        let full = vec![Who::Controller.public(); KEYS_PER_LEASE_MAX];
        world.change_lease(lease, |lease| lease.payer_keys = full);
        world
            .act(Who::Developer, delegate(lease, Who::Thief, true))
            .unwrap_err()
    }),
    (Code::LeaseDraining, || {
        let (mut world, lease) = leased(10);
        world.act(Who::Developer, close(lease)).unwrap();
        world.act(Who::Developer, close(lease)).unwrap_err()
    }),
    (Code::LeaseStillDraining, || {
        let (mut world, lease) = leased(10);
        world.act(Who::Developer, close(lease)).unwrap();
        world.act(Who::Developer, expire(lease)).unwrap_err()
    }),
    (Code::LeaseNotDraining, || {
        let (mut world, lease) = leased(10);
        world.act(Who::Developer, expire(lease)).unwrap_err()
    }),
    (Code::LeaseClosed, || {
        let (mut world, lease) = leased(10);
        world.act(Who::Developer, close(lease)).unwrap();
        world.pass_blocks(u64::from(WINDOW));
        world.act(Who::Developer, expire(lease)).unwrap();
        world.settle(lease, &[job(0, 1)]).unwrap_err()
    }),
];

const SETTLEMENTS: [(Code, Scenario); 15] = [
    (Code::SettleNotPayer, || {
        let (mut world, lease) = leased(10);
        let settle = world.settlement(lease, &[job(0, 1)]);
        world.act(Who::Thief, Action::Settle(settle)).unwrap_err()
    }),
    (Code::SettleOtherProvider, || {
        let (mut world, lease) = leased(10);
        world.change_lease(lease, |lease| lease.provider = Some(Who::Thief.id()));
        world.settle(lease, &[job(0, 1)]).unwrap_err()
    }),
    (Code::SettleEmpty, || settled(|_, settle| settle.jobs.clear())),
    (Code::SettleNotAscending, || settled(|_, settle| settle.jobs.swap(0, 1))),
    (Code::SettleBadCode, || settled(|_, settle| settle.jobs[1].code = 1)),
    (Code::SettleNoPaper, || {
        settled(|_, settle| (settle.jobs[0].metered, settle.jobs[0].received_at_ms) = (None, None))
    }),
    (Code::SettlePriceAboveTicket, || {
        settled(|_, settle| settle.jobs[0].price_max_ucr = 99)
    }),
    (Code::SettlePriceAboveCaps, || {
        settled(|_, settle| settle.jobs[0].metered.as_mut().unwrap().counters.cpu_us = 99)
    }),
    (Code::SettleBadReceipts, || settled(|_, settle| settle.receipts = None)),
    (Code::SettleBadAcks, || {
        settled(|world, settle| {
            let jobs = [job(0, 100), job(1, 100)];
            settle.acks = Some(seal_acks(&world.network, settle, &Who::Thief.key(), &jobs));
        })
    }),
    (Code::SettleAckWithoutReceipt, || {
        settled(|world, settle| {
            let jobs = [job(0, 100).only_ack(), job(1, 100).only_ack()];
            *settle = world.settlement(settle.lease, &jobs);
            settle.acks = Some(seal_acks(&world.network, settle, &Who::Mailbox.key(), &jobs));
        })
    }),
    (Code::SettleJobMismatch, || {
        let (mut world, lease) = leased(1_000);
        world.act(Who::Controller, jobs::open(lease, &[job(0, 10)])).unwrap();
        world.settle(lease, &[job(0, 11)]).unwrap_err()
    }),
    (Code::SettleBudget, || {
        let (mut world, lease) = leased(10);
        world.settle(lease, &[job(0, 11)]).unwrap_err()
    }),
    (Code::SettleTooManyGaps, || {
        let (mut world, lease) = leased(1_000);
        let sparse: Vec<Job> = (0..9).map(|nth| job(nth * 2, 1)).collect();
        world.settle(lease, &sparse).unwrap_err()
    }),
    (Code::SettleTooManyOpen, || {
        let (mut world, lease) = leased(1_000);
        world.change_lease(lease, |lease| lease.open_jobs = OPEN_JOBS_PER_LEASE_MAX);
        world.settle(lease, &[job(0, 1).only_ack()]).unwrap_err()
    }),
];

const GENESES: [(Code, Scenario); 5] = [
    (Code::GenesisBadParams, || {
        refused_genesis(|genesis| genesis.params.window_blocks = 0)
    }),
    (Code::GenesisBadGrant, || {
        refused_genesis(|genesis| genesis.grants[0].amount = Credits(-1))
    }),
    (Code::GenesisDuplicate, || {
        refused_genesis(|genesis| genesis.grants.push(genesis.grants[0].clone()))
    }),
    (Code::GenesisUnknownOwner, || {
        refused_genesis(|genesis| genesis.peers[0].owner = "nobody".parse().unwrap())
    }),
    (Code::GenesisTooLarge, || {
        refused_genesis(|genesis| genesis.network_name = "x".repeat(261))
    }),
];

fn claimed(jobs: &[Job], change: impl FnOnce(&World, &mut Claim)) -> Rejection {
    let (world, lease) = leased(1_000);
    let mut claim = claim_of(&world, lease, Who::Provider, &[jobs]);
    change(&world, &mut claim);
    let mut world = world;
    world.act(Who::Provider, Action::Claim(claim)).unwrap_err()
}

fn challenged(jobs: &[Job], blocks: u64, challenge: impl FnOnce(&World, LeaseId) -> Challenge) -> Rejection {
    let (mut world, lease) = leased(1_000);
    world.claim(lease, jobs).unwrap();
    world.pass_blocks(blocks);
    let challenge = challenge(&world, lease);
    world.challenge(challenge).unwrap_err()
}

const CLAIMS: [(Code, Scenario); 13] = [
    (Code::ClaimOtherLane, || {
        let (mut world, lease) = leased(10);
        let claim = claim_of(&world, lease, Who::OtherProvider, &[&[job(0, 1)]]);
        world.act(Who::Provider, Action::Claim(claim)).unwrap_err()
    }),
    (Code::ClaimBadTickets, || {
        claimed(&[job(0, 1)], |_, claim| claim.batches[0].signature.0[0] ^= 1)
    }),
    (Code::ClaimBadAcks, || {
        claimed(&[job(0, 1)], |_, claim| claim.acks = None)
    }),
    (Code::ClaimPriceAboveTicket, || {
        claimed(&[job(0, 2).at_most(1)], |_, _| ())
    }),
    (Code::ClaimJobMismatch, || {
        let (mut world, lease) = leased(1_000);
        world.settle(lease, &[job(0, 5).at_most(9).only_receipt()]).unwrap();
        world.claim(lease, &[job(0, 6).at_most(9)]).unwrap_err()
    }),
    (Code::ClaimNone, || {
        let (mut world, lease) = leased(10);
        world.act(Who::Thief, pay(lease, &[0])).unwrap_err()
    }),
    (Code::ClaimNotDue, || {
        let (mut world, lease) = leased(10);
        world.claim(lease, &[job(0, 1)]).unwrap();
        world.act(Who::Thief, pay(lease, &[0])).unwrap_err()
    }),
    (Code::ReleaseNone, || {
        let (mut world, lease) = leased(10);
        world.act(Who::Controller, jobs::release(lease, &[0])).unwrap_err()
    }),
    (Code::ReleaseNotDue, || {
        let (mut world, lease) = leased(10);
        world.act(Who::Controller, jobs::open(lease, &[job(0, 1)])).unwrap();
        world.act(Who::Controller, jobs::release(lease, &[0])).unwrap_err()
    }),
    (Code::ClaimTooLate, || {
        challenged(&[job(0, 1)], u64::from(WINDOW), |world, lease| {
            replaced(world, lease, 0, job(0, 1))
        })
    }),
    (Code::ChallengeNotShown, || {
        challenged(&[job(0, 1)], 0, |world, lease| {
            let same = receipt(lease, Who::Provider, &job(0, 1));
            other_receipt(world, (lease, Who::Provider), 0, same, Who::Provider)
        })
    }),
    (Code::ChallengeAcknowledged, || {
        challenged(&[job(0, 1)], 0, |world, lease| replaced(world, lease, 0, job(0, 1)))
    }),
    (Code::ChallengeNotPaid, || {
        challenged(&[job(0, 1).only_receipt()], 0, |world, lease| {
            replaced(world, lease, 0, job(0, 1))
        })
    }),
];

const COMMUNITY: [(Code, Scenario); 23] = [
    (Code::LeaseClaimsPending, || {
        let (mut world, lease) = leased(10);
        world.act(Who::Developer, close(lease)).unwrap();
        world.pass_blocks(u64::from(WINDOW) - 1);
        world.claim(lease, &[job(0, 1)]).unwrap();
        world.act(Who::Developer, expire(lease)).unwrap_err()
    }),
    (Code::MismatchNotShown, || {
        let (mut world, lease) = leased(10);
        let action = mismatches::report(&world, lease, |first, second| first.output = second.output);
        world.act(Who::Controller, action).unwrap_err()
    }),
    (Code::MismatchReported, || {
        let (mut world, lease) = leased(10);
        let action = mismatches::report(&world, lease, |_, _| ());
        world.act(Who::Controller, action.clone()).unwrap();
        world.act(Who::Controller, action).unwrap_err()
    }),
    (Code::AccountNotSponsor, || act(Who::Developer, cover(Who::Thief, 1))),
    (Code::AccountLimitInUse, || {
        let mut world = lent();
        world.act(Who::Stranger, transfer(Who::Thief, 5)).unwrap();
        world.act(Who::Thief, set_limit(Who::Stranger, 4)).unwrap_err()
    }),
    (Code::AccountNoDebt, || {
        lent().act(Who::Thief, cover(Who::Stranger, 1)).unwrap_err()
    }),
    (Code::PeersNotOwner, || {
        act(Who::Thief, propose(&new_params(|params| params.window_blocks = 9)))
    }),
    (Code::PeersExists, || {
        let world = four_peers();
        proposed(world, |world| add_peer(world, 1, Who::Developer))
    }),
    (Code::PeersUnknown, || {
        proposed(World::new(), |_| Change::RemovePeer(peer_key(3).public()))
    }),
    (Code::PeersLast, || {
        proposed(World::new(), |_| Change::RemovePeer(genesis().peers[0].key))
    }),
    (Code::PeersTooMany, || {
        let mut world = World::new();
        let Some(Value::Committee(committee)) = world.state.get_mut(&Key::Committee) else {
            panic!("no committee")
        };
        committee.peers = vec![committee.peers[0].clone(); 500];
        proposed(world, |world| add_peer(world, 1, Who::Developer))
    }),
    (Code::PeersBadAddress, || {
        proposed(World::new(), |world| match add_peer(world, 1, Who::Developer) {
            Change::AddPeer(add) => Change::AddPeer(AddPeer {
                address: "x".into(),
                ..add
            }),
            other => other,
        })
    }),
    (Code::PeersBadProof, || {
        proposed(World::new(), |world| match add_peer(world, 1, Who::Developer) {
            Change::AddPeer(add) => Change::AddPeer(AddPeer {
                owner: Who::Thief.id(),
                ..add
            }),
            other => other,
        })
    }),
    (Code::PeersChangePending, || {
        let mut world = World::new();
        let first = add_peer(&world, 1, Who::Developer);
        world.act(Who::Controller, propose(&first)).unwrap();
        proposed(world, |world| add_peer(world, 2, Who::Developer))
    }),
    (Code::PeersNothingToPay, || act(Who::Thief, pay_peers())),
    (Code::ParamsFixed, || {
        proposed(World::new(), |_| new_params(|params| params.epoch_blocks = 5))
    }),
    (Code::RulesNotNext, || proposed(World::new(), |_| switch(3, 1_000))),
    (Code::RulesTooSoon, || proposed(World::new(), |_| switch(2, 39))),
    (Code::ProposalUnknown, || {
        let change = new_params(|params| params.window_blocks = 9);
        act(Who::Controller, vote(Who::Controller, &change))
    }),
    (Code::ProposalChanged, || voted(0, |params| params.window_blocks = 8)),
    (Code::ProposalExpired, || {
        voted(PROPOSAL_BLOCKS, |params| params.window_blocks = 9)
    }),
    (Code::ProposalVoted, || {
        let (mut world, change) = (four_peers(), new_params(|params| params.window_blocks = 9));
        world.act(Who::Controller, propose(&change)).unwrap();
        world.act(Who::Controller, vote(Who::Controller, &change)).unwrap_err()
    }),
    (Code::GenesisNoPeer, || refused_genesis(|genesis| genesis.peers.clear())),
];

fn proposed(mut world: World, change: impl FnOnce(&World) -> Change) -> Rejection {
    let change = change(&world);
    world.act(Who::Controller, propose(&change)).unwrap_err()
}

fn voted(blocks: u64, change: impl FnOnce(&mut Params)) -> Rejection {
    let mut world = four_peers();
    let proposal = new_params(|params| params.window_blocks = 9);
    world.act(Who::Controller, propose(&proposal)).unwrap();
    world.pass_blocks(blocks);
    world
        .act(Who::Mailbox, vote(Who::Controller, &new_params(change)))
        .unwrap_err()
}

#[test]
fn every_rejection_is_met_with_its_code_and_its_sentence() {
    let scenarios: Vec<(Code, Scenario)> = [
        &TRANSACTIONS[..],
        &ACCOUNTS[..],
        &OFFERS[..],
        &LEASES[..],
        &SETTLEMENTS[..],
        &GENESES[..],
        &CLAIMS[..],
        &COMMUNITY[..],
    ]
    .concat();
    for (code, scenario) in &scenarios {
        let refused = scenario();
        assert_eq!(refused.code, *code);
        assert!(
            rejections().contains(&(*code, refused.message.as_str())),
            "{refused} is not in the table"
        );
    }
    let met: BTreeSet<Code> = scenarios.iter().map(|(code, _)| *code).collect();
    let listed: BTreeSet<Code> = rejections().iter().map(|(code, _)| *code).collect();
    assert_eq!(met, listed);
    assert_eq!(listed.len(), rejections().len(), "a code is listed once");
}
