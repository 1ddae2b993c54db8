//! The keeper: a small single-threaded process, first of a pid namespace, that runs OCI runtimes and reaps their containers.
//!
//! It is the same executable started again with [`KEEPER_ARGUMENT`]. Bundles, states and the shared root lie in a tmpfs of its own
//! mount namespace. When its socket closes it ends, the kernel ends every container with it, and nothing of them is left.
#![allow(unsafe_code)]

use std::{
    collections::HashMap,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            fs::{PermissionsExt as _, symlink},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    ptr,
};

use piecework_sandbox_jail::walls::{self, AUTHORITIES, CONTROL_FD, INVENTED, LINKS};
use serde::{Deserialize, Serialize};

use crate::{
    config::{FUNCTION, TOLD},
    image::{self, ImageRoot},
    runtime::{BUNDLES, IMAGES, PID, ROOT},
};

/// The first argument of an executable that is to become a keeper.
pub const KEEPER_ARGUMENT: &str = "__oci-keeper";
/// Descriptors that come with an order lie above those that a runtime gets.
const DESCRIPTORS_FIRST: RawFd = 100;
/// For some thousand containers; each takes some 20 KiB.
const STAGE_OPTIONS: &str = "mode=711,size=128m";
/// Of the place of images, where that is apart.
const PLACE_OPTIONS: &str = "mode=711,size=8m";
/// In place of `/runner/python.py`.
pub(crate) const COMPILED_RUNNER: &str = "/runner/python.pyc";
/// What a runtime may say why it failed.
const REASON_BYTES_MAX: usize = 2_000;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeeperOptions {
    /// An empty directory of the agent's, over which the keeper's tmpfs lies.
    pub(crate) stage: PathBuf,
    /// Directories of the host that containers see.
    pub(crate) seen: Vec<PathBuf>,
    /// Compiles the runner once, where there is Python: read from source, each start would.
    pub(crate) python: Option<PathBuf>,
}

/// What the agent asks. Descriptors: where the container reads, where it writes, where it prints, and files of control groups.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    Run {
        name: String,
        config: String,
        command: Vec<String>,
        passes_descriptors: bool,
        /// The root that is mounted for it, and taken away at its end.
        image: Option<ImageRoot>,
    },
}

/// Where the roots of images lie: in the stage, or in a directory that every system has, where the stage is open to its owner alone. In
/// a user namespace a runtime reaches its container's root as somebody who owns nothing.
pub(crate) fn image_place(stage: &Path) -> PathBuf {
    match stage.parent().is_some_and(image::is_open_to_all) {
        true => stage.join(IMAGES),
        false => PathBuf::from("/dev/shm"),
    }
}
/// In it, the layer that lies over every image, and figures that say nothing of the machine.
pub(crate) const TOP: &str = "top";
pub(crate) const FIGURES: &str = "figures";

/// What the keeper says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// Its first process runs; a handle of it comes along.
    Started {
        name: String,
    },
    Failed {
        name: String,
        reason: String,
    },
    /// Its first process ended: its exit code, or its signal as a negative number.
    Exited {
        name: String,
        status: i32,
    },
    /// The keeper itself cannot work.
    Broken {
        reason: String,
    },
    Ready,
}

/// Becomes the keeper. `arguments` are those after [`KEEPER_ARGUMENT`].
pub fn keeper_main(arguments: &[String]) -> ! {
    // SAFETY: the agent placed our end of the control socket there, and nothing else of this process uses it.
    let control = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    let result = walls::options(arguments).and_then(|options| become_keeper(&options, control.as_fd()));
    if let Err(error) = &result {
        let reason = error.to_string();
        tell(control.as_fd(), &Event::Broken { reason }, None);
    }
    std::process::exit(i32::from(result.is_err()))
}

fn become_keeper(options: &KeeperOptions, control: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: prctl with plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: this process has one thread; unshare takes flags only.
    named(
        "new namespaces",
        check(unsafe { libc::unshare(libc::CLONE_NEWPID | libc::CLONE_NEWNS) }),
    )?;
    // SAFETY: one thread, so the child may do anything.
    match named("fork", check(unsafe { libc::fork() }))? {
        0 => {
            // SAFETY: prctl with plain numbers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            named("the keeper's mounts", mounts(&options.stage))?;
            named("the root of containers", make_root(options))?;
            Keeper::new(options)?.serve(control)
        }
        child => wait_for(child),
    }
}

fn named<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// The outer half: outside the pid namespace, it only waits, and dies with the inner half.
fn wait_for(child: i32) -> io::Result<()> {
    // SAFETY: closes our copy of the control socket, so that the agent's end sees the inner half's death; nobody uses it after.
    unsafe { libc::close(CONTROL_FD) };
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    check(unsafe { libc::waitpid(child, &mut status, 0) })?;
    std::process::exit(0)
}

fn mounts(stage: &Path) -> io::Result<()> {
    // The host's later mounts are seen here, ours nowhere else.
    mount("none", Path::new("/"), None, libc::MS_REC | libc::MS_SLAVE, None)?;
    let plain = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount("proc", Path::new("/proc"), Some("proc"), plain, None)?;
    let place = image_place(stage);
    mount("tmpfs", stage, Some("tmpfs"), libc::MS_NOSUID, Some(STAGE_OPTIONS))?;
    match place.starts_with(stage) {
        true => fs::create_dir(&place)?,
        false => mount("tmpfs", &place, Some("tmpfs"), libc::MS_NOSUID, Some(PLACE_OPTIONS))?,
    }
    make_place(&place)?;
    // Runtimes refuse to work where both versions of control groups are mounted, or run nothing without a word. Limits are set
    // outside; what is left here is what runc insists on.
    for mounted in mounted_below("/sys/fs/cgroup/")? {
        let keeps = ["devices", "systemd"].iter().any(|name| mounted.ends_with(name));
        if !keeps {
            unmount(Path::new(&mounted))?;
        }
    }
    Ok(())
}

fn make_place(place: &Path) -> io::Result<()> {
    fs::set_permissions(place, fs::Permissions::from_mode(0o711))?;
    image::make_top(&place.join(TOP))?;
    let figures = place.join(FIGURES);
    fs::create_dir(&figures)?;
    for name in INVENTED {
        fs::write(figures.join(name), walls::invented(name))?;
    }
    open_to_all(&figures)
}

fn mounted_below(prefix: &str) -> io::Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let mut found: Vec<String> = points
        .filter(|point| point.starts_with(prefix))
        .map(str::to_owned)
        .collect();
    // The innermost first.
    found.sort_by_key(|point| std::cmp::Reverse(point.len()));
    Ok(found)
}

fn c(path: impl Into<Vec<u8>>) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(path).map_err(io::Error::other)
}

fn mount(
    source: &str,
    target: &Path,
    kind: Option<&str>,
    flags: libc::c_ulong,
    options: Option<&str>,
) -> io::Result<()> {
    let (from, to) = (c(source)?, c(target.as_os_str().as_encoded_bytes())?);
    let (kind, options) = (kind.map(c).transpose()?, options.map(c).transpose()?);
    let pointer = |text: &Option<std::ffi::CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
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
    named(&format!("mounting {}", target.display()), check(result)).map(drop)
}

fn unmount(target: &Path) -> io::Result<()> {
    let path = c(target.as_os_str().as_encoded_bytes())?;
    // SAFETY: a NUL-terminated path.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// The root that containers share, read-only: places to mount at, the runners, a few files of `/etc`.
fn make_root(options: &KeeperOptions) -> io::Result<()> {
    let root = options.stage.join(ROOT);
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    for directory in ["/proc", "/dev", "/sys", "/tmp", "/etc", FUNCTION, TOLD] {
        fs::create_dir_all(inside(Path::new(directory)))?;
    }
    for seen in &options.seen {
        fs::create_dir_all(inside(seen))?;
    }
    for (path, content) in root_files() {
        let path = inside(&path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)?;
    }
    for link in LINKS.map(|link| Path::new("/").join(link)) {
        if let Ok(target) = fs::read_link(&link) {
            symlink(target, inside(&link))?;
        }
    }
    if let Some(python) = &options.python {
        compile(python, &root)?;
    }
    open_to_all(&root)?;
    fs::create_dir_all(options.stage.join(BUNDLES))
}

/// The runner becomes [`COMPILED_RUNNER`], and what it imports has its bytecode beside it.
fn compile(python: &Path, root: &Path) -> io::Result<()> {
    const COMPILE: &str = "import glob, py_compile, sys; root = sys.argv[1]\nfor path in glob.glob(root + '/runner/contracts/*.py') + [root + '/runner/warm.py']: py_compile.compile(path, dfile=path[len(root):], doraise=True)\npy_compile.compile(root + '/runner/python.py', cfile=root + sys.argv[2], dfile='/runner/python.py', doraise=True)";
    let mut command = Command::new(python);
    command.args(["-I", "-S", "-c", COMPILE]).arg(root).arg(COMPILED_RUNNER);
    let compiled = command.env_clear().stdin(Stdio::null()).output()?;
    match compiled.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "compiling the runner: {}",
            String::from_utf8_lossy(&compiled.stderr).trim()
        ))),
    }
}

/// What the root has beside directories; for Docker's image too.
pub(crate) fn root_files() -> Vec<(PathBuf, Vec<u8>)> {
    let etc: [(&str, &str); 4] = [
        (
            "passwd",
            "root:x:0:0:root:/:/bin/sh\nfunction:x:1000:1000:function:/tmp:/bin/sh\n",
        ),
        ("group", "root:x:0:\nfunction:x:1000:\n"),
        ("hosts", "127.0.0.1 localhost\n"),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ];
    let mut files: Vec<(PathBuf, Vec<u8>)> = etc
        .into_iter()
        .map(|(name, content)| (Path::new("/etc").join(name), content.as_bytes().to_vec()))
        .collect();
    files.extend(INVENTED.map(|name| (Path::new(TOLD).join(name), walls::invented(name).into_bytes())));
    for copied in AUTHORITIES.into_iter().chain(["/etc/ld.so.cache"]).map(Path::new) {
        if let Ok(content) = fs::read(copied) {
            files.push((copied.to_owned(), content));
        }
    }
    files.extend(walls::runners());
    files
}

/// Whatever the mask of the agent was.
fn open_to_all(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            open_to_all(&entry.path())?;
        } else if kind.is_file() {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

/// What is known of running runtimes and containers, by their numbers in this pid namespace.
struct Keeper {
    bundles: PathBuf,
    images: PathBuf,
    starting: HashMap<i32, String>,
    running: HashMap<i32, String>,
    /// Containers that ended before their runtime said that they began.
    early: HashMap<i32, i32>,
}

impl Keeper {
    fn new(options: &KeeperOptions) -> io::Result<Self> {
        Ok(Self {
            bundles: options.stage.join(BUNDLES),
            // As it was found before the stage was covered.
            images: image_place(&options.stage),
            starting: HashMap::new(),
            running: HashMap::new(),
            early: HashMap::new(),
        })
    }

    fn serve(mut self, control: BorrowedFd<'_>) -> io::Result<()> {
        let deaths = death_signals()?;
        tell(control, &Event::Ready, None);
        loop {
            let mut polled = [control.as_raw_fd(), deaths.as_raw_fd()].map(|fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            });
            // SAFETY: an array of two.
            if unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) } < 0 {
                continue;
            }
            if polled[1].revents != 0 {
                self.reap(&deaths, control);
            }
            if polled[0].revents != 0 {
                let (packet, fds) = walls::receive(control)?;
                if packet.is_empty() {
                    return Ok(());
                }
                self.answer(control, &packet, &fds);
            }
        }
    }

    fn answer(&mut self, control: BorrowedFd<'_>, packet: &[u8], fds: &[OwnedFd]) {
        let order: Order = match serde_json::from_slice(packet) {
            Ok(order) => order,
            Err(error) => {
                let reason = error.to_string();
                return tell(control, &Event::Broken { reason }, None);
            }
        };
        let Order::Run {
            name,
            config,
            command,
            passes_descriptors,
            image,
        } = order;
        if let Some(root) = &image
            && let Err(error) = image::mount(root, &self.images.join(TOP), &self.images.join(&name))
        {
            return self.fail(control, name, error.to_string());
        }
        match self.begin(&name, &config, &command, (fds, passes_descriptors)) {
            Ok(pid) => {
                self.starting.insert(pid, name);
            }
            Err(error) => self.fail(control, name, error.to_string()),
        }
    }

    fn begin(
        &self,
        name: &str,
        config: &str,
        command: &[String],
        (fds, passes_descriptors): (&[OwnedFd], bool),
    ) -> io::Result<i32> {
        let bundle = self.bundles.join(name);
        fs::create_dir(&bundle)?;
        fs::write(bundle.join("config.json"), config)?;
        let [reads, writes, prints, groups @ ..] = fds else {
            return Err(io::Error::other("descriptors are missing"));
        };
        let high = |fd: &OwnedFd| high(fd);
        let (reads, writes, prints) = (high(reads)?, high(writes)?, high(prints)?);
        let groups = groups.iter().map(high).collect::<io::Result<Vec<_>>>()?;
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| io::Error::other("the command is missing"))?;
        let mut runtime = Command::new(program);
        runtime
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        runtime.current_dir(&bundle);
        match passes_descriptors {
            true => runtime.stdin(Stdio::null()).stdout(prints.try_clone()?),
            false => runtime.stdin(reads.try_clone()?).stdout(writes.try_clone()?),
        };
        runtime.stderr(prints);
        // SAFETY: between fork and exec only async-signal-safe calls run: write, dup2 and sigprocmask on descriptors that are open.
        unsafe {
            runtime.pre_exec(move || {
                for group in &groups {
                    check(libc::write(group.as_raw_fd(), c"0".as_ptr().cast(), 1) as libc::c_int)?;
                }
                if passes_descriptors {
                    check(libc::dup2(reads.as_raw_fd(), 3))?;
                    check(libc::dup2(writes.as_raw_fd(), 4))?;
                }
                let mut none: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&mut none);
                check(libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut()))?;
                check(libc::setsid()).map(drop)
            });
        }
        // Reaped with all others.
        let child = runtime.spawn()?;
        i32::try_from(child.id()).map_err(io::Error::other)
    }

    fn reap(&mut self, deaths: &OwnedFd, control: BorrowedFd<'_>) {
        let mut drained = [0u8; 1024];
        // SAFETY: a buffer of the length that is said; what was read does not matter, the zombies tell.
        unsafe { libc::read(deaths.as_raw_fd(), drained.as_mut_ptr().cast(), drained.len()) };
        loop {
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::__WALL) };
            if pid <= 0 {
                break;
            }
            let status = match libc::WIFSIGNALED(status) {
                true => -libc::WTERMSIG(status),
                false => libc::WEXITSTATUS(status),
            };
            self.ended(pid, status, control);
        }
        if self.starting.is_empty() {
            // What is left are processes that containers left behind.
            self.early.clear();
        }
    }

    fn ended(&mut self, pid: i32, status: i32, control: BorrowedFd<'_>) {
        if let Some(name) = self.starting.remove(&pid) {
            return match status {
                0 => self.started(control, name),
                status => self.fail(control, name, format!("the runtime ended with {status}")),
            };
        }
        match self.running.remove(&pid) {
            Some(name) => self.exited(control, name, status),
            None => {
                self.early.insert(pid, status);
            }
        }
    }

    fn started(&mut self, control: BorrowedFd<'_>, name: String) {
        let told = fs::read_to_string(self.bundles.join(&name).join(PID)).unwrap_or_default();
        let Ok(pid) = told.trim().parse::<i32>() else {
            return self.fail(control, name, "the runtime reported no process".to_owned());
        };
        if let Some(status) = self.early.remove(&pid) {
            return self.exited(control, name, status);
        }
        match walls::handle(pid) {
            Some(handle) => {
                let event = Event::Started { name: name.clone() };
                self.running.insert(pid, name);
                tell(control, &event, Some(handle.as_fd()));
            }
            None => self.fail(control, name, "its first process is gone".to_owned()),
        }
    }

    fn exited(&mut self, control: BorrowedFd<'_>, name: String, status: i32) {
        self.clear(&name);
        tell(control, &Event::Exited { name, status }, None);
    }

    fn fail(&mut self, control: BorrowedFd<'_>, name: String, mut reason: String) {
        self.clear(&name);
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        tell(control, &Event::Failed { name, reason }, None);
    }

    fn clear(&self, name: &str) {
        image::unmount(&self.images.join(name));
        // Of a tmpfs that goes with this process: what could not be removed harms nobody.
        let _ = fs::remove_dir_all(self.bundles.join(name));
        for hierarchy in ["devices", "systemd"] {
            let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(hierarchy).join(name));
        }
    }
}

/// The same, above the descriptors that a runtime gets.
fn high(fd: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: a descriptor that is open and numbers; the new one is ours alone.
    unsafe {
        let fd = check(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, DESCRIPTORS_FIRST))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn death_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset; the descriptor that signalfd returns is ours alone.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut()))?;
        // Containers stop and go on between calls: that is no death.
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_flags = libc::SA_NOCLDSTOP;
        check(libc::sigaction(libc::SIGCHLD, &action, ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn tell(control: BorrowedFd<'_>, event: &Event, handle: Option<BorrowedFd<'_>>) {
    let bytes = serde_json::to_vec(event).expect("an event is JSON");
    // An agent that is gone shows in the next receive.
    let _ = walls::send(control, &bytes, handle.as_slice());
}
