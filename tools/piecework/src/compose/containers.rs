//! The container backends of this build, and what their probes saw before.
//!
//! Their probes start containers, which takes seconds with gVisor and Docker. What a probe saw is kept while what it looked at stays
//! the same, so that a start does not wait for it; then it runs before the first program goes in, and a backend that fails it runs none.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use piecework_model::Language;
use piecework_sandbox::{Backend, BackendName, Beside, LoadError, Loaded, Probe, Program};
use piecework_sandbox_oci::{Containers, Options};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::sandboxes::{cores, own_executable};
use crate::places;

/// Whether what a probe saw earlier counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probing {
    /// Where what it looked at is the same.
    Remembered,
    Anew,
}

/// Every container backend with what its probe saw, now or before; all at once.
pub(super) async fn containers(probing: Probing) -> Vec<(Arc<dyn Backend>, Probe)> {
    let Some(options) = options() else {
        return Vec::new();
    };
    let socket = places::docker_socket();
    let candidates = [
        Candidate::new(Containers::oci(options.clone()), ["crun", "runc"].as_slice()),
        Candidate::new(Containers::gvisor(options.clone()), ["runsc"].as_slice()),
        Candidate::new(Containers::docker(options, &socket), &[&*socket.to_string_lossy()]),
    ];
    let mut memory = Memory::read();
    let probing: Vec<_> = candidates
        .into_iter()
        .map(|candidate| {
            let known = match probing {
                Probing::Remembered => memory.of(&candidate),
                Probing::Anew => None,
            };
            tokio::spawn(candidate.probed(known))
        })
        .collect();
    let mut all = Vec::new();
    for probed in probing {
        // A probe that panicked has no result, and its backend runs nothing.
        let Ok((gate, probe)) = probed.await else { continue };
        memory.keep(&gate, &probe);
        all.push((Arc::new(gate) as Arc<dyn Backend>, probe));
    }
    memory.write();
    all
}

fn options() -> Option<Options> {
    let mut options = Options::new(own_executable()?);
    options.search = places::search_path();
    options.cores = cores();
    options.scratch = places::scratch();
    Some(options)
}

/// The engine behind a container backend, apart from those that run functions: for measurements.
pub fn container_engine(name: BackendName) -> Option<Containers> {
    let options = options()?;
    match name {
        BackendName::Oci => Some(Containers::oci(options)),
        BackendName::Gvisor => Some(Containers::gvisor(options)),
        BackendName::Docker => Some(Containers::docker(options, places::docker_socket())),
        BackendName::Wasm | BackendName::Jail | BackendName::Microvm => None,
    }
}

/// A backend whose probe may have to run.
struct Candidate {
    backend: Containers,
    /// What the probe looks at, in words that change with it.
    facts: String,
}

impl Candidate {
    fn new(backend: Containers, programs: &[&str]) -> Self {
        let facts = facts(programs);
        Self { backend, facts }
    }

    async fn probed(self, known: Option<Probe>) -> (Gate, Probe) {
        let seen = OnceCell::new();
        let probe = match known {
            Some(known) => {
                // The probe would have done it.
                tokio::spawn(self.backend.sweep());
                known
            }
            None => {
                let probe = self.backend.probe().await;
                // Nobody else holds it yet.
                let _ = seen.set(probe.clone());
                probe
            }
        };
        let gate = Gate {
            backend: self.backend,
            facts: self.facts,
            seen,
        };
        (gate, probe)
    }
}

/// Programs by name or by path, interpreters, this executable and the running kernel.
fn facts(programs: &[&str]) -> String {
    const DIRECTORIES: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];
    let own = own_executable().unwrap_or_default();
    let interpreters = ["/usr/bin/python3", "/usr/bin/node", "/usr/local/bin/node"].map(PathBuf::from);
    let named = programs.iter().flat_map(|program| match program.starts_with('/') {
        true => vec![PathBuf::from(program)],
        false => DIRECTORIES.iter().map(|at| Path::new(at).join(program)).collect(),
    });
    let files: Vec<String> = named.chain(interpreters).chain([own]).map(|path| mark(&path)).collect();
    let kernel = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    format!(
        "{} {} {}",
        files.join(" "),
        kernel("osrelease").trim(),
        rustix::process::geteuid().as_raw()
    )
}

/// A file and when it was last put there.
fn mark(path: &Path) -> String {
    match fs::metadata(path) {
        Ok(found) => format!(
            "{}:{}:{}.{}",
            path.display(),
            found.len(),
            found.mtime(),
            found.mtime_nsec()
        ),
        Err(_) => "-".to_owned(),
    }
}

/// A backend that lets no program in before its probe ran here, in this process.
struct Gate {
    backend: Containers,
    facts: String,
    seen: OnceCell<Probe>,
}

#[async_trait]
impl Backend for Gate {
    fn name(&self) -> BackendName {
        self.backend.name()
    }

    async fn probe(&self) -> Probe {
        self.seen.get_or_init(|| self.backend.probe()).await.clone()
    }

    async fn load(&self, program: Arc<Program>) -> Result<Arc<dyn Loaded>, LoadError> {
        let language = program.language;
        let probe = self.seen.get_or_init(|| self.backend.probe()).await;
        if !probe.works || !probe.languages.contains(&language) {
            // What was remembered is not so any more.
            Memory::forget(self.backend.name());
            let reason = format!("its probe failed on this provider: {}", probe.detail);
            return Err(LoadError::Unsupported { reason });
        }
        self.backend.load(program).await
    }

    fn freeze(&self, frozen: bool) -> bool {
        self.backend.freeze(frozen)
    }

    fn beside(&self) -> Beside {
        self.backend.beside()
    }
}

/// What probes saw, in a file of this user's cache.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    probes: Vec<Remembered>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    facts: String,
    probe: Probe,
}

impl Memory {
    fn file() -> Option<PathBuf> {
        Some(places::compiled_cache().ok()?.join("sandboxes.json"))
    }

    /// Nothing where there is no such file, or an unreadable one.
    fn read() -> Self {
        let text = Self::file().and_then(|file| fs::read(file).ok());
        text.and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    fn of(&self, candidate: &Candidate) -> Option<Probe> {
        let name = candidate.backend.name();
        let found = self.probes.iter().find(|known| known.probe.backend == name);
        // One that fails costs little and is asked again: what it lacks may be there now.
        found
            .filter(|known| known.facts == candidate.facts && known.probe.works)
            .map(|known| known.probe.clone())
    }

    fn keep(&mut self, gate: &Gate, probe: &Probe) {
        self.probes.retain(|known| known.probe.backend != probe.backend);
        self.probes.push(Remembered {
            facts: gate.facts.clone(),
            probe: probe.clone(),
        });
    }

    fn forget(name: BackendName) {
        let mut memory = Self::read();
        memory.probes.retain(|known| known.probe.backend != name);
        memory.write();
    }

    /// Whole or not at all. Without it the next start probes again.
    fn write(&self) {
        let Some(file) = Self::file() else { return };
        let written = (|| {
            fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
            let draft = file.with_extension(format!("{}.draft", std::process::id()));
            fs::write(&draft, serde_json::to_vec(self).map_err(std::io::Error::other)?)?;
            fs::rename(draft, &file)
        })();
        if let Err(error) = written {
            tracing::debug!(%error, "cannot remember what the sandboxes' probes saw");
        }
    }
}

/// What is told of the microVM: this build has none, and nothing is asked of a device that proves nothing.
pub fn microvm() -> Probe {
    let kvm = match fs::File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => "/dev/kvm exists, but this build does not use it",
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "this machine has no /dev/kvm either",
        Err(_) => "/dev/kvm is here and cannot be opened",
    };
    Probe {
        backend: BackendName::Microvm,
        works: false,
        languages: Vec::<Language>::new(),
        detail: format!("this build contains no microVM, and there is nothing to install that would add one; {kvm}"),
        weaker: Vec::new(),
        cold_us: None,
        warm_us: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_change_with_what_a_probe_looks_at() {
        let directory = tempfile::tempdir().expect("a directory");
        let program = directory.path().join("crun");
        let look = || facts(&[&*program.to_string_lossy()]);
        let absent = look();
        fs::write(&program, "one").expect("writes");
        let present = look();
        fs::write(&program, "another").expect("writes");
        assert!(absent != present && present != look());
        assert_eq!(look(), look());
    }

    #[test]
    fn a_microvm_is_never_said_to_work_here() {
        let probe = microvm();
        assert!(!probe.works && probe.detail.contains("no microVM"), "{probe:?}");
    }
}
