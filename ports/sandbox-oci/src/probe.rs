//! The probe: a function that tells from inside where it is. What is only installed proves nothing.

use std::{fs, time::Duration};

use piecework_model::Language;
use piecework_sandbox::{
    Backend as _, BackendName, Probe,
    look::{Look, Seen, look},
};

use crate::Containers;

/// For all of it in one language; a start of gVisor takes a second on a busy machine.
const WITHIN: Duration = Duration::from_secs(30);
/// Warm calls whose median is told.
const WARM_CALLS: usize = 9;

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
        match looked(containers, language).await {
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
    match looked(containers, Language::Image).await {
        Ok(_) => {
            probe.languages.push(Language::Image);
            told.push("container images".to_owned());
        }
        Err(reason) => told.push(format!("images do not work: {reason}")),
    }
    probe.works = !probe.languages.is_empty();
    probe.detail = format!("{} by {}", told.join(", "), yard.engine.describe());
    probe
}

async fn looked(containers: &Containers, language: Language) -> Result<Look, String> {
    let (name, host) = (containers.name(), Host::read());
    let missing = |seen: &Seen| missing_wall(name, seen, &host);
    let looks = look(containers, language, (&containers.options.scratch, WARM_CALLS), missing);
    let looked = tokio::time::timeout(WITHIN, looks).await;
    looked.unwrap_or_else(|_| Err(format!("nothing answered within {WITHIN:?}")))
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
            no_new_privs: 1,
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
