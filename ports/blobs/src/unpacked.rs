//! Directories of unpacked bundles, one per digest, within a disk quota.
//!
//! ```text
//! absent --get--> making --rename--> ready (in use / idle) --quota--> absent
//! ```
//! Only an idle directory is ever evicted, the longest unused first.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use piecework_model::Digest;
use tempfile::TempDir;

use crate::{Blobs, BlobsError, Bundle, BundleLimits, blocking};

/// A cache of unpacked bundles; cheap to clone.
#[derive(Clone)]
pub struct Unpacked {
    shelf: Arc<Shelf>,
}

/// A directory that stays as long as this is held; only to be read.
#[derive(Clone, Debug)]
pub struct InUse {
    entry: Arc<Entry>,
}

impl InUse {
    pub fn path(&self) -> &Path {
        &self.entry.path
    }
}

struct Shelf {
    root: PathBuf,
    blobs: Arc<dyn Blobs>,
    quota_bytes: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: HashMap<Digest, Ready>,
    /// Digests by their last use.
    order: BTreeMap<u64, Digest>,
    tick: u64,
    /// Of the ready directories and of those being made.
    bytes: u64,
    /// One lock per digest that is being made: the second caller waits for the first.
    making: HashMap<Digest, Arc<tokio::sync::Mutex<()>>>,
}

struct Ready {
    entry: Arc<Entry>,
    used_at: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
}

impl Unpacked {
    /// An empty cache below `root`. What an earlier process left there is not trusted (a power cut may have emptied
    /// its files) and is deleted.
    pub fn open(root: impl Into<PathBuf>, blobs: Arc<dyn Blobs>, quota_bytes: u64) -> Result<Self, BlobsError> {
        let root = root.into();
        discard_old(&root).map_err(BlobsError::io("clear the directory of unpacked bundles"))?;
        // Code is its owner's affair. Jails see a bundle through a mount, whatever may come near it on the host.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&root);
        made.map_err(BlobsError::io("make the directory of unpacked bundles"))?;
        let state = Mutex::default();
        Ok(Self {
            shelf: Arc::new(Shelf {
                root,
                blobs,
                quota_bytes,
                state,
            }),
        })
    }

    /// The directory of the bundle `digest`, made if it is not there. Two callers at once make it once. Cancel safe.
    pub async fn get(&self, digest: &Digest) -> Result<InUse, BlobsError> {
        if let Some(found) = self.shelf.touch(digest) {
            return Ok(found);
        }
        let turn = self.shelf.turn(digest);
        let guard = turn.lock().await;
        let made = match self.shelf.touch(digest) {
            Some(found) => Ok(found),
            None => self.make(digest).await,
        };
        drop(guard);
        self.shelf.forget_turn(digest, turn);
        made
    }

    /// Deletes every idle directory.
    pub async fn shed(&self) -> Result<(), BlobsError> {
        let evicted = self.shelf.evict_all();
        blocking(move || evicted.iter().try_for_each(|entry| fs::remove_dir_all(&entry.path)))
            .await
            .map_err(BlobsError::io("delete an unpacked bundle"))
    }

    /// Bytes of disk that the cache holds.
    pub fn bytes(&self) -> u64 {
        self.shelf.state().bytes
    }

    async fn make(&self, digest: &Digest) -> Result<InUse, BlobsError> {
        let tar = self.shelf.blobs.get(digest).await?;
        let bundle = blocking(move || Bundle::read(&tar, &BundleLimits::RESOLVED)).await?;
        let room = self.shelf.reserve(disk_bytes(&bundle))?;
        let root = self.shelf.root.clone();
        let made = blocking(move || unpack(&bundle, &root))
            .await
            .map_err(BlobsError::io("unpack a bundle"))?;
        room.fill(digest, made)
    }
}

fn unpack(bundle: &Bundle, root: &Path) -> io::Result<TempDir> {
    let made = tempfile::Builder::new().prefix("making-").tempdir_in(root)?;
    bundle.unpack(made.path())?;
    Ok(made)
}

/// What the directory takes on a file system with 4 KiB blocks.
fn disk_bytes(bundle: &Bundle) -> u64 {
    const BLOCK: u64 = 4_096;
    let contents: u64 = bundle
        .files()
        .values()
        .map(|content| (content.len() as u64).next_multiple_of(BLOCK))
        .sum();
    contents + BLOCK
}

/// Moves `root` aside and deletes it in the background: a large cache must not delay the start.
fn discard_old(root: &Path) -> io::Result<()> {
    let Some(parent) = root.parent() else { return Ok(()) };
    if !root.exists() {
        return Ok(());
    }
    let aside = tempfile::Builder::new().prefix("discarded-").tempdir_in(parent)?;
    fs::rename(root, aside.path().join("unpacked"))?;
    std::thread::Builder::new()
        .name("discard-unpacked".into())
        .spawn(move || drop(aside))?;
    Ok(())
}

impl Shelf {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code under this lock panics")
    }

    fn touch(&self, digest: &Digest) -> Option<InUse> {
        let mut state = self.state();
        let State { ready, order, tick, .. } = &mut *state;
        let found = ready.get_mut(digest)?;
        *tick += 1;
        order.remove(&found.used_at);
        order.insert(*tick, *digest);
        found.used_at = *tick;
        Some(InUse {
            entry: found.entry.clone(),
        })
    }

    fn next_tick(&self) -> u64 {
        let mut state = self.state();
        state.tick += 1;
        state.tick
    }

    fn turn(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        self.state().making.entry(*digest).or_default().clone()
    }

    fn forget_turn(&self, digest: &Digest, turn: Arc<tokio::sync::Mutex<()>>) {
        let mut state = self.state();
        // Two: the map's and ours; nobody else waits for it.
        if Arc::strong_count(&turn) == 2 {
            state.making.remove(digest);
        }
    }

    fn evict_all(&self) -> Vec<Arc<Entry>> {
        let mut state = self.state();
        std::iter::from_fn(|| state.evict_one()).collect()
    }

    /// Evicts idle directories until `bytes` more fit.
    fn reserve(&self, bytes: u64) -> Result<Room<'_>, BlobsError> {
        let mut evicted = Vec::new();
        let mut state = self.state();
        while state.bytes.saturating_add(bytes) > self.quota_bytes {
            match state.evict_one() {
                Some(entry) => evicted.push(entry),
                None => {
                    return Err(BlobsError::Full {
                        needed_bytes: bytes,
                        quota_bytes: self.quota_bytes,
                    });
                }
            }
        }
        state.bytes += bytes;
        let room = Room { shelf: self, bytes };
        drop(state);
        for entry in evicted {
            fs::remove_dir_all(&entry.path).map_err(BlobsError::io("delete an unpacked bundle"))?;
        }
        Ok(room)
    }
}

impl State {
    fn evict_one(&mut self) -> Option<Arc<Entry>> {
        let idle = |ready: &Ready| Arc::strong_count(&ready.entry) == 1;
        let (&used_at, &digest) = self
            .order
            .iter()
            .find(|(_, digest)| self.ready.get(*digest).is_some_and(idle))?;
        self.order.remove(&used_at);
        let evicted = self.ready.remove(&digest)?;
        self.bytes -= evicted.bytes;
        Some(evicted.entry)
    }
}

/// Bytes of the quota set aside for a directory that is being made; given back when dropped.
struct Room<'a> {
    shelf: &'a Shelf,
    bytes: u64,
}

impl Room<'_> {
    fn fill(mut self, digest: &Digest, made: TempDir) -> Result<InUse, BlobsError> {
        let used_at = self.shelf.next_tick();
        // A name of its own each time: the deletion of an evicted directory never meets its successor.
        let path = self.shelf.root.join(format!("{digest}-{used_at}"));
        fs::rename(made.path(), &path).map_err(BlobsError::io("name an unpacked bundle"))?;
        // Renamed away: there is nothing left to delete under the old name.
        let _ = made.keep();
        let entry = Arc::new(Entry { path });
        let mut state = self.shelf.state();
        state.order.insert(used_at, *digest);
        let bytes = std::mem::take(&mut self.bytes);
        state.ready.insert(
            *digest,
            Ready {
                entry: entry.clone(),
                used_at,
                bytes,
            },
        );
        Ok(InUse { entry })
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.shelf.state().bytes -= self.bytes;
    }
}
