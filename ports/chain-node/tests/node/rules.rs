//! Peers of two builds in one network: what happens when the others vote for rules that one does not know.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::network::*;
use futures::future::join_all;
use piecework_chain::{Chain, ChainFailure, Node};
use piecework_chain_node::{Options, start};
use piecework_ledger::{Action, Change, Genesis, Propose, RULES, SetRules};
use piecework_loopback::free_addresses;

const PEERS: usize = 4;
const EPOCH: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(120);

struct Peers {
    genesis: Genesis,
    addresses: Vec<std::net::SocketAddr>,
}

impl Peers {
    fn new() -> Self {
        let addresses = free_addresses(PEERS).unwrap();
        let mut genesis = genesis(3, &addresses);
        genesis.params.epoch_blocks = EPOCH as u32;
        Self { genesis, addresses }
    }

    async fn start(&self, directories: &Path, number: usize, rules_known: u32) -> Result<Box<dyn Node>, ChainFailure> {
        let directory = directories.join(number.to_string());
        let own = peer_key(number as u8);
        let mut options = Options::new(directory, self.genesis.clone(), own, self.addresses[number]);
        options.heartbeat = Duration::from_millis(50);
        options.rules_known = rules_known;
        start(options).await
    }

    /// Why a peer ends by itself, be it while it starts or later.
    async fn ends(&self, directories: &Path, number: usize, rules_known: u32) -> ChainFailure {
        let node = match self.start(directories, number, rules_known).await {
            Ok(node) => node,
            Err(failure) => return failure,
        };
        let failure = tokio::time::timeout(PATIENCE, node.failed()).await.unwrap();
        drop(node.shutdown().await);
        failure
    }
}

async fn reach(chain: &dyn Chain, height: u64) {
    let deadline = Instant::now() + PATIENCE;
    while chain.status().height < height {
        assert!(Instant::now() < deadline, "still {:?}", chain.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Account 0 owns all peers: what it proposes is carried at once. The first block of the new rules, amid an epoch.
async fn switch(chain: &dyn Chain, nonce: u64, rules: u32) -> u64 {
    let from_height = (chain.status().height / EPOCH + 4) * EPOCH + 3;
    let change = Change::SetRules(SetRules { rules, from_height });
    let signed = sign(0, nonce, Action::Propose(Propose { change }), &chain.network());
    chain.submit_and_wait(signed).await.unwrap();
    from_height
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_stops_before_rules_that_it_does_not_know_and_goes_on_when_it_does() {
    let directories = tempfile::tempdir().unwrap();
    let peers = Peers::new();
    let known = [RULES, RULES, RULES, 1];
    let starts = known.iter().enumerate();
    let started = join_all(starts.map(|(number, known)| peers.start(directories.path(), number, *known))).await;
    let mut nodes: Vec<_> = started.into_iter().map(Result::unwrap).collect();
    let old = nodes.pop().unwrap();
    let chain = nodes[0].chain();
    let from = switch(&*chain, 0, 2).await;

    let failure = tokio::time::timeout(PATIENCE, old.failed()).await.unwrap();
    assert_eq!(failure.code(), "chain.unknown_rules", "{failure}");
    for said in [format!("block {from} "), "rules 2".to_owned(), "up to 1".to_owned()] {
        assert!(failure.to_string().contains(&said), "{failure}");
    }
    assert_eq!(
        old.chain().status().height,
        from - 1,
        "it takes part up to the block before"
    );
    drop(old.shutdown().await);
    let spent = chain
        .submit_and_wait(transfer(&chain.network(), 1, 0, 2, 5))
        .await
        .unwrap();
    reach(&*chain, from + 2).await;
    let first = chain.block(from).await.unwrap().unwrap();
    assert_eq!(first.header.rules, 2);
    assert_eq!(chain.block(from - 1).await.unwrap().unwrap().header.rules, 1);

    // The old program again, and then the new one, on the same directory.
    let failure = peers.ends(directories.path(), 3, 1).await;
    assert_eq!(failure.code(), "chain.unknown_rules", "{failure}");
    let updated = peers.start(directories.path(), 3, RULES).await.unwrap();
    reach(&*updated.chain(), spent.height.max(from + 2)).await;
    let theirs = updated.chain().block(from).await.unwrap().unwrap();
    assert_eq!((theirs.digest, theirs.state_root), (first.digest, first.state_root));
    nodes.push(updated);
    for ended in join_all(nodes.into_iter().map(|node| node.shutdown())).await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_is_called_off_stops_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let mut own = options(directory.path(), alone(2));
    own.heartbeat = Duration::from_millis(20);
    own.rules_known = 1;
    own.genesis.params.epoch_blocks = EPOCH as u32;
    let node = start(own).await.unwrap();
    let chain = node.chain();
    let from = switch(&*chain, 0, 2).await;
    switch(&*chain, 1, 1).await;
    reach(&*chain, from + 2).await;
    assert_eq!(chain.block(from).await.unwrap().unwrap().header.rules, 1);
    node.shutdown().await.unwrap();
}
