//! What keeps a sandbox's code in, as the code itself sees it: by that two sandboxes are told apart.

use piecework_sandbox::BackendName;
use serde::{Deserialize, Serialize};

/// Marks of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Wall {
    /// What starts instances: `crun`, `runsc`, `wasmtime`.
    pub(super) runtime: String,
    /// The kernel that answers; none in WebAssembly.
    pub(super) kernel: Option<String>,
    /// Whether all namespaces that it names are others than the host's.
    pub(super) has_own_namespaces: bool,
}

/// What a look from inside gave.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Look {
    pub(super) kernel: Option<String>,
    pub(super) namespaces: Vec<String>,
}

pub(super) const LOOK_PY: &str = r#"import os
def link(name):
    try:
        return os.readlink("/proc/self/ns/" + name)
    except OSError:
        return ""
def handler(event, context):
    if not os.path.exists("/proc/self/status"):
        return {"kernel": None, "namespaces": []}
    kernel = os.uname()
    return {"kernel": kernel.release + " " + kernel.version, "namespaces": [link("pid"), link("mnt"), link("net")]}
"#;
pub(super) const LOOK_JS: &str = r#"import fs from 'node:fs';
import os from 'node:os';
const link = (name) => { try { return fs.readlinkSync('/proc/self/ns/' + name); } catch { return ''; } };
export default () => ({kernel: os.release() + ' ' + os.version(), namespaces: ['pid', 'mnt', 'net'].map(link)});
"#;

impl Wall {
    pub(super) fn new(runtime: String, look: &Look) -> Self {
        let hosts = ["pid", "mnt", "net"].map(|name| {
            let link = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
            link.to_string_lossy().into_owned()
        });
        let shared = look.namespaces.iter().any(|own| hosts.contains(own));
        Self {
            runtime,
            kernel: look.kernel.clone(),
            has_own_namespaces: !shared,
        }
    }
}

/// Why these are not to be compared, if so.
pub(super) fn not_comparable(walls: &[(BackendName, Wall)]) -> Option<String> {
    if let Some((name, wall)) = walls.iter().find(|(_, wall)| !wall.has_own_namespaces) {
        return Some(format!(
            "`{name}` shares namespaces with the host ({}), so it is not isolated and is not compared",
            wall.runtime
        ));
    }
    walls.iter().enumerate().find_map(|(at, (name, wall))| {
        let (same, _) = walls[at + 1..].iter().find(|(_, other)| other == wall)?;
        let kernel = wall.kernel.as_deref().unwrap_or("none of its own");
        Some(format!(
            "`{name}` and `{same}` are the same sandbox here: both use {} and see kernel {kernel}; leave one out with --sandbox",
            wall.runtime
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(runtime: &str, kernel: Option<&str>) -> Wall {
        Wall {
            runtime: runtime.to_owned(),
            kernel: kernel.map(str::to_owned),
            has_own_namespaces: true,
        }
    }

    #[test]
    fn two_names_of_one_wall_are_not_compared() {
        let gvisor = (BackendName::Gvisor, wall("runsc", Some("4.4.0")));
        let docker = (BackendName::Docker, wall("runsc", Some("4.4.0")));
        let said = not_comparable(&[gvisor.clone(), docker]).expect("they are one");
        assert!(said.contains("`gvisor` and `docker` are the same sandbox"), "{said}");
        let docker = (BackendName::Docker, wall("runc", Some("6.18.0")));
        let oci = (BackendName::Oci, wall("crun", Some("6.18.0")));
        assert_eq!(not_comparable(&[gvisor, docker, oci]), None);
    }

    #[test]
    fn what_runs_among_the_hosts_own_processes_is_no_sandbox() {
        let own = std::fs::read_link("/proc/self/ns/pid").expect("Linux");
        let look = Look {
            kernel: Some("6.18.0".to_owned()),
            namespaces: vec![
                own.to_string_lossy().into_owned(),
                "mnt:[1]".to_owned(),
                "net:[2]".to_owned(),
            ],
        };
        let wall = Wall::new("nothing".to_owned(), &look);
        let said = not_comparable(&[(BackendName::Oci, wall)]).expect("no wall at all");
        assert!(said.contains("shares namespaces with the host"), "{said}");
    }
}
