//! The state machine that consensus drives: builds a block from the mempool, or checks another's by doing it again.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::UNIX_EPOCH,
};

use commonware_consensus::{
    Heightable as _, marshal::ancestry::Ancestry, simplex::scheme::ed25519::Scheme, types::Height,
};
use commonware_cryptography::Digested;
use commonware_glue::stateful::{
    Application, Finality, Input, Proposed,
    db::{DatabaseSet, Merkleized as _, Unmerkleized as _},
};
use commonware_runtime::Spawner;
use commonware_storage::{
    Context as StorageContext, mmr,
    qmdb::{Error as StateError, sync::Target},
};
use commonware_utils::non_empty_range;
use futures::{StreamExt as _, future::BoxFuture};
use piecework_ledger::{
    BlockContext, Changes, Key, Outcome, Params, RULES, Rules, SignedTransaction, TransactionId, Value,
};
use piecework_model::NetworkId;
use tokio::sync::mpsc;

use crate::{
    block::{BODY_BYTES_MAX, Block, Body, Context, Header, TRANSACTIONS_BYTES_MAX},
    mempool::Mempool,
    state::{self, Batch, Databases},
};

/// What the application, the pacer and the node's own tasks have in common.
pub(crate) struct Shared {
    pub(crate) network: NetworkId,
    pub(crate) genesis: BTreeMap<Key, Value>,
    pub(crate) mempool: Mempool,
    /// The highest rules that this peer takes part in.
    pub(crate) rules_known: u32,
    /// Of the last published block: everything up to it has left the mempool.
    height: AtomicU64,
}

impl Shared {
    pub(crate) fn new(network: NetworkId, genesis: BTreeMap<Key, Value>) -> Self {
        Self {
            network,
            genesis,
            mempool: Mempool::default(),
            rules_known: RULES,
            height: AtomicU64::new(0),
        }
    }

    /// With no more rules than these.
    pub(crate) fn knowing(self, rules: u32) -> Self {
        Self {
            rules_known: self.rules_known.min(rules),
            ..self
        }
    }

    pub(crate) fn height(&self) -> u64 {
        self.height.load(Ordering::Acquire)
    }

    pub(crate) fn set_height(&self, height: u64) {
        self.height.store(height, Ordering::Release);
    }
}

type StorageError = StateError<mmr::Family>;
type Merkleized<E> = <Databases<E> as DatabaseSet<E>>::Merkleized;

/// What executing some transactions on a parent gives.
struct Executed<E: Spawner + StorageContext> {
    state: Merkleized<E>,
    outcomes: Vec<Outcome>,
}

/// piecework's ledger as consensus sees it.
#[derive(Clone)]
pub(crate) struct Ledger {
    pub(crate) genesis: Block,
    pub(crate) shared: Arc<Shared>,
    /// Final blocks, in order, some of them again after a crash.
    pub(crate) finals: mpsc::Sender<Block>,
}

impl Ledger {
    /// Reads keys on the parent of the block at `height`; the parent of block 1 is the genesis state.
    fn fetch<'a, E: Spawner + StorageContext>(
        &'a self,
        height: Height,
        batch: &'a Batch<E>,
    ) -> impl Fn(Vec<Key>) -> BoxFuture<'a, Result<Vec<Option<Value>>, StorageError>> {
        move |keys| {
            Box::pin(async move {
                if height.get() == 1 {
                    return Ok(keys.iter().map(|key| self.shared.genesis.get(key).cloned()).collect());
                }
                let places: Vec<_> = keys.iter().map(state::place).collect();
                let values = batch.get_many(&places.iter().collect::<Vec<_>>()).await?;
                let decoded = keys.iter().zip(values).map(|(key, bytes)| {
                    state::decode(key, bytes).expect("the storage's checksums hold, so these are the bytes we wrote")
                });
                Ok(decoded.collect())
            })
        }
    }

    /// The parameters and the number of the rules of the block at `height`. Never resolves where this peer does not know
    /// the rules: it neither makes nor judges such a block, and consensus ends for it ([`crate::ChainFailure::UnknownRules`]).
    async fn terms<E: Spawner + StorageContext>(&self, height: Height, batch: &Batch<E>) -> (Params, u32) {
        let read = self.fetch::<E>(height, batch)(vec![Key::Params, Key::Rules])
            .await
            .expect("the state can be read");
        let (params, rules) = match <[_; 2]>::try_from(read) {
            Ok([Some(Value::Params(params)), Some(Value::Rules(rules))]) => (params, rules),
            Ok([Some(Value::Params(params)), None]) => (params, Rules::default()),
            Ok(_) | Err(_) => panic!("the state holds the parameters from block 1 on"),
        };
        let rules = rules.at(height.get());
        if rules > self.shared.rules_known {
            std::future::pending::<()>().await;
        }
        (params, rules)
    }

    async fn run<E: Spawner + StorageContext>(
        &self,
        height: Height,
        batch: &Batch<E>,
        transactions: &[SignedTransaction],
    ) -> (Changes, Vec<Outcome>) {
        let context = BlockContext {
            network: self.shared.network,
            height: height.get(),
        };
        let fetch = self.fetch::<E>(height, batch);
        let verified = self.shared.mempool.verified(transactions);
        let applied = state::run(&fetch, &context, transactions, verified)
            .await
            .expect("the state can be read");
        if height.get() != 1 {
            return (applied.changes, applied.outcomes);
        }
        let genesis = self.shared.genesis.iter();
        let mut changes: Changes = genesis.map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        changes.extend(applied.changes);
        (changes, applied.outcomes)
    }

    async fn merkleize<E: Spawner + StorageContext>(batch: Batch<E>, changes: &Changes) -> Merkleized<E> {
        state::write(batch, changes, |batch: Batch<E>, key, value| batch.write(key, value))
            .merkleize()
            .await
            .expect("the state can be read")
    }

    /// Ids in the blocks between the last final one and `parent`, which the mempool still holds.
    async fn held(&self, parent: &Digested<Block>, ancestry: &mut impl Ancestry<Block>) -> HashSet<TransactionId> {
        let mut held = HashSet::new();
        let mut block = Some(parent.clone());
        while let Some(at) = block {
            if at.height().get() <= self.shared.height() {
                break;
            }
            held.extend(at.inner().body.outcomes.iter().map(|outcome| outcome.id));
            block = ancestry.next().await;
        }
        held
    }

    /// Executes as many of `transactions` as leave a body that fits, and returns them with the body.
    async fn fill<E: Spawner + StorageContext>(
        &self,
        height: Height,
        batch: &Batch<E>,
        mut transactions: Vec<SignedTransaction>,
    ) -> (Changes, Body) {
        loop {
            let (changes, outcomes) = self.run::<E>(height, batch, &transactions).await;
            let kept = transactions.len() / 2;
            let body = Body::new(transactions, outcomes);
            if body.bytes_len() <= BODY_BYTES_MAX {
                return (changes, body);
            }
            // Outcomes are many times larger than expected: try half. One transaction alone always fits.
            transactions = body.transactions;
            transactions.truncate(kept);
        }
    }

    /// The rules for a block that executing it does not show.
    fn well_formed(block: &Block, parent: &Block, (params, rules): &(Params, u32)) -> bool {
        let bytes: usize = block
            .body
            .transactions
            .iter()
            .map(|transaction| borsh::object_length(transaction).expect("a counter accepts every byte"))
            .sum();
        block.header.timestamp_ms >= parent.header.timestamp_ms
            && block.header.busy == parent.latest_busy()
            && block.header.rules == *rules
            && block.body.transactions.len() <= params.transactions_per_block_max as usize
            && bytes <= TRANSACTIONS_BYTES_MAX
    }

    async fn check<E: Spawner + StorageContext>(&self, block: &Block, batch: Batch<E>) -> Executed<E> {
        let (changes, outcomes) = self.run::<E>(block.height(), &batch, &block.body.transactions).await;
        let state = Self::merkleize::<E>(batch, &changes).await;
        Executed { state, outcomes }
    }
}

impl<E: Spawner + StorageContext> Application<E> for Ledger {
    type SigningScheme = Scheme;
    type Context = Context;
    type Block = Block;
    type Databases = Databases<E>;
    type Captured = ();
    type Provider = ();
    type Input = ();

    fn sync_targets(block: &Block) -> <Databases<E> as DatabaseSet<E>>::SyncTargets {
        Target::new(block.header.operations_root, block.header.operations.clone())
    }

    async fn genesis(&mut self) -> Block {
        self.genesis.clone()
    }

    async fn propose(
        &mut self,
        (runtime, context): (E, Context),
        mut ancestry: impl Ancestry<Block>,
        batch: Batch<E>,
        _input: Input<(), ()>,
    ) -> Option<Proposed<Self, E>> {
        let parent = ancestry.next().await?;
        let held = self.held(&parent, &mut ancestry).await;
        let height = parent.height().next();
        let (params, rules) = self.terms::<E>(height, &batch).await;
        let count_max = params.transactions_per_block_max as usize;
        let selected = self.shared.mempool.select(&held, count_max, TRANSACTIONS_BYTES_MAX);
        let (changes, body) = self.fill::<E>(height, &batch, selected).await;
        let merkleized = Self::merkleize::<E>(batch, &changes).await;
        let now = runtime.current().duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = Header {
            context,
            height,
            rules,
            busy: parent.inner().latest_busy(),
            timestamp_ms: (now.as_millis() as u64).max(parent.inner().header.timestamp_ms),
            state_root: merkleized.root(),
            operations_root: merkleized.ops_root(),
            operations: non_empty_range!(merkleized.sync_boundary(), merkleized.bounds().tip.size),
        };
        let body = Arc::new(body);
        Some(Proposed {
            block: Block { header, body },
            merkleized,
        })
    }

    async fn process(
        &mut self,
        _context: (E, Context),
        mut ancestry: impl Ancestry<Block>,
        batch: Batch<E>,
        finality: Finality,
    ) -> Option<Merkleized<E>> {
        let block = ancestry.next().await?;
        let terms = self.terms::<E>(block.height(), &batch).await;
        if finality == Finality::Candidate {
            let parent = ancestry.next().await?;
            if !Self::well_formed(block.inner(), parent.inner(), &terms) {
                return None;
            }
            let outcomes = block.inner().body.outcomes.iter();
            self.shared.mempool.proposed(outcomes.map(|outcome| outcome.id));
        }
        let executed = self.check::<E>(block.inner(), batch).await;
        let same = executed.outcomes == block.inner().body.outcomes
            && executed.state.root() == block.inner().header.state_root;
        same.then_some(executed.state)
    }

    async fn capture(
        &mut self,
        _context: (E, Context),
        _block: &Block,
        _batch: &Merkleized<E>,
        _readers: <Databases<E> as DatabaseSet<E>>::Readers,
    ) {
    }

    async fn finalized(
        &mut self,
        _context: (E, Context),
        block: &Block,
        (): (),
        _readers: <Databases<E> as DatabaseSet<E>>::Readers,
    ) {
        // A closed channel means that the node is stopping: the block will be delivered again.
        let _ = self.finals.send(block.clone()).await;
    }
}
