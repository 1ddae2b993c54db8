//! One question, one answer, over the channel of a jailed process; what it prints meanwhile is collected.
//!
//! The process is not trusted with the channel: an answer carries the secret of its own question, has a bounded length, and
//! nothing may come before or after it.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
};

use piecework_sandbox::{LogLevel, Printed};
use tokio::{io::unix::AsyncFd, net::UnixStream};

use crate::spawner;

/// Length of a question's secret.
const SECRET_BYTES: usize = 16;
/// Before the payload: the secret and the kind.
const HEAD_BYTES: usize = SECRET_BYTES + 1;
/// What an answer may be longer than the output limit: a raised error with its stack.
const ANSWER_SLACK_BYTES: usize = 256 << 10;
/// Read from the log pipe after an answer at most: what was written before it fits into the pipe.
const LATE_LOG_BYTES_MAX: usize = 1 << 20;

/// What came back.
#[derive(Debug)]
pub(crate) enum Answer {
    Said(u8, Vec<u8>),
    /// Something that is no answer to this question.
    Garbage(&'static str),
    TooLarge,
    /// The process closed the channel, mostly by ending.
    Closed,
}

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
    stream: UnixStream,
    printed: Pipe,
    buffer: Box<[u8]>,
}

/// The question's header and the wall against answers of any other question.
type Secret = [u8; SECRET_BYTES];

impl Channel {
    pub(crate) fn open(stream: std::os::unix::net::UnixStream, printed: OwnedFd, log_bytes: u64) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        spawner::set_nonblocking(&printed)?;
        Ok(Self {
            stream: UnixStream::from_std(stream)?,
            printed: Pipe {
                pipe: spawner::register(File::from(printed))?,
                open: true,
                logs: Printed::new(log_bytes),
                buffer: vec![0; 16 << 10].into_boxed_slice(),
            },
            buffer: vec![0; 64 << 10].into_boxed_slice(),
        })
    }

    pub(crate) fn logs(&mut self) -> &mut Printed {
        &mut self.printed.logs
    }

    /// Waits for the process to say that its jail stands.
    pub(crate) async fn greeting(&mut self) -> Answer {
        self.converse(&[], [0; SECRET_BYTES], 0).await
    }

    /// Asks, collects logs, and returns the answer. Cancelling it leaves the channel unusable.
    pub(crate) async fn ask(&mut self, kind: u8, payload: &[&[u8]], answer_bytes_max: usize) -> Answer {
        let mut early = [0; 1];
        match self.stream.try_read(&mut early) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return Answer::Closed,
            Ok(_) => return Answer::Garbage("the function wrote to its output channel between calls"),
        }
        let secret = secret();
        let length: usize = payload.iter().map(|part| part.len()).sum();
        let Ok(framed) = u32::try_from(HEAD_BYTES + length) else {
            return Answer::TooLarge;
        };
        let mut question = Vec::with_capacity(4 + HEAD_BYTES + length);
        question.extend_from_slice(&framed.to_le_bytes());
        question.extend_from_slice(&secret);
        question.push(kind);
        payload.iter().for_each(|part| question.extend_from_slice(part));
        self.converse(&question, secret, answer_bytes_max).await
    }

    async fn converse(&mut self, question: &[u8], secret: Secret, answer_bytes_max: usize) -> Answer {
        let mut sent = 0;
        let mut incoming = Incoming::new(secret, answer_bytes_max);
        let answer = loop {
            if sent < question.len() {
                match self.stream.try_write(&question[sent..]) {
                    Ok(written) => sent += written,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => break Answer::Closed,
                }
            }
            tokio::select! {
                biased;
                ready = self.stream.readable() => {
                    if ready.is_err() {
                        break Answer::Closed;
                    }
                    match self.stream.try_read(&mut self.buffer) {
                        Ok(0) => break Answer::Closed,
                        Ok(got) => if let Some(answer) = incoming.take(&self.buffer[..got]) {
                            break answer;
                        },
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => break Answer::Closed,
                    }
                }
                () = self.printed.more(), if self.printed.open => {}
                ready = self.stream.writable(), if sent < question.len() => {
                    if ready.is_err() {
                        break Answer::Closed;
                    }
                }
            }
        };
        self.late_logs();
        answer
    }

    /// What was printed before the answer lies in the pipe by now.
    pub(crate) fn late_logs(&mut self) {
        self.printed.rest();
    }
}

/// An answer as it comes in.
struct Incoming {
    secret: Secret,
    answer_bytes_max: usize,
    bytes: Vec<u8>,
}

impl Incoming {
    fn new(secret: Secret, answer_bytes_max: usize) -> Self {
        Self {
            secret,
            answer_bytes_max,
            bytes: Vec::new(),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Option<Answer> {
        self.bytes.extend_from_slice(bytes);
        let length = usize::try_from(u32::from_le_bytes(*self.bytes.first_chunk()?)).ok()?;
        let said = self.bytes.get(4..4 + SECRET_BYTES.min(self.bytes.len() - 4))?;
        if !self.secret.starts_with(said) || length < HEAD_BYTES {
            return Some(Answer::Garbage("the function wrote to its output channel by hand"));
        }
        if length > HEAD_BYTES + self.answer_bytes_max + ANSWER_SLACK_BYTES {
            return Some(Answer::TooLarge);
        }
        if self.bytes.len() < 4 + length {
            return None;
        }
        if self.bytes.len() > 4 + length {
            return Some(Answer::Garbage(
                "the function wrote to its output channel after the answer",
            ));
        }
        let kind = self.bytes[4 + SECRET_BYTES];
        let mut payload = std::mem::take(&mut self.bytes);
        payload.drain(..4 + HEAD_BYTES);
        Some(Answer::Said(kind, payload))
    }
}

#[allow(unsafe_code)]
fn secret() -> Secret {
    let mut secret = [0; SECRET_BYTES];
    // SAFETY: a buffer of the length that is said.
    let got = unsafe { libc::getrandom(secret.as_mut_ptr().cast(), secret.len(), 0) };
    assert!(
        got == SECRET_BYTES as isize,
        "the kernel gives 16 random bytes without fail"
    );
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(secret: Secret, kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEAD_BYTES + payload.len()).unwrap();
        [&length.to_le_bytes()[..], &secret, &[kind], payload].concat()
    }

    #[test]
    fn an_answer_may_come_in_any_pieces() {
        let whole = frame([7; 16], b'O', b"{}");
        let mut incoming = Incoming::new([7; 16], 10);
        let (last, rest) = whole.split_last().unwrap();
        for byte in rest {
            assert!(incoming.take(&[*byte]).is_none());
        }
        assert!(matches!(incoming.take(&[*last]), Some(Answer::Said(b'O', payload)) if payload == b"{}"));
    }

    #[test]
    fn an_answer_to_another_question_is_garbage() {
        let mut incoming = Incoming::new([7; 16], 10);
        assert!(matches!(
            incoming.take(&frame([8; 16], b'O', b"{}")),
            Some(Answer::Garbage(_))
        ));
    }

    #[test]
    fn what_follows_an_answer_spoils_it() {
        let mut incoming = Incoming::new([7; 16], 10);
        let twice = [frame([7; 16], b'O', b"{}"), vec![0]].concat();
        assert!(matches!(incoming.take(&twice), Some(Answer::Garbage(_))));
    }

    #[test]
    fn an_endless_answer_is_refused_by_its_length() {
        let mut incoming = Incoming::new([7; 16], 10);
        let head = [&u32::MAX.to_le_bytes()[..], &[7; 16]].concat();
        assert!(matches!(incoming.take(&head), Some(Answer::TooLarge)));
    }
}
