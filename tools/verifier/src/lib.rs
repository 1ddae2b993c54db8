//! A second, independent check of an exported ledger: it shares only the format with the ledger, no code.
//!
//! It does not execute the contracts. It checks what an auditor would: that the peers signed every block, that nothing
//! in it was changed, that every sender was entitled to its transaction, that providers signed their receipts, and that
//! the resulting balances match the state.

mod books;
mod format;
mod papers;
mod trees;
mod votes;

use std::{
    collections::BTreeSet,
    io::{self, Read},
};

use books::Books;
pub use format::Hash;
use format::{Block, Exported, Frame, Genesis, Header, Id, StateKey};

/// The highest rules that are checked here. Rules 2 are rules 1 under another number.
const RULES_KNOWN: u32 = 2;
const MAGIC: [u8; 8] = *b"pwledgr1";
/// Larger than any block.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    #[error("cannot read the file: {0}")]
    Read(#[from] io::Error),
    #[error("the file is not an export: {0}")]
    Format(String),
    #[error("block {height} is missing: found block {found} instead")]
    Missing { height: u64, found: u64 },
    #[error("block {height}: {what}")]
    Block { height: u64, what: String },
    #[error(
        "block {height} was made by rules {found}, but this program knows only rules up to {known}; use a newer one"
    )]
    Rules { height: u64, found: u32, known: u32 },
    #[error("block {height}: {votes} peers signed, but {needed} are needed")]
    TooFewSignatures { height: u64, votes: usize, needed: usize },
    #[error("block {height}, transaction {index}: {what}")]
    Transaction { height: u64, index: usize, what: String },
    #[error("block {height}: the state says that {name} is {said}, but the blocks give {found}")]
    Value {
        height: u64,
        name: String,
        said: String,
        found: String,
    },
}

/// What was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub network: Hash,
    pub blocks: u64,
    pub transactions: u64,
    pub certificates: u64,
    /// Values of the state that are what the blocks give.
    pub values: u64,
    /// In the books at the end.
    pub accounts: usize,
    pub head: Hash,
}

struct Check {
    books: Books,
    epoch_blocks: u64,
    last: (u64, Hash),
    last_ms: u64,
    /// The latest block that holds transactions.
    last_busy: u64,
    state_root: Hash,
    operations_root: Hash,
    covered: bool,
    ended: bool,
    /// Accounts whose value in the state was compared with the books; `None` is the pools.
    compared: BTreeSet<Option<Id>>,
    checked: Checked,
}

/// Checks an export from its beginning to its end.
pub fn check(mut reader: impl Read) -> Result<Checked, Wrong> {
    let mut magic = [0; 8];
    reader.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(Wrong::Format("it does not begin like one".into()));
    }
    let Some(Frame::Genesis(genesis)) = frame(&mut reader)? else {
        return Err(Wrong::Format("it does not begin with the genesis".into()));
    };
    let mut check = Check::begin(&genesis);
    while let Some(frame) = frame(&mut reader)? {
        if check.ended {
            return Err(Wrong::Format("there is data after the end".into()));
        }
        match frame {
            Frame::Genesis(_) => return Err(Wrong::Format("there are two genesis frames".into())),
            Frame::Block(block) => check.block(&block)?,
            Frame::Values(values) => values.iter().try_for_each(|value| check.value(value))?,
            Frame::End { blocks, head } => check.end(blocks, head)?,
        }
    }
    if !check.ended {
        return Err(check.wrong("the export was cut off here"));
    }
    check.checked.accounts = check.books.accounts.len();
    Ok(check.checked)
}

fn frame(reader: &mut impl Read) -> Result<Option<Frame>, Wrong> {
    let cut_off = || Wrong::Format("the last part is cut off".into());
    let mut length = Vec::new();
    reader.take(4).read_to_end(&mut length)?;
    if length.is_empty() {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length.try_into().map_err(|_| cut_off())?);
    if length > FRAME_BYTES_MAX {
        return Err(Wrong::Format("a part is too long".into()));
    }
    let mut bytes = Vec::new();
    if reader.take(length.into()).read_to_end(&mut bytes)? != length as usize {
        return Err(cut_off());
    }
    borsh::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Wrong::Format(format!("a part cannot be decoded: {error}")))
}

impl Check {
    fn begin(genesis: &Genesis) -> Self {
        let network = trees::tagged("piecework 2026 network id", genesis);
        Self {
            books: Books::open(genesis),
            epoch_blocks: genesis.params.epoch_blocks.max(1).into(),
            last: (0, genesis_digest(network)),
            last_ms: 0,
            last_busy: 0,
            state_root: Hash::default(),
            operations_root: Hash::default(),
            covered: true,
            ended: false,
            compared: BTreeSet::new(),
            checked: Checked {
                network,
                ..Checked::default()
            },
        }
    }

    fn wrong(&self, what: &str) -> Wrong {
        Wrong::Block {
            height: self.last.0,
            what: what.to_owned(),
        }
    }

    fn block(&mut self, block: &Block) -> Result<(), Wrong> {
        let (header, due) = (&block.header, self.last.0 + 1);
        let height = header.place.height;
        if height != due {
            return Err(Wrong::Missing {
                height: due,
                found: height,
            });
        }
        let wrong = |what: &str| {
            Err(Wrong::Block {
                height,
                what: what.to_owned(),
            })
        };
        if header.details.parent != self.last.1 {
            return wrong("its parent is not the block before it");
        }
        if header.place.rules != self.books.rules_at(height) {
            return wrong("its rules are not those that were voted for");
        }
        if header.place.rules > RULES_KNOWN {
            return Err(Wrong::Rules {
                height,
                found: header.place.rules,
                known: RULES_KNOWN,
            });
        }
        if header.epoch != height / self.epoch_blocks {
            return wrong("its epoch does not match its height");
        }
        if header.timestamp_ms < self.last_ms {
            return wrong("its time is earlier than that of the block before it");
        }
        if header.details.previous_busy != self.last_busy {
            return wrong("it names the wrong last block with transactions");
        }
        let leaves = block.transactions.iter().map(trees::leaf).collect();
        if trees::root(leaves) != header.details.transactions_root {
            return wrong("its transactions do not match its header");
        }
        if block.outcomes.len() != block.transactions.len() || trees::outcomes_root(block) != header.outcomes_root {
            return wrong("the outcomes of its transactions do not match its header");
        }
        self.certificate(block)?;
        self.enter(block)?;
        self.last = (height, trees::digest(header));
        self.last_ms = header.timestamp_ms;
        if !block.transactions.is_empty() {
            self.last_busy = height;
        }
        self.state_root = header.details.state_root;
        self.operations_root = header.details.operations_root;
        self.checked.blocks += 1;
        self.checked.transactions += block.transactions.len() as u64;
        Ok(())
    }

    fn certificate(&mut self, block: &Block) -> Result<(), Wrong> {
        let header = &block.header;
        let height = header.place.height;
        let Some(certificate) = &block.certificate else {
            self.covered = false;
            return Ok(());
        };
        let peers = self.books.peers_at(height);
        let needed = peers.len() - peers.len().saturating_sub(1) / 3;
        match trees::votes(certificate, &self.checked.network, header, &peers) {
            None => Err(Wrong::Block {
                height,
                what: "its certificate is not from its peers".into(),
            }),
            Some(votes) if votes < needed => Err(Wrong::TooFewSignatures { height, votes, needed }),
            Some(_) => {
                self.covered = true;
                self.checked.certificates += 1;
                Ok(())
            }
        }
    }

    fn enter(&mut self, block: &Block) -> Result<(), Wrong> {
        let height = block.header.place.height;
        for (index, (signed, outcome)) in block.transactions.iter().zip(&block.outcomes).enumerate() {
            let Ok(events) = outcome else { continue };
            let entered = self.books.enter(height, signed, events);
            entered.map_err(|what| Wrong::Transaction { height, index, what })?;
        }
        if block.transactions.is_empty() {
            return Ok(());
        }
        self.books.balance().map_err(|what| Wrong::Block { height, what })
    }

    fn value(&mut self, exported: &Exported) -> Result<(), Wrong> {
        let Exported { key, value, proof } = exported;
        self.books.compare(self.last.0, key, value)?;
        if trees::state_root(key, value, proof, &self.operations_root) != Some(self.state_root) {
            return Err(self.wrong("a value's path does not lead to the state root"));
        }
        self.compared.insert(match key {
            StateKey::Account(id) => Some(*id),
            _ => None,
        });
        self.checked.values += 1;
        Ok(())
    }

    fn end(&mut self, blocks: u64, head: Hash) -> Result<(), Wrong> {
        if !self.covered {
            return Err(self.wrong("no certificate covers it"));
        }
        if (blocks, head) != self.last {
            return Err(Wrong::Missing {
                height: self.last.0 + 1,
                found: blocks,
            });
        }
        // Without these the state root would bind nothing that was computed here.
        let accounts = self.books.accounts.keys().copied().map(Some);
        if let Some(missing) = accounts.chain([None]).find(|key| !self.compared.contains(key)) {
            let name = missing.map_or("the pools".to_owned(), |id| format!("account {}", hex::encode(id)));
            return Err(self.wrong(&format!("the value of {name} is missing")));
        }
        self.checked.head = head;
        self.ended = true;
        Ok(())
    }
}

/// Block 0 has nothing but the network's id, in the parent's place.
fn genesis_digest(network: Hash) -> Hash {
    let details = format::Details {
        view: 0,
        leader: Hash::default(),
        parent_view: 0,
        parent: network,
        previous_busy: 0,
        state_root: Hash::default(),
        operations_root: Hash::default(),
        operations: (0, 0),
        transactions_root: Hash::default(),
    };
    trees::digest(&Header {
        place: format::At { height: 0, rules: 1 },
        epoch: 0,
        timestamp_ms: 0,
        outcomes_root: Hash::default(),
        details,
    })
}
