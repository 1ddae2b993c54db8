//! Blobs as files: what is put comes back, and what rots is found out.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use piecework_blobs::{Blobs, BlobsError, Files};
use piecework_model::Digest;

struct Fixture {
    folder: tempfile::TempDir,
    files: Files,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = Files::open(folder.path()).expect("opens");
    Fixture { folder, files }
}

impl Fixture {
    fn file_of(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.folder.path().join(&name[..2]).join(&name[2..4]).join(name)
    }
}

#[tokio::test]
async fn what_is_put_comes_back_under_its_digest() {
    let Fixture { folder, files } = fixture();
    let bytes = Bytes::from(vec![7; 100_000]);
    let digest = files.put(bytes.clone()).await.expect("puts");
    assert_eq!(digest, Digest::of(&bytes));
    assert!(files.has(&digest).await.expect("looks"));
    drop(files);
    let reopened = Files::open(folder.path()).expect("opens again");
    assert_eq!(reopened.get(&digest).await.expect("gets"), bytes);
}

#[tokio::test]
async fn an_unknown_digest_is_not_found() {
    let Fixture { files, folder: _folder } = fixture();
    let digest = Digest::of(b"never put");
    assert!(matches!(files.get(&digest).await, Err(BlobsError::NotFound(missing)) if missing == digest));
    assert!(!files.has(&digest).await.expect("looks"));
    assert!(!files.delete(&digest).await.expect("deletes nothing"));
}

#[tokio::test]
async fn a_deleted_blob_is_gone() {
    let Fixture { files, folder: _folder } = fixture();
    let digest = files.put(Bytes::from_static(b"short")).await.expect("puts");
    assert!(files.delete(&digest).await.expect("deletes"));
    assert!(matches!(files.get(&digest).await, Err(BlobsError::NotFound(_))));
}

#[tokio::test]
async fn each_flipped_byte_of_a_kept_blob_is_named_as_corruption() {
    let fixture = fixture();
    let digest = fixture
        .files
        .put(Bytes::from_static(b"def handler(event, context): pass"))
        .await
        .expect("puts");
    let path = fixture.file_of(&digest);
    let good = fs::read(&path).expect("reads");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        fs::write(&path, &bad).expect("writes");
        match fixture.files.get(&digest).await {
            Err(BlobsError::Corrupt { digest: named, .. }) => assert_eq!(named, digest),
            // A flip in the frame's header may leave the content as it was.
            Ok(content) => assert_eq!(Digest::of(&content), digest),
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    fs::write(&path, &good[..good.len() / 2]).expect("writes");
    assert!(matches!(
        fixture.files.get(&digest).await,
        Err(BlobsError::Corrupt { .. })
    ));
}

#[tokio::test]
async fn another_blob_in_its_place_is_named_as_corruption() {
    let fixture = fixture();
    let first = fixture.files.put(Bytes::from_static(b"first")).await.expect("puts");
    let second = fixture.files.put(Bytes::from_static(b"second")).await.expect("puts");
    fs::copy(fixture.file_of(&second), fixture.file_of(&first)).expect("copies");
    assert!(matches!(
        fixture.files.get(&first).await,
        Err(BlobsError::Corrupt { .. })
    ));
}

#[tokio::test]
async fn putting_a_rotten_blob_again_heals_it() {
    let fixture = fixture();
    let bytes = Bytes::from_static(b"worth keeping");
    let digest = fixture.files.put(bytes.clone()).await.expect("puts");
    fs::write(fixture.file_of(&digest), b"rot").expect("writes");
    fixture.files.put(bytes.clone()).await.expect("puts again");
    assert_eq!(fixture.files.get(&digest).await.expect("gets"), bytes);
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_cleared_and_never_read() {
    let fixture = fixture();
    let half = fixture.folder.path().join("incoming/.half");
    fs::write(&half, b"half a bl").expect("writes");
    let reopened = Files::open(fixture.folder.path()).expect("opens");
    assert!(!half.exists());
    assert!(!reopened.has(&Digest::of(b"half a blob")).await.expect("looks"));
}
