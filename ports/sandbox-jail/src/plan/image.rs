//! The root of a container image: its layers under a writable one of this jail alone, with what every jail gets in place of the
//! machine's own.
//!
//! ```text
//! /.rw (tmpfs, bounded)   upper: what the image writes, and the places of what is mounted: they hide whatever the image has there
//! /.image                 overlay: layers, upper
//!         proc dev .piecework/run       mounted, then all of it becomes the root, and the old one goes
//! ```

use super::*;

/// The layers on the host, and who the image runs as.
#[derive(Clone, Debug)]
pub(crate) struct ImageRoot {
    /// The directory in which the layers lie.
    pub(crate) layers_in: Vec<u8>,
    /// Their names there, the lowest first.
    pub(crate) layers: Vec<String>,
    pub(crate) user: (u32, u32),
}

pub(crate) const ROOT: &str = "/.image";
pub(crate) const WRITABLE: &str = "/.rw";
/// Where the launcher keeps the runner, and where an image has it.
pub(crate) const RUNNER: &str = "/runner/image";
pub(crate) const RUNNER_INSIDE: &str = "/.piecework/run";

/// What an image must not tell by its own files: names go to the door of this jail, if to anything.
const ETC: [(&str, &str); 2] = [
    ("hosts", "127.0.0.1 localhost function\n"),
    ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:3 attempts:2\n"),
];
const DIRECTORIES: [(&str, u32); 5] = [
    ("proc", 0o555),
    ("dev", 0o755),
    ("tmp", 0o1777),
    ("etc", 0o755),
    (".piecework", 0o755),
];

fn upper(name: &str) -> String {
    format!("{WRITABLE}/upper/{name}")
}

fn inside(path: &str) -> String {
    format!("{ROOT}{path}")
}

/// Gives the handle of the `/proc` that can be written.
pub(super) fn mounts(script: &mut Script, jail: &Jail, image: &ImageRoot) -> usize {
    loopback(script);
    let options = format!("{},mode=755", scratch_options(jail));
    let plain = libc::MS_NOSUID | libc::MS_NODEV;
    script.mount(
        "mount the writable layer",
        [text("tmpfs"), text(WRITABLE), text("tmpfs")],
        plain,
        text(options),
    );
    places(script, jail);
    overlay(script, image);
    let proc = script.proc(ROOT);
    devices(script);
    hide(script, ROOT);
    script.write_proc(
        "go first where memory runs out",
        (proc, "self/oom_score_adj"),
        OOM_SCORE_ADJ,
    );
    script.mount(
        "bind the runner",
        [text(RUNNER), text(inside(RUNNER_INSIDE)), int(0)],
        libc::MS_BIND,
        int(0),
    );
    become_root(script);
    script.call("name the host", libc::SYS_sethostname, vec![text("function"), int(8)]);
    proc
}

/// The image's server and its runner talk over it; nothing else is in this namespace.
fn loopback(script: &mut Script) {
    const REQUEST_BYTES: usize = 40;
    const NAME_BYTES: usize = 16;
    let mut request = b"lo".to_vec();
    request.resize(NAME_BYTES, 0);
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    request.extend(flags.to_ne_bytes());
    request.resize(REQUEST_BYTES, 0);
    let kind = int(libc::SOCK_DGRAM | libc::SOCK_CLOEXEC);
    let socket = script.call("a socket", libc::SYS_socket, vec![int(libc::AF_INET), kind, int(0)]);
    let set = Argument::Int(i64::try_from(libc::SIOCSIFFLAGS).expect("a request of ioctl(2)"));
    let arguments = vec![Argument::Out(socket), set, Argument::Bytes(request)];
    script.call("raise the loopback", libc::SYS_ioctl, arguments);
    script.call("close the socket", libc::SYS_close, vec![Argument::Out(socket)]);
}

/// Directories for what is mounted, and small files, in the layer that hides the image's own.
fn places(script: &mut Script, jail: &Jail) {
    let make = |script: &mut Script, path: &str, mode: u32| {
        let at = int(libc::AT_FDCWD);
        let named = || text(path);
        script.call(
            "make a directory",
            libc::SYS_mkdirat,
            vec![at.clone(), named(), int(mode)],
        );
        script.call("set its mode", libc::SYS_fchmodat, vec![at.clone(), named(), int(mode)]);
        if let Some(id) = jail.host_id {
            let id = || int(id);
            script.call(
                "set its owner",
                libc::SYS_fchownat,
                vec![at, named(), id(), id(), int(0)],
            );
        }
    };
    make(script, &upper(""), 0o755);
    make(script, &format!("{WRITABLE}/work"), 0o700);
    for (name, mode) in DIRECTORIES {
        make(script, &upper(name), mode);
    }
    for (name, content) in ETC {
        new_file(script, &upper(&format!("etc/{name}")), content);
    }
    new_file(script, &upper(&RUNNER_INSIDE[1..]), "");
}

fn new_file(script: &mut Script, path: &str, content: &str) {
    let flags = int(libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC);
    let arguments = vec![int(libc::AT_FDCWD), text(path), flags, int(0o644)];
    let fd = script.call("make a file", libc::SYS_openat, arguments);
    if !content.is_empty() {
        let length = Argument::Int(i64::try_from(content.len()).expect("a short text"));
        script.call(
            "write a file",
            libc::SYS_write,
            vec![Argument::Out(fd), text(content), length],
        );
    }
    script.call("close a file", libc::SYS_close, vec![Argument::Out(fd)]);
}

/// Names of layers are relative: all options together are at most a page.
fn overlay(script: &mut Script, image: &ImageRoot) {
    let from = [HOST_ROOT.as_bytes(), &image.layers_in].concat();
    script.call("go to the layers", libc::SYS_chdir, vec![text(from)]);
    let layers: Vec<&str> = image.layers.iter().rev().map(String::as_str).collect();
    // Marks in attributes that nobody needs a privilege for: who unpacked the layers has none.
    let options = format!(
        "lowerdir={},upperdir={WRITABLE}/upper,workdir={WRITABLE}/work,userxattr",
        layers.join(":")
    );
    let what = [text("overlay"), text(ROOT), text("overlay")];
    let plain = libc::MS_NOSUID | libc::MS_NODEV;
    script.mount("mount the layers", what, plain, text(options));
}

fn devices(script: &mut Script) {
    let overlaid = script.device_overlay(&inside("/dev"));
    let what = [text("/dev"), text(inside("/dev")), int(0)];
    let bound = script.mount("bind the devices", what, libc::MS_BIND | libc::MS_REC, int(0));
    script.steps[bound].unless = Some(overlaid);
}

/// pivot_root(2): the old root comes to lie over the new one, and is taken from there.
fn become_root(script: &mut Script) {
    script.call("enter the image", libc::SYS_chdir, vec![text(ROOT)]);
    script.call(
        "make the image the root",
        libc::SYS_pivot_root,
        vec![text("."), text(".")],
    );
    script.call(
        "let go of the old root",
        libc::SYS_umount2,
        vec![text("."), int(libc::MNT_DETACH)],
    );
    script.call("enter the root", libc::SYS_chdir, vec![text("/")]);
}
