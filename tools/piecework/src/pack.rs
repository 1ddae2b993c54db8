//! A folder as a bundle: what goes in, what stays out, what is refused.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use bytes::Bytes;
use piecework_blobs::{Bundle, BundleLimits};

use crate::failure::Failure;

/// Version control, caches, editors' droppings, what is resolved from a manifest, and files that hold secrets by
/// custom.
const LEFT_OUT: &[&str] = &[
    ".git",
    ".hg",
    ".svn",
    ".jj",
    ".gitignore",
    ".pieceworkignore",
    "piecework.toml",
    ".venv",
    "venv",
    "node_modules",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".tox",
    ".idea",
    ".vscode",
    ".DS_Store",
    ".env",
    "*.pyc",
    "*.swp",
    "*~",
];
/// One name or pattern a line, as in the list above; `#` begins a comment.
const IGNORE_FILE: &str = ".pieceworkignore";
/// Deeper than any source tree; a loop of links ends here.
const DEPTH_MAX: usize = 32;

/// The files of `folder` as a canonical tar, and how many they are. Blocks.
///
/// A link inside the folder is followed; one that leads out of it is refused.
pub fn folder(folder: &Path) -> Result<(Bytes, usize), Failure> {
    let root = folder
        .canonicalize()
        .with_context(|| format!("cannot open {}", folder.display()))?;
    let mut walk = Walk {
        ignored: patterns(&root)?,
        root,
        files: Vec::new(),
        programs: Vec::new(),
        bytes: 0,
    };
    walk.enter(&walk.root.clone(), "", 0)?;
    if walk.files.is_empty() {
        return Err(Failure::usage(format!("{} has no files to deploy", folder.display())));
    }
    let count = walk.files.len();
    let bundle = Bundle::new(walk.files, &BundleLimits::UPLOAD)?.with_programs(walk.programs);
    Ok((bundle.pack().tar, count))
}

/// When anything of `folder` (or the file) was last changed, and how many entries there are: a cheap mark of its
/// content.
pub fn mark(path: &Path) -> Result<(std::time::SystemTime, usize), Failure> {
    let meta = fs::metadata(path).with_context(|| format!("cannot open {}", path.display()))?;
    let modified = meta.modified().context("this file system keeps no times")?;
    if !meta.is_dir() {
        return Ok((modified, 1));
    }
    let root = path
        .canonicalize()
        .with_context(|| format!("cannot open {}", path.display()))?;
    let ignored = patterns(&root)?;
    let mut newest = (modified, 0);
    mark_below(&root, &ignored, 0, &mut newest).with_context(|| format!("cannot look through {}", path.display()))?;
    Ok(newest)
}

fn mark_below(
    folder: &Path,
    ignored: &[String],
    depth: usize,
    newest: &mut (std::time::SystemTime, usize),
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_ignored(&entry.file_name().to_string_lossy(), ignored) || depth > DEPTH_MAX {
            continue;
        }
        // An editor may replace a file between the listing and the look.
        let Ok(meta) = fs::metadata(entry.path()) else { continue };
        newest.0 = newest.0.max(meta.modified()?);
        newest.1 += 1;
        if meta.is_dir() {
            mark_below(&entry.path(), ignored, depth + 1, newest)?;
        }
    }
    Ok(())
}

struct Walk {
    root: PathBuf,
    ignored: Vec<String>,
    files: Vec<(String, Bytes)>,
    /// Those of them that their owner may run.
    programs: Vec<String>,
    bytes: u64,
}

impl Walk {
    fn enter(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<(), Failure> {
        if depth > DEPTH_MAX {
            return Err(Failure::usage(format!(
                "{prefix} is more than {DEPTH_MAX} folders deep"
            )));
        }
        let cannot = || format!("cannot list {}", folder.display());
        for entry in fs::read_dir(folder).with_context(cannot)? {
            let name = entry.with_context(cannot)?.file_name();
            let name = name
                .to_str()
                .ok_or_else(|| Failure::usage(format!("{prefix}{name:?} is not valid UTF-8")))?;
            if !is_ignored(name, &self.ignored) {
                self.take(&folder.join(name), &format!("{prefix}{name}"), depth)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &Path, name: &str, depth: usize) -> Result<(), Failure> {
        let real = path
            .canonicalize()
            .map_err(|_| Failure::usage(format!("{name} is a broken symbolic link")))?;
        if !real.starts_with(&self.root) {
            return Err(Failure::usage(format!(
                "{name} is a symbolic link that leads out of the folder, to {}: copy the target into the folder, or exclude the link with {IGNORE_FILE}",
                real.display()
            )));
        }
        let meta = fs::metadata(&real).with_context(|| format!("cannot open {name}"))?;
        if meta.is_dir() {
            self.enter(&real, &format!("{name}/"), depth + 1)
        } else if meta.is_file() {
            self.add(&real, name, meta.len())?;
            if may_be_run(&meta) {
                self.programs.push(name.to_owned());
            }
            Ok(())
        } else {
            Err(Failure::usage(format!("{name} is neither a file nor a folder")))
        }
    }

    fn add(&mut self, path: &Path, name: &str, bytes: u64) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(bytes);
        let limits = BundleLimits::UPLOAD;
        if self.bytes > limits.bytes || self.files.len() >= limits.files {
            return Err(Failure::usage(format!(
                "too much to deploy at {name}: a folder may have at most {} MiB in {} files; exclude files with {IGNORE_FILE}",
                limits.bytes >> 20,
                limits.files
            )));
        }
        let content = fs::read(path).with_context(|| format!("cannot read {name}"))?;
        self.files.push((name.to_owned(), content.into()));
        Ok(())
    }
}

#[cfg(unix)]
fn may_be_run(meta: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    piecework_blobs::is_program(meta.permissions().mode())
}

/// Where no file says so.
#[cfg(not(unix))]
fn may_be_run(_: &fs::Metadata) -> bool {
    false
}

fn patterns(root: &Path) -> Result<Vec<String>, Failure> {
    let own = match fs::read_to_string(root.join(IGNORE_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(anyhow::Error::new(error)
                .context(format!("cannot read {IGNORE_FILE}"))
                .into());
        }
    };
    let own = own
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let own = own.map(|line| line.trim_end_matches('/').to_owned());
    Ok(LEFT_OUT.iter().map(|name| (*name).to_owned()).chain(own).collect())
}

/// A pattern is a name, `*end` or `begin*`.
fn is_ignored(name: &str, patterns: &[String]) -> bool {
    patterns
        .iter()
        .any(|pattern| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (Some(end), _) => name.ends_with(end),
            (None, Some(begin)) => name.starts_with(begin),
            (None, None) => name == pattern,
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("main.py"), "def handler(event, context): pass").expect("written");
        dir
    }

    fn names(path: &Path) -> Vec<String> {
        let (tar, count) = folder(path).expect("packs");
        let bundle = Bundle::read(&tar, &BundleLimits::UPLOAD).expect("reads back");
        assert_eq!(bundle.files().len(), count);
        bundle.files().keys().cloned().collect()
    }

    #[test]
    fn caches_secrets_and_what_is_named_stay_out() {
        let dir = sample();
        for name in [".env", "x.pyc", "big.bin", "notes~"] {
            fs::write(dir.path().join(name), "x").expect("written");
        }
        for name in [".git", "node_modules", "lib"] {
            fs::create_dir(dir.path().join(name)).expect("made");
            fs::write(dir.path().join(name).join("file"), "x").expect("written");
        }
        fs::write(dir.path().join(IGNORE_FILE), "# mine\nbig*\n").expect("written");
        assert_eq!(names(dir.path()), ["lib/file", "main.py"]);
    }

    #[test]
    fn a_link_out_of_the_folder_is_refused() {
        let dir = sample();
        symlink("/etc/passwd", dir.path().join("passwd")).expect("linked");
        let failure = folder(dir.path()).expect_err("refused").to_string();
        assert!(failure.contains("leads out of the folder"), "{failure}");
    }

    #[test]
    fn a_link_inside_is_followed_and_a_loop_of_links_ends() {
        let dir = sample();
        symlink("main.py", dir.path().join("same.py")).expect("linked");
        assert_eq!(names(dir.path()), ["main.py", "same.py"]);
        symlink(".", dir.path().join("again")).expect("linked");
        assert!(folder(dir.path()).is_err());
    }

    #[test]
    fn more_than_the_cap_is_refused_before_it_is_read() {
        let dir = sample();
        let big = fs::File::create(dir.path().join("big")).expect("made");
        big.set_len(BundleLimits::UPLOAD.bytes + 1).expect("a sparse file");
        let failure = folder(dir.path()).expect_err("refused").to_string();
        assert!(failure.contains("too much to deploy"), "{failure}");
    }

    #[test]
    fn equal_folders_pack_to_equal_bytes() {
        let (one, two) = (sample(), sample());
        assert_eq!(folder(one.path()).expect("packs"), folder(two.path()).expect("packs"));
    }

    #[test]
    fn an_empty_folder_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(folder(dir.path()).is_err());
    }
}
