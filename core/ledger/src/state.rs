//! What the ledger remembers: typed keys and values, and the view through which contracts read them.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::{AccountId, Credits, Digest, FunctionId, JobId, LeaseId, OwnerName, Prices, PublicKey};
use serde::{Deserialize, Serialize};

use crate::transaction::{Metered, Resources};

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
    Peer(PublicKey),
}

/// What is stored under a [`Key`]; the variant always fits the key's.
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
    Peer(Peer),
}

/// Read access to the state before a block (or to what has been fetched of it).
pub trait View {
    fn get(&self, key: &Key) -> Option<Value>;
}

/// What a block changes: the new value, or `None` where a key goes. Ordered, so every peer writes alike.
pub type Changes = BTreeMap<Key, Option<Value>>;

impl View for BTreeMap<Key, Value> {
    fn get(&self, key: &Key) -> Option<Value> {
        BTreeMap::get(self, key).cloned()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Roles {
    pub developer: bool,
    pub provider: bool,
    pub peer: bool,
    pub controller: bool,
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
    pub mailboxes: Vec<PublicKey>,
    /// How much may be owed to one provider without a signature.
    pub exposure_ucr: u64,
    pub window_blocks: u32,
    pub state: LeaseState,
    /// Jobs opened or half-settled, over all lanes. Those left when the lease expires lapse unpaid; their records stay.
    pub open_jobs: u32,
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

/// How far an open job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    Opened,
    Metered,
    Received,
}

/// A job recorded ahead of its run, or one of whose two papers (receipt, ack) is still missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct OpenJob {
    pub job: JobId,
    pub code: Digest,
    pub input: Digest,
    pub price_max_ucr: u64,
    pub metered: Option<Metered>,
    pub received_at_ms: Option<u64>,
    pub opened_at_height: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Peer {
    pub owner: AccountId,
    pub address: String,
    pub since_height: u64,
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
}

/// Credits that belong to nobody in particular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Pools {
    pub peers: Credits,
    pub insurance: Credits,
}
