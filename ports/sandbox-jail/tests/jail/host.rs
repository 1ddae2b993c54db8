//! What a jail sees of its machine, and what it shares with other jails of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use piecework_model::{AccountId, Digest, EgressList, JobId, Language, Limits};
use piecework_sandbox::{Backend, Call, EgressMeter, Finished, Instance, Outcome, Program};
use piecework_sandbox_jail::Jail;
use serde_json::{Value, json};

use crate::subject;

const LIMITS: Limits = Limits {
    timeout_ms: 20_000,
    ..Limits::DEFAULT
};

struct Function {
    instance: Box<dyn Instance>,
    _bundle: tempfile::TempDir,
}

impl Function {
    async fn new(jail: &Jail, source: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let bundle = tempfile::Builder::new().prefix("bundle-").tempdir().unwrap();
        std::fs::write(bundle.path().join("main.py"), source).unwrap();
        std::fs::set_permissions(bundle.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = Program {
            owner: AccountId([0; 20]),
            language: Language::Python,
            code: Digest::of(source.as_bytes()),
            directory: bundle.path().to_owned(),
            handler: None,
            image: None,
            env: BTreeMap::new(),
            limits: LIMITS,
            egress: EgressList::default(),
            function_name: "host".to_owned(),
            version: 1,
        };
        let instance = jail.load(Arc::new(program)).await.unwrap().start().await.unwrap();
        Self {
            instance,
            _bundle: bundle,
        }
    }

    async fn call(&mut self, event: Value) -> Finished {
        let call = Call {
            job: JobId::default(),
            event: serde_json::to_vec(&event).unwrap().into(),
            parameters: "null".into(),
            deadline_ms: 0,
            time_left: Duration::from_millis(LIMITS.timeout_ms.into()),
            stop: piecework_sandbox::CancellationToken::new(),
            egress: EgressMeter::default(),
            body: None,
            outlet: piecework_sandbox::Outlet::nowhere(),
        };
        self.instance.call(call).await
    }

    async fn output(&mut self, event: Value) -> Value {
        let finished = self.call(event).await;
        let Outcome::Returned(json) = &finished.outcome else {
            panic!("{:?}, logs {}", finished.outcome, finished.logs.text);
        };
        serde_json::from_slice(json).unwrap()
    }
}

/// What is read at each path, or why it is not.
const READ: &str = r#"
def handler(paths, context):
    said = {}
    for path in paths:
        try:
            with open(path) as file:
                said[path] = file.read(4096)
        except OSError as error:
            said[path] = None
    return said
"#;

/// Which files and directories of `/proc` tell anything, those of processes and of the jail's own namespaces left out.
const TELLING: &str = r#"
import os
def handler(path, context):
    if path:
        return open(path).read()
    telling = []
    for name in sorted(os.listdir('/proc')):
        if name.isdigit() or name in ('self', 'thread-self', 'mounts', 'net', 'sysvipc'):
            continue
        try:
            at = '/proc/' + name
            said = os.listdir(at) if os.path.isdir(at) else open(at, 'rb').read(100)
        except OSError:
            said = None
        if said:
            telling.append(name)
    return telling
"#;

/// Without control groups, or as another user, some tests have nothing to look at.
fn is_full() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

async fn tells_nothing(jail: &Jail) {
    let mut function = Function::new(jail, READ).await;
    let hidden = [
        "/proc/cmdline",
        "/proc/config.gz",
        "/proc/diskstats",
        "/proc/interrupts",
        "/proc/locks",
        "/proc/vmstat",
        "/proc/key-users",
        "/proc/sys/kernel/random/boot_id",
        "/proc/sys/fs/file-nr",
        "/proc/pressure/cpu",
    ];
    let said = function.output(json!(hidden)).await;
    for path in hidden {
        let text = said[path].as_str().unwrap_or_default();
        assert_eq!(text, "", "{path} tells {text:?}");
    }
    let said = function
        .output(json!(["/proc/self/cgroup", "/proc/meminfo", "/proc/loadavg"]))
        .await;
    let groups = said["/proc/self/cgroup"].as_str().expect("it is there");
    let own = std::process::id().to_string();
    assert!(!groups.contains(&own), "it tells the agent's process id: {groups}");
    let meminfo = said["/proc/meminfo"].as_str().expect("programs read it");
    assert!(meminfo.starts_with("MemTotal:        4194304 kB\n"), "{meminfo}");
    assert_eq!(said["/proc/loadavg"], "0.00 0.00 0.00 1/1 1\n");
    // Whatever else this kernel has there.
    let mut function = Function::new(jail, TELLING).await;
    let telling = function.output(json!(null)).await;
    let expected = json!([
        "cpuinfo",
        "filesystems",
        "loadavg",
        "meminfo",
        "stat",
        "uptime",
        "version"
    ]);
    assert_eq!(telling, expected, "these tell something");
    let said = function.output(json!("/proc/stat")).await;
    let figures = said.as_str().expect("programs read it");
    let processors = |text: &str| text.lines().filter(|line| line.starts_with("cpu")).count();
    let real = std::fs::read_to_string("/proc/stat").unwrap();
    assert_eq!(processors(figures), processors(&real), "{figures}");
    let numbers = figures.split(|letter: char| !letter.is_ascii_digit());
    assert!(
        numbers
            .filter_map(|number| number.parse::<u64>().ok())
            .all(|number| number < 1_000),
        "{figures}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_tells_nothing_of_the_machine() {
    tells_nothing(&subject::jail(false)).await;
    tells_nothing(&subject::jail(true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_go_first_where_memory_runs_out() {
    for rootless in [false, true] {
        let jail = subject::jail(rootless);
        let mut function = Function::new(&jail, READ).await;
        let said = function.output(json!(["/proc/self/oom_score_adj"])).await;
        assert_eq!(said["/proc/self/oom_score_adj"], "1000\n");
        let mut function = Function::new(&jail, STAYING).await;
        let said = function.output(json!(null)).await;
        // EROFS, which is told before Landlock is asked: it holds on kernels without it, and for images.
        assert_eq!(said, json!([[], ["EROFS"], "1000\n"]), "and stay so");
    }
}

const STAYING: &str = r#"
import errno, os

PATH = "/proc/self/oom_score_adj"

def handler(event, context):
    lowered, refused = [], set()
    for score in ["999", "500", "0", "-1000"]:
        try:
            os.write(os.open(PATH, os.O_WRONLY), score.encode())
            lowered.append(score)
        except OSError as error:
            refused.add(errno.errorcode[error.errno])
    return [lowered, sorted(refused), open(PATH).read()]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_jail_is_a_user_of_its_own() {
    if !is_full() {
        return eprintln!("SKIPPED: only root has identities to give");
    }
    let jail = subject::jail(false);
    let mut ids = Vec::new();
    let mut alive = Vec::new();
    for _ in 0..3 {
        let mut function = Function::new(&jail, READ).await;
        let said = function.output(json!(["/proc/self/uid_map"])).await;
        let map: Vec<u32> = said["/proc/self/uid_map"]
            .as_str()
            .expect("it is there")
            .split_whitespace()
            .map(|number| number.parse().expect("a number"))
            .collect();
        assert_eq!((map[0], map[2]), (1000, 1), "one identity");
        ids.push(map[1]);
        alive.push(function);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids.iter().all(|id| *id >= 1_900_000_000), "{ids:?}");
}

/// Takes all that the kernel gives, and keeps it.
const HOARD: &str = r#"
import ctypes

libc = ctypes.CDLL(None)

def handler(event, context):
    watches = timers = 0
    while watches < 2000 and libc.inotify_init1(0) >= 0:
        watches += 1
    timer = ctypes.c_void_p()
    while timers < 20000 and libc.timer_create(1, None, ctypes.byref(timer)) == 0:
        timers += 1
    return [watches, timers]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jail_that_hoards_what_is_counted_by_user_leaves_the_next_one_its_own() {
    for rootless in [false, true] {
        let jail = subject::jail(rootless);
        let mut alive = Vec::new();
        for _ in 0..2 {
            let mut function = Function::new(&jail, HOARD).await;
            let held = function.output(json!(null)).await;
            let [watches, timers] = [0, 1].map(|at| held[at].as_u64().unwrap_or(0));
            assert!((1..=16).contains(&watches) && (1..=1024).contains(&timers), "{held}");
            alive.push(function);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairs_of_sockets_are_filtered_as_sockets_are() {
    const PAIRS: &str = r#"
import ctypes, errno
def handler(event, context):
    libc = ctypes.CDLL(None, use_errno=True)
    pair = (ctypes.c_int * 2)()
    said = {}
    for name, family in (("unix", 1), ("inet", 2), ("netlink", 16), ("tipc", 30), ("vsock", 40)):
        made = libc.socketpair(family, 1, 0, pair)
        said[name] = "made" if made == 0 else errno.errorcode[ctypes.get_errno()]
    return said
"#;
    for rootless in [false, true] {
        let jail = subject::jail(rootless);
        let mut function = Function::new(&jail, PAIRS).await;
        let said = function.output(json!(null)).await;
        let expected = json!({"unix": "made", "inet": "EPERM", "netlink": "EPERM", "tipc": "EPERM", "vsock": "EPERM"});
        assert_eq!(said, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_reach_the_whole_machine_are_refused() {
    const CALLS: &str = r#"
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    made = libc.syscall(ctypes.c_long(number), *[ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments])
    return 'made' if made >= 0 else errno.errorcode[ctypes.get_errno()]
def handler(numbers, context):
    buffer, usr = ctypes.create_string_buffer(4096), os.open('/usr', os.O_RDONLY)
    request = (ctypes.c_uint64 * 3)(24, 2**64 - 1, 0)
    said = {
        'quotactl_fd': call(443, usr, 0x80000701, 0, buffer),
        'cachestat': call(451, usr, buffer, buffer, 0),
        'listmount': call(458, request, buffer, 100, 0),
        'statmount': call(457, request, buffer, 4096, 0),
        'sync': call(numbers['sync']),
        'syncfs': call(numbers['syncfs'], usr),
        'huge pages': call(numbers['mmap'], 0, 2 << 20, 3, 0x40022, 2**64 - 1, 0),
        'shared huge pages': call(numbers['shmget'], 0, 2 << 20, 0o5600),
        'other pages': call(numbers['mmap'], 0, 2 << 20, 3, 0x22, 2**64 - 1, 0),
    }
    return [name + ' ' + how for name, how in said.items() if how != 'EPERM']
"#;
    let numbers =
        json!({"sync": libc::SYS_sync, "syncfs": libc::SYS_syncfs, "mmap": libc::SYS_mmap, "shmget": libc::SYS_shmget});
    for rootless in [false, true] {
        let jail = subject::jail(rootless);
        let mut function = Function::new(&jail, CALLS).await;
        assert_eq!(function.output(numbers.clone()).await, json!(["other pages made"]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_all_jails_see_are_locked_and_found_by_each_for_itself() {
    const LOCKS: &str = r#"
import fcntl, os
held = []
def handler(path, context):
    held.append(os.open(path, os.O_RDONLY))
    try:
        fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return 'another has it'
    return 'locked'
"#;
    for rootless in [false, true] {
        let jail = subject::jail(rootless);
        let (mut first, mut second) = (Function::new(&jail, LOCKS).await, Function::new(&jail, LOCKS).await);
        // Without root nobody makes devices: there they are the machine's own.
        let devices = if rootless || !is_full() {
            &[][..]
        } else {
            &["/dev", "/dev/null", "/dev/urandom"]
        };
        let shared = [
            "/usr/bin/env",
            "/runner",
            "/etc",
            "/etc/passwd",
            "/etc/ld.so.cache",
            "/proc/meminfo",
            "/proc/sys",
        ];
        for path in shared.iter().chain(devices) {
            assert_eq!(first.output(json!(path)).await, "locked", "{path}");
            let next = second.output(json!(path)).await;
            assert_eq!(next, "locked", "another jail's lock of {path} is in its way");
        }
        let mut function = Function::new(&jail, READ).await;
        let said = function.output(json!(["/proc/self/mountinfo"])).await;
        let mounts = said["/proc/self/mountinfo"].as_str().expect("it is there");
        assert!(!mounts.contains("bundle-"), "it tells where the bundle lies: {mounts}");
    }
}

/// One jail after another in the same control group: the second is billed what it holds itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_billed_what_an_earlier_jail_read() {
    const READS: &str = r#"
import os
def handler(event, context):
    left = event
    for folder, _, names in os.walk('/usr/lib'):
        for name in names:
            if left <= 0:
                return left
            try:
                with open(os.path.join(folder, name), 'rb') as file:
                    left -= len(file.read(8 << 20))
            except OSError:
                pass
    return left
"#;
    let jail = subject::jail(false);
    let calm = Function::new(&jail, READ).await.call(json!([])).await.memory_peak_bytes;
    for _ in 0..3 {
        let mut reader = Function::new(&jail, READS).await;
        reader.call(json!(80 << 20)).await;
        drop(reader);
        // Its group is cleaned once it is empty.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let next = Function::new(&jail, READ).await.call(json!([])).await.memory_peak_bytes;
        assert!(
            next < calm + (8 << 20),
            "{next} bytes after another's reading, {calm} before"
        );
    }
}

/// Control groups of this process, which runs one test, in any hierarchy.
fn groups(below: &std::path::Path, depth: u32) -> Vec<std::path::PathBuf> {
    let name = format!("piecework-jail-{}-", std::process::id());
    let directories = std::fs::read_dir(below).into_iter().flatten().flatten();
    let directories = directories.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let found = directories.flat_map(|entry| match entry.file_name().to_string_lossy().starts_with(&name) {
        true => vec![entry.path()],
        false if depth > 0 => groups(&entry.path(), depth - 1),
        false => Vec::new(),
    });
    found.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_still_ends_with_its_backend_and_leaves_no_group() {
    if !is_full() {
        return eprintln!("SKIPPED: only root has control groups");
    }
    let place = std::path::Path::new("/sys/fs/cgroup");
    let jail = subject::jail(false);
    let mut function = Function::new(&jail, READ).await;
    function.output(json!([])).await;
    assert!(!groups(place, 4).is_empty(), "it is in some");
    jail.freeze(true);
    drop(jail);
    // The instance is held all the time, as by a pool that is dropped later. What is being made ahead holds the backend for a moment.
    let begun = std::time::Instant::now();
    while !(piecework_sandbox_jail::all_ended(Duration::from_millis(10)) && groups(place, 4).is_empty()) {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "left: {:?}",
            groups(place, 4)
        );
    }
    assert!(!function.instance.is_alive());
}
