//! What a container is to be, as an OCI runtime reads it (`config.json`, version 1.0.2 of the runtime specification).

use std::path::{Path, PathBuf};

use piecework_sandbox_jail::walls::{INVENTED, told_of_the_machine};
use serde_json::{Value, json};

use crate::seccomp;

/// Where the program's bundle lies inside.
pub(crate) const FUNCTION: &str = "/function";
/// No function needs more open files; each costs kernel memory.
const OPEN_FILES_MAX: u64 = 1024;
/// Files and directories below /tmp, as the jail bounds them.
const SCRATCH_BYTES_PER_INODE: u64 = 16 << 10;
const SCRATCH_INODES_MIN: u64 = 4096;
/// Of the scratch space, for what programs share between their own processes.
const SHM_PART: u64 = 4;
/// The kernel ends guests before anything else where memory runs out.
const OOM_SCORE_ADJ: i32 = 1000;
/// Where the root has figures that say nothing of the machine.
pub(crate) const TOLD: &str = "/etc/empty";
/// Moves a channel that came as standard input and output to descriptors 3 and 4, for runtimes that pass no others.
const MOVE_CHANNEL: &str = r#"exec "$@" 3<&0 4>&1 </dev/null >&2"#;

/// How a runtime takes its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Whether it passes descriptors 3 and 4; else the channel is standard input and output.
    pub(crate) passes_descriptors: bool,
    /// Whether its containers run on the host's kernel.
    pub(crate) is_host_kernel: bool,
}

/// One container.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) manner: Manner,
    pub(crate) root: Root,
    /// Where there are figures that say nothing of the machine.
    pub(crate) figures: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) disk_bytes: u64,
    /// `RLIMIT_NPROC`: processes and threads.
    pub(crate) tasks_max: u64,
    /// Where a runtime that wants one makes its control group.
    pub(crate) cgroup: Option<String>,
}

/// The root file system of a container, and the user that runs in it.
#[derive(Clone, Debug)]
pub(crate) enum Root {
    /// A directory of the keeper's, read-only.
    Shared {
        path: PathBuf,
        /// Directories of the host that are seen at the same place, read-only.
        seen: Vec<PathBuf>,
        bundle: PathBuf,
        /// Inside, and on the host where that is one kernel: nobody else's.
        identity: u32,
    },
    /// An image's layers, with a writable one.
    Image {
        path: PathBuf,
        /// Inside.
        user: (u32, u32),
        /// On the host, where that is one kernel: of the user, and of a root that has no process once the container stands.
        identities: Option<(u32, u32)>,
    },
}

impl Root {
    fn path(&self) -> &Path {
        match self {
            Self::Shared { path, .. } | Self::Image { path, .. } => path,
        }
    }

    fn user(&self) -> (u32, u32) {
        match self {
            Self::Shared { identity, .. } => (*identity, *identity),
            Self::Image { user, .. } => *user,
        }
    }

    fn is_image(&self) -> bool {
        match self {
            Self::Shared { .. } => false,
            Self::Image { .. } => true,
        }
    }

    /// Where the first process begins: a runner finds the rest of its way itself.
    fn directory(&self) -> &str {
        if self.is_image() { "/" } else { FUNCTION }
    }
}

/// One user of the image is one of the host's, and whoever is root there until the container stands is another.
fn mapping(inside: u32, (user, root): (u32, u32)) -> Value {
    let one = |inside: u32, outside: u32| json!({"containerID": inside, "hostID": outside, "size": 1});
    match inside {
        0 => json!([one(0, user)]),
        _ => json!([one(0, root), one(inside, user)]),
    }
}

/// Bytes and inodes as options of a tmpfs.
pub(crate) fn scratch_size(disk_bytes: u64) -> String {
    let inodes = (disk_bytes / SCRATCH_BYTES_PER_INODE).max(SCRATCH_INODES_MIN);
    format!("size={},nr_inodes={inodes}", disk_bytes.max(4096))
}

pub(crate) fn shm_bytes(disk_bytes: u64) -> u64 {
    disk_bytes / SHM_PART
}

/// The arguments of the first process: the interpreter, where its channel is already in place, or behind a shell that moves it.
/// An image's runner takes either.
fn command(shape: &Shape) -> Vec<String> {
    let mut all: Vec<String> = match (shape.manner.passes_descriptors, shape.root.is_image()) {
        (true, _) | (_, true) => Vec::new(),
        (false, false) => ["/bin/sh", "-c", MOVE_CHANNEL, "sh"].map(str::to_owned).to_vec(),
    };
    all.extend_from_slice(&shape.arguments);
    if shape.root.is_image() {
        let channel = if shape.manner.passes_descriptors {
            "3,4"
        } else {
            "stdio"
        };
        all.push(channel.to_owned());
    }
    all
}

pub(crate) fn config(shape: &Shape) -> Value {
    let none: [&str; 0] = [];
    let limit = |kind: &str, value: u64| json!({"type": kind, "soft": value, "hard": value});
    let namespaces = ["pid", "mount", "network", "ipc", "uts", "cgroup"];
    let mut namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    let user = shape.root.user();
    let identities = match &shape.root {
        Root::Image { identities, .. } => *identities,
        Root::Shared { .. } => None,
    };
    if identities.is_some() {
        namespaces.push(json!({"type": "user"}));
    }
    let mut linux = json!({
        "namespaces": namespaces,
        "maskedPaths": masked(shape.manner),
        "readonlyPaths": ["/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"],
        "seccomp": seccomp::profile(shape.manner.is_host_kernel, shape.root.is_image()),
    });
    if let Some(identities) = identities {
        linux["uidMappings"] = mapping(user.0, identities);
        linux["gidMappings"] = mapping(user.1, identities);
    }
    if let Some(cgroup) = &shape.cgroup {
        linux["cgroupsPath"] = json!(cgroup);
    }
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": shape.root.path(), "readonly": !shape.root.is_image()},
        "hostname": "function",
        "process": {
            "terminal": false,
            "user": {"uid": user.0, "gid": user.1},
            "cwd": shape.root.directory(),
            "args": command(shape),
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            "noNewPrivileges": true,
            "oomScoreAdj": OOM_SCORE_ADJ,
            "capabilities": {
                "bounding": none, "effective": none, "permitted": none, "inheritable": none, "ambient": none,
            },
            "rlimits": [
                limit("RLIMIT_CORE", 0),
                limit("RLIMIT_NOFILE", OPEN_FILES_MAX),
                limit("RLIMIT_NPROC", shape.tasks_max),
            ],
        },
        "mounts": mounts(shape),
        "linux": linux,
    })
}

fn mounts(shape: &Shape) -> Vec<Value> {
    let mount = |target: &Path, kind: &str, source: &Path, options: &[&str]| json!({"destination": target, "type": kind, "source": source, "options": options});
    let tmpfs = |target: &str, options: &str| {
        let options: Vec<&str> = options.split(',').collect();
        mount(Path::new(target), "tmpfs", Path::new("tmpfs"), &options)
    };
    // What is mounted below is read-only too; gVisor knows no word for that.
    let read_only = if shape.manner.is_host_kernel { "rro" } else { "ro" };
    let bind = |source: &Path, target: &Path| mount(target, "bind", source, &["rbind", read_only, "nosuid", "nodev"]);
    let scratch = scratch_size(shape.disk_bytes);
    let mut all = vec![
        mount(
            Path::new("/proc"),
            "proc",
            Path::new("proc"),
            &["nosuid", "noexec", "nodev"],
        ),
        tmpfs("/dev", "nosuid,noexec,mode=755,size=65536"),
        tmpfs(
            "/dev/shm",
            &format!(
                "nosuid,nodev,noexec,mode=1777,{}",
                scratch_size(shm_bytes(shape.disk_bytes))
            ),
        ),
    ];
    // gVisor has a `/tmp` without a limit wherever an image's is empty.
    if !(shape.root.is_image() && shape.manner.is_host_kernel) {
        all.push(tmpfs("/tmp", &format!("nosuid,nodev,mode=1777,{scratch}")));
    }
    if let Root::Shared { seen, bundle, .. } = &shape.root {
        all.extend(seen.iter().map(|directory| bind(directory, directory)));
        all.push(bind(bundle, Path::new(FUNCTION)));
    }
    if shape.manner.is_host_kernel {
        all.extend(INVENTED.map(|name| {
            let figures = shape.figures.join(name);
            // Of a file: crun takes `rro` for directories only.
            let target = Path::new("/proc").join(name);
            mount(&target, "bind", &figures, &["bind", "ro", "nosuid", "nodev"])
        }));
    } else {
        // Its kernel is one of its own; what it would tell there is not asked for.
        all.push(tmpfs("/sys", "nosuid,nodev,noexec,mode=755,size=4096"));
    }
    all
}

/// What `/proc` tells of the machine and of everybody on it.
fn masked(manner: Manner) -> Vec<String> {
    if !manner.is_host_kernel {
        return Vec::new();
    }
    let mut paths: Vec<String> = [
        "/proc/kcore",
        "/proc/keys",
        "/proc/kmsg",
        "/proc/timer_list",
        "/proc/sched_debug",
    ]
    .map(str::to_owned)
    .to_vec();
    paths.extend(told_of_the_machine().iter().map(|(path, _)| path.clone()));
    paths.sort();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(passes_descriptors: bool, is_host_kernel: bool) -> Shape {
        Shape {
            manner: Manner {
                passes_descriptors,
                is_host_kernel,
            },
            root: Root::Shared {
                path: "/stage/root".into(),
                seen: vec!["/usr".into(), "/opt/node".into()],
                bundle: "/bundles/one".into(),
                identity: 1_700_000_001,
            },
            figures: "/stage/root/etc/empty".into(),
            arguments: vec!["/usr/bin/python3".into(), "/runner/python.py".into()],
            disk_bytes: 8 << 20,
            tasks_max: 32,
            cgroup: None,
        }
    }

    #[test]
    fn a_container_has_no_power_no_network_and_nothing_to_write_but_its_scratch() {
        let config = config(&shape(true, true));
        assert_eq!(config["process"]["user"]["uid"], 1_700_000_001);
        assert_eq!(config["process"]["noNewPrivileges"], true);
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            assert_eq!(config["process"]["capabilities"][set], json!([]), "{set}");
        }
        assert_eq!(config["root"]["readonly"], true);
        let namespaces = config["linux"]["namespaces"].to_string();
        for kind in ["pid", "mount", "network", "ipc", "uts", "cgroup"] {
            assert!(namespaces.contains(kind), "{namespaces}");
        }
        for mount in config["mounts"].as_array().expect("a list") {
            let options = mount["options"].to_string();
            let (target, kind) = (mount["destination"].as_str(), mount["type"].as_str());
            assert!(options.contains("nosuid"), "{mount}");
            assert_eq!(
                kind == Some("bind"),
                options.contains("\"rro\"") || options.contains("\"ro\""),
                "{mount}"
            );
            assert!(
                kind != Some("tmpfs") || options.contains("size="),
                "{target:?} is not bounded"
            );
        }
    }

    #[test]
    fn a_runtime_that_passes_no_descriptors_gets_the_channel_as_standard_input_and_output() {
        let moved = config(&shape(false, false));
        let arguments = moved["process"]["args"].as_array().expect("a list");
        assert_eq!(arguments[0], "/bin/sh");
        assert_eq!(arguments[4], "/usr/bin/python3");
        let direct = config(&shape(true, true));
        assert_eq!(direct["process"]["args"][0], "/usr/bin/python3");
    }

    #[test]
    fn what_the_kernel_tells_of_the_machine_is_covered_where_it_is_the_hosts() {
        let own = config(&shape(true, true))["linux"]["maskedPaths"].to_string();
        assert!(own.contains("/proc/kcore") && own.contains("/proc/keys"), "{own}");
        assert_eq!(config(&shape(false, false))["linux"]["maskedPaths"], json!([]));
    }

    #[test]
    fn an_image_writes_into_its_own_root_as_one_user_who_is_nobody_on_the_host() {
        let of = |user, identities, is_host_kernel| {
            let image = Root::Image {
                path: "/stage/images/one/rootfs".into(),
                user,
                identities,
            };
            let shape = Shape {
                root: image,
                arguments: vec!["/.piecework/run".into()],
                ..shape(is_host_kernel, is_host_kernel)
            };
            config(&shape)
        };
        let as_root = of((0, 0), Some((1_700_000_001, 1_300_000_001)), true);
        assert_eq!(as_root["process"]["args"], json!(["/.piecework/run", "3,4"]));
        assert_eq!(
            (&as_root["root"]["readonly"], &as_root["process"]["cwd"]),
            (&json!(false), &json!("/"))
        );
        let mapped = json!([{"containerID": 0, "hostID": 1_700_000_001, "size": 1}]);
        assert_eq!(as_root["linux"]["uidMappings"], mapped);
        let as_web = of((33, 0), Some((1_700_000_001, 1_300_000_001)), true);
        assert_eq!(as_web["linux"]["uidMappings"][1]["containerID"], 33);
        assert_eq!(as_web["linux"]["uidMappings"][0]["hostID"], 1_300_000_001);
        assert_eq!(as_web["linux"]["gidMappings"], mapped);
        assert!(as_web["linux"]["namespaces"].to_string().contains("user"));
        let mounts = as_web["mounts"].to_string();
        assert!(
            !mounts.contains("/function") && !mounts.contains("\"/usr\""),
            "{mounts}"
        );
        let gvisor = of((33, 33), None, false);
        assert_eq!(gvisor["process"]["args"], json!(["/.piecework/run", "stdio"]));
        assert_eq!(
            (&gvisor["process"]["user"]["uid"], &gvisor["linux"]["uidMappings"]),
            (&json!(33), &Value::Null)
        );
        assert!(gvisor["mounts"].to_string().contains("\"/tmp\""));
    }
}
