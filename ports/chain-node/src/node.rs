//! A peer on threads of its own.

use std::{
    net::{SocketAddr, TcpListener},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use commonware_runtime::{
    Runner as _,
    tokio::{self as engine_runtime, Context},
};
use piecework_chain::{ChainFailure, Node};
use piecework_chain_simplex::{Directory, Handle, Options, Prepared, Setup, prepare, run};
use tokio::sync::{oneshot, watch};

use crate::{lasting::Lasting, machine::Machine, room::Room, tcp};

/// Blocking threads of the engine's runtime: file operations, one at a time for most of its parts.
const BLOCKING_THREADS_MAX: usize = 16;

/// A peer that runs until its shutdown or a failure. Dropping it stops the peer without waiting.
pub(crate) struct Peer {
    handle: Arc<Handle>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Starts a peer and returns once it is where its last run had left it. Resolves on a tokio runtime of the caller's; the
/// peer has threads of its own. Where a full disk ends it later, it starts again by itself once there is room.
pub async fn start(options: Options) -> Result<Box<dyn Node>, ChainFailure> {
    let peer = start_once(options.clone()).await?;
    Ok(Box::new(Lasting::new(peer, options)))
}

pub(crate) async fn start_once(options: Options) -> Result<Peer, ChainFailure> {
    let (root, worker_threads) = (options.directory.clone(), options.worker_threads);
    check_listen(options.listen)?;
    let Prepared {
        directory,
        handle,
        setup,
        starting,
        stop,
        ended,
    } = prepare(options)?;
    let room = Room::new(directory.data());
    let thread = spawn(directory, (worker_threads, room.clone()), setup, ended)?;
    let node = Peer {
        handle: handle.clone(),
        stop: Some(stop),
        thread: Some(thread),
    };
    match handle.catch_up(starting, |tip| handle.stalled(tip)).await {
        Ok(indexing) => {
            room.be_patient();
            tokio::spawn(indexing);
            Ok(node)
        }
        Err(failure) => Err(handle.cause(failure, root).await),
    }
}

/// The engine would panic; this names the address.
fn check_listen(address: SocketAddr) -> Result<(), ChainFailure> {
    TcpListener::bind(address)
        .map(drop)
        .map_err(|source| ChainFailure::Listen {
            address,
            source: Arc::new(source),
        })
}

fn spawn(
    directory: Directory,
    (worker_threads, room): (usize, Arc<Room>),
    setup: Setup,
    ended: watch::Sender<Option<ChainFailure>>,
) -> Result<thread::JoinHandle<()>, ChainFailure> {
    let config = engine_runtime::Config::new()
        .with_storage_directory(directory.data())
        .with_worker_threads(worker_threads.max(1))
        .with_max_blocking_threads(BLOCKING_THREADS_MAX);
    let root = directory.root().to_owned();
    let work = move || {
        let aftermath = setup.aftermath();
        let runner = engine_runtime::Runner::new(config);
        let result = catch_unwind(AssertUnwindSafe(|| runner.start(|context| serve(context, room, setup))));
        let failure = match result {
            Ok(stopped) => stopped.err(),
            Err(payload) => {
                let failure = ChainFailure::from_panic(payload.as_ref());
                Some(directory.blame(failure, aftermath.reading()))
            }
        };
        if failure.is_some() {
            ended.send_replace(failure);
        }
        aftermath.close();
        // The lock goes last: nobody else may open the directory before.
        drop(directory);
    };
    let thread = thread::Builder::new().name("chain".to_owned()).spawn(work);
    thread.map_err(|error| ChainFailure::directory(root, error))
}

async fn serve(context: Context, room: Arc<Room>, setup: Setup) -> Result<(), ChainFailure> {
    let wires = tcp::open(&context, &room, &setup);
    Box::pin(run(Machine::Threads(context, room), setup, wires)).await
}

impl Peer {
    pub(crate) fn handle(&self) -> Arc<Handle> {
        self.handle.clone()
    }

    /// Resolves when the peer has stopped by itself. Cancel safe.
    pub(crate) async fn failed(&self) -> ChainFailure {
        self.handle.failed().await
    }

    /// Stops it and waits until its directory is free.
    pub(crate) async fn shutdown(mut self) -> Result<(), ChainFailure> {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            debug_assert!(matches!(joined, Ok(Ok(()))), "the thread catches its panics");
        }
        self.handle.ended().map_or(Ok(()), Err)
    }
}
