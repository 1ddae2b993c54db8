//! What a jailed process does between its birth and the program's code: system calls in order, decided here once.
//!
//! Two executors run the same list: the launcher (for programs that it executes) and the Python zygote (in a forked child).
//! Neither decides anything. A step that fails ends the child, unless it is optional.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::OnceLock};

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use crate::{landlock, seccomp};

pub(crate) mod image;

use image::ImageRoot;

/// Where the channel lies in every jailed process.
pub(crate) const CHANNEL_FD: i64 = 3;
/// A place for a descriptor that a later structure names by number.
const SCRATCH_FD: i64 = 100;
/// The host's root in the launcher's view; a child lets go of it before it reads a program.
pub(crate) const HOST_ROOT: &str = "/.host";
/// Where the program's bundle lies.
pub(crate) const FUNCTION: &str = "/function";
/// The identity inside; nobody outside.
const INSIDE_ID: u32 = 1000;
/// No function needs more open files; each costs kernel memory.
const OPEN_FILES_MAX: u64 = 1024;
/// Files and directories below /tmp: one for each so many bytes of its size, which is more than a tree of sources needs, and
/// at least so many. Each costs the kernel about 1 KiB.
const SCRATCH_BYTES_PER_INODE: u64 = 16 << 10;
const SCRATCH_INODES_MIN: u64 = 4096;

/// The namespaces that every jail is born into. That of control groups is entered once it is in its own group, which is then
/// the root of what it sees; the user namespace is entered last, so that it owns none of the others.
pub(crate) const NAMESPACES: u64 =
    (libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64;

/// The second layer of every overlay: nothing. Outside of what the overlays show, which must not overlap it.
pub(crate) const EMPTY_LAYER: &str = "/.empty";
/// What `/dev` has, as files that are not the machine's own; not there where they cannot be made.
pub(crate) const DEVICE_LAYER: &str = "/.devices";
/// Where the root has what covers parts of `/proc`: nothing, or figures that say nothing of the machine.
pub(crate) const EMPTY_FILE: &str = "/etc/empty/file";
pub(crate) const EMPTY_DIRECTORY: &str = "/etc/empty/directory";
pub(crate) const TOLD: &str = "/etc/empty";
/// What everybody may read of `/proc` beside the processes: of the jail's own namespaces, or what programs are told by system
/// calls as well. Everything else is of the machine and its other users, whatever the next kernel adds.
const SHOWN: [&str; 8] = [
    "cpuinfo",
    "filesystems",
    "mounts",
    "net",
    "self",
    "sysvipc",
    "thread-self",
    "version",
];
/// Programs read them at their start, so they are covered with figures and not with nothing.
pub const INVENTED: [&str; 4] = ["loadavg", "meminfo", "stat", "uptime"];
/// Timers and waiting signals of one jail. Without root all jails are one user of the host, and the kernel counts these, and what is in
/// [`COUNTED`], for each user; but for each user namespace as well, and every jail has its own.
const SIGNALS_MAX: u64 = 1_024;
/// The same: what must be said within the namespace. A user has 128 instances of inotify.
const COUNTED: [(&str, &str); 2] = [("max_inotify_instances", "16"), ("max_inotify_watches", "8192")];
/// The kernel ends guests before anything else where memory runs out. Not below what a privileged process has set.
const OOM_SCORE_ADJ: &str = "1000";

/// An argument of a system call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Argument {
    Int(i64),
    /// A pointer to these bytes.
    Bytes(#[serde(with = "base64_bytes")] Vec<u8>),
    /// A descriptor as it came with the order.
    Fd(usize),
    /// The result of an earlier step.
    Out(usize),
    /// A pointer to a `sock_fprog` over these instructions.
    Filter(#[serde(with = "base64_bytes")] Vec<u8>),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) number: i64,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) optional: bool,
    /// Left out where this earlier step, an optional one, was taken.
    pub(crate) unless: Option<usize>,
}

/// What one jail is to be.
#[derive(Clone, Debug)]
pub(crate) struct Jail {
    /// The bundle on the host; none if it is bound later, by the launcher.
    pub(crate) bundle: Option<Vec<u8>>,
    pub(crate) disk_bytes: u64,
    /// `RLIMIT_NPROC`: processes and threads.
    pub(crate) tasks_max: u64,
    /// A limit of `RLIMIT_AS` or `RLIMIT_DATA` where no cgroup limits memory.
    pub(crate) memory_rlimit: Option<(i64, u64)>,
    /// Descriptors of `cgroup.procs` files that came with the order, after the channel and the logs.
    pub(crate) cgroups: usize,
    /// The identity to take on the host; none where there is only one.
    pub(crate) host_id: Option<u32>,
    pub(crate) landlock_abi: u32,
    /// Whether it may make TCP and UDP sockets; where they lead is decided outside.
    pub(crate) egress: bool,
    /// What it runs in place of the machine's interpreters.
    pub(crate) image: Option<ImageRoot>,
}

/// Collects steps and names their results.
#[derive(Default)]
struct Script {
    steps: Vec<Step>,
}

fn int(value: impl Into<i64>) -> Argument {
    Argument::Int(value.into())
}

fn text(value: impl AsRef<[u8]>) -> Argument {
    let mut bytes = value.as_ref().to_vec();
    bytes.push(0);
    Argument::Bytes(bytes)
}

impl Script {
    fn call(&mut self, name: &str, number: libc::c_long, arguments: Vec<Argument>) -> usize {
        self.steps.push(Step {
            name: name.to_owned(),
            number,
            arguments,
            optional: false,
            unless: None,
        });
        self.steps.len() - 1
    }

    fn optional(&mut self, name: &str, number: libc::c_long, arguments: Vec<Argument>) -> usize {
        let at = self.call(name, number, arguments);
        self.steps[at].optional = true;
        at
    }

    fn mount(&mut self, name: &str, what: [Argument; 3], flags: libc::c_ulong, options: Argument) -> usize {
        let [source, target, kind] = what;
        let flags = Argument::Int(i64::try_from(flags).expect("mount flags fit"));
        self.call(name, libc::SYS_mount, vec![source, target, kind, flags, options])
    }

    /// What `lower` shows, as a file system of this jail's own: locks and watches on its files are no other's, and it does not
    /// tell where they lie on the host. Not every kernel has it.
    fn overlay(&mut self, lower: &str, target: &str) -> usize {
        let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV;
        let options = text(overlay_options(lower));
        let what = [text("overlay"), text(target), text("overlay")];
        let at = self.mount(&format!("overlay {target}"), what, flags, options);
        self.steps[at].optional = true;
        at
    }

    /// As [`Script::overlay`], of devices.
    fn device_overlay(&mut self, target: &str) -> usize {
        let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NOEXEC;
        let what = [text("overlay"), text(target), text("overlay")];
        let at = self.mount("overlay /dev", what, flags, text(overlay_options(DEVICE_LAYER)));
        self.steps[at].optional = true;
        at
    }

    /// `/proc` below `root`: read-only for whatever runs in the jail, so that nothing set through it is ever changed, whichever kernel and
    /// privileges there are. What is written before goes to the one below, whose handle is given.
    fn proc(&mut self, root: &str) -> usize {
        let path = format!("{root}/proc");
        let plain = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        let what = || [text("proc"), text(&path), text("proc")];
        self.mount("mount /proc", what(), plain, int(0));
        let flags = int(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC);
        let writable = self.call(
            "hold /proc",
            libc::SYS_openat,
            vec![int(libc::AT_FDCWD), text(&path), flags, int(0)],
        );
        self.mount("mount /proc read-only", what(), plain | libc::MS_RDONLY, int(0));
        writable
    }

    /// Below `/proc`, by a handle of it.
    fn write_proc(&mut self, name: &str, (proc, file): (usize, &str), content: &str) {
        let flags = int(libc::O_WRONLY | libc::O_CLOEXEC);
        let fd = self.call(
            &format!("open {name}"),
            libc::SYS_openat,
            vec![Argument::Out(proc), text(file), flags, int(0)],
        );
        let length = Argument::Int(i64::try_from(content.len()).expect("a short text"));
        self.call(name, libc::SYS_write, vec![Argument::Out(fd), text(content), length]);
        self.call(&format!("close {name}"), libc::SYS_close, vec![Argument::Out(fd)]);
    }

    fn limit(&mut self, name: &str, resource: impl Into<i64>, value: u64) {
        let pair = [value.to_ne_bytes(), value.to_ne_bytes()].concat();
        self.call(
            name,
            libc::SYS_prlimit64,
            vec![int(0), int(resource), Argument::Bytes(pair), int(0)],
        );
    }

    fn prctl(&mut self, name: &str, option: i32, arguments: [Argument; 4]) {
        let mut all = vec![int(option)];
        all.extend(arguments);
        self.call(name, libc::SYS_prctl, all);
    }
}

/// A read-only overlay needs two layers; the second has nothing.
fn overlay_options(lower: &str) -> String {
    format!("lowerdir={lower}:{EMPTY_LAYER}")
}

/// The steps of a jail, in the order that keeps each wall standing: descriptors and cgroups, mounts, limits, identity, filters.
pub(crate) fn steps(jail: &Jail) -> Vec<Step> {
    let mut script = Script::default();
    descriptors(&mut script, jail);
    let proc = match &jail.image {
        Some(image) => image::mounts(&mut script, jail, image),
        None => mounts(&mut script, jail),
    };
    limits(&mut script, jail);
    identity(&mut script, jail, proc);
    // After the user namespace: the number then counts this jail alone.
    script.limit("limit processes", libc::RLIMIT_NPROC, jail.tasks_max);
    // A limit from before would be one of all jails together.
    script.limit("limit timers and signals", libc::RLIMIT_SIGPENDING, SIGNALS_MAX);
    filters(&mut script, jail);
    script.steps
}

fn descriptors(script: &mut Script, jail: &Jail) {
    for cgroup in 0..jail.cgroups {
        script.call(
            "enter a cgroup",
            libc::SYS_write,
            vec![Argument::Fd(2 + cgroup), text("0"), int(1)],
        );
    }
    script.call(
        "control group namespace",
        libc::SYS_unshare,
        vec![int(libc::CLONE_NEWCGROUP)],
    );
    let no_signals = Argument::Bytes(vec![0; 8]);
    script.call(
        "unblock signals",
        libc::SYS_rt_sigprocmask,
        vec![int(libc::SIG_SETMASK), no_signals, int(0), int(8)],
    );
    for (from, to) in [(1, 1), (1, 2), (0, CHANNEL_FD)] {
        script.call(
            "place a descriptor",
            libc::SYS_dup3,
            vec![Argument::Fd(from), int(to), int(0)],
        );
    }
    script.call(
        "close descriptors",
        libc::SYS_close_range,
        vec![int(CHANNEL_FD + 1), int(u32::MAX), int(0)],
    );
    script.call("new session", libc::SYS_setsid, vec![]);
}

fn scratch_options(jail: &Jail) -> String {
    let inodes = (jail.disk_bytes / SCRATCH_BYTES_PER_INODE).max(SCRATCH_INODES_MIN);
    format!("size={},nr_inodes={inodes}", jail.disk_bytes.max(4096))
}

/// Gives the handle of the `/proc` that can be written.
fn mounts(script: &mut Script, jail: &Jail) -> usize {
    let plain = libc::MS_NOSUID | libc::MS_NODEV;
    let options = format!("{},mode=1777", scratch_options(jail));
    script.mount(
        "mount /tmp",
        [text("tmpfs"), text("/tmp"), text("tmpfs")],
        plain,
        text(options),
    );
    // Before the host's root goes: a fresh proc is refused where no full one is in sight.
    let proc = script.proc("");
    // Before what covers `/proc` is taken from there: nothing that jails can lock is another jail's.
    for shared in ["/usr", "/runner", "/etc"] {
        script.overlay(shared, shared);
    }
    script.device_overlay("/dev");
    hide(script, "");
    script.write_proc(
        "go first where memory runs out",
        (proc, "self/oom_score_adj"),
        OOM_SCORE_ADJ,
    );
    if let Some(bundle) = &jail.bundle {
        bind_bundle(script, bundle);
    }
    script.call(
        "let go of the host's root",
        libc::SYS_umount2,
        vec![text(HOST_ROOT), int(libc::MNT_DETACH)],
    );
    script.call("enter the bundle", libc::SYS_chdir, vec![text(FUNCTION)]);
    script.call("name the host", libc::SYS_sethostname, vec![text("function"), int(8)]);
    proc
}

/// Covers what `/proc` below `root` tells of the machine and of everybody on it.
fn hide(script: &mut Script, root: &str) {
    for (path, is_directory) in told_of_the_machine() {
        let cover = if *is_directory { EMPTY_DIRECTORY } else { EMPTY_FILE };
        cover_with(script, cover, &format!("{root}{path}"));
    }
    for name in INVENTED {
        cover_with(script, &format!("{TOLD}/{name}"), &format!("{root}/proc/{name}"));
    }
}

/// What this kernel has in `/proc` that anybody could read, that is of the machine and not of the sandbox, and whether it is a directory.
/// Without what is covered with [`invented`](crate::walls::invented) figures.
pub fn told_of_the_machine() -> &'static [(String, bool)] {
    static TOLD_HERE: OnceLock<Vec<(String, bool)>> = OnceLock::new();
    TOLD_HERE.get_or_init(|| {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut told: Vec<(String, bool)> = entries.filter_map(|entry| covered(&entry)).collect();
        told.sort();
        told
    })
}

fn covered(entry: &fs::DirEntry) -> Option<(String, bool)> {
    const READABLE_BY_ALL: u32 = 0o004;
    let name = entry.file_name().into_string().ok()?;
    let is_process = name.bytes().all(|byte| byte.is_ascii_digit());
    if is_process || SHOWN.contains(&name.as_str()) || INVENTED.contains(&name.as_str()) {
        return None;
    }
    let metadata = entry.metadata().ok().filter(|found| !found.is_symlink())?;
    let is_readable = metadata.permissions().mode() & READABLE_BY_ALL != 0;
    is_readable.then(|| (format!("/proc/{name}"), metadata.is_dir()))
}

fn cover_with(script: &mut Script, cover: &str, path: &str) {
    let flags = Argument::Int(i64::try_from(libc::MS_BIND).expect("mount flags fit"));
    let arguments = vec![text(cover), text(path), int(0), flags, int(0)];
    script.optional("hide a part of /proc", libc::SYS_mount, arguments);
}

fn bind_bundle(script: &mut Script, bundle: &[u8]) {
    let source = [HOST_ROOT.as_bytes(), bundle].concat();
    script.call("go to the bundle", libc::SYS_chdir, vec![text(&source)]);
    let overlaid = script.overlay(".", FUNCTION);
    let bound = script.mount(
        "bind the bundle",
        [text(source), text(FUNCTION), int(0)],
        libc::MS_BIND,
        int(0),
    );
    let sealed = script.call(
        "make the bundle read-only",
        libc::SYS_mount_setattr,
        vec![
            int(libc::AT_FDCWD),
            text(FUNCTION),
            int(0),
            Argument::Bytes(read_only_attributes()),
            int(32),
        ],
    );
    for step in [bound, sealed] {
        script.steps[step].unless = Some(overlaid);
    }
}

/// `struct mount_attr` that sets read-only, nosuid and nodev.
pub(crate) fn read_only_attributes() -> Vec<u8> {
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let mut attributes = set.to_ne_bytes().to_vec();
    attributes.resize(32, 0);
    attributes
}

fn limits(script: &mut Script, jail: &Jail) {
    script.limit("limit core files", libc::RLIMIT_CORE, 0);
    script.limit("limit open files", libc::RLIMIT_NOFILE, OPEN_FILES_MAX);
    if let Some((resource, bytes)) = jail.memory_rlimit {
        script.limit("limit memory", resource, bytes);
    }
}

/// Becomes nobody on the host, then enters a user namespace of its own and lays down every capability in it.
fn identity(script: &mut Script, jail: &Jail, proc: usize) {
    let host = i64::from(jail.host_id.unwrap_or(0));
    if jail.host_id.is_some() {
        script.call("drop groups", libc::SYS_setgroups, vec![int(0), int(0)]);
        script.call("change group", libc::SYS_setresgid, vec![int(host); 3]);
        script.call("change user", libc::SYS_setresuid, vec![int(host); 3]);
    }
    let zero = || [int(0), int(0), int(0)];
    let dumpable = |script: &mut Script| {
        let [a, b, c] = zero();
        script.prctl("own /proc/self", libc::PR_SET_DUMPABLE, [int(1), a, b, c]);
    };
    dumpable(script);
    script.call("user namespace", libc::SYS_unshare, vec![int(libc::CLONE_NEWUSER)]);
    dumpable(script);
    script.write_proc("deny setgroups", (proc, "self/setgroups"), "deny");
    let (user, group) = jail.image.as_ref().map_or((INSIDE_ID, INSIDE_ID), |image| image.user);
    script.write_proc("map user", (proc, "self/uid_map"), &format!("{user} {host} 1"));
    script.write_proc("map group", (proc, "self/gid_map"), &format!("{group} {host} 1"));
    for (name, most) in COUNTED {
        let from = script.steps.len();
        script.write_proc(
            "limit what is counted by user",
            (proc, &format!("sys/user/{name}")),
            most,
        );
        // Not every kernel has it.
        script.steps[from..].iter_mut().for_each(|step| step.optional = true);
    }
    script.call("let go of /proc", libc::SYS_close, vec![Argument::Out(proc)]);
    // SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP and their locks, SECBIT_NO_CAP_AMBIENT_RAISE and its lock.
    let [a, b, c] = zero();
    script.prctl("lock securebits", libc::PR_SET_SECUREBITS, [int(0xef & !0x30), a, b, c]);
    let header = [0x2008_0522u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat();
    let none = Argument::Bytes(vec![0; 24]);
    script.call(
        "drop capabilities",
        libc::SYS_capset,
        vec![Argument::Bytes(header), none],
    );
    let [a, b, c] = zero();
    script.prctl("no new privileges", libc::PR_SET_NO_NEW_PRIVS, [int(1), a, b, c]);
}

fn filters(script: &mut Script, jail: &Jail) {
    let (network, rules) = match &jail.image {
        Some(_) => (landlock::Network::Open, landlock::rules_of_images(jail.landlock_abi)),
        None if jail.egress => (landlock::Network::Connects, landlock::rules(jail.landlock_abi)),
        None => (landlock::Network::None, landlock::rules(jail.landlock_abi)),
    };
    if let Some(ruleset) = landlock::ruleset(jail.landlock_abi, network) {
        let length = Argument::Int(i64::try_from(ruleset.len()).expect("at most 24"));
        let made = script.call(
            "landlock",
            libc::SYS_landlock_create_ruleset,
            vec![Argument::Bytes(ruleset), length, int(0)],
        );
        for (path, rights) in rules {
            let flags = int(libc::O_PATH | libc::O_CLOEXEC);
            let opened = script.call(
                "open for landlock",
                libc::SYS_openat,
                vec![int(libc::AT_FDCWD), text(path), flags, int(0)],
            );
            script.call(
                "place for landlock",
                libc::SYS_dup3,
                vec![Argument::Out(opened), int(SCRATCH_FD), int(libc::O_CLOEXEC)],
            );
            let rule = [&rights.to_ne_bytes()[..], &(SCRATCH_FD as i32).to_ne_bytes()].concat();
            script.call(
                "landlock rule",
                libc::SYS_landlock_add_rule,
                vec![Argument::Out(made), int(1), Argument::Bytes(rule), int(0)],
            );
        }
        script.call(
            "enter landlock",
            libc::SYS_landlock_restrict_self,
            vec![Argument::Out(made), int(0)],
        );
        script.optional(
            "close what landlock opened",
            libc::SYS_close_range,
            vec![int(CHANNEL_FD + 1), int(u32::MAX), int(0)],
        );
    }
    for (name, filter) in seccomp::filters(jail.egress || jail.image.is_some()) {
        script.prctl(
            name,
            libc::PR_SET_SECCOMP,
            [int(libc::SECCOMP_MODE_FILTER), Argument::Filter(filter), int(0), int(0)],
        );
    }
}

mod base64_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(D::Error::custom)
    }
}
