use std::{collections::HashSet, sync::Arc, time::Duration};

use piecework_blobs::{Files, Unpacked};
use piecework_model::{Code, SecretKey};
use piecework_queue::ProviderLink as _;
use piecework_sandbox::LoadError;
use tokio_util::sync::CancellationToken;

use crate::{
    Options, Provider,
    orders::{NETWORK, order, payer, profile},
    owner::Rules,
    refusal,
};

/// A provider without any sandbox that works.
fn provider(slots: u32, directory: &tempfile::TempDir) -> Arc<Provider> {
    let blobs = Arc::new(Files::open(directory.path().join("blobs")).expect("a directory"));
    let profile = profile();
    let options = Options {
        key: SecretKey::from_seed([2; 32]),
        account: profile.account,
        network: NETWORK,
        name: profile.name,
        prices: profile.prices,
        region: profile.region,
        labels: Vec::new(),
        cores: profile.cores,
        memory_bytes: profile.memory_bytes,
        slots,
        idle: Duration::from_secs(1),
        idle_bytes_max: 0,
        backends: Vec::new(),
        probes: Vec::new(),
        egress: None,
        free_for: None,
        bundles: Unpacked::open(directory.path().join("unpacked"), blobs, 1 << 20).expect("a directory"),
        journal: directory.path().join("begun"),
        payers: HashSet::from([payer().public()]),
        earned: None,
        collector: None,
        rules: Rules::default(),
        disk: Arc::new(piecework_disk::Unlimited),
        owner_group: None,
    };
    Provider::start(options, CancellationToken::new()).expect("the journal opens")
}

#[tokio::test]
async fn a_provider_without_a_slot_or_in_draining_takes_no_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let refused = provider(0, &directory).run(order(0)).await.expect_err("no slot");
    assert_eq!(refused.code, Code::ProviderNoSlot);
    let draining = provider(1, &directory);
    draining.drain();
    let refused = draining.run(order(0)).await.expect_err("draining");
    assert_eq!(refused.code, Code::ProviderDraining);
    assert_eq!(draining.load().running, 0, "the slot is free again");
}

#[test]
fn code_that_broke_here_is_told_from_code_that_cannot_run() {
    assert_eq!(refusal(&LoadError::Failed("no room".into())).code, Code::SandboxFailed);
    let unsupported = LoadError::Unsupported {
        reason: "threads".into(),
    };
    assert_eq!(refusal(&unsupported).code, Code::SandboxUnavailable);
}
