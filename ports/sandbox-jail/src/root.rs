//! The read-only root that every jail of a launcher shares: the host's `/usr`, a few devices, the runners.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    ptr,
};

use serde::{Deserialize, Serialize};

use crate::plan::{
    DEVICE_LAYER, EMPTY_DIRECTORY, EMPTY_FILE, EMPTY_LAYER, FUNCTION, HOST_ROOT, INVENTED, TOLD, image,
    read_only_attributes,
};

/// What goes into the root beside `/usr`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Root {
    /// Prefixes of interpreters that lie outside `/usr`.
    pub(crate) prefixes: Vec<PathBuf>,
    /// Path and content of each runner. The launcher has its own copy: together they are longer than an argument may be.
    #[serde(skip, default = "crate::runners")]
    pub(crate) runners: Vec<(PathBuf, Vec<u8>)>,
}

/// Any directory that exists everywhere; the new root is built on it and moves away from it.
const STAGE: &str = "/tmp";
/// Links that distributions with a merged /usr have, and directories on those without.
pub const LINKS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
const DEVICES: [&str; 4] = ["null", "zero", "random", "urandom"];
const ETC: [(&str, &str); 5] = [
    (
        "passwd",
        "root:x:0:0:root:/:/bin/sh\nfunction:x:1000:1000:function:/tmp:/bin/sh\n",
    ),
    ("group", "root:x:0:\nfunction:x:1000:\n"),
    ("hosts", "127.0.0.1 localhost\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    // Answered where the function has an allow list, and refused elsewhere: there is no socket to ask by.
    ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:3 attempts:2\n"),
];
/// In place of the machine's own figures, which programs read at their start: an idle machine that has just started, with its
/// real number of processors and the most memory that any function may have.
pub fn invented(name: &str) -> String {
    match name {
        "loadavg" => "0.00 0.00 0.00 1/1 1\n".to_owned(),
        "meminfo" => "MemTotal:        4194304 kB\nMemFree:         4194304 kB\nMemAvailable:    4194304 kB\nBuffers:               0 kB\nCached:                0 kB\nSwapTotal:             0 kB\nSwapFree:              0 kB\n".to_owned(),
        "stat" => {
            let found = fs::read_to_string("/proc/stat").unwrap_or_default();
            let names = found.lines().filter_map(|line| line.split_whitespace().next());
            let processors = names.filter(|name| name.starts_with("cpu"));
            let idle: String = processors.map(|name| format!("{name} 0 0 0 0 0 0 0 0 0 0\n")).collect();
            format!("{idle}intr 0\nctxt 0\nbtime 0\nprocesses 1\nprocs_running 1\nprocs_blocked 0\nsoftirq 0\n")
        }
        _ => "0.00 0.00\n".to_owned(),
    }
}

/// Where distributions keep the certificates of authorities: by these a function checks whom it talks to.
pub const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Builds the root and makes it this process's; the host's root stays at [`HOST_ROOT`].
pub(crate) fn enter(root: &Root) -> io::Result<()> {
    mount("none", "/", None, libc::MS_REC | libc::MS_PRIVATE, None)?;
    mount("tmpfs", STAGE, Some("tmpfs"), libc::MS_NOSUID, Some("mode=755,size=8m"))?;
    let stage = Path::new(STAGE);
    for directory in [
        HOST_ROOT,
        FUNCTION,
        "/proc",
        "/tmp",
        "/dev",
        EMPTY_LAYER,
        EMPTY_DIRECTORY,
        image::ROOT,
        image::WRITABLE,
        "/usr",
    ] {
        fs::create_dir_all(inside(stage, Path::new(directory)))?;
    }
    bind_read_only(stage, Path::new("/usr"))?;
    for link in LINKS {
        link_or_bind(stage, &Path::new("/").join(link))?;
    }
    for prefix in &root.prefixes {
        bind_read_only(stage, prefix)?;
    }
    small_files(stage, root)?;
    devices(stage)?;
    pivot(stage)
}

/// Builds a root of nothing but these directories, as [`enter`] does; they are writable for nobody.
pub fn enter_empty(directories: impl Iterator<Item = String>) -> io::Result<()> {
    mount("none", "/", None, libc::MS_REC | libc::MS_PRIVATE, None)?;
    mount("tmpfs", STAGE, Some("tmpfs"), libc::MS_NOSUID, Some("mode=755,size=4m"))?;
    let stage = Path::new(STAGE);
    for directory in [HOST_ROOT.to_owned(), "/proc".to_owned()]
        .into_iter()
        .chain(directories)
    {
        fs::create_dir_all(inside(stage, Path::new(&directory)))?;
    }
    pivot(stage)
}

/// Lets go of the host's root and of `/proc`, in a mount namespace of the caller's own.
pub fn let_go_of_the_host() -> io::Result<()> {
    for path in [HOST_ROOT, "/proc"] {
        unmount(&c(path)?)?;
    }
    std::env::set_current_dir("/")
}

fn unmount(path: &CString) -> io::Result<()> {
    // SAFETY: a NUL-terminated path.
    match unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts a bundle into a standing jail, read-only: detached from our own view, attached in the jail's. As an overlay of its own
/// where the kernel has that, as the steps of a jail do it.
pub(crate) fn bind_into(jail: &[OwnedFd], bundle: &[u8]) -> io::Result<()> {
    let jail = jail.first().ok_or_else(|| io::Error::other("no jail came along"))?;
    let source = on_the_host(bundle)?;
    let tree = overlay_of(&source).or_else(|_| clone_of(&source))?;
    attach(jail.as_fd(), &tree, FUNCTION)
}

/// Binds a directory of the host into a process's mount namespace, read-only.
pub fn bind_at(process: BorrowedFd<'_>, directory: &[u8], target: &str) -> io::Result<()> {
    attach(process, &clone_of(&on_the_host(directory)?)?, target)
}

/// Takes away what [`bind_at`] bound there. What is open of it stays open.
pub fn unbind_at(process: BorrowedFd<'_>, target: &str) -> io::Result<()> {
    let target = c(target)?;
    within(process, || unmount(&target))
}

fn on_the_host(path: &[u8]) -> io::Result<CString> {
    CString::new([HOST_ROOT.as_bytes(), path].concat()).map_err(io::Error::other)
}

fn attach(process: BorrowedFd<'_>, tree: &OwnedFd, target: &str) -> io::Result<()> {
    let target = c(target)?;
    within(process, || {
        // SAFETY: paths are NUL-terminated, and `tree` is ours alone.
        made(unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                tree.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                target.as_ptr(),
                libc::MOVE_MOUNT_F_EMPTY_PATH,
            )
        })
        .map(drop)
    })
}

/// Does something in the mount namespace of a process. The caller has one thread, which is back in its own when this ends.
fn within(process: BorrowedFd<'_>, action: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let ours = fs::File::open("/proc/self/ns/mnt")?;
    let enter = |namespace: RawFd| {
        // SAFETY: plain numbers; the process has one thread.
        made(unsafe { libc::setns(namespace, libc::CLONE_NEWNS) }.into())
    };
    enter(process.as_raw_fd())?;
    let done = action();
    enter(ours.as_raw_fd())?;
    done
}

/// A detached overlay that shows this directory and does not tell where it lies.
fn overlay_of(source: &CString) -> io::Result<OwnedFd> {
    const SET_STRING: libc::c_uint = 1;
    const CREATE: libc::c_uint = 6;
    let layers = c(&format!(".:{EMPTY_LAYER}"))?;
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let null = ptr::null::<libc::c_char>();
    // SAFETY: texts are NUL-terminated and live across the calls; each descriptor is checked and then ours alone. The launcher's
    // one thread is back at its root when this ends.
    unsafe {
        let kind = c"overlay".as_ptr();
        let context = made(libc::syscall(libc::SYS_fsopen, kind, 1))?;
        let context = OwnedFd::from_raw_fd(context);
        let fd = context.as_raw_fd();
        made(libc::chdir(source.as_ptr()).into())?;
        let key = c"lowerdir".as_ptr();
        let set = made(libc::syscall(
            libc::SYS_fsconfig,
            fd,
            SET_STRING,
            key,
            layers.as_ptr(),
            0,
        ));
        let created = set.and_then(|_| made(libc::syscall(libc::SYS_fsconfig, fd, CREATE, null, null, 0)));
        made(libc::chdir(c"/".as_ptr()).into())?;
        created?;
        let tree = made(libc::syscall(libc::SYS_fsmount, fd, 1, attributes as libc::c_uint))?;
        Ok(OwnedFd::from_raw_fd(tree))
    }
}

/// A detached copy of the mount of this directory.
fn clone_of(source: &CString) -> io::Result<OwnedFd> {
    let attributes = read_only_attributes();
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path is NUL-terminated, the structure has the size that is said; the descriptor is checked and then ours alone.
    unsafe {
        let tree = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, source.as_ptr(), flags);
        let tree = OwnedFd::from_raw_fd(made(tree)?);
        made(libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            attributes.as_ptr(),
            attributes.len(),
        ))?;
        Ok(tree)
    }
}

fn made(result: libc::c_long) -> io::Result<RawFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

/// Where an absolute path of the host lies below the stage.
fn inside(stage: &Path, path: &Path) -> PathBuf {
    stage.join(path.strip_prefix("/").unwrap_or(path))
}

fn link_or_bind(stage: &Path, path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if metadata.is_symlink() {
        return symlink(fs::read_link(path)?, inside(stage, path));
    }
    bind_read_only(stage, path)
}

fn small_files(stage: &Path, root: &Root) -> io::Result<()> {
    for (name, content) in ETC {
        fs::write(stage.join("etc").join(name), content)?;
    }
    fs::write(inside(stage, Path::new(EMPTY_FILE)), "")?;
    for name in INVENTED {
        fs::write(inside(stage, Path::new(TOLD)).join(name), invented(name))?;
    }
    if let Ok(cache) = fs::read("/etc/ld.so.cache") {
        fs::write(stage.join("etc/ld.so.cache"), cache)?;
    }
    for authorities in AUTHORITIES.map(Path::new) {
        if let Ok(certificates) = fs::read(authorities) {
            let copy = inside(stage, authorities);
            fs::create_dir_all(copy.parent().unwrap_or(stage))?;
            fs::write(copy, certificates)?;
        }
    }
    for (path, content) in &root.runners {
        let path = inside(stage, path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn devices(stage: &Path) -> io::Result<()> {
    for device in DEVICES {
        let target = stage.join("dev").join(device);
        fs::write(&target, "")?;
        mount(
            &format!("/dev/{device}"),
            &target.to_string_lossy(),
            None,
            libc::MS_BIND,
            None,
        )?;
    }
    device_links(&stage.join("dev"))?;
    let layer = inside(stage, Path::new(DEVICE_LAYER));
    if make_devices(&layer).is_err() {
        // Only root makes devices: without them there is no layer, and every jail sees the machine's own.
        let _ = fs::remove_dir_all(&layer);
    }
    Ok(())
}

fn device_links(directory: &Path) -> io::Result<()> {
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("shm", "/tmp"),
    ] {
        symlink(target, directory.join(link))?;
    }
    Ok(())
}

/// The same devices as files of our own, for the layer below each jail's `/dev`.
fn make_devices(directory: &Path) -> io::Result<()> {
    fs::create_dir(directory)?;
    for device in DEVICES {
        let number = fs::metadata(Path::new("/dev").join(device))?.rdev();
        let path = directory.join(device);
        let name = c(&path.to_string_lossy())?;
        // SAFETY: a NUL-terminated path.
        if unsafe { libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o666, number) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // Whatever the mask says.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    }
    device_links(directory)
}

fn bind_read_only(stage: &Path, path: &Path) -> io::Result<()> {
    let target = inside(stage, path);
    fs::create_dir_all(&target)?;
    let target = target.to_string_lossy();
    mount(
        &path.to_string_lossy(),
        &target,
        None,
        libc::MS_BIND | libc::MS_REC,
        None,
    )?;
    read_only(&target, libc::AT_RECURSIVE)
}

fn pivot(stage: &Path) -> io::Result<()> {
    let (new, old) = (c(&stage.to_string_lossy())?, c(&format!("{STAGE}{HOST_ROOT}"))?);
    // SAFETY: both are NUL-terminated paths.
    if unsafe { libc::syscall(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    std::env::set_current_dir("/")?;
    read_only("/", 0)?;
    // The launcher's own view, of its own pid namespace; each jail mounts another over it.
    mount(
        "proc",
        "/proc",
        Some("proc"),
        libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
        None,
    )
}

fn read_only(path: &str, flags: i32) -> io::Result<()> {
    let (path, attributes) = (c(path)?, read_only_attributes());
    // `nodev` would shut the devices of the root itself; those are mounts of their own.
    // SAFETY: a NUL-terminated path and a mount_attr of the size that is said.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            attributes.as_ptr(),
            attributes.len(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn mount(
    source: &str,
    target: &str,
    kind: Option<&str>,
    flags: libc::c_ulong,
    options: Option<&str>,
) -> io::Result<()> {
    let (from, to) = (c(source)?, c(target)?);
    let (kind, options) = (kind.map(c).transpose()?, options.map(c).transpose()?);
    let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: every pointer is null where mount(2) allows it, or a NUL-terminated text that lives across the call.
    let result = unsafe {
        libc::mount(
            from.as_ptr(),
            to.as_ptr(),
            pointer(&kind),
            flags,
            pointer(&options).cast(),
        )
    };
    if result < 0 {
        let error = io::Error::last_os_error();
        return Err(io::Error::new(error.kind(), format!("mounting {target}: {error}")));
    }
    Ok(())
}

fn c(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(io::Error::other)
}
