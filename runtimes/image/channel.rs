//! The runner's end of the channel: frames as `ports/sandbox/src/runner.rs` says.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, FromRawFd, RawFd},
    path::Path,
    sync::{Mutex, MutexGuard},
};

pub const PROTOCOL: u32 = 3;
const SECRET_BYTES: usize = 16;
const PREFIX_BYTES: usize = SECRET_BYTES + 1;
/// A call with its event, which is at most 48 MiB.
const FRAME_BYTES_MAX: usize = 64 << 20;
pub const CHUNK_BYTES_MAX: usize = 64 << 10;

pub type Secret = [u8; SECRET_BYTES];

pub struct Frame {
    pub secret: Secret,
    pub kind: u8,
    pub payload: Vec<u8>,
}

/// One reads, any may write.
pub struct Channel {
    reads: Mutex<File>,
    writes: Mutex<File>,
}

unsafe extern "C" {
    fn fcntl(fd: i32, command: i32, argument: i32) -> i32;
    fn dup2(from: i32, to: i32) -> i32;
    fn open(path: *const std::ffi::c_char, flags: i32) -> i32;
}

const F_DUPFD_CLOEXEC: i32 = 1030;
const O_RDWR: i32 = 2;

/// A copy that no program inherits.
fn own(fd: RawFd) -> io::Result<RawFd> {
    // SAFETY: plain numbers.
    match unsafe { fcntl(fd, F_DUPFD_CLOEXEC, 10) } {
        -1 => Err(io::Error::last_os_error()),
        copy => Ok(copy),
    }
}

/// Standard input and output: the channel. What the program prints goes to the log.
fn from_stdio() -> io::Result<(RawFd, RawFd)> {
    let pair = (own(0)?, own(1)?);
    // SAFETY: descriptors that are open, and a text with its end.
    unsafe {
        dup2(open(c"/dev/null".as_ptr(), O_RDWR), 0);
        dup2(2, 1);
    }
    Ok(pair)
}

/// One descriptor for both directions, or one for each.
fn from_descriptors(reads: RawFd, writes: RawFd) -> io::Result<(RawFd, RawFd)> {
    let pair = (own(reads)?, own(writes)?);
    // SAFETY: nobody else has these numbers; the copies are kept.
    unsafe {
        drop(File::from_raw_fd(reads));
        if reads != writes {
            drop(File::from_raw_fd(writes));
        }
    }
    Ok(pair)
}

/// Named pipes of a directory that both sides see; the other side holds them open meanwhile.
fn from_directory(directory: &Path) -> io::Result<(RawFd, RawFd)> {
    let printed = File::options().write(true).open(directory.join("printed"))?;
    // SAFETY: descriptors that are open.
    unsafe {
        dup2(printed.as_raw_fd(), 1);
        dup2(printed.as_raw_fd(), 2);
    }
    let reads = File::open(directory.join("in"))?;
    let writes = File::options().write(true).open(directory.join("out"))?;
    Ok((own(reads.as_raw_fd())?, own(writes.as_raw_fd())?))
}

impl Channel {
    /// `stdio`, the number of an open descriptor, two of them (`3,4`: reads, writes), or a directory with the pipes `in`, `out` and
    /// `printed`.
    pub fn open(name: &str) -> io::Result<Self> {
        let no_name = |_| io::Error::other("the channel is `stdio`, a number, two numbers or a directory");
        let (reads, writes) = match name.split_once(',') {
            None if name == "stdio" => from_stdio()?,
            None if name.starts_with('/') => from_directory(Path::new(name))?,
            None => {
                let fd = name.parse().map_err(no_name)?;
                from_descriptors(fd, fd)?
            }
            Some((reads, writes)) => {
                from_descriptors(reads.parse().map_err(no_name)?, writes.parse().map_err(no_name)?)?
            }
        };
        // SAFETY: both were just made, and are this value's alone.
        unsafe {
            Ok(Self {
                reads: Mutex::new(File::from_raw_fd(reads)),
                writes: Mutex::new(File::from_raw_fd(writes)),
            })
        }
    }

    /// The next frame; an error where the agent is gone.
    pub fn read(&self) -> io::Result<Frame> {
        let mut file = self.reads.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut length = [0; 4];
        file.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if !(PREFIX_BYTES..=FRAME_BYTES_MAX).contains(&length) {
            return Err(io::Error::other("a frame is too long"));
        }
        let mut secret = [0; SECRET_BYTES];
        file.read_exact(&mut secret)?;
        let mut kind = [0];
        file.read_exact(&mut kind)?;
        let mut payload = vec![0; length - PREFIX_BYTES];
        file.read_exact(&mut payload)?;
        Ok(Frame {
            secret,
            kind: kind[0],
            payload,
        })
    }

    pub fn writer(&self) -> Writer<'_> {
        Writer(self.writes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    pub fn say(&self, secret: &Secret, kind: u8, payload: &[u8]) -> io::Result<()> {
        self.writer().say(secret, kind, payload)
    }
}

/// The right to write, for as long as it is held.
pub struct Writer<'a>(MutexGuard<'a, File>);

impl Writer<'_> {
    pub fn say(&mut self, secret: &Secret, kind: u8, payload: &[u8]) -> io::Result<()> {
        let length = (PREFIX_BYTES + payload.len()) as u32;
        let mut frame = Vec::with_capacity(4 + length as usize);
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(secret);
        frame.push(kind);
        frame.extend_from_slice(payload);
        self.0.write_all(&frame)
    }
}
