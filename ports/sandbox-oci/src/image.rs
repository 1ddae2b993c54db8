//! The root of a container of an image: its layers, a layer of ours on top, and a writable one of this container alone.
//!
//! ```text
//! NAME/rw (tmpfs, bounded)   upper: what the image writes, and the places of what is mounted: they hide whatever the image has there
//! NAME/rootfs                overlay: layers, the top one, upper
//! ```
//! It is mounted by the keeper in its own mount namespace, and for Docker by the agent, for as long as the daemon takes to start the
//! container.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
};

use piecework_sandbox::{Image, runner::image_runner};
use serde::{Deserialize, Serialize};

use crate::config::scratch_size;

/// Where an image has the runner.
pub(crate) const RUNNER_INSIDE: &str = "/.piecework/run";
pub(crate) const ROOTFS: &str = "rootfs";
const WRITABLE: &str = "rw";
/// What an image must not tell by its own files; there is no network.
const ETC: [(&str, &str); 2] = [
    ("hosts", "127.0.0.1 localhost function\n"),
    ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:3 attempts:2\n"),
];
const DIRECTORIES: [(&str, u32); 7] = [
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
    ("tmp", 0o1777),
    ("etc", 0o755),
    (".piecework", 0o755),
    // Of the named pipes that Docker's containers are talked to over.
    (".piecework/channel", 0o755),
];

/// What is mounted for one container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ImageRoot {
    pub(crate) layers_in: PathBuf,
    /// The lowest first.
    pub(crate) layers: Vec<String>,
    /// Whose the writable layer is.
    pub(crate) owner: (u32, u32),
    pub(crate) disk_bytes: u64,
}

impl ImageRoot {
    pub(crate) fn of(image: &Image, owner: (u32, u32), disk_bytes: u64) -> Self {
        Self {
            layers_in: image.layers_in.clone(),
            layers: image.layers.clone(),
            owner,
            disk_bytes,
        }
    }
}

/// Makes the layer that lies over every image: the runner, and files of `/etc`.
pub(crate) fn make_top(top: &Path) -> io::Result<()> {
    for directory in ["", "etc", ".piecework"] {
        make_directory(&top.join(directory), 0o755)?;
    }
    for (name, content) in ETC {
        write(&top.join("etc").join(name), content.as_bytes(), 0o644)?;
    }
    write(&top.join(&RUNNER_INSIDE[1..]), &image_runner(), 0o755)
}

/// Whatever the mask of the agent is.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Mounts the root at `at`/[`ROOTFS`]; `top` is what [`make_top`] made. The calling thread must be alone with its working directory,
/// which is elsewhere afterwards.
pub(crate) fn mount(root: &ImageRoot, top: &Path, at: &Path) -> io::Result<()> {
    make_directory(at, 0o711)?;
    let mounted = mount_both(root, top, at);
    if mounted.is_err() {
        unmount(at);
    }
    mounted
}

fn mount_both(root: &ImageRoot, top: &Path, at: &Path) -> io::Result<()> {
    let (writable, rootfs) = (at.join(WRITABLE), at.join(ROOTFS));
    make_directory(&writable, 0o700)?;
    make_directory(&rootfs, 0o755)?;
    let plain = libc::MS_NOSUID | libc::MS_NODEV;
    let size = format!("mode=700,{}", scratch_size(root.disk_bytes));
    mount_one(("tmpfs", &writable), "tmpfs", plain, &size)?;
    let upper = writable.join("upper");
    make_directory(&upper, 0o755)?;
    make_directory(&writable.join("work"), 0o700)?;
    for (name, mode) in DIRECTORIES {
        let path = upper.join(name);
        make_directory(&path, mode)?;
        chown(&path, Some(root.owner.0), Some(root.owner.1))?;
    }
    chown(&upper, Some(root.owner.0), Some(root.owner.1))?;
    // By descriptors and from within: all options together are at most a page, and a path may hold what options part by.
    let (top, writable) = (directory(top)?, directory(&writable)?);
    std::env::set_current_dir(&root.layers_in)?;
    let layers: Vec<&str> = root.layers.iter().rev().map(String::as_str).collect();
    let (top_fd, writable_fd) = (top.as_raw_fd(), writable.as_raw_fd());
    // Marks in attributes that nobody needs a privilege for: who unpacked the layers has none.
    let options = format!(
        "lowerdir=/proc/self/fd/{top_fd}:{},upperdir=/proc/self/fd/{writable_fd}/upper,workdir=/proc/self/fd/{writable_fd}/work,userxattr",
        layers.join(":")
    );
    let mounted = mount_one(("overlay", &rootfs), "overlay", plain, &options);
    std::env::set_current_dir("/")?;
    mounted
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    let mut options = fs::File::options();
    options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_PATH);
    options.open(path).map(OwnedFd::from)
}

/// Takes away what [`mount`] made. A container that has it keeps it.
pub(crate) fn unmount(at: &Path) {
    for name in [ROOTFS, WRITABLE] {
        if let Ok(path) = c(at.join(name)) {
            // SAFETY: a NUL-terminated path; it fails where nothing is mounted.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) };
        }
        // Not with what is in it: it is empty, or it is no place to delete in.
        let _ = fs::remove_dir(at.join(name));
    }
    let _ = fs::remove_dir(at);
}

fn c(path: impl AsRef<Path>) -> io::Result<CString> {
    CString::new(path.as_ref().as_os_str().as_encoded_bytes()).map_err(io::Error::other)
}

fn mount_one((source, target): (&str, &Path), kind: &str, flags: libc::c_ulong, options: &str) -> io::Result<()> {
    let (from, kind, options) = (c(source)?, c(kind)?, c(options)?);
    let to = c(target)?;
    // SAFETY: texts with their ends, which live across the call.
    let mounted = unsafe {
        libc::mount(
            from.as_ptr(),
            to.as_ptr(),
            kind.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    match mounted {
        0 => Ok(()),
        _ => {
            let error = io::Error::last_os_error();
            Err(io::Error::new(
                error.kind(),
                format!("mounting the image's root ({source}): {error}"),
            ))
        }
    }
}

/// As [`mount`], from a process of many threads: in a thread with a working directory of its own.
pub(crate) fn mount_in_a_thread(root: ImageRoot, top: PathBuf, at: PathBuf) -> io::Result<()> {
    let works = move || {
        // SAFETY: flags only; the thread parts with the others' working directory.
        if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
            return Err(io::Error::last_os_error());
        }
        mount(&root, &top, &at)
    };
    let thread = std::thread::Builder::new()
        .name("mount-image".to_owned())
        .spawn(works)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
}

/// Whether somebody who owns nothing may reach what lies in this directory.
pub(crate) fn is_open_to_all(directory: &Path) -> bool {
    const SEARCH: u32 = 0o001;
    directory.ancestors().all(|path| {
        let found = fs::metadata(path);
        found.is_ok_and(|found| found.permissions().mode() & SEARCH != 0)
    })
}
