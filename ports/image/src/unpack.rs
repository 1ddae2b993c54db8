//! A layer's bytes become a directory, which overlayfs shows as one layer. Runs in the confined process alone.
//!
//! Every path is opened below the directory by the kernel (`openat2` with `RESOLVE_IN_ROOT`): a link inside may say what it likes,
//! it leads nowhere else. Rules of what is kept:
//! - owners and attributes are dropped, and with them file capabilities; set-user-ID and set-group-ID bits too;
//! - others may do with a file what its owner may: in a sandbox there is one identity, which owns nothing of the layers;
//! - a whiteout becomes a device of the number 0, an opaque directory gets `user.overlay.opaque`;
//! - devices below `dev/` are left out, others are refused; times of files are kept.

use std::{
    io::{self, BufReader, Read, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Component, Path, PathBuf},
};

use piecework_model::Rejection;
use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use tar::{Archive, Entry, EntryType};

use crate::{Sha256, Sha256Stream, bad_layer, description::mismatch, too_large};

const OPAQUE: &str = ".wh..wh..opq";
const WHITEOUT: &str = ".wh.";
const PATH_BYTES_MAX: usize = 4_096;
const LEVELS_MAX: usize = 128;
/// What each entry takes of a disk at least.
const BLOCK_BYTES: u64 = 4_096;
/// 128 MiB: what `zstd --ultra --long` asks for.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const BUFFER_BYTES: usize = 128 << 10;
/// Behind the end of a tar there is only padding.
const REST_BYTES_MAX: u64 = 4 << 20;

/// What a layer must be, and how much it may become.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) digest: Sha256,
    pub(crate) diff_id: Sha256,
    pub(crate) bytes_max: u64,
    pub(crate) entries_max: u64,
}

/// What it became.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    /// Of a disk with blocks of 4 KiB.
    pub(crate) disk_bytes: u64,
    pub(crate) entries: u64,
}

#[derive(Debug)]
pub(crate) enum Failure {
    Rejected(Rejection),
    /// The disk's, mostly.
    Io(&'static str, io::Error),
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

fn failed<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::Io(what, error.into())
}

/// Reads what is hashed.
struct Hashed<R> {
    from: R,
    hash: Sha256Stream,
    left: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the stream is longer than allowed")]
struct TooLong;

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.from.read(buffer)?;
        self.hash.update(&buffer[..got]);
        self.left = self
            .left
            .checked_sub(got as u64)
            .ok_or_else(|| io::Error::other(TooLong))?;
        Ok(got)
    }
}

/// What the kernel says of names and kinds is the layer's fault; the rest is the machine's.
fn blamed(failure: Failure) -> Failure {
    const LAYERS_OWN: [Errno; 10] = [
        Errno::NAMETOOLONG,
        Errno::INVAL,
        Errno::LOOP,
        Errno::NOTDIR,
        Errno::ISDIR,
        Errno::EXIST,
        Errno::NOENT,
        Errno::NOTEMPTY,
        Errno::XDEV,
        Errno::MLINK,
    ];
    match failure {
        Failure::Io(what, error) if Errno::from_io_error(&error).is_some_and(|errno| LAYERS_OWN.contains(&errno)) => {
            bad_layer(format!("a layer has an entry that cannot be made ({what}: {error})")).into()
        }
        failure @ (Failure::Rejected(_) | Failure::Io(..)) => failure,
    }
}

/// Unpacks a layer into an empty directory.
pub(crate) fn unpack(layer: impl Read, directory: &OwnedFd, wanted: &Wanted) -> Result<Made, Failure> {
    whole(layer, directory, wanted).map_err(blamed)
}

fn whole(layer: impl Read, directory: &OwnedFd, wanted: &Wanted) -> Result<Made, Failure> {
    let mut compressed = Hashed {
        from: layer,
        hash: Sha256Stream::default(),
        left: u64::MAX,
    };
    let (made, diff_id) = uncompressed(&mut compressed, directory, wanted)?;
    // Whatever follows belongs to the digest.
    io::copy(&mut compressed, &mut io::sink()).map_err(failed("read the layer"))?;
    if compressed.hash.finish() != wanted.digest {
        return Err(mismatch("a layer of the image", wanted.digest).into());
    }
    if diff_id != wanted.diff_id {
        return Err(mismatch("the content of a layer", wanted.diff_id).into());
    }
    Ok(made)
}

fn uncompressed(layer: &mut impl Read, directory: &OwnedFd, wanted: &Wanted) -> Result<(Made, Sha256), Failure> {
    let mut buffered = BufReader::with_capacity(BUFFER_BYTES, layer);
    let first = io::BufRead::fill_buf(&mut buffered).map_err(failed("read the layer"))?;
    // By what it is: media types are often wrong.
    let stream: Box<dyn Read + '_> = match first {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered).map_err(failed("read the layer"))?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(failed("read the layer"))?;
            Box::new(decoder)
        }
        _ => Box::new(buffered),
    };
    // Headers and padding come on top of the contents.
    let mut stream = Hashed {
        from: stream,
        hash: Sha256Stream::default(),
        left: wanted
            .bytes_max
            .saturating_add(wanted.entries_max.saturating_mul(2_048)),
    };
    let made = entries(&mut stream, directory, wanted)?;
    let rest = io::copy(&mut stream.by_ref().take(REST_BYTES_MAX + 1), &mut io::sink()).map_err(broken)?;
    if rest > REST_BYTES_MAX {
        return Err(too_large(format!(
            "a layer has more than {REST_BYTES_MAX} bytes behind its last entry"
        ))
        .into());
    }
    Ok((made, stream.hash.finish()))
}

/// What a reader of compressed bytes or of a tar says.
fn broken(error: io::Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if current.is::<TooLong>() {
            return too_large("a layer of the image is too large once it is unpacked").into();
        }
        let inner = current.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        cause = match inner {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    bad_layer(format!("a layer of the image is damaged: {error}")).into()
}

fn entries(stream: &mut impl Read, directory: &OwnedFd, wanted: &Wanted) -> Result<Made, Failure> {
    let mut tree = Tree {
        root: directory,
        last: None,
        modes: Vec::new(),
        made: Made::default(),
        wanted,
    };
    let mut archive = Archive::new(stream);
    archive.set_ignore_zeros(false);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        tree.count(entry.size())?;
        tree.add(&mut entry)?;
    }
    tree.set_modes()?;
    Ok(tree.made)
}

struct Tree<'a> {
    root: &'a OwnedFd,
    /// The directory of the entry before, which is mostly that of the next.
    last: Option<(PathBuf, OwnedFd)>,
    /// Of directories, once everything is in them.
    modes: Vec<(PathBuf, u32)>,
    made: Made,
    wanted: &'a Wanted,
}

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Clean and relative; empty for the root itself.
fn clean(bytes: &[u8]) -> Result<PathBuf, Rejection> {
    let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
    let mut path = PathBuf::new();
    for component in Path::new(std::ffi::OsStr::from_bytes(bytes)).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(bad_layer(format!(
                    "a layer has the path `{}`, which leads out of it",
                    shown()
                )));
            }
        }
    }
    let fits = bytes.len() <= PATH_BYTES_MAX && path.components().count() <= LEVELS_MAX && !bytes.contains(&0);
    match fits {
        true => Ok(path),
        false => Err(bad_layer(format!("a layer has a path that is too long: `{}`", shown()))),
    }
}

/// What others may do is what the owner may.
fn opened(mode: u32) -> u32 {
    mode | (mode >> 6 & 7)
}

impl Tree<'_> {
    /// One more entry with so many bytes.
    fn count(&mut self, bytes: u64) -> Result<(), Rejection> {
        self.made.entries += 1;
        if self.made.entries > self.wanted.entries_max {
            return Err(too_large(format!(
                "a layer has more than {} entries",
                self.wanted.entries_max
            )));
        }
        let bytes = bytes.saturating_add(BLOCK_BYTES).next_multiple_of(BLOCK_BYTES);
        self.made.disk_bytes = self.made.disk_bytes.saturating_add(bytes);
        if self.made.disk_bytes > self.wanted.bytes_max {
            return Err(too_large("a layer of the image is too large once it is unpacked"));
        }
        Ok(())
    }

    fn add<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), Failure> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = clean(&entry.path_bytes())?;
        let mode = entry.header().mode().map_err(broken)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            // The root: its mode is that of every sandbox.
            return Ok(());
        };
        let name = name.as_bytes();
        if let Some(hidden) = name.strip_prefix(WHITEOUT.as_bytes()) {
            return self.white_out(parent, name, hidden);
        }
        match kind {
            EntryType::Directory => self.directory(&path, mode),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(parent, name, mode, entry),
            EntryType::Symlink => {
                let target = link_of(entry)?;
                let directory = self.parent(parent)?;
                remove(directory, name)?;
                fs::symlinkat(&target, directory, name).map_err(failed("make a link"))
            }
            EntryType::Link => self.hard_link(parent, name, &link_of(entry)?),
            EntryType::Fifo => {
                let directory = self.parent(parent)?;
                remove(directory, name)?;
                let mode = Mode::from_raw_mode(opened(mode & 0o777));
                fs::mknodat(directory, name, FileType::Fifo, mode, 0).map_err(failed("make a pipe"))
            }
            EntryType::Char | EntryType::Block if path.starts_with("dev") => Ok(()),
            EntryType::Char | EntryType::Block => {
                Err(bad_layer(format!("a layer has the device `{}`", path.display())).into())
            }
            other => Err(bad_layer(format!("a layer has an entry of a kind that is not known: {other:?}")).into()),
        }
    }

    /// An existing directory, or one that is made: not every tar names the directories of its files.
    fn parent(&mut self, path: &Path) -> Result<&OwnedFd, Failure> {
        let is_last = self.last.as_ref().is_some_and(|(last, _)| last == path);
        if !is_last {
            let found = match self.open_directory(path) {
                Ok(found) => found,
                Err(Errno::NOENT) => {
                    let mut at = PathBuf::new();
                    for component in path.components() {
                        at.push(component);
                        // The tar does not name it, and yet it is one.
                        if self.make_directory(&at, 0o755)? {
                            self.count(0)?;
                        }
                    }
                    self.open_directory(path).map_err(failed("open a directory"))?
                }
                Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {
                    return Err(bad_layer(format!("`{}` in a layer is no directory", path.display())).into());
                }
                Err(error) => return Err(failed("open a directory")(error)),
            };
            self.last = Some((path.to_owned(), found));
        }
        Ok(&self.last.as_ref().expect("it was just set").1)
    }

    fn open_directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        fs::openat2(self.root, path, flags, Mode::empty(), INSIDE)
    }

    /// Whether it was made.
    fn make_directory(&mut self, path: &Path, mode: u32) -> Result<bool, Failure> {
        let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name());
        let Some(name) = name else { return Ok(false) };
        let directory = self.open_directory(parent).map_err(failed("open a directory"))?;
        let made = fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755));
        match made {
            Ok(()) => {
                self.modes.push((path.to_owned(), mode));
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(failed("make a directory")(error)),
        }
    }

    fn directory(&mut self, path: &Path, mode: u32) -> Result<(), Failure> {
        let (parent, name) = (
            path.parent().unwrap_or(Path::new("")),
            path.file_name().unwrap_or_default(),
        );
        let directory = self.parent(parent)?;
        let found = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        let kind = found.map(|found| FileType::from_raw_mode(found.st_mode));
        match kind {
            None => {}
            // Links to directories are replaced as well: what is in them lies where it is said to.
            Some(FileType::Directory) => {
                self.modes.push((path.to_owned(), mode));
                return Ok(());
            }
            Some(_) => fs::unlinkat(directory, name, AtFlags::empty()).map_err(failed("replace a file"))?,
        }
        let was_hidden = kind == Some(FileType::CharacterDevice);
        self.last = None;
        self.make_directory(path, mode)?;
        match was_hidden {
            true => self.opaque(path),
            false => Ok(()),
        }
    }

    fn file<R: Read>(
        &mut self,
        parent: &Path,
        name: &[u8],
        mode: u32,
        entry: &mut Entry<'_, R>,
    ) -> Result<(), Failure> {
        let mtime = entry.header().mtime().unwrap_or(0);
        let directory = self.parent(parent)?;
        remove(directory, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(directory, name, flags, Mode::from_raw_mode(0o600)).map_err(failed("make a file"))?;
        let mut file = std::fs::File::from(file);
        copy(entry, &mut file)?;
        // Without set-user-ID, set-group-ID and sticky bits.
        fs::fchmod(&file, Mode::from_raw_mode(opened(mode & 0o777))).map_err(failed("set a mode"))?;
        let at = Timespec {
            tv_sec: i64::try_from(mtime).unwrap_or(0),
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: at,
            last_modification: at,
        };
        // A time that the file system does not have is none.
        let _ = fs::futimens(file.as_fd(), &times);
        Ok(())
    }

    fn hard_link(&mut self, parent: &Path, name: &[u8], target: &[u8]) -> Result<(), Failure> {
        let target = clean(target)?;
        let (Some(target_parent), Some(target_name)) = (target.parent(), target.file_name()) else {
            return Err(bad_layer("a hard link in a layer leads to its root").into());
        };
        let nowhere = || {
            bad_layer(format!(
                "a hard link in a layer leads to `{}`, which is not in it",
                target.display()
            ))
        };
        let from = self.open_directory(target_parent).map_err(|_| nowhere())?;
        let found = fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| nowhere())?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => {}
            _ => return Err(bad_layer("a hard link in a layer leads to a directory or a device").into()),
        }
        let directory = self.parent(parent)?;
        let there = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        if there.is_some_and(|there| (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)) {
            return Ok(());
        }
        remove(directory, name)?;
        fs::linkat(&from, target_name, directory, name, AtFlags::empty()).map_err(failed("make a hard link"))
    }

    /// Hides what lower layers have.
    fn white_out(&mut self, parent: &Path, name: &[u8], hidden: &[u8]) -> Result<(), Failure> {
        if name == OPAQUE.as_bytes() {
            self.parent(parent)?;
            return self.opaque(parent);
        }
        // Marks of another file system, which mean nothing here.
        if hidden.starts_with(WHITEOUT.as_bytes()) {
            return Ok(());
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(bad_layer("a layer has a whiteout with an invalid name").into());
        }
        let directory = self.parent(parent)?;
        match fs::statat(directory, hidden, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => fs::mknodat(directory, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(failed("make a whiteout")),
            // This layer has it anew: of lower ones nothing shows through.
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                let path = parent.join(std::ffi::OsStr::from_bytes(hidden));
                self.opaque(&path)
            }
            Ok(_) => Ok(()),
            Err(error) => Err(failed("look at a file")(error)),
        }
    }

    fn opaque(&self, path: &Path) -> Result<(), Failure> {
        let directory = self.open_directory(path).map_err(failed("open a directory"))?;
        fs::fsetxattr(&directory, "user.overlay.opaque", b"y", XattrFlags::empty())
            .map_err(failed("mark a directory as opaque"))
    }

    /// The owner keeps all rights: it has to delete the directory one day.
    fn set_modes(&mut self) -> Result<(), Failure> {
        for (path, mode) in std::mem::take(&mut self.modes) {
            // One that was replaced by something else meanwhile has no such mode.
            let Ok(directory) = self.open_directory(&path) else {
                continue;
            };
            let mode = Mode::from_raw_mode(opened(mode & 0o1777) | 0o700);
            fs::fchmod(&directory, mode).map_err(failed("set a mode"))?;
        }
        fs::fchmod(self.root, Mode::from_raw_mode(0o755)).map_err(failed("set a mode"))
    }
}

fn copy<R: Read>(entry: &mut Entry<'_, R>, file: &mut std::fs::File) -> Result<(), Failure> {
    let (mut buffer, size) = (vec![0; BUFFER_BYTES], entry.size());
    let mut total = 0;
    loop {
        let got = entry.read(&mut buffer).map_err(broken)?;
        if got == 0 {
            break;
        }
        total += got as u64;
        file.write_all(&buffer[..got]).map_err(failed("write a file"))?;
    }
    match total == size {
        true => Ok(()),
        false => Err(bad_layer("a layer of the image is damaged: it ends in the middle of a file").into()),
    }
}

fn link_of<R: Read>(entry: &Entry<'_, R>) -> Result<Vec<u8>, Failure> {
    let target = entry
        .link_name_bytes()
        .map(|target| target.into_owned())
        .unwrap_or_default();
    let fits = !target.is_empty() && target.len() < PATH_BYTES_MAX && !target.contains(&0);
    match fits {
        true => Ok(target),
        false => Err(bad_layer("a link in a layer has no target, or one that is too long").into()),
    }
}

/// Whatever is there in place of a file that comes again.
fn remove(directory: &OwnedFd, name: &[u8]) -> Result<(), Failure> {
    match fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => Err(bad_layer("a layer has a directory and a file of the same name").into()),
        Err(error) => Err(failed("replace a file")(error)),
    }
}
