//! Which transactions may wait for a block: the same question for our callers' and for other peers'.

use std::sync::Arc;

use piecework_ledger::{BlockContext, Committee, Key, Rules, SignedTransaction, TransactionId, Value, check};
use piecework_model::{Code, NetworkId, Rejection};

use crate::{
    ChainFailure, SubmitError,
    application::Shared,
    mempool::{TRANSACTION_BYTES_MAX, takes_nonce},
    publish::Board,
    reads::Reads,
    state::Fetched,
};

/// The latest final state, what waits, and the ledger's own check.
#[derive(Clone)]
pub(crate) struct Admission {
    pub(crate) network: NetworkId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) board: Arc<Board>,
    pub(crate) reads: Reads,
}

impl Admission {
    /// From the latest final state, which before block 1 is the genesis.
    pub(crate) async fn values(&self, keys: Vec<Key>) -> Result<Vec<Option<Value>>, ChainFailure> {
        if self.board.head().height == 0 {
            return Ok(keys.iter().map(|key| self.shared.genesis.get(key).cloned()).collect());
        }
        self.reads.values(keys).await
    }

    /// Who makes the blocks, by the latest final state.
    pub(crate) async fn committee(&self) -> Result<Committee, ChainFailure> {
        match self.values(vec![Key::Committee]).await?.pop().flatten() {
            Some(Value::Committee(committee)) => Ok(committee),
            Some(_) | None => Err(ChainFailure::Stopped {
                detail: "the state names no peers".to_owned(),
            }),
        }
    }

    /// By which rules blocks are made, by the latest final state.
    pub(crate) async fn rules(&self) -> Result<Rules, ChainFailure> {
        match self.values(vec![Key::Rules]).await?.pop().flatten() {
            Some(Value::Rules(rules)) => Ok(rules),
            Some(_) | None => Ok(Rules::default()),
        }
    }

    /// Queues a transaction that could be executed. `false`: it waits already.
    pub(crate) async fn admit(&self, id: TransactionId, transaction: SignedTransaction) -> Result<bool, SubmitError> {
        let bytes = borsh::object_length(&transaction).expect("a counter accepts every byte");
        if bytes > TRANSACTION_BYTES_MAX {
            let rejection = Rejection::new(Code::TransactionTooLarge, "the transaction does not fit");
            let hint = format!("at most {TRANSACTION_BYTES_MAX} bytes; split it");
            return Err(rejection.hint(hint).into());
        }
        if self.shared.mempool.holds(&id) {
            return Ok(false);
        }
        self.check(&transaction).await?;
        Ok(self.shared.mempool.insert(id, transaction)?)
    }

    /// Checks a transaction as if those that wait before it of the same sender had been executed.
    async fn check(&self, transaction: &SignedTransaction) -> Result<(), SubmitError> {
        let context = BlockContext {
            network: self.network,
            height: self.board.head().height + 1,
        };
        let mut fetched = Fetched::default();
        let fetch = |keys| self.values(keys);
        if takes_nonce(transaction) {
            self.advance_nonce(&mut fetched, transaction).await?;
        }
        fetched.prefetch(&fetch, std::slice::from_ref(transaction)).await?;
        let checked: Result<_, ChainFailure> = fetched
            .complete(&fetch, |view| check(view, &context, transaction))
            .await;
        Ok(checked??)
    }

    async fn advance_nonce(&self, fetched: &mut Fetched, transaction: &SignedTransaction) -> Result<(), ChainFailure> {
        let sender = transaction.transaction.sender;
        // First what waits, then the state: what becomes final in between is in the state, and counted once.
        let Some(waiting) = self.shared.mempool.waiting(&sender) else {
            return Ok(());
        };
        let key = Key::Account(sender);
        let value = self.values(vec![key.clone()]).await?.pop().flatten();
        if let Some(Value::Account(mut account)) = value {
            if waiting.contains(&account.nonce) {
                account.nonce = waiting.end() + 1;
            }
            fetched.set(key, Some(Value::Account(account)));
        }
        Ok(())
    }
}
