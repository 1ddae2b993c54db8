//! A peer with its API on a free port, for tests.

#![allow(dead_code, clippy::unwrap_used)]

pub mod reader;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use piecework_chain::Chain;
use piecework_ledger::{Genesis, Grant, Params, Roles};
use piecework_model::{Credits, SecretKey};
use piecework_peer::{
    Handle, NewNetwork, Service, create_genesis,
    http::{Explorer, Options, Rates, serve},
    member,
};
use piecework_serve::{Limits, Proxies};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number + 1; 32])
}

pub fn new_network() -> NewNetwork {
    let grant = |number: u8| Grant {
        name: format!("owner-{number}").parse().unwrap(),
        key: key(number).public(),
        roles: Roles::default(),
        amount: Credits(1_000_000_000),
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
            epoch_blocks: 1_000,
        },
        grants: (0..4).map(grant).collect(),
        owner: "owner-1".parse().unwrap(),
        address: "127.0.0.1:0".to_owned(),
    }
}

pub struct Served {
    pub peer: Handle,
    pub url: String,
    pub genesis: Genesis,
    pub shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub async fn start(directory: &Path, listen: SocketAddr, rates: Rates, limits: Limits) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        if !directory.join("genesis.json").exists() {
            create_genesis(directory, new_network()).unwrap();
        }
        let member = member(directory).unwrap();
        let shutdown = CancellationToken::new();
        let mut options = piecework_chain_node::Options::new(
            member.ledger,
            member.genesis.clone(),
            member.key,
            ([127, 0, 0, 1], 0).into(),
        );
        options.heartbeat = Duration::from_millis(200);
        let node = piecework_chain_node::start(options).await.unwrap();
        let peer = Service::run(node, member.genesis.clone(), shutdown.clone());
        let options = Options {
            chain: peer.chain(),
            genesis: member.genesis.clone(),
            here: None,
            heartbeat: Duration::from_millis(200),
            rates,
            trusted: Vec::new(),
        };
        let listener = TcpListener::bind(listen).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let explorer = Explorer::start(options, shutdown.clone());
        Self {
            peer,
            url,
            genesis: member.genesis,
            serving: tokio::spawn(serve(listener, explorer, (limits, Proxies::default()))),
            shutdown,
        }
    }

    pub async fn anywhere(directory: &Path) -> Self {
        Self::start(
            directory,
            ([127, 0, 0, 1], 0).into(),
            Rates::default(),
            Limits::default(),
        )
        .await
    }

    pub async fn remote(&self) -> Arc<dyn Chain> {
        let options = piecework_chain_http::remote::Options::new(vec![self.url.clone()], self.genesis.clone());
        piecework_chain_http::remote::connect(options).await.unwrap()
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap().unwrap();
        self.peer.stopped().await.unwrap();
    }
}
