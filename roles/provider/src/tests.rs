use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use piecework_blobs::{Blobs as _, Bundle, BundleLimits, Files, Unpacked};
use piecework_model::{BackendName, Code, Rejection, SecretKey};
use piecework_queue::{Order, ProviderLink as _};
use piecework_sandbox::{Backend, LoadError, Loaded, Outcome, Probe, Program};
use tokio_util::sync::CancellationToken;

use crate::{
    Options, Provider,
    orders::{NETWORK, order, payer, profile},
    owner::Rules,
    refusal,
};

/// A sandbox in which no code loads.
struct Loadless;

#[async_trait]
impl Backend for Loadless {
    fn name(&self) -> BackendName {
        BackendName::Wasm
    }

    async fn probe(&self) -> Probe {
        unreachable!("nobody asks")
    }

    async fn load(&self, _: Arc<Program>) -> Result<Arc<dyn Loaded>, LoadError> {
        let why = Rejection::new(Code::FunctionLoadFailed, "ValueError: not today");
        Err(LoadError::Code(why))
    }
}

/// A provider without any sandbox that works.
fn provider(slots: u32, directory: &tempfile::TempDir) -> Arc<Provider> {
    with_backends(slots, directory, Vec::new())
}

fn with_backends(slots: u32, directory: &tempfile::TempDir, backends: Vec<Arc<dyn Backend>>) -> Arc<Provider> {
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
        backends,
        probes: Vec::new(),
        egress: None,
        free_for: None,
        bundles: Unpacked::open(directory.path().join("unpacked"), blobs, 1 << 20).expect("a directory"),
        layers: None,
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
    assert_eq!(refusal(&unsupported).code, Code::SandboxUnsupported);
}

/// With code that is there and may still begin.
async fn runnable(sequence: u64, directory: &tempfile::TempDir) -> Order {
    let blobs = Files::open(directory.path().join("blobs")).expect("a directory");
    let files = [(
        "main.py".to_owned(),
        Bytes::from_static(b"raise ValueError('not today')\n"),
    )];
    let bundle = Bundle::new(files, &BundleLimits::UPLOAD).expect("a bundle");
    let code = blobs.put(bundle.pack().tar).await.expect("kept");
    let mut order = order(sequence);
    order.ticket.code = code;
    order.ticket.deadline_ms = u64::MAX / 2;
    Arc::make_mut(&mut order.work).code = code;
    order
}

#[tokio::test]
async fn code_that_fails_to_load_when_it_is_called_is_free_only_for_so_long() {
    let directory = tempfile::tempdir().expect("a directory");
    let provider = with_backends(1, &directory, vec![Arc::new(Loadless)]);
    let refused = provider
        .run(runnable(0, &directory).await)
        .await
        .expect_err("it does not load");
    assert_eq!(refused.code, Code::FunctionLoadFailed);
    let order = runnable(1, &directory).await;
    let developer = crate::pool::owner_of(&crate::pool::with_owner(order.clone()).work);
    provider
        .given_up
        .takes(developer, Duration::from_secs(60), Instant::now());

    let delivery = provider.run(order).await.expect("a run that failed");
    let Outcome::Crashed(how) = &delivery.finished.outcome else {
        panic!("{:?}", delivery.finished.outcome);
    };
    assert!(how.contains("did not load: ValueError: not today"), "{how}");
    assert!(delivery.receipt.price_ucr >= 1, "{:?}", delivery.receipt);
    assert_eq!(provider.load().running, 0, "the slot is free again");
}
