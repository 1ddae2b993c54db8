//! What the ledger remembers: typed keys and values, and the view through which contracts read them.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::{AccountId, Credits, Digest, FunctionId, JobId, LeaseId, OwnerName, Prices, PublicKey, Roles};
use serde::{Deserialize, Serialize};

use crate::{
    rules::Rules,
    transaction::{Change, Metered, Resources, TransactionId},
};

/// Where a value lives. The order of the variants and fields is the order of iteration and part of the format.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum Key {
    Params,
    Pools,
    Account(AccountId),
    /// Names are unique: name -> account.
    Name(OwnerName),
    Offer(AccountId),
    Lease(LeaseId),
    /// (lease, provider): what has been settled there.
    Lane(LeaseId, AccountId),
    /// (lease, provider, sequence): a job recorded ahead, or half of whose papers are here.
    OpenJob(LeaseId, AccountId, u64),
    /// Who keeps the ledger, now and next.
    Committee,
    /// What this account's peers have put to the vote.
    Proposal(AccountId),
    /// (lease, provider, sequence): a result that another provider's contradicts.
    Mismatch(LeaseId, AccountId, u64),
    /// By which rules blocks are executed; absent until the peers vote for a switch.
    Rules,
}

/// What is stored under a [`Key`]; the variant always fits the key's.
///
/// A variant is a version of its record. One that was ever written keeps its number and its fields: a record that needs
/// others gets a new variant here, which is written from the height on at which the rules that know it are in force.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Value {
    Params(Params),
    Pools(Pools),
    Account(Account),
    Name(AccountId),
    Offer(Offer),
    Lease(Lease),
    Lane(Lane),
    OpenJob(OpenJob),
    Committee(Committee),
    Proposal(Proposal),
    Mismatch(Mismatch),
    Rules(Rules),
}

/// Read access to the state before a block (or to what has been fetched of it).
pub trait View {
    fn get(&self, key: &Key) -> Option<Value>;

    /// Whether whoever executes has verified this transaction's own signature before. That a signature holds depends on
    /// nothing but the transaction, so it need not be computed again.
    fn has_verified(&self, _id: &TransactionId) -> bool {
        false
    }
}

/// What a block changes: the new value, or `None` where a key goes. Ordered, so every peer writes alike.
pub type Changes = BTreeMap<Key, Option<Value>>;

impl View for BTreeMap<Key, Value> {
    fn get(&self, key: &Key) -> Option<Value> {
        BTreeMap::get(self, key).cloned()
    }
}

/// A key's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Account {
    pub key: PublicKey,
    pub name: OwnerName,
    /// Owned credits; below zero down to `-limit` where a sponsor lends.
    pub posted: Credits,
    /// Part of `posted + limit` that leases and deposits hold.
    pub held: Credits,
    /// What the sponsor lends.
    pub limit: Credits,
    pub sponsor: Option<AccountId>,
    /// The account of the person this one belongs to; jobs between accounts of one owner pay no commission.
    pub owner: Option<AccountId>,
    pub roles: Roles,
    /// The nonce that the account's next transaction must carry.
    pub nonce: u64,
    /// Results of this provider's that another one's contradicted ([`crate::ReportMismatch`]).
    pub mismatches: u32,
}

impl Account {
    /// What can still be held or sent: `posted + limit - held`.
    pub fn available(&self) -> Credits {
        Credits(self.posted.0.saturating_add(self.limit.0).saturating_sub(self.held.0))
    }
}

/// A provider's prices and abilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Offer {
    pub prices: Prices,
    pub resources: Resources,
    pub backends: Vec<String>,
    pub region: String,
    pub labels: Vec<String>,
    pub expires_at_height: u64,
    pub deposit: Credits,
}

/// What a lease pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Any function of the developer; each ticket names its code.
    AnyFunction,
    /// One function. Informs the payer: the ledger sees digests of code, not whose function they are, and checks nothing.
    Function(FunctionId),
    /// The digest of the pod's sealed manifest.
    Pod(Digest),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    Open,
    /// Closing: settlements and claims still land until this height, nothing new is opened.
    Draining {
        until_height: u64,
    },
    Closed,
}

/// An agreement between a developer and the network, or one provider, with a held budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Lease {
    pub developer: AccountId,
    pub subject: Subject,
    /// `None`: any provider of the network.
    pub provider: Option<AccountId>,
    /// Named for its share of the commission.
    pub controller: AccountId,
    pub price_caps: Prices,
    /// All that was ever put into the lease.
    pub budget: Credits,
    /// What has been paid out of it.
    pub used: Credits,
    /// What open jobs keep aside: `used + reserved` never exceeds the budget.
    pub reserved: Credits,
    pub payer_keys: Vec<PublicKey>,
    /// Taken away, each with the last height at which a claim may show what it sealed.
    pub former_payers: Vec<(PublicKey, u64)>,
    pub mailboxes: Vec<PublicKey>,
    /// How much may be owed to one provider without a signature.
    pub exposure_ucr: u64,
    pub window_blocks: u32,
    pub state: LeaseState,
    /// Jobs opened or half-settled, over all lanes. Those left when the lease expires lapse unpaid; their records stay.
    pub open_jobs: u32,
    /// Those of them that are claimed: the lease cannot expire before they are paid, settled or refuted.
    pub claimed_jobs: u32,
}

/// What one provider has been paid from one lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Lane {
    /// Settled (or opened) sequences as half-open intervals `[from, to)`: disjoint, ascending, never adjacent. At most
    /// `Params::lane_intervals_max`; a settlement that would need more is rejected.
    pub taken: Vec<(u64, u64)>,
    /// Sum of prices paid; the commission is taken from the sum, so it does not depend on how jobs are batched.
    pub paid: Credits,
    pub commission: Credits,
    pub jobs: u64,
}

/// A job recorded ahead of its run, one of whose two papers (receipt, ack) is still missing, or a claimed one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct OpenJob {
    pub job: JobId,
    pub code: Digest,
    pub input: Digest,
    pub price_max_ucr: u64,
    pub metered: Option<Metered>,
    pub received_at_ms: Option<u64>,
    pub opened_at_height: u64,
    /// The last height at which the claim may be refuted or settled otherwise; it is due from the next.
    pub claimed_until: Option<u64>,
}

/// One who keeps and extends the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Peer {
    /// The consensus key.
    pub key: PublicKey,
    /// Votes for the peer, and is paid its share of the commission.
    pub owner: AccountId,
    /// `host:port` of its peer-to-peer listener.
    pub address: String,
    /// The first block that it helped to make, or may.
    pub since_height: u64,
}

/// The peers, one value under one key, so that whoever orders transactions reads it at any block with one look.
///
/// Peers change only where an epoch begins: epochs are `Params::epoch_blocks` long, epoch `e` begins at height
/// `e * epoch_blocks` (block 0 is the genesis). A change that carries at height `h` takes effect with the epoch after the
/// next, so it has been final for a whole epoch by then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Committee {
    /// Ascending by key, never empty. Up to `next.from_height - 1` where a next set waits.
    pub peers: Vec<Peer>,
    /// Stays here after its height has come, until another change carries: ask [`Committee::at`].
    pub next: Option<NextCommittee>,
}

/// The whole set of peers from a height on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct NextCommittee {
    /// The first block that these peers make: a multiple of `Params::epoch_blocks`.
    pub from_height: u64,
    /// Ascending by key, never empty.
    pub peers: Vec<Peer>,
}

impl Committee {
    /// The peers that make the block at `height`, as far as this state knows: right for all heights from the last change
    /// up to the end of the epoch after the one that this state is of.
    pub fn at(&self, height: u64) -> &[Peer] {
        match &self.next {
            Some(next) if height >= next.from_height => &next.peers,
            Some(_) | None => &self.peers,
        }
    }

    /// The set that waits for its height, seen from the block at `height`.
    pub fn pending(&self, height: u64) -> Option<&NextCommittee> {
        self.next.as_ref().filter(|next| height < next.from_height)
    }
}

/// A change that waits for votes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Proposal {
    pub change: Change,
    /// Owners of peers that are for it, each once.
    pub votes: Vec<AccountId>,
    /// The last height at which it can be voted for.
    pub expires_at_height: u64,
}

/// A result in doubt, and the one that contradicts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Mismatch {
    pub job: JobId,
    pub code: Digest,
    pub input: Digest,
    pub output: Digest,
    pub other_provider: AccountId,
    pub other_output: Digest,
    pub reported_at_height: u64,
}

/// Rules that the community sets, within bounds fixed in code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Params {
    /// Share of each payment, in parts per million; at most 200,000.
    pub commission_ppm: u32,
    pub offer_deposit: Credits,
    pub window_blocks: u32,
    pub jobs_per_settlement_max: u32,
    pub transactions_per_block_max: u32,
    pub lane_intervals_max: u32,
    /// Peers change only at multiples of this height. Set by the genesis and never changed.
    pub epoch_blocks: u32,
}

/// Credits that belong to nobody in particular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Pools {
    pub peers: Credits,
    pub insurance: Credits,
}
