//! One peer alone keeps the contract of the chain.

use piecework_chain_conformance::Subject;

use crate::network;

async fn alone() -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let node = network::start_alone(directory.path(), 4).await;
    Subject {
        chain: node.chain(),
        accounts: [0, 1, 2, 3].map(network::key),
        keep: Box::new((node, directory)),
    }
}

piecework_chain_conformance::conformance_tests!(alone);
