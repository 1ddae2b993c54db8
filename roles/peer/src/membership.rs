//! The votes of peers' owners: proposals on the ledger, and the transactions that create and support them.

use piecework_chain::{Chain, ChainFailure, Final, SubmitError};
use piecework_ledger::{
    Action, Change, Committee, Event, Key, Proposal, Propose, Register, Roles, SignedTransaction, Transaction, Value,
    Vote,
};
use piecework_model::{AccountId, Code, OwnerName, Rejection, SecretKey};

/// A proposal, and who supports it.
#[derive(Clone, Debug)]
pub struct Open {
    pub proposer: AccountId,
    pub proposal: Proposal,
}

/// The current and the next peers.
pub async fn committee(chain: &dyn Chain) -> Result<Committee, ChainFailure> {
    match chain.get(&Key::Committee).await? {
        Some(Value::Committee(committee)) => Ok(committee),
        Some(_) | None => Err(ChainFailure::Stopped {
            detail: "the ledger has no peers".to_owned(),
        }),
    }
}

/// What the owners of the present peers propose and have not carried yet, in the order of their accounts. Those that
/// have expired are left out.
pub async fn proposals(chain: &dyn Chain) -> Result<Vec<Open>, ChainFailure> {
    let height = chain.status().height;
    let mut owners: Vec<AccountId> = committee(chain)
        .await?
        .at(height + 1)
        .iter()
        .map(|peer| peer.owner)
        .collect();
    owners.sort_unstable();
    owners.dedup();
    let mut open = Vec::new();
    for proposer in owners {
        if let Some(Value::Proposal(proposal)) = chain.get(&Key::Proposal(proposer)).await?
            && height < proposal.expires_at_height
        {
            open.push(Open { proposer, proposal });
        }
    }
    Ok(open)
}

/// Proposes a change, or votes if the same was already proposed. Final when it returns.
///
/// The peer that is asked may not know yet what another owner has just proposed: what both propose gets the votes of both, or each
/// would wait for votes of its own.
pub async fn support(
    chain: &dyn Chain,
    key: &SecretKey,
    owner: &OwnerName,
    change: Change,
) -> Result<Final, SubmitError> {
    let digest = change.digest();
    let same = async || -> Result<Vec<Open>, ChainFailure> {
        let mut open = proposals(chain).await?;
        open.retain(|open| open.proposal.change.digest() == digest);
        Ok(open)
    };
    let vote = |open: &Open| {
        Action::Vote(Vote {
            proposer: open.proposer,
            change: digest,
        })
    };
    let first = match same().await?.first() {
        Some(open) => vote(open),
        None => Action::Propose(Propose { change }),
    };
    let mut done = send(chain, key, owner, first).await?;
    let own = account_named(chain, owner).await?;
    while !is_carried(&done) {
        // What is final shows: each turn adds a vote of this owner, and there is a proposal at most for each of the others.
        let others = same().await?;
        let is_missing = |open: &&Open| own.is_some_and(|own| !open.proposal.votes.contains(&own));
        let Some(other) = others.iter().find(is_missing) else {
            break;
        };
        match send(chain, key, owner, vote(other)).await {
            Ok(voted) => done = voted,
            // Carried or expired meanwhile: the own proposal stands.
            Err(SubmitError::Rejected(_)) => break,
            Err(failed) => return Err(failed),
        }
    }
    Ok(done)
}

/// Whether this vote was the last that was needed.
fn is_carried(done: &Final) -> bool {
    done.events.iter().any(|event| {
        matches!(
            event,
            Event::PeersChanged { .. } | Event::ParamsChanged {} | Event::RulesChanged { .. }
        )
    })
}

/// Votes for what `proposer` proposes. Rejects with `proposal.unknown` and what the ledger says. Final when it returns.
pub async fn vote(
    chain: &dyn Chain,
    key: &SecretKey,
    owner: &OwnerName,
    proposer: AccountId,
) -> Result<Final, SubmitError> {
    let open = proposals(chain)
        .await?
        .into_iter()
        .find(|open| open.proposer == proposer);
    let Some(open) = open else {
        return Err(
            Rejection::new(Code::ProposalUnknown, "this account has no open proposal")
                .hint("list proposals with `piecework peer proposals`")
                .into(),
        );
    };
    let vote = Vote {
        proposer,
        change: open.proposal.change.digest(),
    };
    send(chain, key, owner, Action::Vote(vote)).await
}

/// The account that is known by this name.
pub async fn account_named(chain: &dyn Chain, name: &OwnerName) -> Result<Option<AccountId>, ChainFailure> {
    match chain.get(&Key::Name(name.clone())).await? {
        Some(Value::Name(account)) => Ok(Some(account)),
        Some(_) | None => Ok(None),
    }
}

/// The owner's account, registered if nobody has the name; the key must be its. Rejects with `account.other_key` and
/// what the ledger says.
pub async fn enrol(
    chain: &dyn Chain,
    key: &SecretKey,
    owner: &OwnerName,
    roles: Roles,
) -> Result<AccountId, SubmitError> {
    if let Some(known) = account_named(chain, owner).await? {
        own(chain, known, key, owner).await?;
        return Ok(known);
    }
    let account = AccountId::of(&key.public());
    let register = Register {
        name: owner.clone(),
        roles,
        sponsor: None,
        owner: None,
    };
    let transaction = Transaction {
        sender: account,
        nonce: 0,
        action: Action::Register(register),
    };
    let signed = SignedTransaction::sign(transaction, key, &chain.network());
    chain.submit_and_wait(signed).await?;
    Ok(account)
}

/// The nonce of an account whose key this is.
async fn own(chain: &dyn Chain, account: AccountId, key: &SecretKey, name: &OwnerName) -> Result<u64, SubmitError> {
    match chain.get(&Key::Account(account)).await? {
        Some(Value::Account(found)) if found.key == key.public() => Ok(found.nonce),
        Some(_) | None => Err(Rejection::new(
            Code::AccountOtherKey,
            format!("the account `{name}` has a different key"),
        )
        .hint("use another name, or the key of this account")
        .into()),
    }
}

async fn send(chain: &dyn Chain, key: &SecretKey, owner: &OwnerName, action: Action) -> Result<Final, SubmitError> {
    let Some(sender) = account_named(chain, owner).await? else {
        return Err(Rejection::new(Code::AccountUnknown, format!("the ledger has no account `{owner}`")).into());
    };
    let nonce = own(chain, sender, key, owner).await?;
    let transaction = Transaction { sender, nonce, action };
    let signed = SignedTransaction::sign(transaction, key, &chain.network());
    chain.submit_and_wait(signed).await
}
