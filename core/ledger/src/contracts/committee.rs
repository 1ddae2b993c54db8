//! The peers' own affairs: who they are, the parameters they vote on, and what they earn.
//!
//! ```text
//! Propose -> proposal{votes} -- Vote, until more than two thirds of the present peers are for it --> carried, proposal gone
//! peers:      present -- carried at h --> next{from the epoch after the next} -- that height --> present
//! parameters: in force from the next transaction on
//! rules:      present -- carried at h --> next{from a height at least a whole epoch away} -- that height --> present
//! ```

use piecework_model::{AccountId, Credits, Domain, PublicKey, Rejection};

use super::Call;
use crate::{
    bounds::PROPOSAL_BLOCKS,
    draft::{minus, plus},
    execute::Event,
    genesis::{PEERS_MAX, check_params},
    mutant::{Mutant, broken},
    rejections::{
        params_fixed, peers_bad_proof, peers_change_pending, peers_exists, peers_last, peers_not_owner,
        peers_nothing_to_pay, peers_too_many, peers_unknown, proposal_changed, proposal_expired, proposal_unknown,
        proposal_voted, rules_not_next, rules_too_soon,
    },
    rules::{NextRules, Rules},
    state::{Committee, Key, NextCommittee, Params, Peer, Proposal, Value},
    transaction::{AddPeer, Change, Propose, SetRules, Vote},
};

pub(super) fn propose(call: &mut Call, propose: &Propose) -> Result<(), Rejection> {
    let proposer = call.authorize_sender()?;
    check_owner(call, proposer)?;
    check_change(call, &propose.change)?;
    let proposal = Proposal {
        change: propose.change.clone(),
        votes: vec![proposer],
        expires_at_height: call.context.height.saturating_add(PROPOSAL_BLOCKS),
    };
    call.events.push(Event::ChangeProposed {
        proposer,
        change: propose.change.digest(),
    });
    count(call, proposer, proposal)
}

pub(super) fn vote(call: &mut Call, vote: &Vote) -> Result<(), Rejection> {
    let voter = call.authorize_sender()?;
    check_owner(call, voter)?;
    let mut proposal = call.draft.proposal(vote.proposer).ok_or_else(proposal_unknown)?;
    if proposal.change.digest() != vote.change {
        return Err(proposal_changed());
    }
    if call.context.height > proposal.expires_at_height {
        return Err(proposal_expired());
    }
    if proposal.votes.contains(&voter) {
        return Err(proposal_voted());
    }
    check_change(call, &proposal.change)?;
    proposal.votes.push(voter);
    call.events.push(Event::ChangeVoted {
        proposer: vote.proposer,
        change: vote.change,
        voter,
    });
    count(call, vote.proposer, proposal)
}

/// The peers at this block.
fn present(call: &Call) -> Vec<Peer> {
    call.draft.committee().at(call.context.height).to_vec()
}

fn check_owner(call: &Call, id: AccountId) -> Result<(), Rejection> {
    match present(call).iter().any(|peer| peer.owner == id) || broken(Mutant::AnyVoter) {
        true => Ok(()),
        false => Err(peers_not_owner()),
    }
}

/// Whether the change makes sense now; asked again with every vote, for other changes may have come between.
fn check_change(call: &Call, change: &Change) -> Result<(), Rejection> {
    let peers = present(call);
    let known = |key: &PublicKey| peers.iter().any(|peer| peer.key == *key);
    match change {
        Change::SetParams(params) => check_new_params(call, params),
        Change::AddPeer(add) if known(&add.key) => Err(peers_exists()),
        Change::AddPeer(_) if peers.len() >= PEERS_MAX => Err(peers_too_many().hint(format!("at most {PEERS_MAX}"))),
        Change::AddPeer(add) => check_new_peer(call, add),
        Change::RemovePeer(key) if !known(key) => Err(peers_unknown()),
        Change::RemovePeer(_) if peers.len() == 1 => Err(peers_last()),
        Change::RemovePeer(_) => Ok(()),
        Change::SetRules(set) => check_rules(call, set),
    }
}

fn check_new_params(call: &Call, params: &Params) -> Result<(), Rejection> {
    if params.epoch_blocks != call.params.epoch_blocks {
        return Err(params_fixed().field("epoch_blocks"));
    }
    match broken(Mutant::UnboundedParams) {
        true => Ok(()),
        false => check_params(params),
    }
}

/// What a build knows cannot matter here: all must decide alike. One that does not know the rules stops before them.
fn check_rules(call: &Call, set: &SetRules) -> Result<(), Rejection> {
    let (height, present) = (call.context.height, call.rules);
    let calls_off = set.rules == present && call.draft.rules().pending(height).is_some();
    let follows = Some(set.rules) == present.checked_add(1);
    if !(follows || calls_off || broken(Mutant::AnyRules)) {
        return Err(rules_not_next()
            .field("rules")
            .hint(format!("rules {present} are in force")));
    }
    let earliest = epoch_after_next(height, call.params.epoch_blocks);
    if set.from_height < earliest && !broken(Mutant::RulesAtOnce) {
        return Err(rules_too_soon()
            .field("from_height")
            .hint(format!("{earliest} is the earliest")));
    }
    Ok(())
}

/// The proof shows as well that the key is a point of the curve, without which consensus could not load it.
fn check_new_peer(call: &Call, add: &AddPeer) -> Result<(), Rejection> {
    call.draft.account(add.owner)?;
    let network = &call.context.network;
    let proven = add.key.verify(Domain::Owner, network, &add.owner, &add.proof);
    match proven.is_ok() || broken(Mutant::SkipPeerProof) {
        true => Ok(()),
        false => Err(peers_bad_proof().field("proof")),
    }
}

/// Keeps the proposal, or carries it out. Votes count by the peers that their owners have now.
fn count(call: &mut Call, proposer: AccountId, proposal: Proposal) -> Result<(), Rejection> {
    let peers = present(call);
    let votes = peers.iter().filter(|peer| proposal.votes.contains(&peer.owner)).count();
    let carried = match broken(Mutant::TwoThirdsWillDo) {
        true => 3 * votes >= 2 * peers.len(),
        false => 3 * votes > 2 * peers.len(),
    };
    let key = Key::Proposal(proposer);
    if !carried {
        call.draft.put(key, Value::Proposal(proposal));
        return Ok(());
    }
    call.draft.remove(key);
    match proposal.change {
        Change::SetParams(params) => {
            call.draft.put(Key::Params, Value::Params(params));
            call.events.push(Event::ParamsChanged {});
            Ok(())
        }
        Change::SetRules(set) => {
            change_rules(call, &set);
            Ok(())
        }
        Change::AddPeer(add) => change_peers(call, peers, |peers, from_height| {
            peers.push(Peer {
                key: add.key,
                owner: add.owner,
                address: add.address,
                since_height: from_height,
            });
        }),
        Change::RemovePeer(key) => change_peers(call, peers, |peers, _| peers.retain(|peer| peer.key != key)),
    }
}

/// A switch that still waits for its height is replaced.
fn change_rules(call: &mut Call, set: &SetRules) {
    let SetRules { rules, from_height } = *set;
    let rules_after = Rules {
        now: call.rules,
        next: Some(NextRules { from_height, rules }),
    };
    call.draft.put(Key::Rules, Value::Rules(rules_after));
    call.events.push(Event::RulesChanged { from_height, rules });
}

/// One change at a time. What was earned so far goes to those who earned it.
fn change_peers(call: &mut Call, peers: Vec<Peer>, change: impl FnOnce(&mut Vec<Peer>, u64)) -> Result<(), Rejection> {
    let (height, committee) = (call.context.height, call.draft.committee());
    if let Some(pending) = committee.pending(height)
        && !broken(Mutant::ManyPeerChanges)
    {
        return Err(peers_change_pending().hint(format!("one takes effect at height {}", pending.from_height)));
    }
    share_out(call, &peers)?;
    let from_height = epoch_after_next(height, call.params.epoch_blocks);
    let mut next = peers.clone();
    change(&mut next, from_height);
    next.sort_by_key(|peer| peer.key);
    let keys = next.iter().map(|peer| peer.key).collect();
    let next = Some(NextCommittee {
        from_height,
        peers: next,
    });
    call.draft
        .put(Key::Committee, Value::Committee(Committee { peers, next }));
    call.events.push(Event::PeersChanged {
        from_height,
        peers: keys,
    });
    Ok(())
}

/// The height at which the epoch after the next begins.
fn epoch_after_next(height: u64, epoch_blocks: u32) -> u64 {
    let length = u64::from(epoch_blocks.max(1));
    if broken(Mutant::PeersChangeAtOnce) {
        return (height / length).saturating_add(1).saturating_mul(length);
    }
    (height / length).saturating_add(2).saturating_mul(length)
}

pub(super) fn pay_peers(call: &mut Call) -> Result<(), Rejection> {
    call.authorize_sender()?;
    let peers = present(call);
    match share_out(call, &peers)? {
        Credits::ZERO => Err(peers_nothing_to_pay()),
        _ => Ok(()),
    }
}

/// Gives each peer's owner the same, and returns how much; less than one ucr for each stays where it is.
fn share_out(call: &mut Call, peers: &[Peer]) -> Result<Credits, Rejection> {
    let mut pools = call.draft.pools();
    let count = i128::try_from(peers.len()).unwrap_or(i128::MAX);
    let each = Credits(pools.peers.0.checked_div(count).unwrap_or(0));
    if each == Credits::ZERO {
        return Ok(each);
    }
    for peer in peers {
        pools.peers = minus(pools.peers, each)?;
        call.draft.move_credits(peer.owner, each, Credits::ZERO)?;
        call.events.push(Event::PeerPaid {
            peer: peer.key,
            owner: peer.owner,
            amount: each,
        });
    }
    if broken(Mutant::SharePoolWhole) {
        pools.insurance = plus(pools.insurance, pools.peers)?;
        pools.peers = Credits::ZERO;
    }
    call.draft.put(Key::Pools, Value::Pools(pools));
    Ok(each)
}
