//! Memory of the pools: what runs and what is idle share one sum.

use std::{collections::BTreeMap, sync::atomic::AtomicU32};

use async_trait::async_trait;
use bytes::Bytes;
use piecework_blobs::{Blobs as _, Bundle, BundleLimits, Files};
use piecework_model::{BackendName, Code, Counters, Language, Limits};
use piecework_sandbox::{EgressMeter, Logs, Outlet, Probe};
use tokio_util::sync::CancellationToken;

use super::*;

const MIB: u64 = 1 << 20;
const IDLE_BYTES: u64 = 40 * MIB;

/// Starts instances that hold 40 MiB at rest, and counts those that are alive.
#[derive(Default)]
struct Fake(Arc<AtomicU32>);

struct FakeLoaded(Arc<AtomicU32>);

struct FakeInstance(Arc<AtomicU32>);

impl Drop for FakeInstance {
    fn drop(&mut self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[async_trait]
impl Backend for Fake {
    fn name(&self) -> BackendName {
        BackendName::Wasm
    }

    async fn probe(&self) -> Probe {
        unreachable!("nobody asks")
    }

    async fn load(&self, _: Arc<Program>) -> Result<Arc<dyn Loaded>, LoadError> {
        Ok(Arc::new(FakeLoaded(self.0.clone())))
    }
}

#[async_trait]
impl Loaded for FakeLoaded {
    async fn start(&self) -> Result<Box<dyn Instance>, LoadError> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Box::new(FakeInstance(self.0.clone())))
    }
}

#[async_trait]
impl Instance for FakeInstance {
    async fn call(&mut self, _: Call) -> Finished {
        Finished {
            outcome: Outcome::Returned(Bytes::from_static(b"1")),
            logs: Logs::default(),
            counters: Counters::default(),
            memory_peak_bytes: 0,
            duration: Duration::ZERO,
            reusable: true,
        }
    }

    fn memory_bytes(&self) -> u64 {
        IDLE_BYTES
    }
}

struct World {
    pools: Pools,
    backend: Arc<dyn Backend>,
    alive: Arc<AtomicU32>,
    code: Digest,
    memory: Arc<Memory>,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new(memory_mib: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = Arc::new(Files::open(directory.path().join("blobs")).expect("a directory"));
        let files = [(
            "main.py".to_owned(),
            Bytes::from_static(b"def handler(e, c): return e\n"),
        )];
        let bundle = Bundle::new(files, &BundleLimits::UPLOAD).expect("a bundle");
        let code = blobs.put(bundle.pack().tar).await.expect("kept");
        let bundles = Unpacked::open(directory.path().join("unpacked"), blobs, 1 << 20).expect("a directory");
        let memory = Memory::new(memory_mib * MIB);
        let fake = Fake::default();
        let alive = fake.0.clone();
        Self {
            pools: Pools::new((bundles, None), Duration::from_secs(60), u64::MAX, 1, memory.clone()),
            backend: Arc::new(fake),
            alive,
            code,
            memory,
            _directory: directory,
        }
    }

    fn alive(&self) -> u32 {
        self.alive.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// An instance of 84 MiB and what it costs beyond: 100 MiB.
    async fn take(&self, function: u8) -> Result<Lease, LoadError> {
        let work = Work {
            owner: None,
            function: FunctionId([function; 12]),
            version: 1,
            name: "f".into(),
            language: Language::Python,
            code: self.code,
            handler: None,
            env: BTreeMap::new(),
            limits: Limits {
                memory_bytes: 84 * MIB,
                ..Limits::DEFAULT
            },
            egress: Default::default(),
            backend: BackendName::Wasm,
        };
        let taken = self.pools.take(&self.backend, &Arc::new(work)).await;
        taken.map_err(|not_taken| not_taken.error)
    }

    async fn ends(&self, lease: Lease) {
        let call = Call {
            job: Default::default(),
            event: Bytes::from_static(b"1"),
            parameters: Bytes::from_static(b"null"),
            deadline_ms: 0,
            time_left: Duration::from_secs(1),
            stop: CancellationToken::new(),
            egress: EgressMeter::default(),
            body: None,
            outlet: Outlet::nowhere(),
        };
        self.pools.call(lease, call).await;
    }
}

fn code(taken: Result<Lease, LoadError>) -> Code {
    match taken {
        Ok(_) => panic!("an instance was taken"),
        Err(LoadError::Code(rejection)) => rejection.code.known().expect("a code of this build"),
        Err(other) => panic!("not refused: {other}"),
    }
}

#[tokio::test]
async fn what_runs_never_promises_more_than_there_is() {
    let world = World::new(250).await;
    let first = world.take(1).await.expect("100 of 250 MiB");
    let _second = world.take(2).await.expect("200 of 250 MiB");
    assert_eq!(code(world.take(3).await), Code::ProviderNoMemory);
    drop(first);
    world.take(3).await.expect("there is room again");
}

#[tokio::test]
async fn idle_instances_go_first_and_only_as_many_as_must() {
    let world = World::new(250).await;
    for function in 1..=3 {
        let lease = world.take(function).await.expect("it fits");
        world.ends(lease).await;
    }
    assert_eq!((world.alive(), world.memory.taken()), (3, 3 * IDLE_BYTES));
    let _running = world.take(4).await.expect("220 of 250 MiB");
    assert_eq!(world.alive(), 4);
    let again = world.take(3).await.expect("the others go");
    assert!(!again.cold, "the one that was wanted stayed");
    assert_eq!(world.alive(), 3, "one was enough");
    assert_eq!(code(world.take(5).await), Code::ProviderNoMemory);
}

#[tokio::test]
async fn a_warm_instance_needs_room_to_run() {
    let world = World::new(130).await;
    let lease = world.take(1).await.expect("it fits");
    world.ends(lease).await;
    world.memory.look(0, 90 * MIB);
    assert_eq!(
        code(world.take(1).await),
        Code::ProviderNoMemory,
        "others use the machine"
    );
    assert_eq!(world.alive(), 1, "it stays for when there is room");
    world.memory.look(0, 30 * MIB);
    world.pools.relieve();
    assert_eq!((world.alive(), world.memory.taken()), (0, 0), "given up for them");
}
