//! The OCI runtimes of this machine: which there are, and how each is asked to run a bundle.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::config::Manner;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Crun,
    Runc,
    /// gVisor: a second kernel, in user space.
    Runsc,
}

impl Kind {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
            Self::Runsc => "runsc",
        }
    }

    pub(crate) fn manner(self) -> Manner {
        Manner {
            passes_descriptors: self != Self::Runsc,
            is_host_kernel: self != Self::Runsc,
        }
    }
}

/// A runtime that said its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runtime {
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

const DIRECTORIES: [&str; 5] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin"];

/// Where there is one hierarchy, runc would move its container out of the agent's group.
fn is_version_two_alone() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

impl Runtime {
    /// The first of these that is installed and answers.
    pub(crate) fn find(kinds: &[Kind]) -> Option<Self> {
        Self::candidates(kinds).find_map(|(kind, path)| Self::ask(kind, path))
    }

    /// What is installed of these.
    pub(crate) fn candidates(kinds: &[Kind]) -> impl Iterator<Item = (Kind, PathBuf)> {
        let all = kinds
            .iter()
            .flat_map(|kind| DIRECTORIES.map(|at| (*kind, Path::new(at).join(kind.program()))));
        all.filter(|(kind, path)| path.is_file() && (*kind != Kind::Runc || !is_version_two_alone()))
    }

    fn ask(kind: Kind, path: PathBuf) -> Option<Self> {
        let answer = Command::new(&path)
            .arg("--version")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8(answer.stdout)
            .ok()
            .filter(|_| answer.status.success())?;
        let version = text.lines().next()?.trim().replace(" version", "");
        Some(Self { kind, path, version })
    }

    /// The command that starts the container `name` of the bundle and comes back when its first process runs.
    pub(crate) fn command(&self, stage: &Path, name: &str) -> Vec<String> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let bundle = stage.join(BUNDLES).join(name);
        let options: &[&str] = match self.kind {
            // Its limits are those of the group that it starts in.
            Kind::Crun => &["--cgroup-manager=disabled"],
            Kind::Runc => &[],
            // The other platform of Debian's build, kvm, hangs where KVM is paravirtual.
            Kind::Runsc => &[
                "--ignore-cgroups",
                "--network=none",
                "--platform=ptrace",
                "--oci-seccomp",
            ],
        };
        let mut all = vec![text(self.path.clone()), "--root".to_owned(), text(bundle.join(STATE))];
        all.extend(options.iter().map(|option| (*option).to_owned()));
        all.extend(["run", "--detach", "--pid-file"].map(str::to_owned));
        all.extend([text(bundle.join(PID)), "--bundle".to_owned(), text(bundle)]);
        if self.kind.manner().passes_descriptors {
            all.push("--preserve-fds=2".to_owned());
        }
        all.push(name.to_owned());
        all
    }

    /// Runtimes that cannot do without a control group of their own get one below the container's name.
    pub(crate) fn cgroup(&self, name: &str) -> Option<String> {
        (self.kind == Kind::Runc).then(|| format!("/{name}"))
    }
}

/// Below the keeper's directory, a directory for each container; in it, beside `config.json`:
pub(crate) const BUNDLES: &str = "bundles";
pub(crate) const STATE: &str = "state";
pub(crate) const PID: &str = "pid";
/// And the root that all share.
pub(crate) const ROOT: &str = "root";
/// And the roots of images.
pub(crate) const IMAGES: &str = "images";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_runtime_is_asked_in_its_own_way() {
        let command = |kind: Kind| {
            let runtime = Runtime {
                kind,
                path: Path::new("/usr/bin").join(kind.program()),
                version: String::new(),
            };
            runtime.command(Path::new("/stage"), "one").join(" ")
        };
        assert_eq!(
            command(Kind::Crun),
            "/usr/bin/crun --root /stage/bundles/one/state --cgroup-manager=disabled run --detach --pid-file \
             /stage/bundles/one/pid --bundle /stage/bundles/one --preserve-fds=2 one"
        );
        assert!(command(Kind::Runsc).contains("--platform=ptrace") && !command(Kind::Runsc).contains("preserve"));
        assert!(command(Kind::Runc).contains("--preserve-fds=2"));
    }
}
