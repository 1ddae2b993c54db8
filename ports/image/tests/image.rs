//! Layers as a provider has them: unpacked by the real process, once each, within a quota.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    sync::Arc,
};

use bytes::Bytes;
use piecework_blobs::{Blobs, BlobsError, Files};
use piecework_image::{Layer, Layers, PART_BYTES, Sha256, Unpacker};
use piecework_model::{AccountId, Code};

struct Bench {
    folder: tempfile::TempDir,
    blobs: Arc<Files>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Arc::new(Files::open(folder.path().join("blobs")).expect("opened"));
        Self { folder, blobs }
    }

    fn layers(&self, quota_bytes: u64) -> Layers {
        let unpacker = Unpacker::new(env!("CARGO_BIN_EXE_image-unpack"));
        Layers::open(
            self.folder.path().join("layers"),
            self.blobs.clone(),
            quota_bytes,
            unpacker,
        )
        .expect("opened")
    }

    /// A layer of these bytes, in parts.
    async fn kept(&self, bytes: &[u8]) -> Layer {
        let mut parts = Vec::new();
        for part in bytes.chunks(PART_BYTES as usize) {
            parts.push(self.blobs.put(Bytes::copy_from_slice(part)).await.expect("kept"));
        }
        Layer {
            digest: Sha256::of(bytes),
            diff_id: Sha256::of(bytes),
            bytes: bytes.len() as u64,
            parts,
        }
    }
}

/// A layer of one file.
fn tar(name: &str, bytes: usize) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(bytes as u64);
    let mut archive = tar::Builder::new(Vec::new());
    archive
        .append_data(&mut header, name, &vec![b'x'; bytes][..])
        .expect("appended");
    archive.into_inner().expect("whole")
}

const OWNER: AccountId = AccountId([7; 20]);

/// What did not become a layer is deleted by a thread that nobody waits for.
async fn is_empty(layers: &Layers) {
    while fs::read_dir(layers.root()).expect("there").count() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(layers.bytes(), 0);
}

fn code(error: &BlobsError) -> Option<Code> {
    match error {
        BlobsError::Rejected(rejection) => rejection.code.known(),
        BlobsError::NotFound(_) | BlobsError::Corrupt { .. } | BlobsError::Full { .. } | BlobsError::Io { .. } => None,
    }
}

#[tokio::test]
async fn a_layer_of_several_parts_is_unpacked_once_by_somebody_else() {
    let bench = Bench::new();
    let layers = bench.layers(64 << 20);
    let layer = bench.kept(&tar("large", 9 << 20)).await;
    assert_eq!(layer.parts.len(), 3);
    let all = [layer.clone(), layer.clone()];
    let (one, other) = tokio::join!(layers.get(OWNER, &all), layers.get(OWNER, &all[..1]));
    let (one, other) = (one.expect("unpacked"), other.expect("unpacked"));
    assert_eq!(one.names()[0], other.names()[0]);
    assert_eq!(one.names()[0], one.names()[1]);
    let file = layers.root().join(&one.names()[0]).join("large");
    let found = fs::metadata(file).expect("it is there");
    assert_eq!(found.len(), 9 << 20);
    let own = rustix::process::geteuid();
    assert_eq!(found.uid() == own.as_raw(), !own.is_root(), "root gives it away");
    assert_eq!(fs::read_dir(layers.root()).expect("there").count(), 1);
}

#[tokio::test]
async fn the_longest_unused_layer_goes_first_and_none_in_use() {
    let bench = Bench::new();
    let layers = bench.layers(5 << 20);
    let [a, b, c] = [
        bench.kept(&tar("a", 2 << 20)).await,
        bench.kept(&tar("b", 2 << 20)).await,
        bench.kept(&tar("c", 2 << 20)).await,
    ];
    let used = layers.get(OWNER, std::slice::from_ref(&a)).await.expect("room");
    drop(layers.get(OWNER, std::slice::from_ref(&b)).await.expect("room"));
    let third = layers.get(OWNER, std::slice::from_ref(&c)).await.expect("b made room");
    assert!(layers.root().join(&used.names()[0]).is_dir());
    assert_eq!(fs::read_dir(layers.root()).expect("there").count(), 2);
    let full = layers
        .get(OWNER, std::slice::from_ref(&b))
        .await
        .expect_err("both are in use");
    assert!(full.is_full());
    drop((used, third));
    layers.shed().await.expect("deleted");
    is_empty(&layers).await;
}

/// Who knows the digest of a layer and has not its bytes does not get it from the cache.
#[tokio::test]
async fn a_layer_is_found_only_by_who_has_its_parts() {
    let bench = Bench::new();
    let layers = bench.layers(5 << 20);
    let known = bench.kept(&tar("secret", 100)).await;
    let _used = layers.get(OWNER, std::slice::from_ref(&known)).await.expect("unpacked");
    let mut named = bench.kept(b"x").await;
    (named.digest, named.diff_id) = (known.digest, known.diff_id);
    let refused = layers.get(OWNER, &[named]).await.expect_err("other bytes");
    assert_eq!(code(&refused), Some(Code::ImageBadLayer), "{refused}");
    let mut other = known.clone();
    other.diff_id = Sha256::of(b"other");
    let refused = layers.get(OWNER, &[other]).await.expect_err("another content");
    assert_eq!(code(&refused), Some(Code::ImageDigestMismatch), "{refused}");
}

/// A name of a GiB, in a layer of 34 KB: the process that unpacks may hold half of that.
#[tokio::test]
async fn a_name_that_takes_all_memory_is_only_its_layers_fault() {
    const NAME_BYTES: u64 = 1 << 30;
    const NAME: &[u8] = b"././@LongLink";
    let bench = Bench::new();
    let layers = bench.layers(5 << 20);
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..NAME.len()].copy_from_slice(NAME);
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(NAME_BYTES);
    header.set_cksum();
    let mut packed = zstd::Encoder::new(Vec::new(), 1).expect("a compressor");
    packed.write_all(header.as_bytes()).expect("taken");
    io::copy(&mut io::repeat(b'a').take(NAME_BYTES), &mut packed).expect("taken");
    let layer = bench.kept(&packed.finish().expect("whole")).await;
    let refused = layers.get(OWNER, &[layer]).await.expect_err("no room for the name");
    assert_eq!(code(&refused), Some(Code::ImageBadLayer), "{refused}");
    is_empty(&layers).await;
}

/// Directories that a tar does not name take room like those that it names.
#[tokio::test]
async fn directories_that_are_only_implied_are_counted() {
    let bench = Bench::new();
    let layers = bench.layers(5 << 20);
    let mut archive = tar::Builder::new(Vec::new());
    for file in 0..40 {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        let path = format!("{file}/{}x", "d/".repeat(60));
        archive.append_data(&mut header, path, &[][..]).expect("appended");
    }
    let deep = bench.kept(&archive.into_inner().expect("whole")).await;
    let refused = layers
        .get(OWNER, &[deep])
        .await
        .expect_err("2,440 directories of 4 KiB");
    assert_eq!(code(&refused), Some(Code::ImageTooLarge), "{refused}");
}

#[tokio::test]
async fn what_the_process_refuses_leaves_nothing() {
    let bench = Bench::new();
    let layers = bench.layers(5 << 20);
    let bomb = bench.kept(&tar("a", 6 << 20)).await;
    let mut lying = bench.kept(&tar("b", 10)).await;
    lying.digest = Sha256::of(b"other");
    let broken = bench.kept(&[7; 5_000]).await;
    let window = bench.kept(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0xff, 0xff]).await;
    for (layer, due) in [
        (bomb, Code::ImageTooLarge),
        (lying, Code::ImageDigestMismatch),
        (broken, Code::ImageBadLayer),
        (window, Code::ImageBadLayer),
    ] {
        let refused = layers.get(OWNER, &[layer]).await.expect_err("refused");
        assert_eq!(code(&refused), Some(due), "{refused}");
    }
    is_empty(&layers).await;
    let mut gone = bench.kept(&tar("c", 10)).await;
    gone.parts[0] = piecework_model::Digest::of(b"nowhere");
    assert!(matches!(layers.get(OWNER, &[gone]).await, Err(BlobsError::NotFound(_))));
}

#[tokio::test]
async fn a_registry_that_hangs_is_given_up() {
    use piecework_image::source::{Logins, Registry, SourceError};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let reference = format!("{address}/web").parse().expect("a reference");
    let patience = std::time::Duration::from_millis(200);
    let registry = Registry::with_patience(reference, &Logins::default(), patience).expect("a client");
    let silent = async {
        let mut taken = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            taken.push(socket);
        }
    };
    let pulled = tokio::select! {
        pulled = registry.pull(|_| {}) => pulled,
        () = silent => panic!("it listens for ever"),
    };
    let Err(SourceError::Rejected(refused)) = pulled else {
        panic!("{pulled:?}");
    };
    assert_eq!(refused.code, Code::ImageRegistryFailed);
    assert!(refused.message.contains("does not answer"), "{}", refused.message);
}
