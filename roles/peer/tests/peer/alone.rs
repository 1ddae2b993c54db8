//! A peer runs from its directory alone, and finds its network again.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use piecework_chain::SubmitError;
use piecework_ledger::{Action, Change, Grant, Params, Roles, SignedTransaction, Transaction, Transfer};
use piecework_model::{AccountId, Code, Credits, SecretKey};
use piecework_peer::{Handle, NewNetwork, PeerFailure, Service, create_genesis, join, member, membership, peer_key};
use tokio_util::sync::CancellationToken;

fn new_network() -> NewNetwork {
    let grant = |number: u8| Grant {
        name: format!("owner-{number}").parse().unwrap(),
        key: SecretKey::from_seed([number; 32]).public(),
        roles: Roles::default(),
        amount: Credits(1_000),
    };
    NewNetwork {
        name: "test".to_owned(),
        created_at_ms: 1_700_000_000_000,
        params: Params {
            commission_ppm: 30_000,
            offer_deposit: Credits(0),
            window_blocks: 10,
            jobs_per_settlement_max: 100,
            transactions_per_block_max: 100,
            lane_intervals_max: 100,
            epoch_blocks: 20,
        },
        grants: vec![grant(1), grant(2)],
        owner: "owner-1".parse().unwrap(),
        address: "127.0.0.1:0".to_owned(),
    }
}

async fn run(directory: &Path, shutdown: &CancellationToken) -> Handle {
    let member = member(directory).unwrap();
    let listen = ([127, 0, 0, 1], 0).into();
    let mut options = piecework_chain_node::Options::new(member.ledger, member.genesis.clone(), member.key, listen);
    options.heartbeat = Duration::from_millis(200);
    let node = piecework_chain_node::start(options).await.unwrap();
    Service::run(node, member.genesis, shutdown.clone())
}

#[tokio::test]
async fn a_peer_finds_its_network_again() {
    let directory = tempfile::tempdir().unwrap();
    let genesis = create_genesis(directory.path(), new_network()).unwrap();
    let shutdown = CancellationToken::new();
    let peer = run(directory.path(), &shutdown).await;
    assert_eq!(peer.genesis(), &genesis);
    let network = peer.chain().network();
    let (from, to) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    let transaction = Transaction {
        sender: AccountId::of(&from.public()),
        nonce: 0,
        action: Action::Transfer(Transfer {
            to: AccountId::of(&to.public()),
            amount: Credits(5),
        }),
    };
    let sent = SignedTransaction::sign(transaction, &from, &network);
    let done = peer.chain().submit_and_wait(sent).await.unwrap();
    shutdown.cancel();
    peer.stopped().await.unwrap();

    let shutdown = CancellationToken::new();
    let peer = run(directory.path(), &shutdown).await;
    assert_eq!(peer.chain().network(), network);
    assert_eq!(
        peer.chain().transaction(done.id).await.unwrap(),
        Some((done.height, done.index))
    );
    shutdown.cancel();
    peer.stopped().await.unwrap();
}

#[tokio::test]
async fn nobody_enrols_or_votes_under_a_name_with_another_key() {
    let directory = tempfile::tempdir().unwrap();
    create_genesis(directory.path(), new_network()).unwrap();
    let shutdown = CancellationToken::new();
    let peer = run(directory.path(), &shutdown).await;
    let (chain, name) = (peer.chain(), "owner-1".parse().unwrap());
    let (own, other) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([9; 32]));
    let known = membership::enrol(&*chain, &own, &name, Roles::default()).await;
    assert_eq!(known.unwrap(), AccountId::of(&own.public()));
    let mut params = new_network().params;
    params.window_blocks = 77;
    let refused = [
        membership::enrol(&*chain, &other, &name, Roles::default())
            .await
            .unwrap_err(),
        membership::support(&*chain, &other, &name, Change::SetParams(params.clone()))
            .await
            .unwrap_err(),
    ];
    for refusal in refused {
        let SubmitError::Rejected(rejection) = refusal else {
            panic!("{refusal}");
        };
        assert_eq!(rejection.code, Code::AccountOtherKey);
    }
    membership::support(&*chain, &own, &name, Change::SetParams(params))
        .await
        .unwrap();
    shutdown.cancel();
    peer.stopped().await.unwrap();
}

#[test]
fn a_directory_keeps_its_key_and_its_network() {
    let directory = tempfile::tempdir().unwrap();
    let genesis = create_genesis(directory.path(), new_network()).unwrap();
    let key = directory.path().join("peer.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(peer_key(directory.path()).unwrap().public(), genesis.peers[0].key);
    let again = create_genesis(directory.path(), new_network()).unwrap_err();
    assert!(matches!(again, PeerFailure::GenesisExists { .. }));
    join(directory.path(), &genesis).unwrap();
    let stranger = tempfile::tempdir().unwrap();
    let member = join(stranger.path(), &genesis).unwrap();
    assert!(!member.is_founder(), "it has to be voted in");
}

#[test]
fn a_genesis_that_breaks_the_rules_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut new = new_network();
    new.owner = "nobody".parse().unwrap();
    assert!(matches!(
        create_genesis(directory.path(), new),
        Err(PeerFailure::Genesis(_))
    ));
    assert!(!directory.path().join("genesis.json").exists());
}
