//! The whole ledger, written down so that `piecework_proof::Checker` can check it without any peer.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::Arc,
};

use futures::StreamExt as _;
use piecework_ledger::{Event, Genesis, Key};
use piecework_model::{AccountId, Digest};
use piecework_proof::{EXPORT_MAGIC, ExportBlock, Exported, Finalization, Frame, Record};

use crate::{Chain, ChainFailure, FinalBlock};

/// Keys asked for at once.
const KEYS_MAX: usize = 64;
/// Peers that lag behind the one that showed the blocks are asked again so often.
const TRIES_MAX: usize = 1_000;

/// Why an export ends early.
#[derive(Debug, thiserror::Error)]
pub enum ExportFailure {
    #[error("cannot write the export")]
    Write(#[from] io::Error),
    #[error(transparent)]
    Chain(#[from] ChainFailure),
    #[error("the ledger stopped while it was being read")]
    Ended,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    pub blocks: u64,
    /// Accounts, and the pools.
    pub values: u64,
    pub head: Digest,
}

struct Exporter<'a, W> {
    chain: &'a dyn Chain,
    out: W,
    /// Asked for and not written yet.
    keys: VecDeque<Key>,
    last: Option<Arc<FinalBlock>>,
    /// Whether the last block, or none yet, is covered by a certificate.
    covered: bool,
    values: u64,
    head: Digest,
}

/// Writes all blocks up to the head, and every account with its proof; what becomes final meanwhile may be in it. `progress`
/// is told each height.
pub async fn export(
    chain: &dyn Chain,
    genesis: &Genesis,
    out: impl Write,
    mut progress: impl FnMut(u64),
) -> Result<Export, ExportFailure> {
    let accounts = genesis.grants.iter().map(|grant| AccountId::of(&grant.key));
    let mut exporter = Exporter {
        chain,
        out,
        keys: [Key::Pools].into_iter().chain(accounts.map(Key::Account)).collect(),
        last: None,
        covered: true,
        values: 0,
        head: Digest::default(),
    };
    exporter.out.write_all(&EXPORT_MAGIC)?;
    exporter.frame(&Frame::Genesis(Box::new(genesis.clone())))?;
    exporter.blocks_to(chain.status().height.max(1), &mut progress).await?;
    while !exporter.keys.is_empty() {
        exporter.page(&mut progress).await?;
    }
    while !exporter.covered {
        exporter.blocks_to(exporter.height() + 1, &mut progress).await?;
    }
    exporter.end()
}

impl<W: Write> Exporter<'_, W> {
    fn height(&self) -> u64 {
        self.last.as_ref().map_or(0, |block| block.height)
    }

    fn frame(&mut self, frame: &Frame) -> Result<(), ExportFailure> {
        Ok(self.out.write_all(&frame.to_bytes())?)
    }

    async fn blocks_to(&mut self, height: u64, progress: &mut impl FnMut(u64)) -> Result<(), ExportFailure> {
        if height <= self.height() {
            return Ok(());
        }
        let mut blocks = self.chain.blocks_from(self.height() + 1);
        while self.height() < height {
            let block = blocks.next().await.ok_or(ExportFailure::Ended)?;
            self.block(block)?;
            progress(self.height());
        }
        Ok(())
    }

    fn block(&mut self, block: Arc<FinalBlock>) -> Result<(), ExportFailure> {
        let certificate = Finalization::from_engine(&block.certificate).map(|read| read.certificate);
        self.covered = certificate.is_some();
        self.head = block.digest;
        self.frame(&Frame::Block(Box::new(ExportBlock {
            header: block.header.clone(),
            transactions: block.transactions.clone(),
            outcomes: block.outcomes.iter().map(Record::from).collect(),
            certificate,
        })))?;
        let events = block
            .outcomes
            .iter()
            .filter_map(|outcome| outcome.result.as_ref().ok())
            .flatten();
        let registered = events.filter_map(|event| match event {
            Event::AccountRegistered { account } => Some(Key::Account(*account)),
            _ => None,
        });
        self.keys.extend(registered);
        self.last = Some(block);
        Ok(())
    }

    /// Some keys' values with their proofs, after the blocks that they are of.
    async fn page(&mut self, progress: &mut impl FnMut(u64)) -> Result<(), ExportFailure> {
        let keys: Vec<Key> = self.keys.drain(..self.keys.len().min(KEYS_MAX)).collect();
        for _ in 0..TRIES_MAX {
            let proven = self.chain.prove(&keys).await?;
            if proven.height < self.height() {
                continue;
            }
            self.blocks_to(proven.height, progress).await?;
            let values: Vec<Exported> = keys
                .iter()
                .zip(proven.values)
                .filter_map(|(key, value)| {
                    let (key, (value, proof)) = (key.clone(), value?);
                    Some(Exported { key, value, proof })
                })
                .collect();
            self.values += values.len() as u64;
            return self.frame(&Frame::Values(values));
        }
        Err(ExportFailure::Ended)
    }

    fn end(mut self) -> Result<Export, ExportFailure> {
        let (blocks, head) = (self.height(), self.head);
        self.frame(&Frame::End { blocks, head })?;
        self.out.flush()?;
        Ok(Export {
            blocks,
            values: self.values,
            head,
        })
    }
}
