//! Peers come and go while the network runs, by the ledger's own votes.

use crate::network::*;
use crate::processes::*;
use piecework_ledger::{Action, AddPeer, Change, Propose};
use piecework_model::Domain;

/// Account 0 owns all peers of these networks: what it proposes is carried at once.
async fn propose(network: &Network, asked: &Peer, nonce: u64, change: Change) {
    let id = network.genesis.network_id();
    let signed = sign(0, nonce, Action::Propose(Propose { change }), &id);
    let bytes = borsh::to_vec(&signed).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = asked.ask(&format!("transaction {hex}")).await.unwrap();
    assert!(answer.starts_with("final"), "{answer}");
}

fn add(network: &Network, number: usize) -> Change {
    let (peer, id) = (network.peer(number), network.genesis.network_id());
    Change::AddPeer(AddPeer {
        key: peer.key,
        owner: account(0),
        address: peer.address,
        proof: peer_key(number as u8).sign(Domain::Owner, &id, &account(0)),
    })
}

async fn until_peers(peer: &Peer, count: u32) {
    let deadline = std::time::Instant::now() + LONG;
    while peer.status().await.peers != count {
        assert!(std::time::Instant::now() < deadline, "still {:?}", peer.status().await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voted_peer_joins_and_a_removed_one_stops() {
    let network = Network::at(free_addresses(5), 4, 10);
    let mut peers = network.start_all().await;
    // It waits before anybody has voted for it.
    peers.push(network.start(4).await);
    propose(&network, &peers[0], 0, add(&network, 4)).await;
    for peer in &peers {
        until_peers(peer, 5).await;
    }

    // With one founder gone the new one's vote is needed.
    peers[0].kill().await;
    for nonce in 0..5 {
        peers[4].transfer(1, nonce, 7).await.unwrap();
    }
    peers[0] = network.start(0).await;
    let head = peers[4].status().await.height;
    peers[0].reach(head).await;

    // One is away while another is taken out, and finds the way through the epochs that it missed.
    peers[3].kill().await;
    propose(&network, &peers[0], 1, Change::RemovePeer(peer_key(1).public())).await;
    let removed = peers.remove(1);
    let failure = removed.failure().await;
    assert!(failure.starts_with("failed chain.removed"), "{failure}");
    until_peers(&peers[0], 4).await;
    peers[0].transfer(1, 5, 7).await.unwrap();
    peers[2] = network.start(3).await;
    let head = peers[0].status().await.height;
    peers[2].reach(head).await;
    until_peers(&peers[2], 4).await;
    let again = network.spawn(1).failure().await;
    assert!(again.starts_with("failed chain.removed"), "{again}");

    // Everybody comes up in the right epoch.
    for peer in &peers {
        peer.kill().await;
    }
    let numbers = [0, 2, 3, 4];
    let peers = futures::future::join_all(numbers.map(|number| network.start(number))).await;
    let height = peers[3].transfer(1, 6, 7).await.unwrap();
    for peer in &peers {
        peer.reach(height).await;
        until_peers(peer, 4).await;
    }
    let peers: Vec<&Peer> = peers.iter().collect();
    assert!(agree(&peers).await >= height);
    assert_eq!(peers[0].balance(7).await.0, GRANT + 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_machine_becomes_a_network() {
    let network = Network::at(free_addresses(2), 1, 10);
    let first = network.start(0).await;
    let second = network.start(1).await;
    propose(&network, &first, 0, add(&network, 1)).await;
    for peer in [&first, &second] {
        until_peers(peer, 2).await;
    }
    let height = second.transfer(1, 0, 7).await.unwrap();
    first.reach(height).await;
    assert!(agree(&[&first, &second]).await >= height);
}
