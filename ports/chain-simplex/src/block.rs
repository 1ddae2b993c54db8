//! The block: a header that votes cover, and a body of transactions with what came of them.
//!
//! The body carries the outcomes because they cannot be computed again once the state has moved on: so they are as durable
//! as the block itself, every voter has checked them by executing, and the header's root over them can be proven.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use commonware_codec::{Buf, EncodeSize, Error, FixedSize as _, MaxEncodeSize, RangeCfg, Read, ReadExt as _, Write};
use commonware_consensus::{
    Block as ConsensusBlock, BoundedBlock, CertifiableBlock, Heightable,
    simplex::types::Context as ViewContext,
    types::{Epoch, Height, Round, View},
};
use commonware_cryptography::{Digest as _, Digestible, blake3::Digest, ed25519::PublicKey};
use commonware_storage::mmr::Location;
use commonware_utils::range::NonEmptyRange;
use piecework_ledger::{FIRST_RULES, Outcome, SignedTransaction};
use piecework_model::{Digest as ModelDigest, NetworkId, PublicKey as ModelKey};
use piecework_proof::{Details, Record, outcomes_root, transactions_root};

/// Encoded transactions of one block: a few settlements of full size, sent to every peer within a heartbeat.
pub(crate) const TRANSACTIONS_BYTES_MAX: usize = 2 << 20;
/// Encoded body: outcomes name each job of a settlement up to three times, so they may outgrow their transactions.
pub(crate) const BODY_BYTES_MAX: usize = 8 << 20;

pub(crate) type Context = ViewContext<Digest, PublicKey>;

/// What a vote covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Names the parent as well; that of the genesis is the network's id.
    pub(crate) context: Context,
    pub(crate) height: Height,
    /// By which the block is executed.
    pub(crate) rules: u32,
    pub(crate) timestamp_ms: u64,
    /// The latest block before this one that holds transactions, or 0: a reader of history skips the idle hours.
    pub(crate) busy: Height,
    /// Proves what is, and is not, in the state after this block.
    pub(crate) state_root: Digest,
    /// Of the log of state operations, with its range: what a peer that copies the state checks against.
    pub(crate) operations_root: Digest,
    pub(crate) operations: NonEmptyRange<Location>,
}

/// What a block does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) transactions: Vec<SignedTransaction>,
    pub(crate) outcomes: Vec<Outcome>,
    bytes: Bytes,
    transactions_root: ModelDigest,
    outcomes_root: ModelDigest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) header: Header,
    pub(crate) body: Arc<Body>,
}

impl Body {
    pub(crate) fn new(transactions: Vec<SignedTransaction>, outcomes: Vec<Outcome>) -> Self {
        let records: Vec<Record> = outcomes.iter().map(Record::from).collect();
        let bytes = borsh::to_vec(&(&transactions, &records)).expect("a vector accepts every byte");
        Self {
            transactions_root: transactions_root(&transactions),
            outcomes_root: outcomes_root(&transactions, &outcomes),
            transactions,
            outcomes,
            bytes: bytes.into(),
        }
    }

    fn decode(bytes: Bytes) -> Result<Self, Error> {
        let wrong = || Error::Invalid("piecework::Block", "body");
        let (transactions, records): (Vec<SignedTransaction>, Vec<Record>) =
            borsh::from_slice(&bytes).map_err(|_| wrong())?;
        if transactions.len() != records.len() {
            return Err(wrong());
        }
        let ids = transactions.iter().map(SignedTransaction::id);
        let outcomes: Vec<Outcome> = records.into_iter().zip(ids).map(|(record, id)| record.of(id)).collect();
        Ok(Self {
            transactions_root: transactions_root(&transactions),
            outcomes_root: outcomes_root(&transactions, &outcomes),
            transactions,
            outcomes,
            bytes,
        })
    }

    pub(crate) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }
}

impl Block {
    /// Height 0: names the network, holds nothing. The genesis state is written by block 1.
    pub(crate) fn genesis(
        network: NetworkId,
        leader: PublicKey,
        root: Digest,
        operations: NonEmptyRange<Location>,
    ) -> Self {
        let header = Header {
            context: Context {
                round: Round::new(Epoch::zero(), View::zero()),
                leader,
                parent: (View::zero(), Digest(network.0)),
            },
            height: Height::zero(),
            rules: FIRST_RULES,
            timestamp_ms: 0,
            busy: Height::zero(),
            state_root: Digest::EMPTY,
            operations_root: root,
            operations,
        };
        Self {
            header,
            body: Arc::new(Body::new(Vec::new(), Vec::new())),
        }
    }

    /// What [`Header::busy`] must be in a child.
    pub(crate) fn latest_busy(&self) -> Height {
        if self.body.transactions.is_empty() {
            self.header.busy
        } else {
            self.header.height
        }
    }

    /// What votes cover.
    pub(crate) fn sealed(&self) -> piecework_proof::Header {
        let Header { context, .. } = &self.header;
        if self.header.height.is_zero() {
            return piecework_proof::Header::genesis(&NetworkId(context.parent.1.0));
        }
        let leader = context.leader.as_ref().try_into().expect("a key has 32 bytes");
        let operations = (*self.header.operations.start(), *self.header.operations.end());
        piecework_proof::Header {
            height: self.header.height.get(),
            rules: self.header.rules,
            epoch: context.round.epoch().get(),
            timestamp_ms: self.header.timestamp_ms,
            outcomes_root: self.body.outcomes_root,
            details: Details {
                view: context.round.view().get(),
                leader: ModelKey(leader),
                parent_view: context.parent.0.get(),
                parent: ModelDigest(context.parent.1.0),
                previous_busy: self.header.busy.get(),
                state_root: ModelDigest(self.header.state_root.0),
                operations_root: ModelDigest(self.header.operations_root.0),
                operations,
                transactions_root: self.body.transactions_root,
            },
        }
    }
}

/// Set in a height as it is written, where the number of the rules follows it: blocks of the first rules do not name them.
const NAMES_RULES: u64 = 1 << 63;

/// Where a block stands, as its header is written.
struct Place {
    height: Height,
    rules: u32,
}

impl Place {
    fn written(&self) -> (Height, Option<u32>) {
        match self.rules {
            FIRST_RULES => (self.height, None),
            rules => (Height::new(self.height.get() | NAMES_RULES), Some(rules)),
        }
    }
}

impl Header {
    fn place(&self) -> Place {
        Place {
            height: self.height,
            rules: self.rules,
        }
    }
}

impl Write for Place {
    fn write(&self, buf: &mut impl BufMut) {
        let (height, rules) = self.written();
        height.write(buf);
        if let Some(rules) = rules {
            rules.write(buf);
        }
    }
}

impl EncodeSize for Place {
    fn encode_size(&self) -> usize {
        let (height, rules) = self.written();
        height.encode_size() + rules.map_or(0, |_| u32::SIZE)
    }
}

impl Read for Place {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, (): &()) -> Result<Self, Error> {
        let height = Height::read(buf)?;
        if height.get() & NAMES_RULES == 0 {
            let rules = FIRST_RULES;
            return Ok(Self { height, rules });
        }
        let rules = u32::read(buf)?;
        if rules <= FIRST_RULES {
            return Err(Error::Invalid("piecework::Block", "it names the first rules"));
        }
        let height = Height::new(height.get() & !NAMES_RULES);
        Ok(Self { height, rules })
    }
}

impl Write for Header {
    fn write(&self, buf: &mut impl BufMut) {
        self.context.write(buf);
        self.place().write(buf);
        self.timestamp_ms.write(buf);
        self.busy.write(buf);
        self.state_root.write(buf);
        self.operations_root.write(buf);
        self.operations.write(buf);
    }
}

impl EncodeSize for Header {
    fn encode_size(&self) -> usize {
        self.context.encode_size()
            + 2 * Digest::SIZE
            + self.place().encode_size()
            + self.busy.encode_size()
            + u64::SIZE
            + self.operations.encode_size()
    }
}

impl Read for Header {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, (): &()) -> Result<Self, Error> {
        let context = Context::read(buf)?;
        let Place { height, rules } = Place::read(buf)?;
        Ok(Self {
            context,
            height,
            rules,
            timestamp_ms: u64::read(buf)?,
            busy: Height::read(buf)?,
            state_root: Digest::read(buf)?,
            operations_root: Digest::read(buf)?,
            operations: NonEmptyRange::read(buf)?,
        })
    }
}

impl Write for Block {
    fn write(&self, buf: &mut impl BufMut) {
        self.header.write(buf);
        self.body.bytes.write(buf);
    }
}

impl EncodeSize for Block {
    fn encode_size(&self) -> usize {
        self.header.encode_size() + self.body.bytes.encode_size()
    }
}

impl Read for Block {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, (): &()) -> Result<Self, Error> {
        let header = Header::read(buf)?;
        let bytes = Bytes::read_cfg(buf, &RangeCfg::from(..=BODY_BYTES_MAX))?;
        Ok(Self {
            header,
            body: Arc::new(Body::decode(bytes)?),
        })
    }
}

impl BoundedBlock for Block {
    fn max_encode_size((): &()) -> usize {
        let header = Context::MAX_ENCODE_SIZE
            + 2 * Digest::SIZE
            + 2 * Height::MAX_ENCODE_SIZE
            + u32::SIZE
            + u64::SIZE
            + NonEmptyRange::<Location>::MAX_ENCODE_SIZE;
        // Five bytes hold the widest length of a body.
        header + 5 + BODY_BYTES_MAX
    }
}

impl Digestible for Block {
    type Digest = Digest;

    fn digest(&self) -> Digest {
        Digest(self.sealed().digest().0)
    }
}

impl Heightable for Block {
    fn height(&self) -> Height {
        self.header.height
    }
}

impl ConsensusBlock for Block {
    fn parent(&self) -> Digest {
        self.header.context.parent.1
    }
}

impl CertifiableBlock for Block {
    type Context = Context;

    fn context(&self) -> Context {
        self.header.context.clone()
    }
}

#[cfg(test)]
mod tests {
    use commonware_codec::{DecodeExt as _, Encode as _};
    use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
    use commonware_utils::non_empty_range;
    use piecework_ledger::{Action, CloseLease, Transaction};
    use piecework_model::{AccountId, Code, LeaseId, Rejection, SecretKey};

    use super::*;

    fn block() -> Block {
        let network = NetworkId([7; 32]);
        let leader = PrivateKey::from_seed(1).public_key();
        let mut block = Block::genesis(
            network,
            leader,
            Digest([3; 32]),
            non_empty_range!(Location::new(0), Location::new(1)),
        );
        let key = SecretKey::from_seed([9; 32]);
        let action = Action::CloseLease(CloseLease {
            lease: LeaseId([1; 20]),
        });
        let transaction = Transaction {
            sender: AccountId::of(&key.public()),
            nonce: 4,
            action,
        };
        let transaction = SignedTransaction::sign(transaction, &key, &network);
        let refused = Outcome {
            id: transaction.id(),
            result: Err(Rejection::new(Code::LeaseUnknown, "no such lease")
                .hint("open one")
                .field("lease")),
        };
        block.body = Arc::new(Body::new(vec![transaction], vec![refused]));
        block
    }

    #[test]
    fn a_block_survives_its_encoding() {
        let block = block();
        let read = Block::decode(block.encode()).expect("what was written can be read");
        assert_eq!(read, block);
        assert_eq!(read.digest(), block.digest());
        assert!(block.encode().len() <= Block::max_encode_size(&()));
    }

    #[test]
    fn a_block_of_other_rules_names_them_and_one_of_the_first_does_not() {
        let first = block();
        let mut second = first.clone();
        second.header.height = Height::new(7);
        second.header.rules = 2;
        assert_eq!(
            second.encode().len(),
            first.encode().len() + Height::MAX_ENCODE_SIZE - 1 + u32::SIZE
        );
        let read = Block::decode(second.encode()).expect("what was written can be read");
        assert_eq!(read, second);
        assert_ne!(read.digest(), first.digest());
        for rules in [0u32, FIRST_RULES] {
            let mut bytes = Vec::new();
            Height::new(NAMES_RULES).write(&mut bytes);
            rules.write(&mut bytes);
            assert!(
                Place::read(&mut Bytes::from(bytes)).is_err(),
                "there is one encoding of a block"
            );
        }
    }

    #[test]
    fn the_digest_covers_transactions_and_outcomes() {
        let mut block = block();
        block.header.height = Height::new(1);
        let mut other = block.clone();
        other.body = Arc::new(Body::new(Vec::new(), Vec::new()));
        assert_ne!(other.digest(), block.digest());
        let mut paid = block.body.outcomes.clone();
        paid[0].result = Ok(Vec::new());
        other.body = Arc::new(Body::new(block.body.transactions.clone(), paid));
        assert_ne!(other.digest(), block.digest());
    }

    #[test]
    fn trailing_bytes_in_a_body_are_refused() {
        let block = block();
        let mut bytes = Vec::new();
        block.header.write(&mut bytes);
        let mut body = block.body.bytes.to_vec();
        body.push(0);
        Bytes::from(body).write(&mut bytes);
        assert!(Block::decode(Bytes::from(bytes)).is_err());
    }

    #[test]
    fn any_bytes_of_a_peer_are_one_block_or_refused() {
        let mut second = block();
        second.header.rules = 2;
        second.header.height = Height::new(7);
        let valid = [block(), second].map(|block| block.encode().to_vec());
        piecework_fuzz::attack(&valid, |bytes| {
            let Ok(read) = Block::decode(bytes::Bytes::copy_from_slice(bytes)) else {
                return false;
            };
            assert_eq!(read.encode(), bytes, "one block has two spellings");
            assert_eq!(
                Block::decode(read.encode()).expect("it is read again").digest(),
                read.digest()
            );
            true
        });
    }
}
