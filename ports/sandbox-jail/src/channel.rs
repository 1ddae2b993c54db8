//! A jailed process's channel and its log pipe: what it prints while it is asked is collected.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use piecework_model::Limits;
use piecework_sandbox::{
    Call, LogLevel, Printed, Program,
    runner::{self, Ended, NotLoaded, Watched},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, unix::AsyncFd},
    net::UnixStream,
};

use crate::servant;

/// Read from the log pipe after an answer at most: what was written before it fits into the pipe.
const LATE_LOG_BYTES_MAX: usize = 1 << 20;
/// What a jail has in its environment, unless the program says otherwise.
const BASE_ENV: [(&str, &str); 4] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("HOME", "/tmp"),
    ("TMPDIR", "/tmp"),
    ("LANG", "C.UTF-8"),
];

/// The log pipe. Read by bare reads, since what the runtime knows of its readiness may lag behind what lies in it.
struct Pipe {
    pipe: AsyncFd<File>,
    open: bool,
    logs: Printed,
    buffer: Box<[u8]>,
    pace: Pace,
}

/// How much of the pipe is taken in a time: who prints more waits for it, so that reading costs little however much is printed.
struct Pace {
    since: Instant,
    bytes: usize,
}

impl Pace {
    const WINDOW: Duration = Duration::from_millis(100);
    /// 20 MiB a second: more than anybody reads, and a hundredth of a core.
    const BYTES_MAX: usize = 2 << 20;

    fn note(&mut self, bytes: usize, now: Instant) {
        if now.duration_since(self.since) >= Self::WINDOW {
            (self.since, self.bytes) = (now, 0);
        }
        self.bytes += bytes;
    }

    /// Until when nothing more is taken.
    fn wait(&self, now: Instant) -> Option<Instant> {
        let until = self.since + Self::WINDOW;
        (self.bytes >= Self::BYTES_MAX && now < until).then_some(until)
    }
}

impl Pipe {
    /// Waits for something to lie in the pipe, and takes it.
    async fn more(&mut self) {
        if let Some(until) = self.pace.wait(Instant::now()) {
            tokio::time::sleep_until(until.into()).await;
        }
        let Ok(mut ready) = self.pipe.readable().await else {
            self.open = false;
            return;
        };
        match ready.get_inner().read(&mut self.buffer) {
            Ok(0) => self.open = false,
            Ok(got) => {
                self.logs.append(LogLevel::Info, &self.buffer[..got]);
                self.pace.note(got, Instant::now());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(_) => self.open = false,
        }
    }

    /// Awaits `future`, and takes meanwhile what is printed.
    async fn during<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        let output = loop {
            tokio::select! {
                biased;
                output = &mut future => break output,
                () = self.more(), if self.open => {}
            }
        };
        self.rest();
        output
    }

    /// Takes what lies in the pipe now.
    fn rest(&mut self) {
        let mut total = 0;
        while self.open && total < LATE_LOG_BYTES_MAX {
            match self.pipe.get_ref().read(&mut self.buffer) {
                Ok(0) => self.open = false,
                Ok(got) => {
                    self.logs.append(LogLevel::Info, &self.buffer[..got]);
                    total += got;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.open = false,
            }
        }
    }
}

/// `S` is the stream to the runner.
pub struct Channel<S = UnixStream> {
    runner: runner::Channel<S>,
    printed: Pipe,
}

impl Channel {
    pub(crate) fn open(stream: std::os::unix::net::UnixStream, printed: OwnedFd, log_bytes: u64) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Self::over(UnixStream::from_std(stream)?, printed, log_bytes)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// Over any stream to a runner; `printed` is the reading end of a pipe with what it prints. Must be called within a tokio runtime.
    pub fn over(stream: S, printed: OwnedFd, log_bytes: u64) -> io::Result<Self> {
        servant::set_nonblocking(&printed)?;
        Ok(Self {
            runner: runner::Channel::new(stream),
            printed: Pipe {
                pipe: servant::register(File::from(printed))?,
                open: true,
                logs: Printed::new(log_bytes),
                buffer: vec![0; 16 << 10].into_boxed_slice(),
                pace: Pace {
                    since: Instant::now(),
                    bytes: 0,
                },
            },
        })
    }

    pub fn logs(&mut self) -> &mut Printed {
        &mut self.printed.logs
    }

    /// Of all calls of this channel.
    pub fn watched(&self) -> Watched {
        self.runner.watched()
    }

    /// Waits for the process to say that its jail stands; else a sentence.
    pub async fn greeting(&mut self) -> Result<(), String> {
        self.printed.during(self.runner.greeting()).await
    }

    /// Cancelling it leaves the channel unusable.
    pub async fn load(&mut self, program: &Program) -> Result<(), NotLoaded> {
        // What an image has in its environment comes with the program.
        let base: &[_] = if program.image.is_some() { &[] } else { &BASE_ENV };
        self.printed.during(self.runner.load(program, base)).await
    }

    /// `None` where the process closed the channel, mostly by ending. Cancelling it leaves the channel unusable.
    pub async fn call(&mut self, call: &Call, limits: &Limits) -> Option<Ended> {
        self.printed.during(self.runner.call(call, limits)).await
    }

    /// What was printed before the answer lies in the pipe by now.
    pub fn late_logs(&mut self) {
        self.printed.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_waits_and_a_line_does_not() {
        let now = Instant::now();
        let mut pace = Pace { since: now, bytes: 0 };
        pace.note(1_000, now);
        assert_eq!(pace.wait(now), None);
        pace.note(Pace::BYTES_MAX, now);
        assert_eq!(pace.wait(now), Some(now + Pace::WINDOW));
        let later = now + Pace::WINDOW;
        assert_eq!(pace.wait(later), None);
        pace.note(1, later);
        assert_eq!(pace.wait(later), None, "a window of its own");
    }
}
