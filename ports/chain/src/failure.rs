//! Failures of a chain that come from outside.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use piecework_model::Rejection;

/// Why a chain does not start, or stopped.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChainFailure {
    #[error(
        "the directory {directory:?} belongs to another network or another peer key; use a separate directory for this one"
    )]
    ForeignDirectory { directory: PathBuf },
    #[error("cannot read the ledger in {directory:?}: {detail}; restore it, or start a new peer with a new key")]
    Corrupt { directory: PathBuf, detail: String },
    #[error("another process uses the ledger in {directory:?}")]
    Locked { directory: PathBuf },
    #[error("no space is left for the ledger; everything final is safe; free some space and start again")]
    DiskFull { detail: String },
    #[error("cannot use the ledger's directory {path:?}")]
    Directory {
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("cannot listen for other peers on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("the genesis file is invalid")]
    Genesis(#[source] Rejection),
    #[error("peer {peer} in the genesis file has an invalid key or address: {detail}")]
    Peer { peer: String, detail: String },
    #[error("this peer's consensus key is not in the genesis file")]
    NotAPeer,
    #[error(
        "the network has removed this peer; it has no part in blocks from {height} on. To return, start a new peer with a new key"
    )]
    Removed { height: u64 },
    #[error("no peer of the ledger answers: {detail}")]
    Unreachable { detail: String },
    #[error("{url} is a peer of another network than the one in the genesis file")]
    OtherNetwork { url: String },
    #[error("`{url}` is not a valid peer URL: {detail}")]
    BadUrl { url: String, detail: String },
    #[error("the chain stopped: {detail}")]
    Stopped { detail: String },
}

impl ChainFailure {
    /// The stable code of this failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ForeignDirectory { .. } => "chain.foreign_directory",
            Self::Corrupt { .. } => "chain.corrupt",
            Self::Locked { .. } => "chain.locked",
            Self::DiskFull { .. } => "chain.disk_full",
            Self::Directory { .. } => "chain.directory",
            Self::Listen { .. } => "chain.listen",
            Self::Genesis(_) => "chain.genesis",
            Self::Peer { .. } => "chain.peer",
            Self::NotAPeer => "chain.not_a_peer",
            Self::Removed { .. } => "chain.removed",
            Self::Unreachable { .. } => "chain.unreachable",
            Self::OtherNetwork { .. } => "chain.other_network",
            Self::BadUrl { .. } => "chain.bad_url",
            Self::Stopped { .. } => "chain.stopped",
        }
    }

    /// An error of the file system at `path`.
    pub fn directory(path: impl Into<PathBuf>, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull {
            return Self::DiskFull {
                detail: source.to_string(),
            };
        }
        Self::Directory {
            path: path.into(),
            source: Arc::new(source),
        }
    }

    /// An engine that answers storage errors with a panic: this gives them back their names.
    pub fn from_panic(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        let detail = text.unwrap_or("panic without a message").to_owned();
        let full = ["No space left", "StorageFull", "os error 28"];
        if full.iter().any(|sign| detail.contains(sign)) {
            return Self::DiskFull { detail };
        }
        Self::Stopped { detail }
    }
}
