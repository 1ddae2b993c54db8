//! Files of a package, and archives of them that are the same bytes whenever they are made.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};

/// What a package puts on a machine, by path.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    path: PathBuf,
    mode: u32,
    /// None: a directory.
    content: Option<Vec<u8>>,
}

pub const FILE: u32 = 0o644;
pub const PROGRAM: u32 = 0o755;

impl Tree {
    pub fn put(&mut self, path: impl Into<PathBuf>, mode: u32, content: impl Into<Vec<u8>>) {
        self.entries.push(Entry {
            path: path.into(),
            mode,
            content: Some(content.into()),
        });
    }

    pub fn directory(&mut self, path: impl Into<PathBuf>, mode: u32) {
        self.entries.push(Entry {
            path: path.into(),
            mode,
            content: None,
        });
    }

    /// A file of the checkout.
    pub fn copy(&mut self, root: &Path, from: &str, path: impl Into<PathBuf>, mode: u32) -> Result<()> {
        let content = fs::read(root.join(from)).with_context(|| format!("read {from}"))?;
        self.put(path, mode, content);
        Ok(())
    }

    /// Every file of a folder, by its name.
    pub fn copy_all(&mut self, folder: &Path, into: &str, zip: bool) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
            let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let name = path
                .file_name()
                .context("it has a name")?
                .to_string_lossy()
                .into_owned();
            match zip {
                true => self.put(format!("{into}/{name}.gz"), FILE, gzip(&content, 0)?),
                false => self.put(format!("{into}/{name}"), FILE, content),
            }
        }
        Ok(())
    }

    /// Bytes of all files.
    pub fn size(&self) -> usize {
        self.entries
            .iter()
            .filter_map(|entry| entry.content.as_ref().map(Vec::len))
            .sum()
    }

    /// A tar archive, every entry of `root`'s and of this time, in order of their paths, with the directories above them.
    /// `prefix` goes before each path.
    pub fn tar(&self, prefix: &str, epoch: u64) -> Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        for entry in self.with_parents() {
            let is_directory = entry.content.is_none();
            let mut header = tar::Header::new_gnu();
            header.set_mode(entry.mode);
            header.set_mtime(epoch);
            header.set_uid(0);
            header.set_gid(0);
            header.set_username("root")?;
            header.set_groupname("root")?;
            header.set_entry_type(match is_directory {
                true => tar::EntryType::Directory,
                false => tar::EntryType::Regular,
            });
            let content = entry.content.as_deref().unwrap_or_default();
            header.set_size(content.len() as u64);
            let end = if is_directory { "/" } else { "" };
            let path = format!("{prefix}{}{end}", entry.path.display());
            builder.append_data(&mut header, path, content)?;
        }
        builder.into_inner().context("write a tar archive")
    }

    /// Sorted by path; each directory before what is in it.
    fn with_parents(&self) -> Vec<Entry> {
        let mut all = self.entries.clone();
        for entry in &self.entries {
            for parent in entry
                .path
                .ancestors()
                .skip(1)
                .filter(|path| !path.as_os_str().is_empty())
            {
                if all.iter().all(|known| known.path != parent) {
                    all.push(Entry {
                        path: parent.to_owned(),
                        mode: 0o755,
                        content: None,
                    });
                }
            }
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }
}

/// The same bytes for the same content.
pub fn gzip(content: &[u8], epoch: u64) -> Result<Vec<u8>> {
    let time = u32::try_from(epoch).unwrap_or_default();
    let mut encoder = GzBuilder::new().mtime(time).write(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    encoder.finish().context("compress")
}
