//! The canonical form of a function's files: a tar whose bytes depend only on names and contents.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path},
};

use bytes::Bytes;
use piecework_model::{Code, Digest, Rejection};
use tar::{EntryType, Header};

use crate::{BlobsError, zip};

/// How large a bundle may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleLimits {
    /// All contents together, uncompressed.
    pub bytes: u64,
    pub files: usize,
}

impl BundleLimits {
    /// What a developer uploads: source code and some data.
    pub const UPLOAD: Self = Self {
        bytes: 32 << 20,
        files: 5_000,
    };
    /// With the packages that were resolved for it; the sandbox has to read it all at a cold start.
    pub const RESOLVED: Self = Self {
        bytes: 256 << 20,
        files: 30_000,
    };
    /// A path that fits every file system and its copy below a cache directory.
    const PATH_BYTES_MAX: usize = 400;
    const NAME_BYTES_MAX: usize = 200;
}

/// What is read of one entry before its content has come.
const AHEAD_BYTES: u64 = 64 << 10;
/// 8 MiB: what every level up to 19 uses.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The files of one version of a function, checked: clean relative paths, regular files, within limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    files: BTreeMap<String, Bytes>,
    /// Those that may be run as programs.
    programs: BTreeSet<String>,
    bytes: u64,
}

/// A bundle in its canonical bytes: a tar with sorted names, zero times and owners, mode 0644, or 0755 for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Digest of `tar`: names the code everywhere.
    pub digest: Digest,
    pub tar: Bytes,
}

/// What `pack_dir` leaves out: version control, caches and what is resolved from a manifest.
const SKIPPED: [&str; 6] = [".git", ".hg", ".venv", "venv", "__pycache__", ".DS_Store"];

impl Bundle {
    /// A bundle of `files`; rejects with `bundle.bad_path`, `bundle.too_large` or `bundle.too_many_files`.
    pub fn new(files: impl IntoIterator<Item = (String, Bytes)>, limits: &BundleLimits) -> Result<Self, Rejection> {
        let mut bundle = Self::default();
        for (path, content) in files {
            bundle.add(&path, content, limits)?;
        }
        bundle.check_directories()?;
        Ok(bundle)
    }

    /// The regular files below `folder`, without version control and caches, and without `node_modules` beside a
    /// `package.json`. A symbolic link is refused, not followed. Blocks.
    pub fn pack_dir(folder: &Path, limits: &BundleLimits) -> Result<Self, BlobsError> {
        let mut bundle = Self::default();
        bundle.add_dir(folder, "", limits)?;
        bundle.check_directories()?;
        Ok(bundle)
    }

    /// An upload: a zip, a tar, or a gzip or zstd of one. Any file may be hostile. Blocks for the time of decompression.
    pub fn read(upload: &[u8], limits: &BundleLimits) -> Result<Self, Rejection> {
        if let [b'P', b'K', 3 | 5, 4 | 6, ..] = upload {
            return zip::read(upload, limits);
        }
        // Headers and padding come on top of the contents; a stream that is longer is cut and found too large.
        let stream_bytes_max = limits.bytes + (limits.files as u64 + 64) * 2_048;
        let stream: Box<dyn Read + '_> = match upload {
            [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(upload)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(unzstd(upload).map_err(unreadable)?),
            _ => Box::new(upload),
        };
        read_tar(
            Capped {
                stream,
                left: stream_bytes_max,
            },
            limits,
        )
    }

    /// The files below `folder` of a bundle in its canonical bytes, by their paths in the bundle. Blocks for a walk over all of it.
    pub fn folder_of(tar: &[u8], folder: &str, limits: &BundleLimits) -> Result<BTreeMap<String, Bytes>, Rejection> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(tar)
            .entries()
            .map_err(|error| broken(error, limits))?
        {
            let mut entry = entry.map_err(|error| broken(error, limits))?;
            let Ok(path) = String::from_utf8(entry.path_bytes().into_owned()) else {
                continue;
            };
            if path.starts_with(folder) {
                let mut content = Vec::with_capacity(entry.size().min(AHEAD_BYTES) as usize);
                entry.read_to_end(&mut content).map_err(|error| broken(error, limits))?;
                files.insert(path, content.into());
            }
        }
        Ok(files)
    }

    /// Lets these files be run as programs, as far as they are in the bundle.
    #[must_use]
    pub fn with_programs(mut self, paths: impl IntoIterator<Item = String>) -> Self {
        let there = paths.into_iter().filter(|path| self.files.contains_key(path));
        self.programs.extend(there);
        self
    }

    pub fn files(&self) -> &BTreeMap<String, Bytes> {
        &self.files
    }

    pub fn get(&self, path: &str) -> Option<&Bytes> {
        self.files.get(path)
    }

    /// Bytes of all contents.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// This bundle with everything below `folder` replaced by `files`, whose paths include the folder.
    pub fn with_folder(
        self,
        folder: &str,
        files: impl IntoIterator<Item = (String, Bytes)>,
        limits: &BundleLimits,
    ) -> Result<Self, Rejection> {
        let prefix = format!("{folder}/");
        let programs = self.programs.into_iter().filter(|path| !path.starts_with(&prefix));
        let kept = self.files.into_iter().filter(|(path, _)| !path.starts_with(&prefix));
        Ok(Self::new(kept.chain(files), limits)?.with_programs(programs))
    }

    /// This bundle with these files, in place of those with the same paths.
    pub fn with_files(
        mut self,
        files: impl IntoIterator<Item = (String, Bytes)>,
        limits: &BundleLimits,
    ) -> Result<Self, Rejection> {
        self.files.extend(files);
        Ok(Self::new(self.files, limits)?.with_programs(self.programs))
    }

    /// This bundle without the files that `drops` names.
    #[must_use]
    pub fn without(mut self, drops: impl Fn(&str) -> bool) -> Self {
        self.files.retain(|path, _| !drops(path));
        self.programs.retain(|path| !drops(path));
        self.bytes = self.files.values().map(|content| content.len() as u64).sum();
        self
    }

    /// The canonical bytes: equal bundles give equal bytes. Blocks for the time of a copy and a hash.
    pub fn pack(&self) -> Packed {
        let mut tar = tar::Builder::new(Vec::with_capacity(
            self.bytes as usize + self.files.len() * 1_024 + 1_024,
        ));
        for (path, content) in &self.files {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(match self.programs.contains(path) {
                true => 0o755,
                false => 0o644,
            });
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, &content[..])
                .expect("a vector accepts every byte, the paths are checked");
        }
        let tar: Bytes = tar.into_inner().expect("a vector accepts every byte").into();
        Packed {
            digest: Digest::of(&tar),
            tar,
        }
    }

    /// Writes the files below `folder`, which must be empty. Not synced: made again from the bundle when lost. Blocks.
    pub fn unpack(&self, folder: &Path) -> io::Result<()> {
        for (path, content) in &self.files {
            let target = folder.join(path);
            fs::create_dir_all(target.parent().expect("a file lies in a folder"))?;
            fs::write(&target, content)?;
            if self.programs.contains(path) {
                fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    }

    pub(crate) fn add(&mut self, path: &str, content: Bytes, limits: &BundleLimits) -> Result<(), Rejection> {
        check_path(path)?;
        self.bytes = self.bytes.saturating_add(content.len() as u64);
        if self.bytes > limits.bytes {
            return Err(too_large(limits));
        }
        if self.files.len() >= limits.files {
            return Err(too_many(limits));
        }
        match self.files.insert(path.to_owned(), content) {
            None => Ok(()),
            Some(_) => Err(bad_path(path, "it appears twice")),
        }
    }

    fn add_dir(&mut self, folder: &Path, prefix: &str, limits: &BundleLimits) -> Result<(), BlobsError> {
        let resolved_later = folder.join("package.json").is_file();
        for entry in fs::read_dir(folder).map_err(BlobsError::io("list the folder"))? {
            let entry = entry.map_err(BlobsError::io("list the folder"))?;
            let name = entry.file_name();
            let name = name
                .to_str()
                .ok_or_else(|| bad_path(&name.to_string_lossy(), "it is not valid UTF-8"))?;
            if SKIPPED.contains(&name) || (resolved_later && name == "node_modules") {
                continue;
            }
            let path = format!("{prefix}{name}");
            let kind = entry.file_type().map_err(BlobsError::io("look at a file"))?;
            if kind.is_dir() {
                self.add_dir(&entry.path(), &format!("{path}/"), limits)?;
            } else if kind.is_file() {
                let content = read_within(&entry.path(), limits)?;
                self.add(&path, content, limits)?;
                let meta = entry.metadata().map_err(BlobsError::io("look at a file"))?;
                if is_program(meta.permissions().mode()) {
                    self.programs.insert(path);
                }
            } else {
                return Err(not_regular(&path).into());
            }
        }
        Ok(())
    }

    /// A name cannot be a file and a folder at once.
    pub(crate) fn check_directories(&self) -> Result<(), Rejection> {
        for path in self.files.keys() {
            let mut parents = path.match_indices('/').map(|(at, _)| &path[..at]);
            if let Some(parent) = parents.find(|parent| self.files.contains_key(*parent)) {
                return Err(bad_path(parent, "it is both a file and a folder"));
            }
        }
        Ok(())
    }
}

/// The decoder gives room to a window when its size has been said: by default to 128 MiB.
fn unzstd(upload: &[u8]) -> io::Result<zstd::stream::read::Decoder<'static, io::BufReader<&[u8]>>> {
    let mut decoder = zstd::stream::read::Decoder::new(upload)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// A file of a folder; one that is larger than the whole bundle may be is not read.
fn read_within(path: &Path, limits: &BundleLimits) -> Result<Bytes, BlobsError> {
    let mut content = Vec::new();
    let file = fs::File::open(path).map_err(BlobsError::io("read a file of the folder"))?;
    file.take(limits.bytes + 1)
        .read_to_end(&mut content)
        .map_err(BlobsError::io("read a file of the folder"))?;
    Ok(content.into())
}

fn read_tar(stream: impl Read, limits: &BundleLimits) -> Result<Bundle, Rejection> {
    let mut bundle = Bundle::default();
    let mut archive = tar::Archive::new(stream);
    let mut entries_left = entries_max(limits);
    for entry in archive.entries().map_err(|error| broken(error, limits))? {
        let mut entry = entry.map_err(|error| broken(error, limits))?;
        entries_left = entries_left.checked_sub(1).ok_or_else(|| too_many(limits))?;
        let path = path_of(&entry.path_bytes())?;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Directory if matches!(path.as_str(), "" | ".") => continue,
            EntryType::Directory => {
                check_path(path.trim_end_matches('/'))?;
                continue;
            }
            EntryType::XGlobalHeader => continue,
            _ => return Err(not_regular(&path)),
        }
        check_path(&path)?;
        if entry.size() > limits.bytes.saturating_sub(bundle.bytes) {
            return Err(too_large(limits));
        }
        // A size that was only said takes no room.
        let mut content = Vec::with_capacity(entry.size().min(AHEAD_BYTES) as usize);
        entry.read_to_end(&mut content).map_err(|error| broken(error, limits))?;
        if content.len() as u64 != entry.size() {
            return Err(unreadable(io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        bundle.add(&path, content.into(), limits)?;
        // A mode that is no number says nothing.
        if entry.header().mode().is_ok_and(is_program) {
            bundle.programs.insert(path);
        }
    }
    bundle.check_directories()?;
    Ok(bundle)
}

/// Folders and comments of an archive are not counted as files.
pub(crate) fn entries_max(limits: &BundleLimits) -> usize {
    limits.files * 2 + 64
}

/// An archive's name of a file, not checked yet.
pub(crate) fn path_of(name: &[u8]) -> Result<String, Rejection> {
    let text =
        std::str::from_utf8(name).map_err(|_| bad_path(&String::from_utf8_lossy(name), "it is not valid UTF-8"))?;
    Ok(text.trim_start_matches("./").to_owned())
}

/// Whether its owner may run it.
pub fn is_program(mode: u32) -> bool {
    mode & 0o100 != 0
}

/// Ends a stream with an error of its own once it gave its allowance: a bomb costs no more than that.
struct Capped<R> {
    stream: R,
    left: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the stream is longer than allowed")]
struct StreamTooLong;

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.stream.read(buffer)?;
        match self.left.checked_sub(got as u64) {
            Some(left) => {
                self.left = left;
                Ok(got)
            }
            None => Err(io::Error::other(StreamTooLong)),
        }
    }
}

fn broken(error: io::Error, limits: &BundleLimits) -> Rejection {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        let inner = current.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        if inner.is_some_and(|inner| inner.is::<StreamTooLong>()) {
            return too_large(limits);
        }
        cause = match inner {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    unreadable(error)
}

pub(crate) fn check_path(path: &str) -> Result<(), Rejection> {
    let complain = |reason| Err(bad_path(path, reason));
    if path.is_empty() {
        return complain("it is empty");
    }
    if path.len() > BundleLimits::PATH_BYTES_MAX {
        return complain("it is longer than 400 bytes");
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return complain("it contains a control character or a backslash");
    }
    if !Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return complain("it is absolute or leaves the bundle");
    }
    // `components` forgives `a//b`, `a/./b` and `a/`; one file has one name here.
    if path
        .split('/')
        .any(|part| part.is_empty() || part == "." || part.len() > BundleLimits::NAME_BYTES_MAX)
    {
        return complain("one of its parts is empty, `.` or longer than 200 bytes");
    }
    Ok(())
}

fn bad_path(path: &str, reason: &str) -> Rejection {
    let shown: String = path.chars().filter(|c| !c.is_control()).take(100).collect();
    Rejection::new(
        Code::BundleBadPath,
        format!("the bundle contains the invalid path `{shown}`: {reason}"),
    )
    .hint("use relative paths of regular files, such as `lib/names.py`")
    .field("bundle")
}

pub(crate) fn not_regular(path: &str) -> Rejection {
    bad_path(
        path,
        "it is neither a regular file nor a folder (links and devices are not supported)",
    )
}

pub(crate) fn too_large(limits: &BundleLimits) -> Rejection {
    Rejection::new(
        Code::BundleTooLarge,
        format!("the bundle is larger than {} MiB", limits.bytes >> 20),
    )
    .hint("leave out files that the function does not need when it runs")
    .field("bundle")
}

pub(crate) fn too_many(limits: &BundleLimits) -> Rejection {
    Rejection::new(
        Code::BundleTooManyFiles,
        format!("the bundle has more than {} files", limits.files),
    )
    .hint("leave out files that the function does not need when it runs")
    .field("bundle")
}

pub(crate) fn unreadable(error: impl fmt::Display) -> Rejection {
    let reason: String = error
        .to_string()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect();
    Rejection::new(
        Code::BundleBadArchive,
        format!("the bundle is not a zip, tar, tar.gz or tar.zst: {reason}"),
    )
    .hint("create it with `tar -czf bundle.tar.gz -C FOLDER .`")
    .field("bundle")
}
