//! The ledger through a peer's API keeps the same contract as the peer itself.

#![allow(clippy::unwrap_used)]

mod served;

use piecework_chain::conformance::Subject;
use served::{Served, key};

async fn remote() -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let served = Served::anywhere(directory.path()).await;
    Subject {
        chain: served.remote().await,
        accounts: [0, 1, 2, 3].map(key),
        keep: Box::new((served, directory)),
    }
}

piecework_chain::conformance_tests!(remote);
