//! The bytes of an export, as docs/ledger-format.md describes them.

// As they are written: one at a time is held.
#![allow(clippy::large_enum_variant)]

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};

pub type Hash = [u8; 32];
pub type Key = [u8; 32];
pub type Signature = [u8; 64];
pub type Id = [u8; 20];
pub type JobId = [u8; 16];
pub type Ucr = i128;

macro_rules! formats {
    ($($item:item)*) => {
        $(#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)] $item)*
    };
}

formats! {
    pub enum Frame {
        Genesis(Genesis),
        Block(Block),
        Values(Vec<Exported>),
        End { blocks: u64, head: Hash },
    }

    pub struct Genesis {
        pub name: String,
        pub created_at_ms: u64,
        pub params: Params,
        pub peers: Vec<GenesisPeer>,
        pub grants: Vec<Grant>,
    }
    pub struct GenesisPeer { pub key: Key, pub owner: String, pub address: String }
    pub struct Grant { pub name: String, pub key: Key, pub roles: [bool; 4], pub amount: Ucr }
    pub struct Params {
        pub commission_ppm: u32,
        pub offer_deposit: Ucr,
        pub window_blocks: u32,
        pub jobs_per_settlement_max: u32,
        pub transactions_per_block_max: u32,
        pub lane_intervals_max: u32,
        pub epoch_blocks: u32,
    }

    pub struct Block {
        pub header: Header,
        pub transactions: Vec<Signed>,
        pub outcomes: Vec<Result<Vec<Event>, Refusal>>,
        pub certificate: Option<Certificate>,
    }
    pub struct Header {
        pub place: At,
        pub epoch: u64,
        pub timestamp_ms: u64,
        pub outcomes_root: Hash,
        pub details: Details,
    }
    pub struct Details {
        pub view: u64,
        pub leader: Key,
        pub parent_view: u64,
        pub parent: Hash,
        pub previous_busy: u64,
        pub state_root: Hash,
        pub operations_root: Hash,
        pub operations: (u64, u64),
        pub transactions_root: Hash,
    }
    pub struct Certificate {
        pub view: u64,
        pub parent_view: u64,
        pub signers: Vec<u8>,
        pub signatures: Vec<Signature>,
    }
    pub struct Refusal {
        pub code: String,
        pub message: String,
        pub hint: Option<String>,
        pub field: Option<String>,
    }

    pub struct Signed { pub transaction: Transaction, pub key: Key, pub signature: Signature }
    pub struct Transaction { pub sender: Id, pub nonce: u64, pub action: Action }
    pub enum Action {
        Register { name: String, roles: [bool; 4], sponsor: Option<(Id, Ucr, Signature)>, owner: Option<(Id, Signature)> },
        RotateKey { new_key: Key, proof: Signature },
        Transfer { to: Id, amount: Ucr },
        PutOffer {
            prices: Prices,
            resources: (u32, u64, u64, u32),
            backends: Vec<String>,
            region: String,
            labels: Vec<String>,
            expires_at_height: u64,
        },
        DropOffer,
        OpenLease(OpenLease),
        TopUp { lease: Id, amount: Ucr },
        DelegatePayer { lease: Id, key: Key, add: bool, mailbox: bool },
        OpenJobs { lease: Id, provider: Id, tickets: Vec<(u64, JobId, Hash, Hash, u64)> },
        Settle(Settle),
        CloseLease { lease: Id },
        ExpireLease { lease: Id },
        Claim { lease: Id, batches: Vec<TicketBatch>, acks: Option<(Key, Signature)> },
        PayClaims { lease: Id, provider: Id, sequences: Vec<u64> },
        Challenge { lease: Id, provider: Id, sequence: u64, evidence: Evidence },
        ReportMismatch { lease: Id, receipt: Sealed<Receipt>, rerun: Sealed<Receipt> },
        SetLimit { account: Id, limit: Ucr },
        CoverDebt { account: Id, amount: Ucr },
        Propose { change: Change },
        Vote { proposer: Id, change: Hash },
        PayPeers,
        ReleaseJobs { lease: Id, provider: Id, sequences: Vec<u64> },
    }
    pub struct Prices {
        pub start_ucr: u64,
        pub cpu_ucr_per_s: u64,
        pub memory_ucr_per_gib_s: u64,
        pub egress_ucr_per_mib: u64,
    }
    pub enum Subject { AnyFunction, Function([u8; 12]), Pod(Hash) }
    pub struct OpenLease {
        pub subject: Subject,
        pub provider: Option<Id>,
        pub controller: Id,
        pub price_caps: Prices,
        pub budget: Ucr,
        pub payer_keys: Vec<Key>,
        pub mailboxes: Vec<Key>,
        pub exposure_ucr: u64,
    }
    pub struct Settle {
        pub lease: Id,
        pub provider: Id,
        pub codes: Vec<Hash>,
        pub jobs: Vec<SettledJob>,
        pub receipts: Option<Signature>,
        pub acks: Option<(Key, Signature)>,
    }
    pub struct SettledJob {
        pub sequence: u64,
        pub job: JobId,
        pub code: u16,
        pub input: Hash,
        pub price_max_ucr: u64,
        pub metered: Option<Metered>,
        pub received_at_ms: Option<u64>,
    }
    pub struct Metered {
        pub output: Hash,
        /// 0 ok, 1 failed, 2 timed out, 3 out of memory, 4 cancelled.
        pub status: u8,
        /// Microseconds of cpu, byte milliseconds of memory, bytes on the network.
        pub counters: (u64, u64, u64),
        pub price_ucr: u64,
        pub duration_us: u64,
    }
    pub struct TicketBatch { pub payer: Key, pub signature: Signature, pub tickets: Vec<BatchTicket> }
    pub enum BatchTicket { Claimed(ClaimedJob), Other(Hash) }
    pub struct ClaimedJob { pub ticket: Ticket, pub metered: Metered, pub received_at_ms: Option<u64> }
    pub struct Ticket {
        pub lease: Id,
        pub provider: Id,
        pub sequence: u64,
        pub job: JobId,
        pub code: Hash,
        pub input: Hash,
        /// Milliseconds, memory, processes, disk, output, log, egress.
        pub limits: (u32, u64, u32, u64, u64, u64, u64),
        pub prices: Prices,
        pub price_max_ucr: u64,
        pub deadline_ms: u64,
        pub replaces: Option<u64>,
    }
    pub struct Receipt {
        pub lease: Id,
        pub provider: Id,
        pub sequence: u64,
        pub job: JobId,
        pub code: Hash,
        pub input: Hash,
        pub metered_output: Hash,
        pub status: u8,
        pub counters: (u64, u64, u64),
        pub price_ucr: u64,
        pub duration_us: u64,
    }
    pub struct Sealed<T> { pub member: T, pub steps: Vec<(Hash, bool)>, pub count: u32, pub signature: Signature }
    pub enum Evidence { OtherReceipt(Sealed<Receipt>), Replaced(Sealed<Receipt>) }
    pub enum Change { AddPeer(Key, Id, String, Signature), RemovePeer(Key), SetParams(Params), SetRules { rules: u32, from_height: u64 } }

    pub enum Event {
        AccountRegistered { account: Id },
        KeyRotated { account: Id },
        CreditsTransferred { from: Id, to: Id, amount: Ucr },
        OfferPut { provider: Id },
        OfferDropped { provider: Id },
        LeaseOpened { lease: Id, developer: Id, budget: Ucr },
        LeaseToppedUp { lease: Id, amount: Ucr },
        PayerDelegated { lease: Id },
        JobOpened(Place),
        JobMetered(Place),
        JobReceived(Place),
        JobPaid(Place, u64, u64),
        LeaseDraining { lease: Id, until_height: u64 },
        LeaseClosed { lease: Id, freed: Ucr },
        JobClaimed(Place, u64, u64),
        JobRefuted(Place),
        MismatchReported(Place, Id),
        LimitSet { sponsor: Id, account: Id, limit: Ucr },
        DebtCovered { sponsor: Id, account: Id, amount: Ucr },
        ChangeProposed { proposer: Id, change: Hash },
        ChangeVoted { proposer: Id, change: Hash, voter: Id },
        PeersChanged { from_height: u64, peers: Vec<Key> },
        ParamsChanged,
        PeerPaid { peer: Key, owner: Id, amount: Ucr },
        JobReleased(Place),
        RulesChanged { from_height: u64, rules: u32 },
    }
    #[derive(Copy, PartialOrd, Ord)]
    pub struct Place { pub lease: Id, pub provider: Id, pub sequence: u64, pub job: JobId }

    /// What an executed transaction did, as the root of outcomes covers it.
    pub enum Entry { Job(JobEntry), Event(Event) }
    pub struct JobEntry { pub place: Place, pub steps: Vec<Step>, pub metering: Option<(Hash, Hash, Metered)> }
    pub enum Step {
        Opened,
        Metered,
        Received,
        Paid(u64, u64),
        Claimed(u64, u64),
        Refuted,
        MismatchReported(Id),
        Released,
    }

    pub struct Exported { pub key: StateKey, pub value: Value, pub proof: StateProof }
    /// An export has values of these keys alone.
    pub enum StateKey { Params, Pools, Account(Id) }
    pub enum Value { Params(Params), Pools { peers: Ucr, insurance: Ucr }, Account(Account) }
    pub struct Account {
        pub key: Key,
        pub name: String,
        pub posted: Ucr,
        pub held: Ucr,
        pub limit: Ucr,
        pub sponsor: Option<Id>,
        pub owner: Option<Id>,
        pub roles: [bool; 4],
        pub nonce: u64,
        pub mismatches: u32,
    }
    pub struct StateProof {
        pub location: u64,
        pub leaves: u64,
        pub inactive_peaks: u64,
        pub next_place: Hash,
        pub chunk: [u8; 32],
        pub siblings: Vec<Hash>,
        pub peaks: Vec<Hash>,
        pub partial: Option<Hash>,
    }
}

/// The height of a block, with bit 63 set and the number of the rules after it where they are not the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    pub height: u64,
    pub rules: u32,
}

const NAMES_RULES: u64 = 1 << 63;

impl BorshSerialize for At {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        match self.rules {
            1 => self.height.serialize(writer),
            rules => (self.height | NAMES_RULES, rules).serialize(writer),
        }
    }
}

impl BorshDeserialize for At {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let height = u64::deserialize_reader(reader)?;
        let rules = match height & NAMES_RULES {
            0 => 1,
            _ => u32::deserialize_reader(reader)?,
        };
        if height & NAMES_RULES != 0 && rules < 2 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the first rules have no number",
            ));
        }
        let height = height & !NAMES_RULES;
        Ok(Self { height, rules })
    }
}

/// The encoding of a value; borsh has one for each.
pub fn bytes<T: BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("a vector accepts every byte")
}
