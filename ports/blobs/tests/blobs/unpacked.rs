//! The cache of unpacked bundles: made once, within its quota, never taken from under a user.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use piecework_blobs::{BlobSize, Blobs, BlobsError, Bundle, BundleLimits, Files, Unpacked};
use piecework_model::Digest;

/// Counts the reads of the real store behind it.
struct Counting {
    files: Files,
    gets: AtomicUsize,
}

#[async_trait]
impl Blobs for Counting {
    async fn put(&self, bytes: Bytes) -> Result<Digest, BlobsError> {
        self.files.put(bytes).await
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, BlobsError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.files.get(digest).await
    }

    async fn has(&self, digest: &Digest) -> Result<bool, BlobsError> {
        self.files.has(digest).await
    }

    async fn size(&self, digest: &Digest) -> Result<Option<BlobSize>, BlobsError> {
        self.files.size(digest).await
    }

    async fn list(&self) -> Result<Vec<Digest>, BlobsError> {
        self.files.list().await
    }

    async fn delete(&self, digest: &Digest) -> Result<bool, BlobsError> {
        self.files.delete(digest).await
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    blobs: Arc<Counting>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::open(folder.path().join("blobs")).expect("opens");
        Self {
            folder,
            blobs: Arc::new(Counting {
                files,
                gets: AtomicUsize::new(0),
            }),
        }
    }

    fn cache(&self, quota_bytes: u64) -> Unpacked {
        Unpacked::open(self.folder.path().join("unpacked"), self.blobs.clone(), quota_bytes).expect("opens")
    }

    /// A bundle of one file of `size` bytes.
    async fn kept(&self, letter: char, size: usize) -> Digest {
        let content = Bytes::from(letter.to_string().repeat(size));
        let packed = Bundle::new([("main.py".to_owned(), content)], &BundleLimits::UPLOAD)
            .expect("a good bundle")
            .pack();
        self.blobs.put(packed.tar).await.expect("puts")
    }
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder.join("unpacked")).expect("lists").count()
}

/// One block of 4 KiB for the file and one for the folder.
const ONE: u64 = 8_192;

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_at_once_unpack_it_once() {
    let fixture = Fixture::new();
    let cache = fixture.cache(10 * ONE);
    let digest = fixture.kept('a', 10).await;
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.get(&digest).await.expect("gets").path().to_owned() })
        })
        .collect();
    let mut paths = Vec::new();
    for caller in callers {
        paths.push(caller.await.expect("ends"));
    }
    assert!(paths.iter().all(|path| path == &paths[0]));
    assert_eq!(
        fs::read_to_string(paths[0].join("main.py")).expect("reads"),
        "aaaaaaaaaa"
    );
    assert_eq!(fixture.blobs.gets.load(Ordering::Relaxed), 1);
    assert_eq!(cache.bytes(), ONE);
}

#[tokio::test]
async fn the_longest_unused_goes_first_and_comes_back_when_asked() {
    let fixture = Fixture::new();
    let cache = fixture.cache(2 * ONE);
    let (a, b, c) = (
        fixture.kept('a', 1).await,
        fixture.kept('b', 1).await,
        fixture.kept('c', 1).await,
    );
    let path_a = cache.get(&a).await.expect("gets").path().to_owned();
    let path_b = cache.get(&b).await.expect("gets").path().to_owned();
    cache.get(&a).await.expect("used again");
    cache.get(&c).await.expect("evicts b");
    assert!(path_a.exists() && !path_b.exists());
    assert_eq!((cache.bytes(), entries(fixture.folder.path())), (2 * ONE, 2));
    let back = cache.get(&b).await.expect("comes back");
    assert_eq!(fs::read_to_string(back.path().join("main.py")).expect("reads"), "b");
}

#[tokio::test]
async fn a_directory_in_use_is_never_evicted() {
    let fixture = Fixture::new();
    let cache = fixture.cache(2 * ONE);
    let (a, b, c) = (
        fixture.kept('a', 1).await,
        fixture.kept('b', 1).await,
        fixture.kept('c', 1).await,
    );
    let (held_a, held_b) = (cache.get(&a).await.expect("gets"), cache.get(&b).await.expect("gets"));
    assert!(matches!(cache.get(&c).await, Err(error @ BlobsError::Full { .. }) if error.is_full()));
    assert!(held_a.path().join("main.py").exists() && held_b.path().join("main.py").exists());
    drop(held_a);
    cache.get(&c).await.expect("takes the place of a");
    assert!(held_b.path().join("main.py").exists());
    assert_eq!(cache.bytes(), 2 * ONE);
}

#[tokio::test]
async fn a_failed_get_leaves_nothing_and_takes_no_room() {
    let fixture = Fixture::new();
    let cache = fixture.cache(2 * ONE);
    assert!(matches!(
        cache.get(&Digest::of(b"unknown")).await,
        Err(BlobsError::NotFound(_))
    ));
    let large = fixture.kept('x', 100_000).await;
    assert!(matches!(cache.get(&large).await, Err(BlobsError::Full { .. })));
    let foreign = fixture.blobs.put(Bytes::from_static(b"not a tar")).await.expect("puts");
    assert!(matches!(cache.get(&foreign).await, Err(BlobsError::Rejected(_))));
    assert_eq!((cache.bytes(), entries(fixture.folder.path())), (0, 0));
}

#[tokio::test]
async fn what_an_earlier_process_left_is_not_trusted() {
    let fixture = Fixture::new();
    let digest = fixture.kept('a', 5).await;
    let path = fixture
        .cache(2 * ONE)
        .get(&digest)
        .await
        .expect("gets")
        .path()
        .to_owned();
    fs::write(path.join("main.py"), "").expect("as a power cut leaves it");
    let cache = fixture.cache(2 * ONE);
    assert_eq!(cache.bytes(), 0);
    let again = cache.get(&digest).await.expect("gets");
    assert_eq!(
        fs::read_to_string(again.path().join("main.py")).expect("reads"),
        "aaaaa"
    );
}
