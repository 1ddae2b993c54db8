//! The function of a probe: it runs inside and tells where it is. What is only installed proves nothing.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use piecework_model::{AccountId, Digest, EgressList, JobId, Language, Limits};
use serde::Deserialize;

use crate::{
    Backend, Call, CancellationToken, EgressMeter, Finished, Image, Instance, Outcome, Outlet, Program,
    runner::image_runner,
};

const LOOK_PY: &str = r#"import os
def link(name):
    try:
        return os.readlink("/proc/self/ns/" + name)
    except OSError:
        return ""
def refused():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc.syscall(250, 0, -3, 1) < 0 and libc.unshare(0x10000000) < 0
def handler(event, context):
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
    lines = open("/proc/net/dev").read().splitlines()[2:]
    kernel = os.uname()
    return {"pid": os.getpid(), "capabilities": status["CapEff"], "root": os.path.exists("/etc/shadow"),
            "interfaces": [line.split(":")[0].strip() for line in lines], "kernel": kernel.release + " " + kernel.version,
            "namespaces": [link(name) for name in ("pid", "mnt", "net", "ipc", "uts")],
            "no_new_privs": int(status.get("NoNewPrivs", "0")),
            "seccomp": int(status.get("Seccomp", "0")), "refused": refused() if kernel.machine == "x86_64" else True}
"#;
const LOOK_JS: &str = r#"import fs from 'node:fs';
import os from 'node:os';
const link = (name) => { try { return fs.readlinkSync('/proc/self/ns/' + name); } catch { return ''; } };
export default () => {
  const status = Object.fromEntries(fs.readFileSync('/proc/self/status', 'utf8').split('\n').map((line) => line.split(':\t')));
  const lines = fs.readFileSync('/proc/net/dev', 'utf8').trim().split('\n').slice(2);
  return {pid: process.pid, capabilities: status.CapEff, root: fs.existsSync('/etc/shadow'),
          interfaces: lines.map((line) => line.split(':')[0].trim()), kernel: os.release() + ' ' + os.version(),
          namespaces: ['pid', 'mnt', 'net', 'ipc', 'uts'].map(link), no_new_privs: +(status.NoNewPrivs ?? 0),
          seccomp: +(status.Seccomp ?? 0), refused: true};
};
"#;

/// Of the image that is tried: one layer of one program.
const LAYER: &str = "layer";
const PROGRAM: &str = "program";

/// What the function saw of its own sandbox.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    pub pid: i32,
    pub capabilities: String,
    /// Whether a root is there that is none of its own.
    pub root: bool,
    pub interfaces: Vec<String>,
    /// Release and version.
    pub kernel: String,
    /// Of processes, mounts, network, IPC and names.
    pub namespaces: Vec<String>,
    pub no_new_privs: u8,
    pub seccomp: u8,
    /// Whether a keyring and a user namespace were refused.
    pub refused: bool,
}

/// What came of a look.
#[derive(Clone, Debug)]
pub struct Look {
    pub seen: Seen,
    pub cold_us: u64,
    /// The median of some calls.
    pub warm_us: u64,
}

/// Starts the function in the backend, calls it `1 + warm_calls` times, and has each answer checked: a sentence fails the look. `scratch`
/// is where its bundle lies meanwhile.
pub async fn look(
    backend: &dyn Backend,
    language: Language,
    (scratch, warm_calls): (&Path, usize),
    missing_wall: impl Fn(&Seen) -> Option<&'static str> + Send + Sync,
) -> Result<Look, String> {
    let bundle = Bundle::new(language, scratch).map_err(|error| format!("no bundle could be written: {error}"))?;
    let loaded = backend.load(Arc::new(bundle.program())).await;
    let loaded = loaded.map_err(|error| error.to_string())?;
    // The first instance is the one that proved the code; the second one is made from nothing.
    drop(loaded.start().await.map_err(|error| error.to_string())?);
    let begun = Instant::now();
    let mut instance = loaded.start().await.map_err(|error| error.to_string())?;
    let seen = checked(&call(&mut *instance).await, &missing_wall)?;
    let cold = begun.elapsed();
    let mut warm = Vec::with_capacity(warm_calls);
    for _ in 0..warm_calls {
        let begun = Instant::now();
        checked(&call(&mut *instance).await, &missing_wall)?;
        warm.push(begun.elapsed());
    }
    warm.sort();
    Ok(Look {
        seen,
        cold_us: micros(cold),
        warm_us: warm.get(warm_calls / 2).copied().map_or(0, micros),
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

async fn call(instance: &mut dyn Instance) -> Finished {
    instance
        .call(Call {
            job: JobId::default(),
            event: Bytes::from_static(b"null"),
            parameters: Bytes::from_static(b"null"),
            deadline_ms: 0,
            time_left: LIMITS_TIMEOUT,
            stop: CancellationToken::new(),
            egress: EgressMeter::default(),
            body: None,
            outlet: Outlet::nowhere(),
        })
        .await
}

/// A start of gVisor takes a second on a busy machine.
const LIMITS_TIMEOUT: Duration = Duration::from_secs(20);

fn checked(finished: &Finished, missing_wall: impl Fn(&Seen) -> Option<&'static str>) -> Result<Seen, String> {
    let Outcome::Returned(json) = &finished.outcome else {
        return Err(format!("the probe ended as {:?}", finished.outcome));
    };
    let seen: Seen = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    match missing_wall(&seen) {
        None => Ok(seen),
        Some(wall) => Err(format!("the probe failed: inside the sandbox, {wall} is missing")),
    }
}

/// The bundle of a look, on disk; goes with its value.
pub struct Bundle {
    directory: PathBuf,
    language: Language,
}

impl Bundle {
    pub fn new(language: Language, scratch: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = scratch.join(format!("piecework-look-{}-{number}", std::process::id()));
        fs::create_dir(&directory)?;
        let bundle = Self { directory, language };
        match language {
            Language::Image => {
                let layer = bundle.directory.join(LAYER);
                fs::create_dir(&layer)?;
                fs::write(layer.join(PROGRAM), image_runner())?;
                for path in [layer.join(PROGRAM), layer] {
                    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
                }
            }
            Language::Python | Language::JavaScript => {
                fs::write(bundle.directory.join(language.entry_file()), source(language))?;
            }
        }
        Ok(bundle)
    }

    pub fn program(&self) -> Program {
        Program {
            owner: AccountId([0; 20]),
            language: self.language,
            code: Digest::of(source(self.language).as_bytes()),
            directory: self.directory.clone(),
            handler: None,
            image: (self.language == Language::Image).then(|| Image {
                layers_in: self.directory.clone(),
                layers: vec![LAYER.to_owned()],
                arguments: vec![format!("/{PROGRAM}"), "look".to_owned()],
                directory: "/".to_owned(),
                user: (0, 0),
                port: None,
            }),
            env: BTreeMap::new(),
            limits: Limits {
                timeout_ms: u32::try_from(LIMITS_TIMEOUT.as_millis()).unwrap_or(u32::MAX),
                ..Limits::DEFAULT
            },
            egress: EgressList::default(),
            function_name: "probe".to_owned(),
            version: 1,
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // A left-over of a few hundred bytes harms nobody.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn source(language: Language) -> &'static str {
    match language {
        Language::Python => LOOK_PY,
        Language::JavaScript => LOOK_JS,
        // Its program is one that is here.
        Language::Image => "",
    }
}
