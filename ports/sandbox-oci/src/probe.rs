//! The probe: a function that tells from inside where it is. What is only installed proves nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use piecework_model::{AccountId, Digest, EgressList, JobId, Language, Limits};
use piecework_sandbox::{
    Backend, BackendName, Call, CancellationToken, EgressMeter, Finished, Instance, LoadError, Outcome, Outlet, Probe,
    Program,
};
use serde::Deserialize;

use crate::Containers;

/// For all of it in one language; a start of gVisor takes a second on a busy machine.
const WITHIN: Duration = Duration::from_secs(30);
/// Warm calls whose median is told.
const WARM_CALLS: usize = 9;

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
          namespaces: ['pid', 'mnt', 'net', 'ipc', 'uts'].map(link), seccomp: +(status.Seccomp ?? 0), refused: true};
};
"#;

/// What the function saw of its own container.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Seen {
    pid: i32,
    capabilities: String,
    root: bool,
    interfaces: Vec<String>,
    pub(crate) kernel: String,
    namespaces: Vec<String>,
    seccomp: u8,
    /// Whether the keyring and a user namespace were refused.
    refused: bool,
}

struct Found {
    seen: Seen,
    cold_us: u64,
    warm_us: u64,
}

pub(crate) async fn probe(containers: &Containers) -> Probe {
    let mut probe = Probe {
        backend: containers.name(),
        works: false,
        languages: Vec::new(),
        detail: String::new(),
        weaker: Vec::new(),
        cold_us: None,
        warm_us: None,
    };
    let yard = match containers.yard().await {
        Ok(yard) => yard,
        Err(reason) => {
            probe.detail = reason;
            return probe;
        }
    };
    probe.weaker = yard.engine.weaker();
    let mut told = Vec::new();
    for language in Language::ALL {
        let Some(interpreter) = yard.interpreters.of(language) else {
            continue;
        };
        let looked = tokio::time::timeout(WITHIN, look(containers, language)).await;
        match looked.unwrap_or_else(|_| Err(format!("nothing answered within {WITHIN:?}"))) {
            Ok(found) => {
                probe.languages.push(language);
                probe.cold_us = Some(probe.cold_us.map_or(found.cold_us, |least| least.min(found.cold_us)));
                probe.warm_us = Some(probe.warm_us.map_or(found.warm_us, |least| least.min(found.warm_us)));
                told.push(match containers.name() {
                    BackendName::Gvisor => format!("{} on gVisor's kernel {}", interpreter.version, found.seen.kernel),
                    _ => interpreter.version.clone(),
                });
            }
            Err(reason) => told.push(format!("{language} does not work: {reason}")),
        }
    }
    probe.works = !probe.languages.is_empty();
    probe.detail = format!("{} by {}", told.join(", "), yard.engine.describe());
    probe
}

async fn look(containers: &Containers, language: Language) -> Result<Found, String> {
    let bundle = Bundle::new(language, &containers.options.scratch)
        .map_err(|error| format!("no bundle could be written: {error}"))?;
    let loaded = containers.load(Arc::new(bundle.program())).await.map_err(text)?;
    // The first instance is the one that proved the code; the second one is made from nothing.
    drop(loaded.start().await.map_err(text)?);
    let begun = Instant::now();
    let mut instance = loaded.start().await.map_err(text)?;
    let seen = check(containers.name(), &call(&mut *instance).await)?;
    let cold = begun.elapsed();
    let mut warm = Vec::with_capacity(WARM_CALLS);
    for _ in 0..WARM_CALLS {
        let begun = Instant::now();
        check(containers.name(), &call(&mut *instance).await)?;
        warm.push(begun.elapsed());
    }
    warm.sort();
    Ok(Found {
        seen,
        cold_us: micros(cold),
        warm_us: micros(warm[WARM_CALLS / 2]),
    })
}

fn text(error: LoadError) -> String {
    error.to_string()
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
            time_left: WITHIN,
            stop: CancellationToken::new(),
            egress: EgressMeter::default(),
            body: None,
            outlet: Outlet::nowhere(),
        })
        .await
}

fn check(backend: BackendName, finished: &Finished) -> Result<Seen, String> {
    let Outcome::Returned(json) = &finished.outcome else {
        return Err(format!("the probe ended as {:?}", finished.outcome));
    };
    let seen: Seen = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    match missing_wall(backend, &seen, &Host::read()) {
        None => Ok(seen),
        Some(wall) => Err(format!("the probe failed: inside the sandbox, {wall} is missing")),
    }
}

/// This process's own place, to compare with.
struct Host {
    kernel: String,
    namespaces: Vec<String>,
}

impl Host {
    fn read() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        let link = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
        Self {
            kernel: format!("{} {}", read("osrelease").trim(), read("version").trim()),
            namespaces: ["pid", "mnt", "net", "ipc", "uts"]
                .map(|name| link(name).to_string_lossy().into_owned())
                .to_vec(),
        }
    }
}

fn missing_wall(backend: BackendName, seen: &Seen, host: &Host) -> Option<&'static str> {
    let is_other_kernel = seen.kernel != host.kernel;
    let namespaces = seen.namespaces.iter().zip(&host.namespaces);
    let are_others = namespaces.clone().count() == host.namespaces.len()
        && namespaces
            .into_iter()
            .all(|(own, hosts)| !own.is_empty() && own != hosts);
    let walls = [
        (seen.pid == 1, "a pid namespace"),
        (backend != BackendName::Gvisor || is_other_kernel, "a kernel of its own"),
        (
            backend == BackendName::Gvisor || are_others,
            "a namespace other than the host's",
        ),
        (backend == BackendName::Gvisor || seen.seccomp == 2, "seccomp"),
        (seen.refused, "the refusal of keyrings and user namespaces"),
        (
            seen.capabilities.bytes().all(|digit| digit == b'0'),
            "empty capabilities",
        ),
        (
            seen.interfaces.iter().all(|name| name == "lo"),
            "an empty network namespace",
        ),
        (!seen.root, "a root of its own"),
    ];
    walls.iter().find(|(stands, _)| !stands).map(|(_, wall)| *wall)
}

/// A bundle on disk that goes with its value.
pub(crate) struct Bundle {
    directory: PathBuf,
    language: Language,
}

impl Bundle {
    pub(crate) fn new(language: Language, scratch: &Path) -> std::io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = scratch.join(format!("piecework-look-{}-{number}", std::process::id()));
        fs::create_dir(&directory)?;
        let bundle = Self { directory, language };
        fs::write(bundle.directory.join(language.entry_file()), source(language))?;
        Ok(bundle)
    }

    pub(crate) fn program(&self) -> Program {
        Program {
            owner: AccountId([0; 20]),
            language: self.language,
            code: Digest::of(source(self.language).as_bytes()),
            directory: self.directory.clone(),
            handler: None,
            image: None,
            env: BTreeMap::new(),
            limits: Limits {
                timeout_ms: 20_000,
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
        Language::Image => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside() -> Seen {
        Seen {
            pid: 1,
            capabilities: "0000000000000000".to_owned(),
            root: false,
            interfaces: vec!["lo".to_owned()],
            kernel: Host::read().kernel,
            namespaces: ["pid:[1]", "mnt:[2]", "net:[3]", "ipc:[4]", "uts:[5]"]
                .map(str::to_owned)
                .to_vec(),
            seccomp: 2,
            refused: true,
        }
    }

    #[test]
    fn a_wall_that_is_not_seen_from_inside_is_missing() {
        let host = Host::read();
        let missing = |change: fn(&mut Seen)| {
            let mut seen = inside();
            change(&mut seen);
            missing_wall(BackendName::Oci, &seen, &host)
        };
        assert_eq!(missing(|_| {}), None);
        assert_eq!(missing(|seen| seen.pid = 7), Some("a pid namespace"));
        assert_eq!(missing(|seen| seen.seccomp = 0), Some("seccomp"));
        assert_eq!(
            missing(|seen| seen.namespaces[2] = fs::read_link("/proc/self/ns/net")
                .unwrap_or_default()
                .display()
                .to_string()),
            Some("a namespace other than the host's")
        );
        assert_eq!(
            missing(|seen| seen.refused = false),
            Some("the refusal of keyrings and user namespaces")
        );
        assert_eq!(missing(|seen| seen.root = true), Some("a root of its own"));
    }

    #[test]
    fn gvisor_on_the_hosts_kernel_is_none() {
        let host = Host::read();
        assert_eq!(
            missing_wall(BackendName::Gvisor, &inside(), &host),
            Some("a kernel of its own")
        );
        let other = Seen {
            kernel: "4.4.0 #1".to_owned(),
            namespaces: Vec::new(),
            seccomp: 0,
            ..inside()
        };
        assert_eq!(missing_wall(BackendName::Gvisor, &other, &host), None);
    }
}
