//! The whole ledger in one file, and its check: every block is executed again from the genesis on.
//!
//! ```text
//! EXPORT_MAGIC, frames: genesis, block 1, block 2, ..., values (after the block whose state they are of), ..., end
//! ```
//! A frame is its length (u32, little-endian) and its borsh encoding.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_ledger::{BlockContext, Changes, Committee, Genesis, Key, Outcome, SignedTransaction, Value, execute};
use piecework_model::{Digest, NetworkId, PublicKey};
use serde::Serialize;

use crate::{Anchor, Certificate, Header, Invalid, Record, StateProof, outcomes_root, transactions_root};

/// The bytes before every export.
pub const EXPORT_MAGIC: [u8; 8] = *b"pwledgr1";
/// Larger than any block, and than any page of values.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// One part of an export.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Frame {
    Genesis(Box<Genesis>),
    Block(Box<ExportBlock>),
    /// Values of the state after the last block before this frame.
    Values(Vec<Exported>),
    /// End of the export: data missing after it was not exported.
    End {
        blocks: u64,
        head: Digest,
    },
}

/// A block with all that it takes to check it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ExportBlock {
    pub header: Header,
    pub transactions: Vec<SignedTransaction>,
    pub outcomes: Vec<Record>,
    /// None where the block became final through a block after it.
    pub certificate: Option<Certificate>,
}

/// A value that the state is said to hold.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Exported {
    pub key: Key,
    pub value: Value,
    pub proof: StateProof,
}

impl Frame {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        borsh::to_writer(&mut bytes, self).expect("a vector accepts every byte");
        let length = u32::try_from(bytes.len() - 4).expect("a block is bounded far below 4 GiB");
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }
}

/// The frames of an export, one after the other; ends with the file, or after what cannot be read.
pub fn read_frames(mut reader: impl Read) -> Result<impl Iterator<Item = Result<Frame, ReadFailure>>, ReadFailure> {
    let mut magic = [0; 8];
    reader.read_exact(&mut magic)?;
    if magic != EXPORT_MAGIC {
        return Err(Invalid::Malformed("it does not begin like an export").into());
    }
    Ok(std::iter::from_fn(move || read_frame(&mut reader).transpose()))
}

fn read_frame(reader: &mut impl Read) -> Result<Option<Frame>, ReadFailure> {
    let mut length = [0; 4];
    let begun = reader.read(&mut length)?;
    if begun == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut length[begun..])?;
    let length = u32::from_le_bytes(length);
    if length > FRAME_BYTES_MAX {
        return Err(Invalid::Malformed("a frame is too long").into());
    }
    let mut bytes = Vec::new();
    reader.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() != length as usize {
        return Err(Invalid::Malformed("the last frame is cut off").into());
    }
    let frame = borsh::from_slice(&bytes).map_err(|_| Invalid::Malformed("a frame cannot be decoded"))?;
    Ok(Some(frame))
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFailure {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Makes the same state tree again, so that its roots can be compared.
pub trait StateRoots {
    /// The root of the state, and of the log of its operations, after a block's changes.
    fn apply(&mut self, changes: &Changes) -> Result<(Digest, Digest), Invalid>;
}

/// What was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub network: NetworkId,
    /// Each executed again: outcomes and state roots are what the headers say.
    pub blocks: u64,
    pub transactions: u64,
    /// Of those, refused ones: the replay refuses them with the same words.
    pub refused: u64,
    pub certificates: u64,
    pub certificate_signatures: u64,
    /// Values compared with the replay, and proven against the state root.
    pub values: u64,
    pub peer_changes: u64,
    pub head: Digest,
    pub state_root: Digest,
}

/// Checks an export frame by frame. Trusts the genesis in it only as far as its network id is what the caller expects.
pub struct Checker<R> {
    roots: R,
    genesis: Option<Genesis>,
    state: BTreeMap<Key, Value>,
    last: Header,
    last_busy: u64,
    /// The lowest block that no certificate covers yet.
    uncovered: Option<u64>,
    ended: bool,
    verified: Verified,
}

impl<R: StateRoots> Checker<R> {
    pub fn new(roots: R) -> Self {
        Self {
            roots,
            genesis: None,
            state: BTreeMap::new(),
            last: Header::genesis(&NetworkId::default()),
            last_busy: 0,
            uncovered: None,
            ended: false,
            verified: Verified::default(),
        }
    }

    pub fn frame(&mut self, frame: Frame) -> Result<(), Invalid> {
        if self.ended {
            return Err(Invalid::Malformed("there is data after the closing line"));
        }
        match (frame, &self.genesis) {
            (Frame::Genesis(genesis), None) => self.begin(*genesis),
            (Frame::Genesis(_), Some(_)) => Err(Invalid::Malformed("there are two genesis frames")),
            (_, None) => Err(Invalid::Malformed("there is no genesis before the blocks")),
            (Frame::Block(block), Some(genesis)) => {
                let genesis = genesis.clone();
                self.block(*block, &genesis)
            }
            (Frame::Values(values), Some(_)) => values.into_iter().try_for_each(|exported| self.value(exported)),
            (Frame::End { blocks, head }, Some(_)) => self.end(blocks, head),
        }
    }

    /// After the last frame.
    pub fn finish(self) -> Result<Verified, Invalid> {
        match self.ended {
            true => Ok(self.verified),
            false => Err(Invalid::CutOff {
                height: self.last.height,
            }),
        }
    }

    fn begin(&mut self, genesis: Genesis) -> Result<(), Invalid> {
        let network = genesis.network_id();
        let state = genesis
            .state()
            .map_err(|refused| Invalid::Genesis(refused.to_string()))?;
        self.state = state
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        self.last = Header::genesis(&network);
        self.verified.network = network;
        self.genesis = Some(genesis);
        Ok(())
    }

    fn block(&mut self, block: ExportBlock, genesis: &Genesis) -> Result<(), Invalid> {
        let height = block.header.height;
        if height != self.last.height + 1 {
            let (height, found) = (self.last.height + 1, height);
            return Err(Invalid::MissingBlock { height, found });
        }
        self.check_header(&block.header, genesis)?;
        if transactions_root(&block.transactions) != block.header.details.transactions_root {
            return Err(Invalid::Transactions { height });
        }
        if block.outcomes.len() != block.transactions.len() {
            return Err(Invalid::Outcomes { height });
        }
        let ids = block.transactions.iter().map(SignedTransaction::id);
        let outcomes: Vec<Outcome> = block
            .outcomes
            .into_iter()
            .zip(ids)
            .map(|(record, id)| record.of(id))
            .collect();
        if outcomes_root(&block.transactions, &outcomes) != block.header.outcomes_root {
            return Err(Invalid::Outcomes { height });
        }
        self.check_certificate(&block.header, block.certificate.as_ref())?;
        self.replay(&block.header, &block.transactions, &outcomes)?;
        self.verified.blocks += 1;
        self.verified.transactions += block.transactions.len() as u64;
        self.verified.refused += outcomes.iter().filter(|outcome| outcome.result.is_err()).count() as u64;
        if !block.transactions.is_empty() {
            self.last_busy = height;
        }
        self.last = block.header;
        Ok(())
    }

    fn check_header(&self, header: &Header, genesis: &Genesis) -> Result<(), Invalid> {
        let height = header.height;
        if header.details.parent != self.last.digest() {
            return Err(Invalid::Parent { height });
        }
        let wrong = |what| Err(Invalid::Header { height, what });
        if header.timestamp_ms < self.last.timestamp_ms {
            return wrong("the time");
        }
        if header.epoch != height / u64::from(genesis.params.epoch_blocks.max(1)) {
            return wrong("the epoch");
        }
        if header.details.previous_busy != self.last_busy {
            return wrong("the last block with transactions");
        }
        Ok(())
    }

    /// By the peers that the state before the block names.
    fn check_certificate(&mut self, header: &Header, certificate: Option<&Certificate>) -> Result<(), Invalid> {
        let height = header.height;
        let Some(certificate) = certificate else {
            self.uncovered.get_or_insert(height);
            return Ok(());
        };
        let peers: Vec<PublicKey> = match self.state.get(&Key::Committee) {
            Some(Value::Committee(committee)) => keys_at(committee, height),
            Some(_) | None => return Err(Invalid::Certificate { height }),
        };
        certificate.verify(&self.verified.network, (header.epoch, height, header.digest()), &peers)?;
        self.uncovered = None;
        self.verified.certificates += 1;
        self.verified.certificate_signatures += certificate.signatures.len() as u64;
        Ok(())
    }

    fn replay(
        &mut self,
        header: &Header,
        transactions: &[SignedTransaction],
        outcomes: &[Outcome],
    ) -> Result<(), Invalid> {
        let height = header.height;
        let context = BlockContext {
            network: self.verified.network,
            height,
        };
        let applied = execute(&self.state, &context, transactions);
        if let Some(index) = applied
            .outcomes
            .iter()
            .zip(outcomes)
            .position(|(ours, theirs)| ours != theirs)
        {
            return Err(Invalid::Replay { height, index });
        }
        let peers_before = self.state.get(&Key::Committee).cloned();
        let mut changes = Changes::new();
        if height == 1 {
            changes.extend(self.state.iter().map(|(key, value)| (key.clone(), Some(value.clone()))));
        }
        changes.extend(applied.changes);
        for (key, value) in &changes {
            match value {
                Some(value) => drop(self.state.insert(key.clone(), value.clone())),
                None => drop(self.state.remove(key)),
            }
        }
        let (root, operations_root) = self.roots.apply(&changes)?;
        if (root, operations_root) != (header.details.state_root, header.details.operations_root) {
            return Err(Invalid::StateRoot { height });
        }
        self.verified.state_root = root;
        self.verified.peer_changes += u64::from(self.state.get(&Key::Committee) != peers_before.as_ref());
        Ok(())
    }

    fn value(&mut self, exported: Exported) -> Result<(), Invalid> {
        let Exported { key, value, proof } = exported;
        let (height, details) = (self.last.height, &self.last.details);
        let found = self.state.get(&key);
        if found != Some(&value) {
            let (said, found) = (told(Some(&value)), told(found));
            let key = Box::new(key);
            return Err(Invalid::Value {
                height,
                key,
                said,
                found,
            });
        }
        if !proof.verify(&key, &value, details.state_root, details.operations_root) {
            let key = Box::new(key);
            return Err(Invalid::StatePath { height, key });
        }
        self.verified.values += 1;
        Ok(())
    }

    fn end(&mut self, blocks: u64, head: Digest) -> Result<(), Invalid> {
        if let Some(height) = self.uncovered {
            return Err(Invalid::NotFinal { height });
        }
        let own = self.last.digest();
        if (blocks, head) != (self.last.height, own) {
            return Err(Invalid::MissingBlock {
                height: self.last.height + 1,
                found: blocks,
            });
        }
        self.verified.head = own;
        self.ended = true;
        Ok(())
    }
}

fn keys_at(committee: &Committee, height: u64) -> Vec<PublicKey> {
    committee.at(height).iter().map(|peer| peer.key).collect()
}

/// In few words: balances of an account, and that there is something else.
fn told(value: Option<&Value>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(Value::Account(account)) => format!("{} posted, {} held", account.posted, account.held),
        Some(Value::Pools(pools)) => format!("{} of the peers, {} of the insurance", pools.peers, pools.insurance),
        Some(_) => "another value".to_owned(),
    }
}

/// The peers of the genesis, for proofs beside an export.
impl From<&Genesis> for Anchor {
    fn from(genesis: &Genesis) -> Self {
        Self::genesis(genesis)
    }
}
