//! What a peer answers while its ledger stands still.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use piecework_chain::{Chain, ChainFailure, ChainStatus, Final, FinalBlock, Proven, SubmitError};
use piecework_ledger::{Action, DropOffer, Genesis, Key, Params, SignedTransaction, Transaction, TransactionId, Value};
use piecework_model::{AccountId, Code, Credits, Digest, NetworkId, SecretKey};
use tokio_util::sync::CancellationToken;

use super::{Explorer, Options, Rates, transactions::executed};

const NETWORK: NetworkId = NetworkId([7; 32]);

/// Has one block that it does not give out, takes every transaction and executes none.
struct Standing;

#[async_trait]
impl Chain for Standing {
    fn network(&self) -> NetworkId {
        NETWORK
    }

    fn status(&self) -> ChainStatus {
        ChainStatus {
            network: NETWORK,
            height: 1,
            block: Digest::default(),
            state_root: Digest::default(),
            last_block_at_ms: 0,
            peers: 1,
            queued: 0,
        }
    }

    async fn submit(&self, tx: SignedTransaction) -> Result<TransactionId, SubmitError> {
        Ok(tx.id())
    }

    async fn submit_and_wait(&self, _tx: SignedTransaction) -> Result<Final, SubmitError> {
        std::future::pending().await
    }

    async fn get(&self, _key: &Key) -> Result<Option<Value>, ChainFailure> {
        Ok(None)
    }

    async fn prove(&self, _keys: &[Key]) -> Result<Proven, ChainFailure> {
        std::future::pending().await
    }

    async fn block(&self, _height: u64) -> Result<Option<Arc<FinalBlock>>, ChainFailure> {
        std::future::pending().await
    }

    async fn block_by_digest(&self, _digest: Digest) -> Result<Option<Arc<FinalBlock>>, ChainFailure> {
        Ok(None)
    }

    async fn transaction(&self, _id: TransactionId) -> Result<Option<(u64, u32)>, ChainFailure> {
        Ok(None)
    }

    fn blocks_from(&self, _from: u64) -> BoxStream<'static, Arc<FinalBlock>> {
        stream::pending().boxed()
    }
}

fn explorer() -> Arc<Explorer> {
    let options = Options {
        chain: Arc::new(Standing),
        genesis: Genesis {
            network_name: "test".to_owned(),
            created_at_ms: 0,
            params: Params {
                commission_ppm: 0,
                offer_deposit: Credits(0),
                window_blocks: 10,
                jobs_per_settlement_max: 1,
                transactions_per_block_max: 1,
                lane_intervals_max: 1,
                epoch_blocks: 10,
            },
            peers: Vec::new(),
            grants: Vec::new(),
        },
        here: None,
        heartbeat: std::time::Duration::from_secs(1),
        rates: Rates::default(),
        trusted: vec![Ipv4Addr::LOCALHOST.into()],
    };
    Explorer::start(options, CancellationToken::new())
}

#[tokio::test]
async fn lists_are_refused_until_the_history_has_been_read() {
    let refused = explorer().check_complete().expect_err("nothing has been read");
    assert_eq!(refused.0.code, Code::LedgerIndexing);
}

#[tokio::test]
async fn a_transaction_that_no_block_takes_is_pending_and_named() {
    let key = SecretKey::from_seed([1; 32]);
    let transaction = Transaction {
        sender: AccountId::of(&key.public()),
        nonce: 0,
        action: Action::DropOffer(DropOffer {}),
    };
    let signed = SignedTransaction::sign(transaction, &key, &NETWORK);
    let id = signed.id().0.to_string();
    let refused = executed(&explorer(), signed, Duration::from_millis(1)).await;
    let refused = refused.expect_err("it waits").0;
    assert_eq!(refused.code, Code::TransactionPending);
    assert!(refused.message.contains(&id), "{refused}");
}
