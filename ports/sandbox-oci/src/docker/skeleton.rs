//! An image's root for Docker: an image of Docker's that has only the names in `/`, over which what they stand for is mounted.
//!
//! A daemon takes no directory as a root. A copy of the image in its own store would take as long as the image is large, and its writable
//! layer would have no limit with most of its drivers. So the agent mounts the root as for other containers ([`crate::image`]), and the
//! container gets each entry of it as a mount. Nothing new can be made in `/` itself.

use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::chown,
    path::{Component, Path, PathBuf},
};

use parking_lot::Mutex;
use piecework_model::Digest;
use piecework_sandbox::Image;
use serde_json::{Value, json};
use tar::{Builder, EntryType};

use super::{
    api::Docker,
    root::{header, tag_of},
};
use crate::image::{self, ImageRoot, ROOTFS};

pub(super) const REPOSITORY: &str = "piecework-image";
/// Skeletons of a few KiB that a daemon keeps for one agent; the least recently used goes first.
const KEPT_MAX: usize = 64;
/// In `/`; each is a mount.
const ENTRIES_MAX: usize = 128;
/// What Docker mounts itself.
const DOCKERS_OWN: [&str; 3] = ["proc", "sys", "dev"];

/// The names of the skeletons that this agent made, the least recently used first.
#[derive(Default)]
pub(super) struct Skeletons(Mutex<VecDeque<String>>);

/// A root that is mounted on the host; goes with its value, and a container that has it keeps it.
pub(super) struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        image::unmount(&self.0);
    }
}

/// What a container is made of.
pub(super) struct Rooted {
    pub(super) image: String,
    pub(super) mounts: Vec<Value>,
    pub(super) mounted: Mounted,
}

impl Skeletons {
    /// Mounts the image's root at `at`, and makes its skeleton where the daemon has none.
    pub(super) async fn root(
        &self,
        docker: &Docker,
        (image, owner, disk_bytes): (&Image, u32, u64),
        (top, at): (PathBuf, PathBuf),
    ) -> Result<Rooted, String> {
        let root = ImageRoot::of(image, (owner, owner), disk_bytes);
        let (to, first) = (at.clone(), first_directory(&image.directory));
        let mounting = tokio::task::spawn_blocking(move || {
            let mounted = image::mount_in_a_thread(root, top, to.clone()).map(|()| Mounted(to))?;
            if let Some(name) = first {
                make_place(&at.join(ROOTFS).join(name), owner)?;
            }
            Ok::<_, io::Error>((mounted, Entries::of(&at.join(ROOTFS))?))
        });
        let mounted = mounting.await.map_err(|error| error.to_string())?;
        let (mounted, entries) = mounted.map_err(|error| format!("no root of the image: {error}"))?;
        let archive = entries
            .archive()
            .map_err(|error| format!("no archive of the root: {error}"))?;
        let name = self.name(docker, archive).await?;
        Ok(Rooted {
            image: name,
            mounts: entries.mounts(&mounted.0.join(ROOTFS)),
            mounted,
        })
    }

    async fn name(&self, docker: &Docker, archive: Vec<u8>) -> Result<String, String> {
        let tag = tag_of(&Digest::of(&archive));
        let name = format!("{REPOSITORY}:{tag}");
        if !docker.has_image(&name).await? {
            docker.import((REPOSITORY, &tag), archive).await?;
        }
        let oldest = {
            let mut kept = self.0.lock();
            kept.retain(|other| *other != name);
            kept.push_back(name.clone());
            (kept.len() > KEPT_MAX).then(|| kept.pop_front()).flatten()
        };
        if let Some(oldest) = oldest {
            // One that is in use stays, and is the next agent's to remove.
            let _ = docker.remove_image(&oldest).await;
        }
        Ok(name)
    }
}

/// Removes what earlier agents made, unless a container uses it.
pub(super) async fn sweep(docker: &Docker) -> Result<(), String> {
    for name in docker.images_of(REPOSITORY).await? {
        let _ = docker.remove_image(&name).await;
    }
    Ok(())
}

/// Of the directory that the program starts in, what lies in `/`: inside, nothing can be made there.
fn first_directory(directory: &str) -> Option<PathBuf> {
    let first = Path::new(directory).components().find_map(|component| match component {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::RootDir | Component::CurDir | Component::Prefix(_) | Component::ParentDir => None,
    });
    first.filter(|_| !directory.contains(".."))
}

/// A directory of the container's user, unless something is there.
fn make_place(path: &Path, owner: u32) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    image::make_directory(path, 0o755)?;
    chown(path, Some(owner), Some(owner))
}

/// What lies in `/` of an image.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entries {
    directories: Vec<String>,
    files: Vec<String>,
    /// With where they lead to.
    links: Vec<(String, PathBuf)>,
}

impl Entries {
    fn of(root: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name().into_string();
            let name = name.map_err(|_| io::Error::other("a name in its `/` is no text"))?;
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                let target = fs::read_link(entry.path())?;
                found.links.push((name, target));
            } else if kind.is_dir() {
                found.directories.push(name);
            } else if kind.is_file() {
                found.files.push(name);
            }
            // Pipes and the like are made by who needs them.
        }
        if found.directories.len() + found.files.len() > ENTRIES_MAX {
            return Err(io::Error::other(format!(
                "it has more than {ENTRIES_MAX} entries in `/`"
            )));
        }
        found.directories.sort();
        found.files.sort();
        found.links.sort();
        Ok(found)
    }

    /// The same bytes for the same names.
    fn archive(&self) -> io::Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        for name in &self.directories {
            archive.append_data(&mut header(EntryType::Directory, 0o755, 0), name, io::empty())?;
        }
        for name in &self.files {
            archive.append_data(&mut header(EntryType::Regular, 0o644, 0), name, io::empty())?;
        }
        for (name, target) in &self.links {
            archive.append_link(&mut header(EntryType::Symlink, 0o777, 0), name, target)?;
        }
        archive.into_inner()
    }

    /// No link is followed: what is mounted are files and directories in `root` itself.
    fn mounts(&self, root: &Path) -> Vec<Value> {
        let names = self.directories.iter().chain(&self.files);
        let names = names.filter(|name| !DOCKERS_OWN.contains(&name.as_str()));
        names
            .map(|name| {
                let target = format!("/{name}");
                json!({"Type": "bind", "Source": root.join(name), "Target": target, "BindOptions": {"Propagation": "rprivate"}})
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skeleton_has_names_alone_and_mounts_follow_no_link() {
        let root = tempfile::tempdir().expect("a directory");
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("usr")).expect("made");
        fs::create_dir(at("proc")).expect("made");
        fs::write(at("program"), "large").expect("written");
        std::os::unix::fs::symlink("/etc", at("out")).expect("linked");
        let entries = Entries::of(root.path()).expect("entries");
        assert_eq!(entries.links, [("out".to_owned(), PathBuf::from("/etc"))]);
        let mounts = entries.mounts(root.path());
        let targets: Vec<_> = mounts.iter().map(|mount| mount["Target"].as_str()).collect();
        assert_eq!(targets, [Some("/usr"), Some("/program")]);
        let archive = entries.archive().expect("an archive");
        assert_eq!(archive, entries.archive().expect("an archive"));
        for entry in tar::Archive::new(&archive[..]).entries().expect("entries") {
            assert_eq!(entry.expect("an entry").header().size().expect("a size"), 0);
        }
    }

    #[test]
    fn the_first_directory_of_a_path_is_one_name() {
        assert_eq!(first_directory("/srv/app"), Some(PathBuf::from("srv")));
        assert_eq!(first_directory("/"), None);
        assert_eq!(first_directory("/../etc"), None);
    }

    #[test]
    fn a_root_of_too_many_entries_is_refused() {
        let root = tempfile::tempdir().expect("a directory");
        for number in 0..=ENTRIES_MAX {
            fs::write(root.path().join(number.to_string()), "").expect("written");
        }
        let refused = Entries::of(root.path()).expect_err("too many");
        assert!(refused.to_string().contains("entries in `/`"), "{refused}");
    }
}
