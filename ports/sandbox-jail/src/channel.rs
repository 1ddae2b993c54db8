//! A jailed process's channel and its log pipe: what it prints while it is asked is collected.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
};

use piecework_model::Limits;
use piecework_sandbox::{
    Call, LogLevel, Printed, Program,
    runner::{self, Ended, NotLoaded},
};
use tokio::{io::unix::AsyncFd, net::UnixStream};

use crate::spawner;

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
}

impl Pipe {
    /// Waits for something to lie in the pipe, and takes it.
    async fn more(&mut self) {
        let Ok(mut ready) = self.pipe.readable().await else {
            self.open = false;
            return;
        };
        match ready.get_inner().read(&mut self.buffer) {
            Ok(0) => self.open = false,
            Ok(got) => self.logs.append(LogLevel::Info, &self.buffer[..got]),
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

pub(crate) struct Channel {
    runner: runner::Channel<UnixStream>,
    printed: Pipe,
}

impl Channel {
    pub(crate) fn open(stream: std::os::unix::net::UnixStream, printed: OwnedFd, log_bytes: u64) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        spawner::set_nonblocking(&printed)?;
        Ok(Self {
            runner: runner::Channel::new(UnixStream::from_std(stream)?),
            printed: Pipe {
                pipe: spawner::register(File::from(printed))?,
                open: true,
                logs: Printed::new(log_bytes),
                buffer: vec![0; 16 << 10].into_boxed_slice(),
            },
        })
    }

    pub(crate) fn logs(&mut self) -> &mut Printed {
        &mut self.printed.logs
    }

    /// Waits for the process to say that its jail stands; else a sentence.
    pub(crate) async fn greeting(&mut self) -> Result<(), String> {
        self.printed.during(self.runner.greeting()).await
    }

    /// Cancelling it leaves the channel unusable.
    pub(crate) async fn load(&mut self, program: &Program) -> Result<(), NotLoaded> {
        self.printed.during(self.runner.load(program, &BASE_ENV)).await
    }

    /// `None` where the process closed the channel, mostly by ending. Cancelling it leaves the channel unusable.
    pub(crate) async fn call(&mut self, call: &Call, limits: &Limits) -> Option<Ended> {
        self.printed.during(self.runner.call(call, limits)).await
    }

    /// What was printed before the answer lies in the pipe by now.
    pub(crate) fn late_logs(&mut self) {
        self.printed.rest();
    }
}
