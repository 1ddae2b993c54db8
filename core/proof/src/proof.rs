//! Proofs that can be saved and checked later: of a job, and of an account or any other value of the state.

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_ledger::{Account, Key, RULES, Value};
use piecework_model::{AccountId, JobId, NetworkId};
use serde::{Deserialize, Serialize};

use crate::{Anchor, Certificate, Entry, EntryProof, Header, Invalid, JobEntry, StateProof, Summary};

/// The bytes before every proof.
pub const PROOF_MAGIC: [u8; 8] = *b"pwproof1";

/// That a block is final: it, or a block after it, has a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Finality {
    /// The blocks after it up to the one that the certificate is of: mostly none.
    pub descendants: Vec<Header>,
    pub certificate: Certificate,
}

/// One thing that a final block did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Evidence {
    pub entry: EntryProof,
    pub block: Summary,
    pub finality: Finality,
}

/// What the ledger did to one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct JobProof {
    pub network: NetworkId,
    /// How the peers of the blocks came to be, from those of the genesis.
    pub changes: Vec<Evidence>,
    pub parts: Vec<Evidence>,
}

/// One value of the state after a block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ValueProof {
    pub network: NetworkId,
    pub changes: Vec<Evidence>,
    pub key: Key,
    pub value: Value,
    pub state: StateProof,
    pub block: Header,
    pub finality: Finality,
}

/// Any proof, as a file holds it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Proof {
    Job(JobProof),
    Value(Box<ValueProof>),
}

impl Finality {
    /// Blocks without a certificate of their own come in ones or twos, in the worst case as long as an epoch.
    const DESCENDANTS_MAX: usize = 50_000;

    /// Whether the block of this summary is final.
    pub fn verify(&self, anchor: &Anchor, block: &Summary) -> Result<(), Invalid> {
        check_rules(block)?;
        if self.descendants.len() > Self::DESCENDANTS_MAX {
            return Err(Invalid::NotFinal { height: block.height });
        }
        let mut last = *block;
        for child in &self.descendants {
            if child.height != last.height + 1 || child.details.parent != last.digest() {
                return Err(Invalid::Parent { height: child.height });
            }
            last = child.summary();
            check_rules(&last)?;
        }
        let signed = (last.epoch, last.height, last.digest());
        self.certificate
            .verify(&anchor.network(), signed, anchor.at(last.height))
    }
}

impl Evidence {
    pub fn verify(&self, anchor: &Anchor) -> Result<(), Invalid> {
        if self.entry.outcomes_root() != Some(self.block.outcomes_root) {
            return Err(Invalid::Path {
                height: self.block.height,
            });
        }
        self.finality.verify(anchor, &self.block)
    }
}

/// What a block says under other rules than the known ones may mean something else.
fn check_rules(block: &Summary) -> Result<(), Invalid> {
    match block.rules {
        0..=RULES => Ok(()),
        found => Err(Invalid::UnknownRules {
            height: block.height,
            found,
            known: RULES,
        }),
    }
}

fn check_network(found: NetworkId, anchor: &Anchor) -> Result<(), Invalid> {
    let expected = anchor.network();
    match found == expected {
        true => Ok(()),
        false => Err(Invalid::OtherNetwork { found, expected }),
    }
}

/// What a job's proof says, once it is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProvenJob {
    pub entries: Vec<ProvenEntry>,
}

/// One block's part in a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProvenEntry {
    pub height: u64,
    pub timestamp_ms: u64,
    pub entry: JobEntry,
}

impl JobProof {
    /// Checks paths and certificates, following the changes of the peers from `anchor` on.
    pub fn verify(&self, mut anchor: Anchor, job: JobId) -> Result<ProvenJob, Invalid> {
        check_network(self.network, &anchor)?;
        anchor.follow(&self.changes)?;
        self.verify_with(&anchor, job)
    }

    /// With the peers that `anchor` knows already, whatever the proof says of changes.
    pub fn verify_with(&self, anchor: &Anchor, job: JobId) -> Result<ProvenJob, Invalid> {
        check_network(self.network, anchor)?;
        let mut entries = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            part.verify(anchor)?;
            let Entry::Job(entry) = &part.entry.entry else {
                return Err(other("no job", job));
            };
            if entry.job != job {
                return Err(other(entry.job, job));
            }
            entries.push(ProvenEntry {
                height: part.block.height,
                timestamp_ms: part.block.timestamp_ms,
                entry: entry.clone(),
            });
        }
        match entries.is_empty() {
            true => Err(Invalid::Malformed("the proof is empty")),
            false => Ok(ProvenJob { entries }),
        }
    }

    /// The job of which this is a proof, if it is honest.
    pub fn job(&self) -> Option<JobId> {
        self.parts.iter().find_map(|part| match &part.entry.entry {
            Entry::Job(entry) => Some(entry.job),
            Entry::Event(_) => None,
        })
    }
}

impl ValueProof {
    /// Checks path and certificate, following the changes of the peers from `anchor` on.
    pub fn verify(&self, mut anchor: Anchor) -> Result<(), Invalid> {
        check_network(self.network, &anchor)?;
        anchor.follow(&self.changes)?;
        self.verify_with(&anchor)
    }

    /// With the peers that `anchor` knows already, whatever the proof says of changes.
    pub fn verify_with(&self, anchor: &Anchor) -> Result<(), Invalid> {
        check_network(self.network, anchor)?;
        let (details, height) = (&self.block.details, self.block.height);
        let holds = self
            .state
            .verify(&self.key, &self.value, details.state_root, details.operations_root);
        if !holds {
            let key = Box::new(self.key.clone());
            return Err(Invalid::StatePath { height, key });
        }
        self.finality.verify(anchor, &self.block.summary())
    }

    /// The account of which this is a proof, if it is one of an account.
    pub fn account(&self) -> Option<(AccountId, &Account)> {
        match (&self.key, &self.value) {
            (Key::Account(id), Value::Account(account)) => Some((*id, account)),
            _ => None,
        }
    }
}

fn other(found: impl ToString, expected: JobId) -> Invalid {
    Invalid::Other {
        found: found.to_string(),
        expected: expected.to_string(),
    }
}

impl Proof {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = PROOF_MAGIC.to_vec();
        borsh::to_writer(&mut bytes, self).expect("a vector accepts every byte");
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
        let body = bytes
            .strip_prefix(&PROOF_MAGIC)
            .ok_or(Invalid::Malformed("it does not begin like a proof"))?;
        borsh::from_slice(body).map_err(|_| Invalid::Malformed("the proof cannot be decoded"))
    }
}

#[cfg(test)]
mod tests {
    use piecework_model::{Code, Digest};

    use super::*;

    #[test]
    fn what_was_made_by_unknown_rules_is_refused_before_its_signatures_are_looked_at() {
        let anchor = Anchor::peers(NetworkId([1; 32]), Vec::new());
        let finality = Finality {
            descendants: Vec::new(),
            certificate: Certificate {
                view: 0,
                parent_view: 0,
                signers: Vec::new(),
                signatures: Vec::new(),
            },
        };
        let mut block = Summary {
            height: 9,
            rules: RULES + 1,
            epoch: 0,
            timestamp_ms: 0,
            outcomes_root: Digest::default(),
            details: Digest::default(),
        };
        let refused = finality.verify(&anchor, &block).expect_err("unknown");
        assert_eq!(refused.code(), Code::ProofUnknownRules);
        assert!(refused.to_string().contains("up to 2"), "{refused}");
        block.rules = RULES;
        assert!(finality.verify(&anchor, &block).is_ok(), "no peers, no signatures");
    }
}
