//! Measures each sandbox by its own contract: what a provider pays and gets, without the network and the ledger.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use piecework_model::{AccountId, Digest, EgressList, JobId, Language, Limits};
use piecework_sandbox::{
    Backend, BackendName, Call, CancellationToken, EgressMeter, Finished, Instance, Loaded, Outcome, Outlet, Probe,
    Program,
};
use serde::Serialize;

use super::{
    figures::Figures,
    wall::{self, LOOK_JS, LOOK_PY, Look, Wall},
};
use crate::compose;

/// What is measured, and how often.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) cold: u32,
    pub(super) warm: u32,
    pub(super) seconds: u32,
    pub(super) languages: Vec<Language>,
}

/// One sandbox in one language.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) sandbox: BackendName,
    pub(super) language: Language,
    pub(super) wall: Wall,
    /// From nothing to the answer of a first call.
    pub(super) cold: Figures,
    pub(super) warm: Figures,
    /// Answers a second with one instance for each core, in equal slices of the time.
    pub(super) throughput: Figures,
    /// Billed, of a warm call.
    pub(super) cpu: Figures,
    /// Billed, of a call that computes.
    pub(super) cpu_of_work: Figures,
    /// What an instance holds after its first call.
    pub(super) memory: Figures,
    /// The least that a cold start of this kind takes here: what it is, and its time.
    pub(super) floor: Option<(String, Figures)>,
}

const HELLO_PY: &str = "def handler(event, context):\n    return {'hello': event}\n";
const HELLO_JS: &str = "export default (event) => ({ hello: event });\n";
/// About ten milliseconds of an interpreter without a compiler.
const WORK_PY: &str = "def handler(event, context):\n    total = 0\n    for number in range(200000):\n        total = (total * 31 + number) % 1000003\n    return total\n";
const WORK_JS: &str = "export default () => { let total = 0; for (let number = 0; number < 200000; number++) total = (total * 31 + number) % 1000003; return total; };\n";
const WORK_CALLS: usize = 20;
/// Into which the time of the throughput is cut.
const SLICES: u32 = 10;
/// Nothing that is measured here takes longer.
const CALL_WITHIN: Duration = Duration::from_secs(60);

/// Every sandbox in every language, after it is sure that they are different walls.
pub(super) async fn all(plan: &Plan, subjects: &[(Arc<dyn Backend>, Probe)]) -> Result<Vec<Row>> {
    let mut walls = Vec::new();
    for (backend, probe) in subjects {
        walls.push((backend.name(), wall_of(backend, probe).await?));
    }
    if let Some(reason) = wall::not_comparable(&walls) {
        bail!(reason);
    }
    let mut rows = Vec::new();
    for language in &plan.languages {
        for ((backend, probe), (name, wall)) in subjects.iter().zip(&walls) {
            if probe.languages.contains(language) {
                eprintln!("measuring {name} with {language}");
                let row = row(plan, backend, *language, wall).await;
                rows.push(row.with_context(|| format!("measure {name} with {language}"))?);
            }
        }
    }
    Ok(rows)
}

async fn wall_of(backend: &Arc<dyn Backend>, probe: &Probe) -> Result<Wall> {
    let name = backend.name();
    let runtime = match name {
        BackendName::Wasm => "wasmtime".to_owned(),
        BackendName::Jail => "the jail's launcher".to_owned(),
        BackendName::Oci | BackendName::Gvisor | BackendName::Docker | BackendName::Microvm => {
            let containers = compose::container_engine(name).context("no such engine")?;
            containers.runtime().await.map_err(|reason| anyhow!(reason))?
        }
    };
    // In WebAssembly there is no kernel to ask.
    if name == BackendName::Wasm {
        return Ok(Wall::new(runtime, &Look::default()));
    }
    let language = *probe.languages.first().context("it runs no language")?;
    let bundle = Bundle::new(language, LOOK_PY, LOOK_JS)?;
    let mut instance = start(&load(backend, &bundle).await?).await?;
    let finished = call(&mut *instance).await?;
    let Outcome::Returned(json) = &finished.outcome else {
        bail!("the look from inside ended as {:?}", finished.outcome);
    };
    Ok(Wall::new(runtime, &serde_json::from_slice(json)?))
}

async fn row(plan: &Plan, backend: &Arc<dyn Backend>, language: Language, wall: &Wall) -> Result<Row> {
    let hello = Bundle::new(language, HELLO_PY, HELLO_JS)?;
    let loaded = load(backend, &hello).await?;
    // The first instance is the one that proved the code.
    drop(start(&loaded).await?);
    let (cold, memory) = cold(plan, &loaded).await?;
    let (warm, cpu) = warm(plan, &loaded).await?;
    let throughput = throughput(plan, &loaded).await?;
    let work = Bundle::new(language, WORK_PY, WORK_JS)?;
    let mut instance = start(&load(backend, &work).await?).await?;
    call(&mut *instance).await?;
    let mut of_work = Vec::new();
    for _ in 0..WORK_CALLS {
        of_work.push(call(&mut *instance).await?.counters.cpu_us as f64 / 1_000.0);
    }
    let figures = |unit, raw| Figures::of(unit, raw).context("nothing was measured");
    Ok(Row {
        sandbox: backend.name(),
        language,
        wall: wall.clone(),
        cold: figures("ms", cold)?,
        warm: figures("us", warm)?,
        throughput: figures("calls/s", throughput)?,
        cpu: figures("us", cpu)?,
        cpu_of_work: figures("ms", of_work)?,
        memory: figures("MiB", memory)?,
        floor: floor(plan, backend.name(), language).await?,
    })
}

async fn cold(plan: &Plan, loaded: &Arc<dyn Loaded>) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut times, mut held) = (Vec::new(), Vec::new());
    for _ in 0..plan.cold {
        let begun = Instant::now();
        let mut instance = start(loaded).await?;
        call(&mut *instance).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        held.push(instance.memory_bytes() as f64 / f64::from(1 << 20));
    }
    Ok((times, held))
}

async fn warm(plan: &Plan, loaded: &Arc<dyn Loaded>) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut instance = start(loaded).await?;
    call(&mut *instance).await?;
    let (mut times, mut used) = (Vec::new(), Vec::new());
    for _ in 0..plan.warm {
        let begun = Instant::now();
        let finished = call(&mut *instance).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
        used.push(finished.counters.cpu_us as f64);
    }
    Ok((times, used))
}

async fn throughput(plan: &Plan, loaded: &Arc<dyn Loaded>) -> Result<Vec<f64>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut instances = Vec::new();
    for _ in 0..cores {
        let mut instance = start(loaded).await?;
        call(&mut *instance).await?;
        instances.push(instance);
    }
    let slice = Duration::from_secs(plan.seconds.into()) / SLICES;
    let began = Instant::now();
    let callers: Vec<_> = instances
        .into_iter()
        .map(|mut instance| {
            tokio::spawn(async move {
                let mut ended = Vec::new();
                while began.elapsed() < slice * SLICES {
                    call(&mut *instance).await?;
                    ended.push(began.elapsed());
                }
                anyhow::Ok(ended)
            })
        })
        .collect();
    let mut counts = vec![0u32; SLICES as usize];
    for caller in callers {
        for ended in caller.await?? {
            let at = (ended.as_secs_f64() / slice.as_secs_f64()) as usize;
            if let Some(count) = counts.get_mut(at) {
                *count += 1;
            }
        }
    }
    let per_second = |count: u32| f64::from(count) / slice.as_secs_f64();
    Ok(counts.into_iter().map(per_second).collect())
}

/// The bare interpreter as a process, or as a container without our program; nothing of WebAssembly.
async fn floor(plan: &Plan, name: BackendName, language: Language) -> Result<Option<(String, Figures)>> {
    let (what, times) = match name {
        BackendName::Wasm | BackendName::Microvm => return Ok(None),
        BackendName::Jail => tokio::task::block_in_place(|| bare_interpreter(plan, language))?,
        BackendName::Oci | BackendName::Gvisor | BackendName::Docker => {
            let containers = compose::container_engine(name).context("no such engine")?;
            let mut times = Vec::new();
            for _ in 0..plan.cold {
                let took = containers
                    .bare_start(language)
                    .await
                    .map_err(|reason| anyhow!(reason))?;
                times.push(took.as_secs_f64() * 1e3);
            }
            let runtime = containers.runtime().await.map_err(|reason| anyhow!(reason))?;
            let how = match name {
                BackendName::Docker => "docker run",
                _ => "run",
            };
            (format!("bare {runtime} {how} of {language}"), times)
        }
    };
    Ok(Figures::of("ms", times).map(|figures| (what, figures)))
}

fn bare_interpreter(plan: &Plan, language: Language) -> Result<(String, Vec<f64>)> {
    let (program, arguments): (&str, &[&str]) = match language {
        Language::Python => ("/usr/bin/python3", &["-I", "-S", "-c", "pass"]),
        Language::JavaScript => ("node", &["-e", "0"]),
        Language::Image => bail!("an image has no interpreter"),
    };
    let mut times = Vec::new();
    for _ in 0..plan.cold {
        let begun = Instant::now();
        let mut bare = Command::new(program);
        // One variable more costs Node milliseconds.
        bare.args(arguments)
            .env_clear()
            .env("PATH", crate::places::search_path());
        let status = bare.stdin(Stdio::null()).status();
        ensure!(
            status.with_context(|| format!("run {program}"))?.success(),
            "{program} failed"
        );
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok((format!("bare exec of {program}"), times))
}

/// A program on disk that goes with its value.
struct Bundle {
    directory: tempfile::TempDir,
    language: Language,
    code: Digest,
}

impl Bundle {
    fn new(language: Language, python: &str, javascript: &str) -> Result<Self> {
        let source = match language {
            Language::Python => python,
            Language::JavaScript => javascript,
            Language::Image => bail!("an image is no source"),
        };
        let directory = tempfile::Builder::new().prefix("piecework-bench-").tempdir()?;
        std::fs::write(directory.path().join(language.entry_file()), source)?;
        Ok(Self {
            directory,
            language,
            code: Digest::of(source.as_bytes()),
        })
    }

    fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }
}

async fn load(backend: &Arc<dyn Backend>, bundle: &Bundle) -> Result<Arc<dyn Loaded>> {
    let program = Program {
        owner: AccountId([0; 20]),
        language: bundle.language,
        code: bundle.code,
        directory: bundle.path(),
        handler: None,
        image: None,
        env: BTreeMap::new(),
        limits: Limits {
            timeout_ms: u32::try_from(CALL_WITHIN.as_millis()).unwrap_or(u32::MAX),
            ..Limits::DEFAULT
        },
        egress: EgressList::default(),
        function_name: "bench".to_owned(),
        version: 1,
    };
    let loaded = backend.load(Arc::new(program)).await;
    loaded.map_err(|error| anyhow!("the program does not load: {error}"))
}

async fn start(loaded: &Arc<dyn Loaded>) -> Result<Box<dyn Instance>> {
    let started = loaded.start().await;
    started.map_err(|error| anyhow!("no instance starts: {error}"))
}

/// An answer, or the measurement ends: what failed was not fast.
async fn call(instance: &mut dyn Instance) -> Result<Finished> {
    let finished = instance
        .call(Call {
            job: JobId::default(),
            event: Bytes::from_static(b"\"bench\""),
            parameters: Bytes::from_static(b"null"),
            deadline_ms: 0,
            time_left: CALL_WITHIN,
            stop: CancellationToken::new(),
            egress: EgressMeter::default(),
            body: None,
            outlet: Outlet::nowhere(),
        })
        .await;
    match finished.outcome {
        Outcome::Returned(_) => Ok(finished),
        other => bail!("a call ended as {other:?}"),
    }
}
