//! Runs a ledger peer: its key, its genesis file, its chain, and the API through which others see the ledger.
//!
//! ```text
//! directory/genesis.json   the network, shared by all its peers
//! directory/peer.key       this peer's consensus key: 64 hex digits, mode 0600
//! directory/ledger/        the chain's own
//! ```

mod card;
pub mod caretaker;
mod files;
pub mod http;
mod index;
pub mod membership;

use std::{path::PathBuf, sync::Arc};

use piecework_chain::{Chain, ChainFailure, Node};
use piecework_ledger::{Genesis, GenesisPeer, Grant, Params};
use piecework_model::{OwnerName, Rejection, SecretKey};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use card::{Card, Request};

/// What a new network starts with; this peer is its first.
#[derive(Clone, Debug)]
pub struct NewNetwork {
    pub name: String,
    pub created_at_ms: u64,
    pub params: Params,
    pub grants: Vec<Grant>,
    /// Who gets this peer's share: one of the grants.
    pub owner: OwnerName,
    /// `host:port` that other peers will dial.
    pub address: String,
}

/// Why a peer does not run.
#[derive(Debug, thiserror::Error)]
pub enum PeerFailure {
    #[error("cannot read or write {path:?}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path:?} is not a key: expected 64 hex digits")]
    BadKey { path: PathBuf },
    #[error("{path:?} is not a genesis file")]
    BadGenesis {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the genesis file is invalid")]
    Genesis(#[source] Rejection),
    #[error("{path:?} already exists; use one directory per network")]
    GenesisExists { path: PathBuf },
    #[error(transparent)]
    Chain(#[from] ChainFailure),
}

impl PeerFailure {
    /// The stable code of this failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "peer.file",
            Self::BadKey { .. } => "peer.bad_key",
            Self::BadGenesis { .. } => "peer.bad_genesis",
            Self::Genesis(_) => "peer.genesis",
            Self::GenesisExists { .. } => "peer.other_genesis",
            Self::Chain(failure) => failure.code(),
        }
    }
}

/// Makes the key of this directory's peer, if there is none, and the genesis file of a network whose only peer it is.
/// Durable when it returns. Fails where a genesis file exists.
pub fn create_genesis(directory: &std::path::Path, new: NewNetwork) -> Result<Genesis, PeerFailure> {
    let key = files::load_or_create_key(directory)?;
    let genesis = Genesis {
        network_name: new.name,
        created_at_ms: new.created_at_ms,
        params: new.params,
        peers: vec![GenesisPeer {
            key: key.public(),
            owner: new.owner,
            address: new.address,
        }],
        grants: new.grants,
    };
    genesis.state().map_err(PeerFailure::Genesis)?;
    files::write_genesis(directory, &genesis)?;
    Ok(genesis)
}

/// The checked genesis of a network whose first peers have these cards.
pub fn genesis_of(
    name: String,
    created_at_ms: u64,
    params: Params,
    grants: Vec<Grant>,
    cards: &[Card],
) -> Result<Genesis, Rejection> {
    let genesis = Genesis {
        network_name: name,
        created_at_ms,
        params,
        peers: cards.iter().map(Card::genesis_peer).collect(),
        grants,
    };
    genesis.state()?;
    Ok(genesis)
}

/// Puts the genesis file of a network that others made into this directory, with this peer's key beside it. Durable
/// when it returns. The same genesis again is no error; another one is.
pub fn join(directory: &std::path::Path, genesis: &Genesis) -> Result<Member, PeerFailure> {
    genesis.state().map_err(PeerFailure::Genesis)?;
    files::load_or_create_key(directory)?;
    match files::write_genesis(directory, genesis) {
        Err(PeerFailure::GenesisExists { .. }) if files::read_genesis(directory)? == *genesis => {}
        written => written?,
    }
    member(directory)
}

/// The genesis file of a directory, or one that lies alone.
pub fn read_genesis(path: &std::path::Path) -> Result<Genesis, PeerFailure> {
    let genesis = files::read_genesis_file(path)?;
    genesis.state().map_err(PeerFailure::Genesis)?;
    Ok(genesis)
}

/// This directory's consensus key, made if there is none: its public half goes into the genesis.
pub fn peer_key(directory: &std::path::Path) -> Result<SecretKey, PeerFailure> {
    files::load_or_create_key(directory)
}

/// What a directory says of its peer.
pub struct Member {
    pub genesis: Genesis,
    /// The consensus key.
    pub key: SecretKey,
    /// The engine's own directory.
    pub ledger: PathBuf,
}

impl Member {
    /// Whether the genesis names this peer. Another one has to be voted in before it can follow.
    pub fn is_founder(&self) -> bool {
        let key = self.key.public();
        self.genesis.peers.iter().any(|peer| peer.key == key)
    }
}

/// Reads what [`create_genesis`] or [`join`] left in `directory`. Makes no key: they did.
pub fn member(directory: &std::path::Path) -> Result<Member, PeerFailure> {
    Ok(Member {
        genesis: files::read_genesis(directory)?,
        key: files::load_key(directory)?,
        ledger: directory.join(files::LEDGER_DIRECTORY),
    })
}

/// The peer, before it runs.
#[derive(Debug)]
pub struct Service;

impl Service {
    /// Keeps `node` until `shutdown` is cancelled or it fails.
    pub fn run(node: Box<dyn Node>, genesis: Genesis, shutdown: CancellationToken) -> Handle {
        let chain = node.chain();
        tracing::info!(network = %chain.network(), height = chain.status().height, "ledger peer runs");
        let task = tokio::spawn(watch(node, shutdown));
        Handle { chain, genesis, task }
    }
}

async fn watch(node: Box<dyn Node>, shutdown: CancellationToken) -> Result<(), ChainFailure> {
    let failure = tokio::select! {
        () = shutdown.cancelled() => None,
        failure = node.failed() => Some(failure),
    };
    if let Some(failure) = &failure {
        tracing::error!(%failure, code = failure.code(), "ledger peer failed");
    }
    let stopped = node.shutdown().await;
    failure.map_or(stopped, Err)
}

/// A running peer.
pub struct Handle {
    chain: Arc<dyn Chain>,
    genesis: Genesis,
    task: JoinHandle<Result<(), ChainFailure>>,
}

impl Handle {
    pub fn chain(&self) -> Arc<dyn Chain> {
        self.chain.clone()
    }

    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Resolves once the peer has stopped and its directory is free: with the failure, if it was not told to.
    pub async fn stopped(self) -> Result<(), ChainFailure> {
        match self.task.await {
            Ok(result) => result,
            Err(error) => Err(ChainFailure::Stopped {
                detail: error.to_string(),
            }),
        }
    }
}
