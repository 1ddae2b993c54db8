//! The ledger's state on disk, and contracts run on what is fetched of it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::{BufMut, Bytes};
use commonware_codec::{Buf, EncodeSize, Error, RangeCfg, Read, Write};
use commonware_cryptography::{Blake3, blake3::Digest};
use commonware_glue::stateful::db::{AttachableResolver, DatabaseSet, Shared};
use commonware_parallel::Sequential;
use commonware_storage::{
    mmr,
    qmdb::{
        any::ordered::variable as variable_operation,
        current::ordered::variable,
        sync::{Request, Source, source},
    },
    translator::EightCap,
};
use piecework_ledger::{
    Applied, BlockContext, Changes, Key, SignedTransaction, TransactionId, Value, View, execute, read_set,
};

/// One encoded value; the ledger's own bounds keep far below.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;

/// An encoded value as it lies in the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored(Bytes);

impl Write for Stored {
    fn write(&self, buf: &mut impl BufMut) {
        self.0.write(buf);
    }
}

impl EncodeSize for Stored {
    fn encode_size(&self) -> usize {
        self.0.encode_size()
    }
}

impl Read for Stored {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, (): &()) -> Result<Self, Error> {
        Bytes::read_cfg(buf, &RangeCfg::from(..=VALUE_BYTES_MAX)).map(Self)
    }
}

/// Ordered by the digest of the key, with the status of each operation under the root: proves presence and absence.
pub(crate) type Database<E> = variable::Db<mmr::Family, E, Digest, Stored, Blake3, EightCap, 32, Sequential>;
pub(crate) type Databases<E> = Shared<Database<E>>;
pub(crate) type Batch<E> = <Databases<E> as DatabaseSet<E>>::Unmerkleized;

/// Where a key lies. Digests spread evenly, so nobody can crowd one corner of the index.
pub(crate) fn place(key: &Key) -> Digest {
    Digest(piecework_proof::place(key).0)
}

/// A stored value that does not decode: the bytes are not ours, or damaged below the storage's own checksums.
#[derive(Debug, thiserror::Error)]
#[error("the value of {key:?} does not decode")]
pub(crate) struct BadValue {
    key: Key,
}

pub(crate) fn decode(key: &Key, stored: Option<Stored>) -> Result<Option<Value>, BadValue> {
    stored
        .map(|stored| borsh::from_slice(&stored.0).map_err(|_| BadValue { key: key.clone() }))
        .transpose()
}

fn encode(value: &Value) -> Stored {
    let bytes = borsh::to_vec(value).expect("a vector accepts every byte");
    assert!(bytes.len() <= VALUE_BYTES_MAX, "the ledger's bounds keep values small");
    Stored(bytes.into())
}

/// Writes a block's changes into a batch, in the order of the keys.
pub(crate) fn write<T>(batch: T, changes: &Changes, put: impl Fn(T, Digest, Option<Stored>) -> T) -> T {
    changes.iter().fold(batch, |batch, (key, value)| {
        put(batch, place(key), value.as_ref().map(encode))
    })
}

/// What has been fetched of the state, and what was asked for beyond it.
#[derive(Default)]
pub(crate) struct Fetched {
    verified: HashSet<TransactionId>,
    known: BTreeMap<Key, Option<Value>>,
    missed: RefCell<Vec<Key>>,
}

impl View for Fetched {
    fn get(&self, key: &Key) -> Option<Value> {
        if let Some(value) = self.known.get(key) {
            return value.clone();
        }
        self.missed.borrow_mut().push(key.clone());
        None
    }

    fn has_verified(&self, id: &TransactionId) -> bool {
        self.verified.contains(id)
    }
}

impl Fetched {
    pub(crate) fn set(&mut self, key: Key, value: Option<Value>) {
        self.known.insert(key, value);
    }

    fn take_missed(&mut self) -> Vec<Key> {
        let mut missed = std::mem::take(self.missed.get_mut());
        missed.sort();
        missed.dedup();
        missed
    }

    /// Runs `decide`, fetches what it missed, and runs it again until it has seen all it asks for. Ends because each round
    /// knows more keys and a decision asks for finitely many.
    pub(crate) async fn complete<T, E, F>(
        &mut self,
        fetch: &impl Fn(Vec<Key>) -> F,
        mut decide: impl FnMut(&Self) -> T,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<Vec<Option<Value>>, E>>,
    {
        loop {
            let decided = decide(self);
            let missed = self.take_missed();
            if missed.is_empty() {
                return Ok(decided);
            }
            let values = fetch(missed.clone()).await?;
            self.known.extend(missed.into_iter().zip(values));
        }
    }

    /// Fetches what the transactions are known to read, which is cheap to find out, so that a dear decision runs once.
    pub(crate) async fn prefetch<E, F>(
        &mut self,
        fetch: &impl Fn(Vec<Key>) -> F,
        transactions: &[SignedTransaction],
    ) -> Result<(), E>
    where
        F: Future<Output = Result<Vec<Option<Value>>, E>>,
    {
        self.complete(fetch, |view| {
            for key in transactions.iter().flat_map(|transaction| read_set(transaction, view)) {
                view.get(&key);
            }
        })
        .await
    }
}

/// Executes a block's transactions on the state that `fetch` reads. `verified`: those whose signatures are known to hold.
pub(crate) async fn run<E, F>(
    fetch: &impl Fn(Vec<Key>) -> F,
    context: &BlockContext,
    transactions: &[SignedTransaction],
    verified: HashSet<TransactionId>,
) -> Result<Applied, E>
where
    F: Future<Output = Result<Vec<Option<Value>>, E>>,
{
    let mut fetched = Fetched {
        verified,
        ..Fetched::default()
    };
    fetched.prefetch(fetch, transactions).await?;
    let executed = fetched
        .complete(fetch, |view| attempt(view, context, transactions))
        .await?;
    Ok(executed.unwrap_or_else(|bug| std::panic::resume_unwind(bug)))
}

/// Executes on what has been fetched so far. Where something is still missing, the ledger's own asserts may find that the
/// sums do not come out: such a result is thrown away with all others of an incomplete view.
fn attempt(view: &Fetched, context: &BlockContext, transactions: &[SignedTransaction]) -> std::thread::Result<Applied> {
    catch_unwind(AssertUnwindSafe(|| execute(view, context, transactions)))
}

/// Where a peer would copy the state from: nowhere, so it replays every block instead.
///
/// The engine's own server of state copies takes values of fixed size only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nowhere;

impl Source for Nowhere {
    type Family = mmr::Family;
    type Digest = Digest;
    type Op = variable_operation::Operation<mmr::Family, Digest, Stored>;
    type Error = std::convert::Infallible;

    async fn serve(&self, _request: Request<mmr::Family>) -> source::Result<Self> {
        std::future::pending().await
    }
}

impl<T: Send + Sync + 'static> AttachableResolver<T> for Nowhere {
    async fn attach_database(&self, _database: Shared<T>) {}
}
