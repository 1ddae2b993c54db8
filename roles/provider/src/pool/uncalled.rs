//! What deploys leave behind, and nobody calls.

use async_trait::async_trait;
use bytes::Bytes;
use piecework_blobs::{Blobs as _, Bundle, BundleLimits, Files};
use piecework_model::BackendName;
use piecework_sandbox::Probe;

use super::*;
use crate::{memory::Memory, orders};

/// A sandbox in which everything loads and takes a MiB, and nothing starts.
struct Roomy;

struct Large;

#[async_trait]
impl Backend for Roomy {
    fn name(&self) -> BackendName {
        BackendName::Wasm
    }

    async fn probe(&self) -> Probe {
        unreachable!("nobody asks")
    }

    async fn load(&self, _: Arc<Program>) -> Result<Arc<dyn Loaded>, LoadError> {
        Ok(Arc::new(Large))
    }
}

#[async_trait]
impl Loaded for Large {
    async fn start(&self) -> Result<Box<dyn Instance>, LoadError> {
        Err(LoadError::Failed("nothing starts here".into()))
    }

    fn memory_bytes(&self) -> u64 {
        1 << 20
    }
}

struct World {
    pools: Pools,
    backend: Arc<dyn Backend>,
    work: Work,
    _directory: tempfile::TempDir,
}

impl World {
    async fn of(idle_bytes_max: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = Arc::new(Files::open(directory.path().join("blobs")).expect("a directory"));
        let files = [("main.py".to_owned(), Bytes::from_static(b"1"))];
        let packed = Bundle::new(files, &BundleLimits::UPLOAD).expect("a bundle").pack();
        let code = blobs.put(packed.tar).await.expect("kept");
        let bundles = Unpacked::open(directory.path().join("unpacked"), blobs, 1 << 20).expect("a directory");
        Self {
            pools: Pools::new(
                (bundles, None),
                Duration::from_secs(60),
                idle_bytes_max,
                1,
                Memory::new(1 << 40),
            ),
            backend: Arc::new(Roomy),
            work: Work {
                code,
                ..Work::clone(&orders::order(0).work)
            },
            _directory: directory,
        }
    }

    fn version(&self, version: u32) -> Arc<Work> {
        Arc::new(Work {
            version,
            ..self.work.clone()
        })
    }

    async fn deploy(&self, version: u32) {
        let checked = self.pools.check(&self.backend, &self.version(version)).await;
        checked.expect("it loads");
    }

    fn kept(&self) -> Vec<u32> {
        let mut kept: Vec<u32> = self.pools.pools.read().keys().map(|(_, version)| *version).collect();
        kept.sort_unstable();
        kept
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_deploys_leave_few_are_kept_that_nobody_calls() {
    let world = World::of(1 << 40).await;
    world.deploy(0).await;
    let called = world.pools.take(&world.backend, &world.version(0)).await;
    assert!(called.is_err(), "nothing starts here");
    for version in 1..100 {
        world.deploy(version).await;
    }
    let kept = world.kept();
    assert_eq!(kept.len(), FRESH_MAX + 1, "{kept:?}");
    assert!(kept.contains(&0), "it was called");
    assert!(kept.contains(&99) && !kept.contains(&1), "the oldest went: {kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_deploys_leave_goes_first_where_memory_is_short() {
    let world = World::of(3 << 20).await;
    for version in 0..8 {
        world.deploy(version).await;
    }
    world.pools.sweep(Instant::now());
    assert_eq!(world.kept(), [5, 6, 7], "three MiB of them");
}
