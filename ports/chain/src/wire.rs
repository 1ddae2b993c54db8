//! Blocks and values in transit between a peer and a program that follows it. The encoding is borsh.

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_ledger::{SignedTransaction, Value};
use piecework_model::{Digest, NetworkId};
use piecework_proof::{Header, Record, StateProof, outcomes_root, transactions_root};

use crate::{ChainStatus, FinalBlock};

/// The answer to a question for blocks: where the ledger is, and as many blocks as fit, in order of height without
/// gaps.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Page {
    pub head: Head,
    pub blocks: Vec<Block>,
}

/// [`ChainStatus`] on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Head {
    pub network: NetworkId,
    pub height: u64,
    pub block: Digest,
    pub state_root: Digest,
    pub last_block_at_ms: u64,
    pub peers: u32,
    pub queued: u32,
}

/// The answer to a question for one key of the state.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StateValue {
    pub network: NetworkId,
    /// The state is at least that of this block.
    pub height: u64,
    pub value: Option<Value>,
}

/// A [`FinalBlock`] on its way: what can be computed is left out.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Block {
    header: Header,
    transactions: Vec<SignedTransaction>,
    outcomes: Vec<Record>,
    certificate: Vec<u8>,
}

/// The answer to a question for proofs: [`crate::Proven`] on its way.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ProvenValues {
    pub network: NetworkId,
    pub height: u64,
    pub values: Vec<Option<(Value, StateProof)>>,
}

/// The roots in the header do not match the block's transactions and outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {height} does not match its header")]
pub struct Tampered {
    pub height: u64,
}

impl From<ChainStatus> for Head {
    fn from(status: ChainStatus) -> Self {
        Self {
            network: status.network,
            height: status.height,
            block: status.block,
            state_root: status.state_root,
            last_block_at_ms: status.last_block_at_ms,
            peers: status.peers,
            queued: status.queued,
        }
    }
}

impl From<Head> for ChainStatus {
    fn from(head: Head) -> Self {
        Self {
            network: head.network,
            height: head.height,
            block: head.block,
            state_root: head.state_root,
            last_block_at_ms: head.last_block_at_ms,
            peers: head.peers,
            queued: head.queued,
        }
    }
}

impl From<&FinalBlock> for Block {
    fn from(block: &FinalBlock) -> Self {
        Self {
            header: block.header.clone(),
            transactions: block.transactions.clone(),
            outcomes: block.outcomes.iter().map(Record::from).collect(),
            certificate: block.certificate.clone(),
        }
    }
}

impl Block {
    pub fn height(&self) -> u64 {
        self.header.height
    }

    /// The block, if its transactions and outcomes are those that its digest covers. Whether the digest is final is the
    /// certificate's affair.
    pub fn open(self) -> Result<FinalBlock, Tampered> {
        let tampered = Tampered {
            height: self.header.height,
        };
        if self.outcomes.len() != self.transactions.len() {
            return Err(tampered);
        }
        let ids = self.transactions.iter().map(SignedTransaction::id);
        let outcomes: Vec<_> = self
            .outcomes
            .into_iter()
            .zip(ids)
            .map(|(record, id)| record.of(id))
            .collect();
        let roots = (
            transactions_root(&self.transactions),
            outcomes_root(&self.transactions, &outcomes),
        );
        match roots == (self.header.details.transactions_root, self.header.outcomes_root) {
            true => Ok(FinalBlock::new(
                self.header,
                self.transactions,
                outcomes,
                self.certificate,
            )),
            false => Err(tampered),
        }
    }
}

#[cfg(test)]
mod tests {
    use piecework_ledger::{Action, CloseLease, Outcome, Transaction};
    use piecework_model::{AccountId, Code, LeaseId, Rejection, SecretKey};

    use super::*;

    fn block() -> Block {
        let key = SecretKey::from_seed([9; 32]);
        let transaction = Transaction {
            sender: AccountId::of(&key.public()),
            nonce: 4,
            action: Action::CloseLease(CloseLease {
                lease: LeaseId([1; 20]),
            }),
        };
        let transaction = SignedTransaction::sign(transaction, &key, &NetworkId([7; 32]));
        let outcome = Outcome {
            id: transaction.id(),
            result: Err(Rejection::new(Code::LeaseUnknown, "no such lease").hint("open one")),
        };
        let (transactions, outcomes) = (vec![transaction], vec![outcome]);
        let mut header = Header::genesis(&NetworkId([7; 32]));
        header.height = 3;
        header.outcomes_root = outcomes_root(&transactions, &outcomes);
        header.details.transactions_root = transactions_root(&transactions);
        Block {
            header,
            transactions,
            outcomes: outcomes.iter().map(Record::from).collect(),
            certificate: vec![1, 2],
        }
    }

    #[test]
    fn a_block_arrives_as_it_left() {
        let bytes = borsh::to_vec(&block()).expect("encoded");
        let read: Block = borsh::from_slice(&bytes).expect("decoded");
        let opened = read.open().expect("nobody touched it");
        assert_eq!(opened.digest, opened.header.digest());
        assert_eq!(Block::from(&opened), block());
    }

    #[test]
    fn a_block_that_somebody_changed_does_not_open() {
        let mut paid = block();
        paid.outcomes[0] = Record::from(&Outcome {
            id: paid.transactions[0].id(),
            result: Ok(Vec::new()),
        });
        assert_eq!(paid.open().expect_err("another outcome"), Tampered { height: 3 });
        let mut emptied = block();
        emptied.transactions.clear();
        assert!(emptied.open().is_err());
        let mut renamed = block();
        renamed.header.outcomes_root = Digest::default();
        assert!(renamed.open().is_err());
    }

    fn decoded<T: BorshSerialize + BorshDeserialize>(bytes: &[u8]) -> Option<T> {
        let value = borsh::from_slice(bytes).ok()?;
        assert_eq!(
            borsh::to_vec(&value).expect("bytes"),
            bytes,
            "one value has two spellings"
        );
        Some(value)
    }

    #[test]
    fn any_bytes_of_a_peer_are_a_block_as_its_header_says_or_refused() {
        let valid = borsh::to_vec(&block()).expect("bytes");
        piecework_fuzz::attack(&[valid], |bytes| {
            let Some(read) = decoded::<Block>(bytes) else {
                return false;
            };
            let header = read.header.clone();
            if let Ok(opened) = read.open() {
                assert_eq!(
                    transactions_root(&opened.transactions),
                    header.details.transactions_root
                );
                assert_eq!(opened.outcomes.len(), opened.transactions.len());
            }
            true
        });
        let head = Head {
            network: NetworkId([7; 32]),
            height: 9,
            block: Digest([1; 32]),
            state_root: Digest([2; 32]),
            last_block_at_ms: 3,
            peers: 4,
            queued: 5,
        };
        let page = Page {
            head,
            blocks: vec![block(), block()],
        };
        piecework_fuzz::attack(&[borsh::to_vec(&page).expect("bytes")], |bytes| {
            decoded::<Page>(bytes).is_some()
        });
        let value = StateValue {
            network: NetworkId([7; 32]),
            height: 9,
            value: None,
        };
        piecework_fuzz::attack(&[borsh::to_vec(&value).expect("bytes")], |bytes| {
            decoded::<StateValue>(bytes).is_some()
        });
    }
}
