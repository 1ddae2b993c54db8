//! A provider whose sandbox does as the test says: what it makes of streams is its own.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use piecework_blobs::{Blobs as _, Bundle, BundleLimits, Files, Unpacked};
use piecework_model::{Code, Counters, Digest, JobStatus, SecretKey};
use piecework_queue::{Delivery, Order, ProviderLink as _, Refusal, Work};
use piecework_sandbox::{
    Backend, BackendName, Call, Finished, Head, Inlet, Instance, LoadError, Loaded, Logs, Outcome, Outlet, Probe,
    Program, Raised, Sent,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    Options, Provider, now_ms,
    orders::{NETWORK, order, payer, profile},
    owner::Rules,
};

/// What the function does.
#[derive(Clone, Copy)]
enum Does {
    /// Streams so many chunks of "chunk n;", then ends like this.
    Streams(u32, fn() -> Outcome),
    /// Streams without end.
    Pours,
    /// Reads its body and returns how long it was.
    Reads,
    /// Returns at once, its body unread.
    Returns,
}

struct Double(Does);

#[async_trait]
impl Backend for Double {
    fn name(&self) -> BackendName {
        BackendName::Wasm
    }

    async fn probe(&self) -> Probe {
        unreachable!("nobody asks")
    }

    async fn load(&self, _: Arc<Program>) -> Result<Arc<dyn Loaded>, LoadError> {
        Ok(Arc::new(Self(self.0)))
    }
}

#[async_trait]
impl Loaded for Double {
    async fn start(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(Self(self.0)))
    }
}

#[async_trait]
impl Instance for Double {
    async fn call(&mut self, call: Call) -> Finished {
        let outcome = tokio::select! {
            outcome = act(self.0, &call) => outcome,
            () = call.stop.cancelled() => Outcome::Stopped,
        };
        Finished {
            outcome,
            logs: Logs::default(),
            counters: Counters {
                cpu_us: 10,
                memory_byte_ms: 1,
                egress_bytes: call.egress.bytes(),
            },
            memory_peak_bytes: 1,
            duration: Duration::from_millis(1),
            reusable: false,
        }
    }

    fn memory_bytes(&self) -> u64 {
        1
    }
}

fn nth(n: u32) -> String {
    format!("chunk {n};")
}

async fn act(does: Does, call: &Call) -> Outcome {
    // As a sandbox does: counted before it is sent, and whether or not it is.
    let chunk = |n| {
        assert!(call.egress.take_streamed(nth(n).len() as u64, u64::MAX));
        Sent::Chunk(nth(n).into())
    };
    match does {
        Does::Streams(chunks, end) => {
            let mut sent = call.outlet.send(Sent::Head(Head::default())).await;
            for n in 0..chunks {
                sent = sent.and(call.outlet.send(chunk(n)).await);
            }
            sent.map_or(Outcome::Stopped, |()| end())
        }
        Does::Pours => {
            let mut n = 0;
            while call.outlet.send(chunk(n)).await.is_ok() {
                n += 1;
            }
            Outcome::Stopped
        }
        Does::Reads => {
            let mut body = call.body.as_ref().and_then(Inlet::take).expect("a body");
            let mut bytes = 0;
            while let Some(part) = body.recv().await {
                bytes += part.len();
            }
            Outcome::Returned(bytes.to_string().into())
        }
        Does::Returns => Outcome::Returned("0".into()),
    }
}

/// A provider of functions that do this, and an order for one that may stream `stream_bytes`.
async fn provider(does: Does, stream_bytes: u64) -> (Arc<Provider>, Order, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let blobs = Arc::new(Files::open(directory.path().join("blobs")).expect("a directory"));
    let file = ("main.py".to_owned(), Bytes::from_static(b"pass"));
    let packed = Bundle::new([file], &BundleLimits::UPLOAD).expect("a bundle").pack();
    blobs.put(packed.tar.clone()).await.expect("kept");
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
        slots: 1,
        idle: Duration::from_secs(1),
        idle_bytes_max: 0,
        backends: vec![Arc::new(Double(does))],
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
    let mut order = order(0);
    order.ticket.deadline_ms = now_ms() + 60_000;
    order.ticket.code = packed.digest;
    order.work = Arc::new(Work {
        code: packed.digest,
        ..(*order.work).clone()
    });
    order.ticket.limits = order.work.limits.with_stream(stream_bytes);
    let provider = Provider::start(options, CancellationToken::new()).expect("the journal opens");
    (provider, order, directory)
}

/// Runs it and reads all that comes out.
async fn run(provider: &Provider, mut order: Order) -> (Result<Delivery, Refusal>, Vec<u8>) {
    let (outlet, mut parts) = Outlet::channel();
    order.outlet = outlet;
    let read = async {
        let mut bytes = Vec::new();
        while let Some(part) = parts.recv().await {
            match part {
                Sent::Head(_) => {}
                Sent::Chunk(chunk) => bytes.extend_from_slice(&chunk),
            }
        }
        bytes
    };
    tokio::join!(provider.run(order), read)
}

fn whole(chunks: u32) -> Vec<u8> {
    (0..chunks).flat_map(|n| nth(n).into_bytes()).collect()
}

fn raised() -> Outcome {
    Outcome::Raised(Raised {
        kind: "ValueError".into(),
        message: "no".into(),
        stack: String::new(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receipt_covers_what_was_streamed_also_of_a_run_that_failed_in_the_middle() {
    let ends: [(fn() -> Outcome, JobStatus); 4] = [
        (|| Outcome::Streamed, JobStatus::Ok),
        (raised, JobStatus::Failed),
        (|| Outcome::TimedOut, JobStatus::TimedOut),
        (|| Outcome::OutOfMemory, JobStatus::OutOfMemory),
    ];
    for (end, status) in ends {
        let (provider, order, _directory) = provider(Does::Streams(100, end), 1 << 20).await;
        let prices = order.ticket.prices;
        let (delivery, bytes) = run(&provider, order).await;
        let receipt = delivery.expect("it ran").receipt;
        assert_eq!(bytes, whole(100), "{status:?}");
        assert_eq!((receipt.output, receipt.status), (Digest::of(&bytes), status));
        assert_eq!(receipt.counters.egress_bytes, bytes.len() as u64);
        assert_eq!(Ok(receipt.price_ucr), prices.price(&receipt.counters), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_worker_was_lost_is_handed_back_and_not_charged() {
    let (provider, order, _directory) = provider(Does::Streams(0, || Outcome::Lost), 1 << 20).await;
    let (delivery, _) = run(&provider, order).await;
    assert_eq!(delivery.expect_err("no receipt").code, Code::SandboxWorkerLost);
    assert_eq!(provider.load().running, 0, "the slot is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_streams_no_more_than_its_ticket_pays_for() {
    let allowed = whole(10).len() as u64 + 3;
    let (provider, order, _directory) = provider(Does::Pours, allowed).await;
    let (delivery, bytes) = run(&provider, order).await;
    let Delivery { receipt, finished, .. } = delivery.expect("it ran");
    assert_eq!(finished.outcome, Outcome::OutputTooLarge);
    assert_eq!((receipt.status, bytes.as_slice()), (JobStatus::Failed, &*whole(10)));
    assert_eq!(
        (receipt.output, receipt.counters.egress_bytes),
        (Digest::of(&bytes), allowed - 3)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_is_slow_holds_up_the_function_and_one_who_goes_ends_it() {
    let (provider, mut order, _directory) = provider(Does::Pours, 1 << 20).await;
    let (outlet, mut parts) = Outlet::channel();
    order.outlet = outlet;
    let running = tokio::spawn(async move { provider.run(order).await });
    let first = parts.recv().await.expect("a chunk");
    assert_eq!(first, Sent::Chunk(nth(0).into()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!running.is_finished(), "it waits");
    assert_eq!(parts.len(), piecework_sandbox::CHUNKS_WAITING_MAX, "for room");
    drop(parts);
    let delivery = running.await.expect("no panic").expect("it ran");
    assert_eq!(delivery.receipt.status, JobStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_while_it_streams_is_billed_for_what_was_read() {
    let (provider, order, _directory) = provider(Does::Pours, 1 << 20).await;
    let cancel = order.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        cancel.cancel();
    });
    let (delivery, bytes) = run(&provider, order).await;
    let receipt = delivery.expect("it ran").receipt;
    assert_eq!(receipt.status, JobStatus::Cancelled);
    assert_eq!(
        (receipt.output, receipt.counters.egress_bytes),
        (Digest::of(&bytes), bytes.len() as u64)
    );
}

async fn send(sender: mpsc::Sender<Bytes>, parts: u32, part: &'static [u8]) {
    for _ in 0..parts {
        if sender.send(Bytes::from_static(part)).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_request_is_counted_and_handed_on() {
    let (provider, mut order, _directory) = provider(Does::Reads, 1 << 20).await;
    let (sender, inlet) = Inlet::channel();
    order.body = Some(inlet);
    tokio::spawn(send(sender, 1_000, b"12345"));
    let delivery = run(&provider, order).await.0.expect("it ran");
    assert_eq!(delivery.finished.outcome, Outcome::Returned("5000".into()));
    assert_eq!(delivery.receipt.output, Digest::of(b"5000"));
    assert_eq!(delivery.receipt.counters.egress_bytes, 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_longer_than_its_ticket_pays_for_stops_the_run() {
    let (provider, mut order, _directory) = provider(Does::Reads, 12).await;
    let (sender, inlet) = Inlet::channel();
    order.body = Some(inlet);
    let cancel = order.cancel.clone();
    tokio::spawn(send(sender, 1_000, b"12345"));
    let Delivery { receipt, finished, .. } = run(&provider, order).await.0.expect("it ran");
    assert_eq!(finished.outcome, Outcome::OutputTooLarge);
    assert_eq!(receipt.counters.egress_bytes, 10);
    assert!(!cancel.is_cancelled(), "the order's own token is its controller's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_the_function_does_not_read_holds_up_nothing() {
    let (provider, mut order, _directory) = provider(Does::Returns, 1 << 20).await;
    let (sender, inlet) = Inlet::channel();
    order.body = Some(inlet);
    let sending = tokio::spawn(send(sender, u32::MAX, b"12345"));
    let began = Instant::now();
    let delivery = run(&provider, order).await.0.expect("it ran");
    assert_eq!(delivery.finished.outcome, Outcome::Returned("0".into()));
    sending.await.expect("its sender is told");
    assert!(began.elapsed() < Duration::from_secs(5));
}
