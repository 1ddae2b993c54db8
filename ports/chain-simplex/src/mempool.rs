//! Transactions that wait for a block: bounded, each once, and each sender's in the order of its nonces.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::RangeInclusive,
    sync::Arc,
};

use parking_lot::Mutex;
use piecework_ledger::{SignedTransaction, TransactionId};
use piecework_model::{AccountId, Code, Rejection};
use tokio::sync::Notify;

/// About ten full blocks: whoever waits longer is told to come back.
const TRANSACTIONS_MAX: usize = 20_000;
const BYTES_MAX: usize = 64 << 20;
/// One transaction: a settlement of the largest size with room to spare.
pub(crate) const TRANSACTION_BYTES_MAX: usize = 512 << 10;
/// So that one sender cannot fill the pool.
const PER_SENDER_MAX: usize = 2_000;

pub(crate) fn takes_nonce(transaction: &SignedTransaction) -> bool {
    transaction.transaction.action.takes_nonce()
}

#[derive(Default)]
pub(crate) struct Mempool {
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Default)]
struct Queue {
    /// By arrival; a sender's nonces arrive in order.
    entries: BTreeMap<u64, Entry>,
    by_id: HashMap<TransactionId, u64>,
    nonces: HashMap<AccountId, BTreeMap<u64, TransactionId>>,
    next_arrival: u64,
    bytes: usize,
    /// Entries that no proposal has held yet, as far as this peer knows.
    fresh: usize,
    /// In blocks that are not final yet: no reason to hurry, should they arrive only now.
    proposed: HashSet<TransactionId>,
}

struct Entry {
    id: TransactionId,
    transaction: Arc<SignedTransaction>,
    bytes: usize,
    offered: bool,
}

impl Mempool {
    /// Queues a checked transaction. `false`: it is queued already.
    pub(crate) fn insert(&self, id: TransactionId, transaction: SignedTransaction) -> Result<bool, Rejection> {
        let inserted = self.queue.lock().insert(id, transaction)?;
        if inserted {
            self.arrived.notify_one();
        }
        Ok(inserted)
    }

    /// The nonces that wait here of `sender`, from the lowest as far as they are contiguous.
    pub(crate) fn waiting(&self, sender: &AccountId) -> Option<RangeInclusive<u64>> {
        let queue = self.queue.lock();
        let nonces = queue.nonces.get(sender)?;
        let (first, last) = (*nonces.keys().next()?, *nonces.keys().next_back()?);
        if last - first == nonces.len() as u64 - 1 {
            return Some(first..=last);
        }
        let mut end = first;
        while nonces.contains_key(&(end + 1)) {
            end += 1;
        }
        Some(first..=end)
    }

    pub(crate) fn holds(&self, id: &TransactionId) -> bool {
        self.queue.lock().by_id.contains_key(id)
    }

    /// Those that wait here as well: what is queued has been checked. Of senders' own only: a payer's few and large ones
    /// cost more to look up than to verify.
    pub(crate) fn verified(&self, transactions: &[SignedTransaction]) -> HashSet<TransactionId> {
        let ids = transactions.iter().filter(|transaction| takes_nonce(transaction));
        let ids: Vec<TransactionId> = ids.map(SignedTransaction::id).collect();
        let queue = self.queue.lock();
        ids.into_iter().filter(|id| queue.by_id.contains_key(id)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.lock().entries.len()
    }

    /// Resolves once there is something that no proposal has held yet. Cancel safe.
    pub(crate) async fn fresh(&self) {
        loop {
            let arrived = self.arrived.notified();
            if self.queue.lock().fresh > 0 {
                return;
            }
            arrived.await;
        }
    }

    /// Another peer has proposed these: they are not fresh any more.
    pub(crate) fn proposed(&self, ids: impl Iterator<Item = TransactionId>) {
        self.queue.lock().propose(ids);
    }

    /// The oldest transactions within the limits, without those that unfinished blocks hold already. They stay queued until
    /// [`Mempool::settle`].
    pub(crate) fn select(
        &self,
        held: &HashSet<TransactionId>,
        count_max: usize,
        bytes_max: usize,
    ) -> Vec<SignedTransaction> {
        self.queue.lock().select(held, count_max, bytes_max)
    }

    /// Takes out what a final block executed, and what can never follow it: another transaction of a nonce that is used up.
    /// Those are returned.
    pub(crate) fn settle(&self, done: &[(TransactionId, &SignedTransaction, bool)]) -> Vec<Arc<SignedTransaction>> {
        let mut queue = self.queue.lock();
        let mut stale = Vec::new();
        for (id, transaction, executed) in done {
            queue.proposed.remove(id);
            queue.remove(id);
            if *executed && takes_nonce(transaction) {
                stale.extend(queue.remove_up_to(&transaction.transaction.sender, transaction.transaction.nonce));
            }
        }
        stale
    }
}

impl Queue {
    fn insert(&mut self, id: TransactionId, transaction: SignedTransaction) -> Result<bool, Rejection> {
        if self.by_id.contains_key(&id) {
            return Ok(false);
        }
        let bytes = borsh::object_length(&transaction).expect("a counter accepts every byte");
        self.admit(&transaction, bytes)?;
        if takes_nonce(&transaction) {
            let nonces = self.nonces.entry(transaction.transaction.sender).or_default();
            nonces.insert(transaction.transaction.nonce, id);
        }
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        let offered = self.proposed.contains(&id);
        self.bytes += bytes;
        self.fresh += usize::from(!offered);
        self.by_id.insert(id, arrival);
        let entry = Entry {
            id,
            transaction: Arc::new(transaction),
            bytes,
            offered,
        };
        self.entries.insert(arrival, entry);
        Ok(true)
    }

    fn admit(&self, transaction: &SignedTransaction, bytes: usize) -> Result<(), Rejection> {
        let waiting = self.nonces.get(&transaction.transaction.sender);
        let crowded = waiting.is_some_and(|nonces| nonces.len() >= PER_SENDER_MAX);
        if self.entries.len() >= TRANSACTIONS_MAX || self.bytes + bytes > BYTES_MAX || crowded {
            let rejection = Rejection::new(Code::MempoolFull, "too many transactions wait for a block");
            return Err(rejection.hint("try again in a moment"));
        }
        let taken = waiting.is_some_and(|nonces| nonces.contains_key(&transaction.transaction.nonce));
        if takes_nonce(transaction) && taken {
            let rejection = Rejection::new(
                Code::MempoolNonceTaken,
                "another transaction with this nonce already waits",
            );
            return Err(rejection.hint("wait until it is final, then use the next nonce"));
        }
        Ok(())
    }

    fn remove(&mut self, id: &TransactionId) -> Option<Arc<SignedTransaction>> {
        let arrival = self.by_id.remove(id)?;
        let entry = self.entries.remove(&arrival)?;
        self.bytes -= entry.bytes;
        self.fresh -= usize::from(!entry.offered);
        let (sender, nonce) = (
            entry.transaction.transaction.sender,
            entry.transaction.transaction.nonce,
        );
        if takes_nonce(&entry.transaction)
            && let Some(nonces) = self.nonces.get_mut(&sender)
        {
            nonces.remove(&nonce);
            if nonces.is_empty() {
                self.nonces.remove(&sender);
            }
        }
        Some(entry.transaction)
    }

    fn propose(&mut self, ids: impl Iterator<Item = TransactionId>) {
        if self.proposed.len() >= TRANSACTIONS_MAX {
            // Of blocks that never became final. What is forgotten costs an empty block at most.
            self.proposed.clear();
        }
        for id in ids {
            let entry = self.by_id.get(&id).and_then(|arrival| self.entries.get_mut(arrival));
            if let Some(entry) = entry {
                self.fresh -= usize::from(!entry.offered);
                entry.offered = true;
            }
            self.proposed.insert(id);
        }
    }

    fn remove_up_to(&mut self, sender: &AccountId, nonce: u64) -> Vec<Arc<SignedTransaction>> {
        let waiting = self.nonces.get(sender);
        let stale: Vec<TransactionId> = waiting
            .map(|nonces| nonces.range(..=nonce).map(|(_, id)| *id).collect())
            .unwrap_or_default();
        stale.iter().filter_map(|id| self.remove(id)).collect()
    }

    fn select(&mut self, held: &HashSet<TransactionId>, count_max: usize, bytes_max: usize) -> Vec<SignedTransaction> {
        let (mut selected, mut bytes) = (Vec::new(), 0);
        for entry in self.entries.values_mut() {
            if held.contains(&entry.id) {
                continue;
            }
            if selected.len() >= count_max || bytes + entry.bytes > bytes_max {
                break;
            }
            bytes += entry.bytes;
            self.fresh -= usize::from(!entry.offered);
            entry.offered = true;
            selected.push((*entry.transaction).clone());
        }
        selected
    }
}

#[cfg(test)]
mod tests {
    use piecework_ledger::{Action, Transaction, Transfer};
    use piecework_model::{Credits, NetworkId, SecretKey};

    use super::*;

    fn transfer(seed: u8, nonce: u64, amount: i64) -> SignedTransaction {
        let key = SecretKey::from_seed([seed; 32]);
        let transaction = Transaction {
            sender: AccountId::of(&key.public()),
            nonce,
            action: Action::Transfer(Transfer {
                to: AccountId([0; 20]),
                amount: Credits(amount.into()),
            }),
        };
        SignedTransaction::sign(transaction, &key, &NetworkId([0; 32]))
    }

    fn insert(pool: &Mempool, transaction: &SignedTransaction) -> Result<bool, Rejection> {
        pool.insert(transaction.id(), transaction.clone())
    }

    #[test]
    fn a_transaction_waits_once() {
        let pool = Mempool::default();
        assert_eq!(insert(&pool, &transfer(1, 0, 5)), Ok(true));
        assert_eq!(insert(&pool, &transfer(1, 0, 5)), Ok(false));
        assert_eq!(pool.len(), 1);
    }

    #[test]
    fn a_nonce_waits_once() {
        let pool = Mempool::default();
        insert(&pool, &transfer(1, 0, 5)).unwrap();
        let rejection = insert(&pool, &transfer(1, 0, 6)).unwrap_err();
        assert_eq!(rejection.code, Code::MempoolNonceTaken);
        let sender = AccountId::of(&SecretKey::from_seed([1; 32]).public());
        assert_eq!(pool.waiting(&sender), Some(0..=0));
    }

    #[test]
    fn selection_keeps_the_order_and_the_limits() {
        let pool = Mempool::default();
        let all: Vec<_> = (0..5).map(|nonce| transfer(1, nonce, 5)).collect();
        for transaction in &all {
            insert(&pool, transaction).unwrap();
        }
        let held = HashSet::from([all[0].id()]);
        assert_eq!(pool.select(&held, 2, usize::MAX), all[1..3]);
        let bytes = borsh::object_length(&all[0]).unwrap();
        assert_eq!(pool.select(&HashSet::new(), 9, 3 * bytes), all[..3]);
    }

    #[test]
    fn a_used_nonce_drops_its_rivals() {
        let pool = Mempool::default();
        let (ours, next) = (transfer(1, 0, 5), transfer(1, 1, 5));
        insert(&pool, &ours).unwrap();
        insert(&pool, &next).unwrap();
        let theirs = transfer(1, 0, 6);
        let stale = pool.settle(&[(theirs.id(), &theirs, true)]);
        assert_eq!(stale.len(), 1);
        assert_eq!(stale[0].id(), ours.id());
        assert_eq!(pool.len(), 1);
    }

    #[test]
    fn a_full_pool_says_so() {
        let pool = Mempool::default();
        for nonce in 0..PER_SENDER_MAX as u64 {
            insert(&pool, &transfer(1, nonce, 5)).unwrap();
        }
        let rejection = insert(&pool, &transfer(1, PER_SENDER_MAX as u64, 5)).unwrap_err();
        assert_eq!(rejection.code, Code::MempoolFull);
        assert_eq!(insert(&pool, &transfer(2, 0, 5)), Ok(true));
    }

    #[tokio::test]
    async fn only_what_was_never_offered_is_fresh() {
        use futures::FutureExt as _;
        let pool = Mempool::default();
        assert!(pool.fresh().now_or_never().is_none());
        insert(&pool, &transfer(1, 0, 5)).unwrap();
        assert!(pool.fresh().now_or_never().is_some());
        pool.select(&HashSet::new(), 9, usize::MAX);
        assert!(pool.fresh().now_or_never().is_none());
    }

    #[tokio::test]
    async fn what_another_peer_proposed_is_not_fresh_whichever_comes_first() {
        use futures::FutureExt as _;
        let pool = Mempool::default();
        let (here, late) = (transfer(1, 0, 5), transfer(1, 1, 5));
        insert(&pool, &here).unwrap();
        pool.proposed([here.id(), late.id()].into_iter());
        insert(&pool, &late).unwrap();
        assert!(pool.fresh().now_or_never().is_none());
        // They can still be proposed: the block may never become final.
        assert_eq!(
            pool.select(&HashSet::new(), 9, usize::MAX),
            [here.clone(), late.clone()]
        );
        pool.settle(&[(here.id(), &here, true), (late.id(), &late, false)]);
        insert(&pool, &late).unwrap();
        assert!(pool.fresh().now_or_never().is_some());
    }
}
