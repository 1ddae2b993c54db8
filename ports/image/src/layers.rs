//! Directories of unpacked layers, one for each layer and the parts that it comes in, within a disk quota.
//!
//! ```text
//! absent --get--> parts --> confined process --rename--> ready (in use / idle) --quota--> absent
//! ```
//! Images that share a layer share its directory. Only an idle one is evicted, the longest unused first.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    os::unix::fs::{DirBuilderExt as _, chown},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use piecework_blobs::{Blobs, BlobsError};
use piecework_model::{AccountId, Code};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    ENTRIES_MAX, Layer, Sha256, Sha256Stream, UNPACKED_BYTES_MAX,
    confined::{Order, Told, UNPACK_ARGUMENT},
    too_large,
    turns::{Turn, Turns},
    unpack::{Made, Wanted},
};

/// Pulling and unpacking one layer; billed to nobody.
const UNPACK_WITHIN: Duration = Duration::from_secs(600);
/// What the process says at most.
const TOLD_BYTES_MAX: usize = 64 << 10;

/// How the process is started that unpacks.
#[derive(Clone, Debug)]
pub struct Unpacker {
    /// Calls [`crate::unpack_main`] when its first argument is [`UNPACK_ARGUMENT`].
    pub executable: PathBuf,
    /// The identity that it takes where the agent is root: one that owns nothing else.
    pub become_id: Option<u32>,
}

impl Unpacker {
    /// Nobody, where this process is root.
    pub fn new(executable: impl Into<PathBuf>) -> Self {
        const UNPACK_ID: u32 = 61_906;
        let is_root = rustix::process::geteuid().is_root();
        Self {
            executable: executable.into(),
            become_id: is_root.then_some(UNPACK_ID),
        }
    }
}

/// A cache of unpacked layers; cheap to clone.
#[derive(Clone)]
pub struct Layers {
    shelf: Arc<Shelf>,
}

struct Shelf {
    root: PathBuf,
    blobs: Arc<dyn Blobs>,
    quota_bytes: u64,
    unpacker: Unpacker,
    turns: Turns,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: HashMap<Sha256, Ready>,
    /// Their keys by their last use.
    order: BTreeMap<u64, Sha256>,
    tick: u64,
    bytes: u64,
    /// The second who wants a layer waits for the first.
    making: HashMap<Sha256, Arc<tokio::sync::Mutex<()>>>,
}

/// Names of directories that nothing finds any more.
type Evicted = Vec<Arc<str>>;

struct Ready {
    name: Arc<str>,
    used_at: u64,
    bytes: u64,
}

/// What stands for a layer here: also what it is unpacked to, and the parts that it comes in. Who names the digest of another's
/// layer and has not its bytes finds nothing.
fn key_of(layer: &Layer) -> Sha256 {
    let mut key = Sha256Stream::default();
    key.update(&layer.digest.0);
    key.update(&layer.diff_id.0);
    layer.parts.iter().for_each(|part| key.update(&part.0));
    key.finish()
}

/// A directory that is being made, and its turn. What does not become a layer is deleted on a thread of its own, which may take
/// seconds; the turn is held until then, so that these threads are few.
struct Making(Option<(TempDir, Turn)>);

impl Making {
    fn path(&self) -> &Path {
        self.0.as_ref().expect("taken only at its end").0.path()
    }

    /// It has another name now: there is nothing left to delete under this one.
    fn named(mut self) {
        if let Some((directory, _turn)) = self.0.take() {
            let _ = directory.keep();
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(made) = self.0.take() {
            let thread = std::thread::Builder::new().name("discard-layer".into());
            // Without a thread it is deleted here.
            let _ = thread.spawn(move || drop(made));
        }
    }
}

/// The layers of an image, which stay as long as this is held; only to be read.
#[derive(Clone, Debug, Default)]
pub struct LayersInUse {
    /// The lowest first; directories of [`Layers::root`].
    names: Vec<Arc<str>>,
}

impl LayersInUse {
    pub fn names(&self) -> Vec<String> {
        self.names.iter().map(|name| name.to_string()).collect()
    }
}

impl Layers {
    /// An empty cache below `root`. What an earlier process left there is not trusted, and is deleted.
    pub fn open(
        root: impl Into<PathBuf>,
        blobs: Arc<dyn Blobs>,
        quota_bytes: u64,
        unpacker: Unpacker,
    ) -> Result<Self, BlobsError> {
        let root = root.into();
        discard_old(&root).map_err(io_failed("clear the directory of layers"))?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&root);
        made.map_err(io_failed("make the directory of layers"))?;
        Ok(Self {
            shelf: Arc::new(Shelf {
                root,
                blobs,
                quota_bytes,
                unpacker,
                turns: Turns::default(),
                state: Mutex::default(),
            }),
        })
    }

    pub fn root(&self) -> &Path {
        &self.shelf.root
    }

    /// Bytes of disk that the cache holds.
    pub fn bytes(&self) -> u64 {
        self.shelf.state().bytes
    }

    /// The directories of these layers, made where they are not there, one at a time for each account. Rejects with
    /// `image.bad_layer`, `image.digest_mismatch` and `image.too_large`. Cancel safe.
    pub async fn get(&self, account: AccountId, layers: &[Layer]) -> Result<LayersInUse, BlobsError> {
        let mut names = Vec::with_capacity(layers.len());
        for layer in layers {
            names.push(self.one(account, layer).await?);
        }
        Ok(LayersInUse { names })
    }

    async fn one(&self, account: AccountId, layer: &Layer) -> Result<Arc<str>, BlobsError> {
        let key = key_of(layer);
        if let Some(found) = self.shelf.touch(&key) {
            return Ok(found);
        }
        // Before the layer's own lock: who waits behind an account's slow layer must not keep others from one that they share.
        let own = self.shelf.turns.of(account).await;
        let turn = self.shelf.state().making.entry(key).or_default().clone();
        let guard = turn.lock().await;
        let made = match self.shelf.touch(&key) {
            Some(found) => Ok(found),
            None => self.make((key, layer), own.now().await).await,
        };
        drop(guard);
        self.shelf.forget_turn(&key, turn);
        made
    }

    /// Deletes every idle directory.
    pub async fn shed(&self) -> Result<(), BlobsError> {
        let evicted: Evicted = {
            let mut state = self.shelf.state();
            std::iter::from_fn(|| state.evict_one()).collect()
        };
        self.shelf.delete(evicted).await
    }

    async fn make(&self, (key, layer): (Sha256, &Layer), turn: Turn) -> Result<Arc<str>, BlobsError> {
        let directory = tempfile::Builder::new().prefix("making-").tempdir_in(&self.shelf.root);
        let directory = directory.map_err(io_failed("make a directory for a layer"))?;
        let making = Making(Some((directory, turn)));
        let unpacked = tokio::time::timeout(UNPACK_WITHIN, self.unpack(layer, making.path())).await;
        let made = match unpacked {
            Ok(made) => made?,
            Err(_) => {
                let message = format!("unpacking a layer took longer than {UNPACK_WITHIN:?}");
                return Err(too_large(message).into());
            }
        };
        self.shelf.fill(key, making, made).await
    }

    async fn unpack(&self, layer: &Layer, directory: &Path) -> Result<Made, BlobsError> {
        let shelf = &self.shelf;
        let wanted = Wanted {
            digest: layer.digest,
            diff_id: layer.diff_id,
            bytes_max: UNPACKED_BYTES_MAX.min(shelf.quota_bytes),
            entries_max: ENTRIES_MAX,
        };
        let order = Order {
            wanted,
            become_id: shelf.unpacker.become_id,
        };
        if let Some(id) = order.become_id {
            chown(directory, Some(id), Some(id)).map_err(io_failed("give a directory away"))?;
        }
        let mut process = Command::new(&shelf.unpacker.executable)
            .args([UNPACK_ARGUMENT, &order.argument()])
            .current_dir(directory)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(io_failed("start the process that unpacks"))?;
        let mut stdin = process.stdin.take().expect("it was asked for");
        let feeds = async {
            for part in &layer.parts {
                let bytes = shelf.blobs.get(part).await?;
                // A process that has ended says why itself.
                if stdin.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            drop(stdin);
            Ok::<(), BlobsError>(())
        };
        let (fed, output) = tokio::join!(feeds, process.wait_with_output());
        fed?;
        let output = output.map_err(io_failed("wait for the process that unpacks"))?;
        let length = output.stdout.len().min(TOLD_BYTES_MAX);
        match serde_json::from_slice(&output.stdout[..length]) {
            Ok(Told::Made(made)) => Ok(made),
            // What it says is checked like a stranger's word.
            Ok(Told::Rejected(rejection)) if is_ours(&rejection.code) => Err(rejection.into()),
            Ok(Told::Rejected(_)) | Err(_) => {
                // A decoder that wanted too much, or took too long.
                let message = format!(
                    "the process that unpacks a layer ended without a result ({})",
                    output.status
                );
                Err(crate::bad_layer(message).into())
            }
            Ok(Told::Failed(reason)) => Err(io_failed("unpack a layer")(io::Error::other(reason))),
        }
    }
}

fn is_ours(code: &piecework_model::AnyCode) -> bool {
    code.is_one_of(&[Code::ImageBadLayer, Code::ImageDigestMismatch, Code::ImageTooLarge])
}

fn io_failed(operation: &'static str) -> impl FnOnce(io::Error) -> BlobsError {
    move |source| BlobsError::Io { operation, source }
}

/// Moves `root` aside and deletes it in the background: a large cache must not delay the start.
fn discard_old(root: &Path) -> io::Result<()> {
    let Some(parent) = root.parent().filter(|_| root.exists()) else {
        return Ok(());
    };
    let aside = tempfile::Builder::new().prefix("discarded-").tempdir_in(parent)?;
    fs::rename(root, aside.path().join("layers"))?;
    std::thread::Builder::new()
        .name("discard-layers".into())
        .spawn(move || drop(aside))?;
    Ok(())
}

impl Shelf {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code under this lock panics")
    }

    fn touch(&self, key: &Sha256) -> Option<Arc<str>> {
        let mut state = self.state();
        let State { ready, order, tick, .. } = &mut *state;
        let found = ready.get_mut(key)?;
        *tick += 1;
        order.remove(&found.used_at);
        order.insert(*tick, *key);
        found.used_at = *tick;
        Some(found.name.clone())
    }

    fn forget_turn(&self, key: &Sha256, turn: Arc<tokio::sync::Mutex<()>>) {
        let mut state = self.state();
        // Two: the map's and ours; nobody else waits for it.
        if Arc::strong_count(&turn) == 2 {
            state.making.remove(key);
        }
    }

    /// Names a directory that was made, once others have made room for it.
    async fn fill(&self, key: Sha256, making: Making, size: Made) -> Result<Arc<str>, BlobsError> {
        let bytes = size.disk_bytes.min(UNPACKED_BYTES_MAX);
        let (evicted, used_at) = self.reserve(bytes).await?;
        let name = self.name(key, making, (bytes, used_at))?;
        self.delete(evicted).await?;
        Ok(name)
    }

    fn name(&self, key: Sha256, making: Making, (bytes, used_at): (u64, u64)) -> Result<Arc<str>, BlobsError> {
        // Short, so that the names of an image's layers fit into the options of a mount; new each time, so that the deletion of an
        // evicted directory never meets its successor.
        let name: Arc<str> = format!("{used_at:x}").into();
        let named = fs::rename(making.path(), self.root.join(&*name));
        let mut state = self.state();
        if let Err(error) = named {
            state.bytes -= bytes;
            return Err(io_failed("name a layer")(error));
        }
        making.named();
        state.order.insert(used_at, key);
        let ready = Ready {
            name: name.clone(),
            used_at,
            bytes,
        };
        state.ready.insert(key, ready);
        Ok(name)
    }

    /// Counts so many bytes, for which others may have to go: they come back, with a number of its own for what they are for.
    async fn reserve(&self, bytes: u64) -> Result<(Evicted, u64), BlobsError> {
        match self.make_room(bytes) {
            Ok(reserved) => Ok(reserved),
            Err(evicted) => {
                self.delete(evicted).await?;
                Err(BlobsError::Full {
                    needed_bytes: bytes,
                    quota_bytes: self.quota_bytes,
                })
            }
        }
    }

    /// Where all that can go is not enough, what went.
    fn make_room(&self, bytes: u64) -> Result<(Evicted, u64), Evicted> {
        let mut evicted = Vec::new();
        let mut state = self.state();
        while state.bytes.saturating_add(bytes) > self.quota_bytes {
            match state.evict_one() {
                Some(name) => evicted.push(name),
                None => return Err(evicted),
            }
        }
        state.tick += 1;
        state.bytes += bytes;
        Ok((evicted, state.tick))
    }

    /// Off the threads that serve requests: a layer has many files.
    async fn delete(&self, evicted: Evicted) -> Result<(), BlobsError> {
        if evicted.is_empty() {
            return Ok(());
        }
        let root = self.root.clone();
        let delete = move || {
            let mut names = evicted.iter();
            names.try_for_each(|name| fs::remove_dir_all(root.join(&**name)))
        };
        let deleted = tokio::task::spawn_blocking(delete).await;
        deleted
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(io_failed("delete a layer"))
    }
}

impl State {
    fn evict_one(&mut self) -> Option<Arc<str>> {
        let idle = |ready: &Ready| Arc::strong_count(&ready.name) == 1;
        let (&used_at, &key) = self
            .order
            .iter()
            .find(|(_, key)| self.ready.get(*key).is_some_and(idle))?;
        self.order.remove(&used_at);
        let evicted = self.ready.remove(&key)?;
        self.bytes -= evicted.bytes;
        Some(evicted.name)
    }
}
