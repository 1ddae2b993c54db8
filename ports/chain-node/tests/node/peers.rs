//! Four peers on one machine: one ledger, whoever is asked, and one of them may be away.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use crate::network::*;
use futures::{StreamExt as _, future::join_all};
use piecework_chain::{Chain, Node};
use piecework_chain_node::{Options, start};
use piecework_ledger::Genesis;
use tempfile::TempDir;

/// Free addresses; all are held until all are known.
fn addresses(count: usize) -> Vec<SocketAddr> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind(any_port()).unwrap()).collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap())
        .collect()
}

struct Peers {
    genesis: Genesis,
    addresses: Vec<SocketAddr>,
    directories: Vec<TempDir>,
}

impl Peers {
    fn new(count: usize) -> Self {
        let addresses = addresses(count);
        Self {
            genesis: genesis(4, &addresses),
            directories: (0..count).map(|_| tempfile::tempdir().unwrap()).collect(),
            addresses,
        }
    }

    async fn start(&self, number: usize) -> Box<dyn Node> {
        let directory = self.directories[number].path().to_owned();
        let key = peer_key(number as u8);
        let mut options = Options::new(directory, self.genesis.clone(), key, self.addresses[number]);
        options.heartbeat = Duration::from_millis(200);
        options.worker_threads = 1;
        start(options).await.unwrap()
    }
}

async fn follow_to(chain: &dyn Chain, height: u64) -> Vec<piecework_model::Digest> {
    let blocks = chain.blocks_from(1).take(height as usize);
    blocks.map(|block| block.digest).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_peers_keep_one_ledger_and_one_may_be_away() {
    let peers = Peers::new(4);
    let mut nodes = join_all((0..4).map(|number| peers.start(number))).await;
    let chains: Vec<_> = nodes.iter().map(|node| node.chain()).collect();
    let network = chains[0].network();

    // Whoever takes a transaction, everybody executes it.
    let mut height = 0;
    for nonce in 0..8 {
        let asked = &chains[nonce as usize % 4];
        follow_to(&**asked, height).await;
        let done = asked.submit_and_wait(transfer(&network, 1, nonce, 2, 1)).await.unwrap();
        height = done.height;
    }
    let histories = join_all(chains.iter().map(|chain| follow_to(&**chain, height))).await;
    assert!(histories.iter().all(|history| *history == histories[0]));
    for chain in &chains {
        assert_eq!(balance(&**chain, 2).await.posted.0, GRANT + 8);
    }

    // Three of four go on without the last.
    nodes.pop().unwrap().shutdown().await.unwrap();
    for nonce in 8..12 {
        chains[0]
            .submit_and_wait(transfer(&network, 1, nonce, 2, 1))
            .await
            .unwrap();
    }

    // And it catches up.
    let back = peers.start(3).await;
    let height = chains[0].status().height;
    let history = follow_to(&*back.chain(), height).await;
    assert_eq!(history, follow_to(&*chains[0], height).await);
    assert_eq!(balance(&*back.chain(), 2).await.posted.0, GRANT + 12);
    nodes.push(back);
    for node in nodes {
        node.shutdown().await.unwrap();
    }
}
