//! One peer alone: what is submitted becomes final, can be read, and survives.

use std::{fs, path::Path, time::Duration};

use crate::network::*;
use futures::StreamExt as _;
use piecework_chain::{ChainFailure, SubmitError};
use piecework_chain_node::start;
use piecework_ledger::Event;
use piecework_model::{Code, Credits, leaf, merkle_root};

fn code(error: &SubmitError) -> Code {
    match error {
        SubmitError::Rejected(rejection) => rejection.code.known().unwrap(),
        SubmitError::Failed(failure) => panic!("{failure}"),
    }
}

#[tokio::test]
async fn a_transfer_becomes_final_and_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let node = start_alone(directory.path(), 3).await;
    let chain = node.chain();
    let sent = transfer(&chain.network(), 1, 0, 2, 70);
    let done = chain.submit_and_wait(sent.clone()).await.unwrap();

    assert_eq!(done.id, sent.id());
    let event = Event::CreditsTransferred {
        from: account(1),
        to: account(2),
        amount: Credits(70),
    };
    assert_eq!(done.events, [event]);
    assert_eq!(balance(&*chain, 1).await.posted.0, GRANT - 70);
    assert_eq!(balance(&*chain, 2).await.posted.0, GRANT + 70);
    assert_eq!(
        chain.transaction(sent.id()).await.unwrap(),
        Some((done.height, done.index))
    );
    let block = chain.block(done.height).await.unwrap().unwrap();
    assert_eq!(block.transactions, std::slice::from_ref(&sent));
    assert_eq!(block.outcomes[0].id, sent.id());
    assert_eq!(block.header.details.transactions_root, merkle_root(&[leaf(&sent)]));
    assert!(!block.certificate.is_empty());
    assert_eq!(block.header.digest(), block.digest);
    assert!(chain.status().height >= done.height);
    assert!(chain.block(u64::MAX).await.unwrap().is_none());
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_restart_resumes_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let node = start_alone(directory.path(), 3).await;
    let chain = node.chain();
    let mut sent = Vec::new();
    for nonce in 0..20 {
        let next = transfer(&chain.network(), 1, nonce, 2, 1);
        sent.push((chain.submit_and_wait(next.clone()).await.unwrap(), next));
    }
    let before = chain.status();
    node.shutdown().await.unwrap();
    assert!(matches!(
        chain.get(&piecework_ledger::Key::Params).await,
        Err(ChainFailure::Stopped { .. })
    ));

    let node = start_alone(directory.path(), 3).await;
    let chain = node.chain();
    let after = chain.status();
    assert!(after.height >= before.height);
    let same = chain.block(before.height).await.unwrap().unwrap();
    assert_eq!((same.digest, same.state_root), (before.block, before.state_root));
    assert_eq!(balance(&*chain, 2).await.posted.0, GRANT + 20);
    assert_eq!(supply(&*chain, 3).await, 3 * GRANT);
    for (done, transaction) in sent {
        assert_eq!(
            chain.transaction(done.id).await.unwrap(),
            Some((done.height, done.index))
        );
        assert_eq!(chain.submit_and_wait(transaction).await.unwrap(), done);
    }
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn followers_see_each_block_once_from_history_into_the_present() {
    let directory = tempfile::tempdir().unwrap();
    let node = start_alone(directory.path(), 3).await;
    let chain = node.chain();
    for nonce in 0..5 {
        let next = transfer(&chain.network(), 1, nonce, 2, 1);
        chain.submit_and_wait(next).await.unwrap();
    }
    node.shutdown().await.unwrap();
    let node = start_alone(directory.path(), 3).await;
    let chain = node.chain();
    let mut blocks = chain.blocks_from(0);
    let mut seen = Vec::new();
    let mut last: Option<std::sync::Arc<piecework_chain::FinalBlock>> = None;
    let live = tokio::spawn({
        let chain = chain.clone();
        async move {
            for nonce in 5..10 {
                let next = transfer(&chain.network(), 1, nonce, 2, 1);
                chain.submit_and_wait(next).await.unwrap();
            }
        }
    });
    while seen.len() < 10 {
        let block = blocks.next().await.unwrap();
        assert_eq!(block.height, last.as_ref().map_or(1, |last| last.height + 1));
        if let Some(last) = last {
            assert_eq!(block.parent, last.digest);
            assert!(block.timestamp_ms >= last.timestamp_ms);
        }
        seen.extend(
            block
                .transactions
                .iter()
                .map(|transaction| transaction.transaction.nonce),
        );
        last = Some(block);
    }
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
    live.await.unwrap();
    node.shutdown().await.unwrap();
    // Whatever was still to come comes, and then the stream ends instead of hanging.
    while blocks.next().await.is_some() {}
}

#[tokio::test]
async fn a_bad_transaction_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let node = start_alone(directory.path(), 3).await;
    let chain = node.chain();
    let network = chain.network();
    let poor = chain.submit(transfer(&network, 1, 0, 2, GRANT + 1)).await.unwrap_err();
    assert_eq!(code(&poor), Code::TransferInsufficient);
    let early = chain.submit(transfer(&network, 1, 7, 2, 1)).await.unwrap_err();
    assert_eq!(code(&early), Code::TransactionFutureNonce);
    let other = piecework_model::NetworkId([1; 32]);
    assert!(chain.submit(transfer(&other, 1, 0, 2, 1)).await.is_err());
    assert_eq!(chain.status().queued, 0);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_the_block_refuses_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let node = start_alone(directory.path(), 3).await;
    let chain = node.chain();
    let network = chain.network();
    // Each is covered on its own, together they are not: the second is checked before the first is final, and executed
    // after it. Another round, should the first be final too soon.
    let (mut nonce, mut available) = (0, GRANT);
    let refused = loop {
        let rest = available / 2;
        let second = transfer(&network, 1, nonce + 1, 2, rest + 1);
        chain
            .submit(transfer(&network, 1, nonce, 2, available - rest))
            .await
            .unwrap();
        let refusal = chain.submit_and_wait(second.clone()).await.unwrap_err();
        assert_eq!(code(&refusal), Code::TransferInsufficient);
        (nonce, available) = (nonce + 1, rest);
        if let Some((height, index)) = chain.transaction(second.id()).await.unwrap() {
            break chain.block(height).await.unwrap().unwrap().outcomes[index as usize].clone();
        }
    };
    assert_eq!(refused.result.unwrap_err().code, Code::TransferInsufficient);
    assert_eq!(balance(&*chain, 1).await.posted.0, available);
    // The refused one took no nonce.
    chain.submit_and_wait(transfer(&network, 1, nonce, 2, 5)).await.unwrap();
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn blocks_keep_to_the_networks_limit() {
    let directory = tempfile::tempdir().unwrap();
    let mut genesis = alone(3);
    genesis.params.transactions_per_block_max = 7;
    let node = start(options(directory.path(), genesis)).await.unwrap();
    let chain = node.chain();
    let network = chain.network();
    let mut last = None;
    for nonce in 0..100 {
        let sent = transfer(&network, 1, nonce, 2, 1);
        last = Some(sent.clone());
        chain.submit(sent).await.unwrap();
    }
    let done = chain.submit_and_wait(last.unwrap()).await.unwrap();
    for height in 1..=done.height {
        assert!(chain.block(height).await.unwrap().unwrap().transactions.len() <= 7);
    }
    assert_eq!(balance(&*chain, 2).await.posted.0, GRANT + 100);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_settlement_pays_its_jobs_once() {
    let directory = tempfile::tempdir().unwrap();
    let node = start_alone(directory.path(), 3).await;
    let chain = node.chain();
    let network = chain.network();
    let (lease, open) = open_lease(&network, 1, 0, 100_000);
    let paid = settle(&network, lease, 1, 2, 0, 500);
    chain.submit_and_wait(open).await.unwrap();
    let done = chain.submit_and_wait(paid.clone()).await.unwrap();
    let jobs = done
        .events
        .iter()
        .filter(|event| matches!(event, Event::JobPaid { .. }));
    assert_eq!(jobs.count(), 500);
    let earned = balance(&*chain, 2).await.posted.0;
    assert!(earned > GRANT);
    assert_eq!(chain.submit_and_wait(paid).await.unwrap(), done);
    assert_eq!(balance(&*chain, 2).await.posted.0, earned);
    assert_eq!(supply(&*chain, 3).await, 3 * GRANT);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_lease_can_be_settled_in_the_block_that_opens_it() {
    let directory = tempfile::tempdir().unwrap();
    let node = start_alone(directory.path(), 4).await;
    let chain = node.chain();
    let network = chain.network();
    let (lease, open) = open_lease(&network, 1, 0, 100_000);
    chain.submit(open.clone()).await.unwrap();
    // Refused by the check unless the lease is final already; either way nothing breaks and the retry pays.
    let _ = chain.submit(settle(&network, lease, 1, 2, 0, 3)).await;
    chain.submit_and_wait(open).await.unwrap();
    chain
        .submit_and_wait(settle(&network, lease, 1, 2, 0, 3))
        .await
        .unwrap();
    assert_eq!(supply(&*chain, 4).await, 4 * GRANT);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_directory_serves_one_network_and_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let node = start_alone(directory.path(), 3).await;
    let second = start(options(directory.path(), alone(3))).await.err().unwrap();
    assert_eq!(second.code(), "chain.locked");
    node.shutdown().await.unwrap();
    let foreign = start(options(directory.path(), alone(4))).await.err().unwrap();
    assert_eq!(foreign.code(), "chain.foreign_directory");
    let mut stranger = options(directory.path(), alone(3));
    stranger.key = peer_key(9);
    assert_eq!(start(stranger).await.err().unwrap().code(), "chain.not_a_peer");
    start_alone(directory.path(), 3).await.shutdown().await.unwrap();
}

/// Every file below, with its size.
fn files(root: &Path) -> Vec<(std::path::PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push((entry.path(), metadata.len()));
        }
    }
    found
}

async fn a_chain_with_history(directory: &Path) {
    let node = start_alone(directory, 3).await;
    let chain = node.chain();
    for nonce in 0..20 {
        let next = transfer(&chain.network(), 1, nonce, 2, 1);
        chain.submit_and_wait(next).await.unwrap();
    }
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn damaged_data_is_a_failure_and_no_panic_of_the_host() {
    let directory = tempfile::tempdir().unwrap();
    a_chain_with_history(directory.path()).await;
    for (path, bytes) in files(&directory.path().join("chain")) {
        fs::write(path, vec![0x5a; bytes as usize]).unwrap();
    }
    let failure = start(options(directory.path(), alone(3))).await.err().unwrap();
    assert_eq!(failure.code(), "chain.corrupt", "{failure}");
}

/// Changes one byte in the middle of what a file holds.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used / 2] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The failure says which of the first blocks is damaged.
#[track_caller]
fn named(failure: &ChainFailure, newest: u64) {
    assert_eq!(failure.code(), "chain.corrupt", "{failure}");
    let text = failure.to_string();
    let named = text.split("block ").nth(1).and_then(|rest| rest.split(':').next());
    let named: u64 = named.unwrap_or_default().parse().unwrap_or_else(|_| panic!("{text}"));
    assert!((1..=newest).contains(&named), "{text}");
}

#[tokio::test]
async fn a_flipped_byte_in_a_block_is_found_and_the_block_named() {
    let directory = tempfile::tempdir().unwrap();
    a_chain_with_history(directory.path()).await;
    flip(&directory.path().join("chain/blocks-value/0000000000000000"));
    let node = match start(options(directory.path(), alone(3))).await {
        Ok(node) => node,
        // The byte was one of the newest block, with which a peer begins.
        Err(failure) => return named(&failure, u64::MAX),
    };
    let chain = node.chain();
    let mut height = 0;
    let failure = loop {
        height += 1;
        if let Err(failure) = chain.block(height).await {
            break failure;
        }
        assert!(height < chain.status().height, "nothing was found");
    };
    // Its index is filled from the same blocks at the same time: whoever comes first finds it.
    named(&failure, chain.status().height);
    assert_eq!(node.failed().await.code(), "chain.corrupt");
    assert_eq!(node.shutdown().await.unwrap_err().code(), "chain.corrupt");
}

/// The last block was final, and its write was cut short: the peer has it from its votes, or says that it is gone.
#[tokio::test]
async fn a_write_that_a_crash_cut_short_is_made_good_or_named() {
    let directory = tempfile::tempdir().unwrap();
    a_chain_with_history(directory.path()).await;
    let path = directory.path().join("chain/blocks-value/0000000000000000");
    let bytes = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(bytes - 8)
        .unwrap();
    let node = match start(options(directory.path(), alone(3))).await {
        Ok(node) => node,
        Err(failure) => return named(&failure, u64::MAX),
    };
    let chain = node.chain();
    let newest = chain.status().height;
    for height in 1..=newest {
        assert_eq!(chain.block(height).await.unwrap().unwrap().height, height);
    }
    assert_eq!(balance(&*chain, 2).await.posted.0, GRANT + 20);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_flipped_byte_in_an_index_is_found_and_the_file_named() {
    let directory = tempfile::tempdir().unwrap();
    a_chain_with_history(directory.path()).await;
    flip(&directory.path().join("chain/blocks-key/0000000000000000"));
    let failure = start(options(directory.path(), alone(3))).await.err().unwrap();
    assert_eq!(failure.code(), "chain.corrupt", "{failure}");
    assert!(failure.to_string().contains("blocks-key"), "{failure}");
}

#[tokio::test]
async fn data_that_went_back_in_time_is_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    a_chain_with_history(directory.path()).await;
    let data = directory.path().join("chain");
    fs::remove_dir_all(&data).unwrap();
    fs::create_dir(&data).unwrap();
    let failure = start(options(directory.path(), alone(3))).await.err().unwrap();
    assert_eq!(failure.code(), "chain.corrupt", "{failure}");
}

#[tokio::test]
async fn a_missing_directory_of_data_is_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    a_chain_with_history(directory.path()).await;
    fs::remove_dir_all(directory.path().join("chain")).unwrap();
    let failure = start(options(directory.path(), alone(3))).await.err().unwrap();
    assert_eq!(failure.code(), "chain.corrupt", "{failure}");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind(any_port()).unwrap();
    let mut options = options(directory.path(), alone(3));
    options.listen = taken.local_addr().unwrap();
    let failure = start(options).await.err().unwrap();
    assert_eq!(failure.code(), "chain.listen");
}

#[tokio::test]
async fn empty_blocks_keep_to_the_heartbeat() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path(), alone(3));
    options.heartbeat = Duration::from_millis(100);
    let node = start(options).await.unwrap();
    let mut blocks = node.chain().blocks_from(2);
    let (first, started) = (blocks.next().await.unwrap(), std::time::Instant::now());
    for _ in 0..5 {
        blocks.next().await.unwrap();
    }
    assert!(
        started.elapsed() >= Duration::from_millis(400),
        "{:?}",
        started.elapsed()
    );
    assert!(first.transactions.is_empty());
    node.shutdown().await.unwrap();
}
