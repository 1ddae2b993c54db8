//! Tries the backend out: each language answers, and each wall of a worker refuses what it must.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use piecework_model::{AccountId, Digest, JobId, Language, Limits};
use piecework_sandbox::{Backend as _, BackendName, Call, CancellationToken, Outcome, Probe, Program};

use crate::Wasm;

/// What a probe runs, and how long it may take once the component is compiled.
const PROBE_TIMEOUT_MS: u32 = 5_000;
const PROBE_PYTHON: &str = "def handler(event, context):\n    return {'hello': event}\n";
const PROBE_JAVASCRIPT: &str = "export default (event) => ({ hello: event });\n";

/// What one language's probe saw.
struct Seen {
    cold: Duration,
    warm: Duration,
    landlock: bool,
}

pub(crate) async fn probe(wasm: &Wasm) -> Probe {
    let mut probe = Probe {
        backend: BackendName::Wasm,
        works: false,
        languages: Vec::new(),
        detail: String::new(),
        weaker: vec!["no scratch space below /tmp, no threads, no processes, no network at all".to_owned()],
        cold_us: None,
        warm_us: None,
    };
    probe.weaker.extend(wasm.weaker.iter().cloned());
    let (mut failures, mut landlock) = (Vec::new(), true);
    for language in Language::ALL {
        match try_out(wasm, language).await {
            Ok(seen) => {
                probe.languages.push(language);
                probe.cold_us = probe.cold_us.max(Some(micros(seen.cold)));
                probe.warm_us = probe.warm_us.max(Some(micros(seen.warm)));
                landlock &= seen.landlock;
            }
            Err(reason) => failures.push(format!("{language}: {reason}")),
        }
    }
    probe.works = !probe.languages.is_empty();
    if probe.works && !landlock {
        probe
            .weaker
            .push("this kernel has no Landlock: the other walls of workers stand without it".to_owned());
    }
    probe.detail = match failures.is_empty() {
        true => {
            let groups = wasm.cgroups.as_ref().map_or("no cgroups", |groups| groups.describe());
            format!(
                "wasmtime 48 ran QuickJS and CPython components in worker processes (empty root, seccomp{}, {groups})",
                if landlock { ", landlock" } else { "" }
            )
        }
        false => failures.join("; "),
    };
    probe
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Cold and warm time of a small function, or why it did not answer, or which wall is missing.
async fn try_out(wasm: &Wasm, language: Language) -> Result<Seen, String> {
    let crew = wasm.standing(language).await.map_err(|error| error.to_string())?;
    let proof = crew
        .prove()
        .map_err(|error| format!("the walls cannot be tried: {error}"))?;
    if !proof.open.is_empty() {
        return Err(format!("walls of its worker are missing: {}", proof.open.join(", ")));
    }
    let directory = bundle(language).map_err(|error| format!("cannot write a bundle: {error}"))?;
    let limits = Limits {
        timeout_ms: PROBE_TIMEOUT_MS,
        ..Limits::DEFAULT
    };
    let program = program(language, directory.path(), limits);
    let loaded = wasm.load(Arc::new(program)).await.map_err(|error| error.to_string())?;
    let mut times = Vec::new();
    let begun = Instant::now();
    let mut instance = loaded.start().await.map_err(|error| error.to_string())?;
    for _ in 0..2 {
        let begun = if times.is_empty() { begun } else { Instant::now() };
        let finished = instance.call(call(limits)).await;
        times.push(begun.elapsed());
        if finished.outcome != Outcome::Returned(r#"{"hello":"probe"}"#.into()) {
            return Err(format!("the probe ended as {:?}", finished.outcome));
        }
    }
    Ok(Seen {
        cold: times[0],
        warm: times[1],
        landlock: proof.landlock,
    })
}

fn call(limits: Limits) -> Call {
    Call {
        job: JobId([0; 16]),
        event: "\"probe\"".into(),
        parameters: "null".into(),
        deadline_ms: 0,
        time_left: Duration::from_millis(limits.timeout_ms.into()),
        stop: CancellationToken::new(),
        egress: piecework_sandbox::EgressMeter::default(),
        body: None,
        outlet: piecework_sandbox::Outlet::nowhere(),
    }
}

/// A directory of one file, which a worker's identity may read.
fn bundle(language: Language) -> std::io::Result<tempfile::TempDir> {
    let source = match language {
        Language::Python => PROBE_PYTHON,
        Language::JavaScript => PROBE_JAVASCRIPT,
        Language::Image => unreachable!("no image is loaded here"),
    };
    let readable = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    let bundle = tempfile::Builder::new()
        .prefix("piecework-probe-")
        .permissions(readable)
        .tempdir()?;
    std::fs::write(bundle.path().join(language.entry_file()), source)?;
    Ok(bundle)
}

fn program(language: Language, directory: &Path, limits: Limits) -> Program {
    Program {
        owner: AccountId([0; 20]),
        language,
        code: Digest::of(b"probe"),
        directory: directory.to_owned(),
        handler: None,
        image: None,
        env: std::collections::BTreeMap::new(),
        limits,
        egress: piecework_model::EgressList::default(),
        function_name: "probe".to_owned(),
        version: 1,
    }
}
