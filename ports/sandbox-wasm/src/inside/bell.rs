//! Waits for a stream and for wakers at once: the executor of an instance's thread.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Wake,
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

/// Rung by wakers of any thread; the instance's thread sleeps until then.
pub(crate) struct Bell {
    event: OwnedFd,
    rung: AtomicBool,
    sleeps: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        if self.sleeps.load(Ordering::SeqCst) {
            // It fails only where it has been rung very often already.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }
}

impl Bell {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            event: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            rung: AtomicBool::new(false),
            sleeps: AtomicBool::new(false),
        }))
    }

    /// Sleeps until it was rung since the last time, or the stream has something, or takes something where that is asked for.
    ///
    /// `rung` is read again after `sleeps` is set, and a waker does the two in the other order: one of them sees the other.
    pub(crate) fn wait(&self, stream: impl AsFd, to_write: bool) -> io::Result<()> {
        self.sleeps.store(true, Ordering::SeqCst);
        let waited = match self.rung.load(Ordering::SeqCst) {
            true => Ok(0),
            false => {
                let wanted = if to_write {
                    PollFlags::IN | PollFlags::OUT
                } else {
                    PollFlags::IN
                };
                poll(
                    &mut [PollFd::new(&stream, wanted), PollFd::new(&self.event, PollFlags::IN)],
                    None,
                )
            }
        };
        self.sleeps.store(false, Ordering::SeqCst);
        self.rung.store(false, Ordering::SeqCst);
        // Left over from a waker that came late; the next sleep is for the next one.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        match waited {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, task::Waker};

    use super::*;

    #[test]
    fn a_sleeper_is_woken_by_a_waker_and_by_its_stream() {
        let bell = Bell::new().expect("a bell");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let waker = Waker::from(bell.clone());
        waker.wake_by_ref();
        bell.wait(&ours, false).expect("rung before");
        let rings = std::thread::spawn(move || waker.wake());
        bell.wait(&ours, false).expect("rung meanwhile");
        rings.join().expect("a thread");
        bell.wait(&ours, true).expect("there is room");
        drop(theirs);
        bell.wait(&ours, false).expect("it was closed");
    }
}
