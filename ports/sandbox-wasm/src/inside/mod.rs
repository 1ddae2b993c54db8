//! What runs in a worker: a process of one owner's instances, behind walls of its own.
//!
//! One thread reads errands; each instance has a thread that serves its stream, runs its guest, and waits for nothing else.
//! The kernel shares the processor out among them: nothing here has to be fair.

pub(crate) mod bell;
mod proof;
mod seccomp;
mod serve;
mod template;
pub(crate) mod walls;

use std::{
    collections::HashMap,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use borsh::BorshDeserialize as _;
use parking_lot::Mutex;
use piecework_sandbox_jail::walls::{receive, send};

use crate::{
    inside::template::Template,
    runtime::{Prepared, Runtime},
    words::Errand,
};

/// Of an instance's thread. Guests and what they call run on stacks of the engine's.
const STACK_BYTES: usize = 256 << 10;

/// What all instances of a worker share.
pub(crate) struct Worker {
    runtime: Arc<Runtime>,
    /// The engine's file system wants one at hand; nothing of ours runs there.
    ambient: tokio::runtime::Runtime,
    templates: Mutex<HashMap<u64, Arc<Template>>>,
}

/// Serves errands until the host hangs up. `landlock`: whether that wall stands.
pub(crate) fn run(control: &OwnedFd, prepared: Prepared, landlock: bool) -> std::io::Result<()> {
    let worker = Arc::new(Worker {
        runtime: Arc::new(Runtime::new(prepared)?),
        // Without drivers: it makes no descriptors.
        ambient: tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_stack_size(STACK_BYTES)
            .build()?,
        templates: Mutex::default(),
    });
    loop {
        let (packet, mut descriptors) = receive(control.as_fd())?;
        if packet.is_empty() {
            return Ok(());
        }
        match Errand::try_from_slice(&packet)? {
            Errand::Serve => {
                if let Some(stream) = descriptors.pop() {
                    worker.clone().serve(stream.into());
                }
            }
            Errand::Forget(number) => drop(worker.templates.lock().remove(&number)),
            Errand::Freeze(frozen) => {
                worker.runtime.ticker.freeze.set(frozen);
            }
            Errand::Prove => send(control.as_fd(), &borsh::to_vec(&proof::prove(landlock))?, &[])?,
        }
    }
}

impl Worker {
    /// A host that finds the stream closed knows that there is no such instance.
    fn serve(self: Arc<Self>, stream: UnixStream) {
        let thread = std::thread::Builder::new()
            .name("instance".into())
            .stack_size(STACK_BYTES);
        drop(thread.spawn(move || {
            let _ambient = self.ambient.enter();
            serve::serve(&self, stream);
        }));
    }
}
