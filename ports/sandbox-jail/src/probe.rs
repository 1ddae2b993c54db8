//! Looks from inside a jail at its walls: what an open device or a found binary would not prove.

use std::time::Duration;

use piecework_model::Language;
use piecework_sandbox::{
    BackendName, Probe,
    look::{Look, Seen, look},
};

use crate::Jail;

const WITHIN: Duration = Duration::from_secs(20);
const WARM_CALLS: usize = 20;
/// Of an image: each starts a program, and what that takes says nothing about the jail.
const IMAGE_CALLS: usize = 1;

pub(crate) async fn probe(jail: &Jail) -> Probe {
    let mut probe = Probe {
        backend: BackendName::Jail,
        works: false,
        languages: Vec::new(),
        detail: String::new(),
        weaker: jail.weaker.clone(),
        cold_us: None,
        warm_us: None,
    };
    let mut told = Vec::new();
    for language in jail.languages() {
        match looked(jail, language).await {
            Ok(times) => {
                probe.languages.push(language);
                probe.cold_us = Some(probe.cold_us.map_or(times.cold_us, |least| least.min(times.cold_us)));
                probe.warm_us = Some(probe.warm_us.map_or(times.warm_us, |least| least.min(times.warm_us)));
                told.extend(jail.yard.interpreter(language).map(|found| found.version.clone()));
            }
            Err(reason) => told.push(format!("{language} does not work: {reason}")),
        }
    }
    match looked(jail, Language::Image).await {
        Ok(_) => {
            probe.languages.push(Language::Image);
            told.push("container images".to_owned());
        }
        Err(reason) => told.push(format!("images do not work: {reason}")),
    }
    probe.works = !probe.languages.is_empty();
    let limits = jail
        .yard
        .cgroups
        .as_ref()
        .map_or("rlimits", |cgroups| cgroups.describe());
    probe.detail = format!("{} in namespaces with seccomp, landlock and {limits}", told.join(", "));
    probe
}

async fn looked(jail: &Jail, language: Language) -> Result<Look, String> {
    let calls = match language {
        Language::Image => IMAGE_CALLS,
        Language::Python | Language::JavaScript => WARM_CALLS,
    };
    let looks = look(jail, language, (&jail.scratch, calls), missing_wall);
    let looked = tokio::time::timeout(WITHIN, looks).await;
    looked.unwrap_or_else(|_| Err(format!("nothing answered within {WITHIN:?}")))
}

fn missing_wall(seen: &Seen) -> Option<&'static str> {
    let walls = [
        (seen.pid == 1, "a pid namespace"),
        (seen.seccomp == 2, "seccomp"),
        (seen.refused, "the refusal of keyrings and user namespaces"),
        (seen.no_new_privs == 1, "no_new_privs"),
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
