//! The ledger through a peer's API keeps the same contract as the peer itself.

use crate::served::{Served, key};
use piecework_chain_conformance::Subject;

async fn remote() -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let served = Served::anywhere(directory.path()).await;
    Subject {
        chain: served.remote().await,
        accounts: [0, 1, 2, 3].map(key),
        keep: Box::new((served, directory)),
    }
}

piecework_chain_conformance::conformance_tests!(remote);
