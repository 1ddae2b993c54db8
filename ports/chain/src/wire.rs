//! Blocks and values as they travel between a peer and a program that follows it. The encoding is borsh.

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_ledger::{Outcome, SignedTransaction, Value};
use piecework_model::{Digest, NetworkId, leaf, merkle_root};

use crate::{ChainStatus, FinalBlock, Record};

/// The answer to a question for blocks: where the ledger is, and as many blocks as fit, in order of height without gaps.
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
    height: u64,
    parent: Digest,
    timestamp_ms: u64,
    previous_busy: u64,
    state_root: Digest,
    transactions: Vec<SignedTransaction>,
    outcomes: Vec<Record>,
    certificate: Vec<u8>,
    header: Vec<u8>,
}

/// The roots at the end of the header are not those of the block's transactions and outcomes: somebody changed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {height} does not hold what its header says")]
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
            height: block.height,
            parent: block.parent,
            timestamp_ms: block.timestamp_ms,
            previous_busy: block.previous_busy,
            state_root: block.state_root,
            transactions: block.transactions.clone(),
            outcomes: block.outcomes.iter().map(Record::from).collect(),
            certificate: block.certificate.clone(),
            header: block.header.clone(),
        }
    }
}

impl Block {
    /// The block, if its transactions and outcomes are those that its digest covers. Whether the digest is final is the
    /// certificate's affair.
    pub fn open(self) -> Result<FinalBlock, Tampered> {
        let transactions_root = root_of(&self.transactions);
        let outcomes_root = root_of(&self.outcomes);
        let sealed = [transactions_root.0, outcomes_root.0].concat();
        if !self.header.ends_with(&sealed) || self.outcomes.len() != self.transactions.len() {
            return Err(Tampered { height: self.height });
        }
        Ok(FinalBlock {
            height: self.height,
            digest: Digest::of(&self.header),
            parent: self.parent,
            timestamp_ms: self.timestamp_ms,
            previous_busy: self.previous_busy,
            state_root: self.state_root,
            transactions: self.transactions,
            outcomes: self.outcomes.into_iter().map(Outcome::from).collect(),
            certificate: self.certificate,
            transactions_root,
            outcomes_root,
            header: self.header,
        })
    }
}

fn root_of<T: BorshSerialize>(values: &[T]) -> Digest {
    let leaves: Vec<_> = values.iter().map(leaf).collect();
    merkle_root(&leaves)
}

#[cfg(test)]
mod tests {
    use piecework_ledger::{Action, CloseLease, Outcome, Transaction};
    use piecework_model::{AccountId, LeaseId, Rejection, SecretKey};

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
            result: Err(Rejection::new("lease.unknown", "no such lease").hint("open one")),
        };
        let (transactions, outcomes) = (vec![transaction], vec![Record::from(&outcome)]);
        let roots = [root_of(&transactions).0, root_of(&outcomes).0].concat();
        Block {
            height: 3,
            parent: Digest([1; 32]),
            timestamp_ms: 5,
            previous_busy: 2,
            state_root: Digest([2; 32]),
            transactions,
            outcomes,
            certificate: vec![1, 2],
            header: [b"header".to_vec(), roots].concat(),
        }
    }

    #[test]
    fn a_block_arrives_as_it_left() {
        let bytes = borsh::to_vec(&block()).expect("encoded");
        let read: Block = borsh::from_slice(&bytes).expect("decoded");
        let opened = read.open().expect("nobody touched it");
        assert_eq!(opened.digest, Digest::of(&opened.header));
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
        renamed.header.pop();
        assert!(renamed.open().is_err());
    }
}
