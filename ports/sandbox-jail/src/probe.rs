//! Looks from inside a jail at its walls: what an open device or a found binary would not prove.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use piecework_model::{AccountId, Digest, JobId, Language, Limits};
use piecework_sandbox::{
    Backend, BackendName, Call, Finished, Image, Instance, LoadError, Outcome, Probe, Program, runner::image_runner,
};
use serde::Deserialize;

use crate::Jail;

const WITHIN: Duration = Duration::from_secs(20);
const WARM_CALLS: usize = 20;
/// Of an image: each starts a program, and what that takes says nothing about the jail.
const IMAGE_CALLS: usize = 1;

const LOOK_PY: &str = r#"import os
def handler(event, context):
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
    lines = open("/proc/net/dev").read().splitlines()[2:]
    return {"pid": os.getpid(), "seccomp": int(status["Seccomp"]), "no_new_privs": int(status["NoNewPrivs"]),
            "capabilities": status["CapEff"], "interfaces": [line.split(":")[0].strip() for line in lines],
            "root": os.path.exists("/etc/shadow")}
"#;
const LOOK_JS: &str = r#"import fs from 'node:fs';
export default () => {
  const status = Object.fromEntries(fs.readFileSync('/proc/self/status', 'utf8').split('\n').map((line) => line.split(':\t')));
  const lines = fs.readFileSync('/proc/net/dev', 'utf8').trim().split('\n').slice(2);
  return {pid: process.pid, seccomp: +status.Seccomp, no_new_privs: +status.NoNewPrivs, capabilities: status.CapEff,
          interfaces: lines.map((line) => line.split(':')[0].trim()), root: fs.existsSync('/etc/shadow')};
};
"#;

/// Of the image that is tried: one layer of one program.
const LAYER: &str = "layer";
const PROGRAM: &str = "program";

/// What the function saw of its own jail.
#[derive(Deserialize)]
struct Seen {
    pid: i32,
    seccomp: u8,
    no_new_privs: u8,
    capabilities: String,
    interfaces: Vec<String>,
    root: bool,
}

struct Times {
    cold_us: u64,
    warm_us: u64,
}

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
        let result = tokio::time::timeout(WITHIN, look(jail, language)).await;
        match result.unwrap_or_else(|_| Err(format!("nothing answered within {WITHIN:?}"))) {
            Ok(times) => {
                probe.languages.push(language);
                probe.cold_us = Some(probe.cold_us.map_or(times.cold_us, |least| least.min(times.cold_us)));
                probe.warm_us = Some(probe.warm_us.map_or(times.warm_us, |least| least.min(times.warm_us)));
                told.extend(jail.yard.interpreter(language).map(|found| found.version.clone()));
            }
            Err(reason) => told.push(format!("{language} does not work: {reason}")),
        }
    }
    match tokio::time::timeout(WITHIN, look(jail, Language::Image)).await {
        Ok(Ok(_)) => {
            probe.languages.push(Language::Image);
            told.push("container images".to_owned());
        }
        Ok(Err(reason)) => told.push(format!("images do not work: {reason}")),
        Err(_) => told.push(format!("images do not work: nothing answered within {WITHIN:?}")),
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

async fn look(jail: &Jail, language: Language) -> Result<Times, String> {
    let bundle =
        Bundle::new(language, &jail.scratch).map_err(|error| format!("no bundle could be written: {error}"))?;
    let loaded = jail.load(Arc::new(bundle.program())).await.map_err(text)?;
    // The first instance is the one that proved the code; the second one is made from nothing.
    drop(loaded.start().await.map_err(text)?);
    let begun = Instant::now();
    let mut instance = loaded.start().await.map_err(text)?;
    check(&call(&mut *instance).await)?;
    let cold = begun.elapsed();
    let calls = match language {
        Language::Image => IMAGE_CALLS,
        Language::Python | Language::JavaScript => WARM_CALLS,
    };
    let mut warm = Vec::with_capacity(calls);
    for _ in 0..calls {
        let begun = Instant::now();
        check(&call(&mut *instance).await)?;
        warm.push(begun.elapsed());
    }
    warm.sort();
    Ok(Times {
        cold_us: micros(cold),
        warm_us: micros(warm[calls / 2]),
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
            stop: piecework_sandbox::CancellationToken::new(),
            egress: piecework_sandbox::EgressMeter::default(),
            body: None,
            outlet: piecework_sandbox::Outlet::nowhere(),
        })
        .await
}

fn check(finished: &Finished) -> Result<(), String> {
    let Outcome::Returned(json) = &finished.outcome else {
        return Err(format!("the probe ended as {:?}", finished.outcome));
    };
    let seen: Seen = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let walls = [
        (seen.pid == 1, "a pid namespace"),
        (seen.seccomp == 2, "seccomp"),
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
    match walls.iter().find(|(stands, _)| !stands) {
        None => Ok(()),
        Some((_, wall)) => Err(format!("from inside, {wall} is missing")),
    }
}

/// A bundle on disk that goes with its value.
struct Bundle {
    directory: PathBuf,
    language: Language,
}

impl Bundle {
    fn new(language: Language, scratch: &Path) -> std::io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = scratch.join(format!("piecework-probe-{}-{number}", std::process::id()));
        fs::create_dir(&directory)?;
        let bundle = Self { directory, language };
        match language {
            Language::Image => {
                let program = bundle.directory.join(LAYER).join(PROGRAM);
                fs::create_dir(bundle.directory.join(LAYER))?;
                fs::write(&program, image_runner())?;
                fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
            }
            Language::Python | Language::JavaScript => {
                fs::write(bundle.directory.join(language.entry_file()), source(language))?;
            }
        }
        Ok(bundle)
    }

    fn program(&self) -> Program {
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
            limits: Limits::DEFAULT,
            egress: piecework_model::EgressList::default(),
            function_name: "probe".to_owned(),
            version: 1,
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

fn remove(directory: &Path) {
    // A left-over of a few hundred bytes harms nobody.
    let _ = fs::remove_dir_all(directory);
}

fn source(language: Language) -> &'static str {
    match language {
        Language::Python => LOOK_PY,
        Language::JavaScript => LOOK_JS,
        // Its program is one that is here.
        Language::Image => "",
    }
}
