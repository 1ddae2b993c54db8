//! What the parties of a job sign: tickets, receipts and acks, and the seal over a batch of one kind.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::{
    AccountId, Counters, Digest, Domain, JobId, LeaseId, Limits, MerkleProof, NetworkId, Prices, PublicKey, SecretKey,
    Signature, SignatureInvalid, leaf, merkle_root,
};

/// The controller's order for one job: the provider's claim to be paid, up to `price_max_ucr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Ticket {
    pub lease: LeaseId,
    /// Only this provider may run it and be paid; (lease, provider) is the lane.
    pub provider: AccountId,
    /// Unique in its lane, never used again, not even for a job that was never run.
    pub sequence: u64,
    pub job: JobId,
    /// Digest of the function version's bundle.
    pub code: Digest,
    pub input: Digest,
    pub limits: Limits,
    pub prices: Prices,
    pub price_max_ucr: u64,
    /// Unix milliseconds after which a provider must not begin.
    pub deadline_ms: u64,
    /// The sequence of the ticket that this one takes the place of, in whichever lane: its receipt is stale.
    pub replaces: Option<u64>,
}

/// How a job ended, as far as payment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    Ok,
    /// The function raised, exited or gave an output that is not valid.
    Failed,
    TimedOut,
    OutOfMemory,
    Cancelled,
}

/// The provider's statement of one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Receipt {
    pub lease: LeaseId,
    pub provider: AccountId,
    pub sequence: u64,
    pub job: JobId,
    pub code: Digest,
    pub input: Digest,
    pub output: Digest,
    pub status: JobStatus,
    pub counters: Counters,
    /// The ticket's prices times the counters, never above the ticket's maximum.
    pub price_ucr: u64,
    /// Wall time of the handler alone: neither pull nor cold start.
    pub duration_us: u64,
}

/// A mailbox's confirmation that the result arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Ack {
    pub job: JobId,
    pub output: Digest,
    /// Unix milliseconds by the mailbox's clock.
    pub received_at_ms: u64,
}

/// One signature over a batch: tickets, receipts or acks of one lane, in the order of their leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Seal {
    pub lease: LeaseId,
    pub provider: AccountId,
    pub count: u32,
    pub root: Digest,
    pub signature: Signature,
}

#[derive(BorshSerialize)]
struct SealedFields<'a> {
    lease: &'a LeaseId,
    provider: &'a AccountId,
    count: u32,
    root: &'a Digest,
}

impl Seal {
    /// Signs the members with these [`leaf`] digests.
    pub fn sign(
        key: &SecretKey,
        domain: Domain,
        network: &NetworkId,
        lane: (LeaseId, AccountId),
        leaves: &[Digest],
    ) -> Self {
        let (lease, provider) = lane;
        let count = u32::try_from(leaves.len()).expect("a batch is bounded far below 2^32");
        let root = merkle_root(leaves);
        let signature = key.sign(
            domain,
            network,
            &SealedFields {
                lease: &lease,
                provider: &provider,
                count,
                root: &root,
            },
        );
        Self {
            lease,
            provider,
            count,
            root,
            signature,
        }
    }

    /// Whether `key` sealed exactly these leaves, in this order.
    pub fn verify(
        &self,
        key: &PublicKey,
        domain: Domain,
        network: &NetworkId,
        leaves: &[Digest],
    ) -> Result<(), SignatureInvalid> {
        if leaves.len() != self.count as usize || merkle_root(leaves) != self.root {
            return Err(SignatureInvalid);
        }
        self.verify_root(key, domain, network)
    }

    /// Whether `key` signed this root, for a caller that has made root and count from the leaves itself.
    pub fn verify_root(&self, key: &PublicKey, domain: Domain, network: &NetworkId) -> Result<(), SignatureInvalid> {
        let fields = SealedFields {
            lease: &self.lease,
            provider: &self.provider,
            count: self.count,
            root: &self.root,
        };
        key.verify(domain, network, &fields, &self.signature)
    }
}

/// One member of a sealed batch, shown without the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Sealed<T> {
    pub member: T,
    /// From the member's leaf to the root that was signed.
    pub proof: MerkleProof,
    /// How many the batch has.
    pub count: u32,
    pub signature: Signature,
}

impl<T: BorshSerialize> Sealed<T> {
    /// A batch has fewer than 2^32 members: no honest way to its root is longer.
    const STEPS_MAX: usize = 32;

    /// Whether `key` sealed a batch of the lane's with this member in it.
    pub fn verify(
        &self,
        key: &PublicKey,
        domain: Domain,
        network: &NetworkId,
        lane: (LeaseId, AccountId),
    ) -> Result<(), SignatureInvalid> {
        if self.proof.steps.len() > Self::STEPS_MAX {
            return Err(SignatureInvalid);
        }
        let seal = Seal {
            lease: lane.0,
            provider: lane.1,
            count: self.count,
            root: self.proof.root_from(leaf(&self.member)),
            signature: self.signature,
        };
        seal.verify_root(key, domain, network)
    }
}

impl Ticket {
    pub fn leaf(&self) -> Digest {
        leaf(self)
    }
}

impl Receipt {
    pub fn leaf(&self) -> Digest {
        leaf(self)
    }
}

impl Ack {
    pub fn leaf(&self) -> Digest {
        leaf(self)
    }
}
