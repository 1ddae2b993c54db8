//! Prints how long a cold start with its first call and a warm call take, in both languages, and what instances hold.
//!
//! Of a warm call, the worker itself tells how long its engine took: the rest is what it costs that the engine is in another process.
//!
//! `cargo run --release -p piecework-sandbox-wasm --example medians`

use std::{
    collections::BTreeMap,
    error::Error,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use piecework_model::{AccountId, Digest, JobId, Language, Limits};
use piecework_sandbox::{Backend, Call, Instance, Loaded, Outcome, Program};
use piecework_sandbox_wasm::{Options, Wasm, ZYGOTE_ARGUMENT, zygote_main};

const COLD_RUNS: usize = 300;
const WARM_RUNS: usize = 5_000;
const LIVE: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == ZYGOTE_ARGUMENT) {
        zygote_main(&arguments[2..]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure_all())
}

async fn measure_all() -> Result<(), Box<dyn Error>> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtimes/build");
    let wasm = Wasm::new(Options {
        python: Some(built.join("python.wasm").into()),
        javascript: Some(built.join("javascript.wasm").into()),
        cache: built.join("cache"),
        zygote: std::env::current_exe()?,
        instances_max: 256,
        cores: 2,
        rootless: false,
        tell: None,
    })?;
    let begun = Instant::now();
    wasm.precompile()?;
    println!("ready after {:?}", begun.elapsed());
    for (language, source) in [
        (
            Language::JavaScript,
            "export default async (event) => ({ hello: event.name });\n",
        ),
        (
            Language::Python,
            "def handler(event, context):\n    return {'hello': event['name']}\n",
        ),
    ] {
        measure(&wasm, language, source).await?;
    }
    for language in [Language::JavaScript, Language::Python] {
        measure_sample(&wasm, language).await?;
    }
    Ok(())
}

async fn measure(wasm: &Wasm, language: Language, source: &str) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join(language.entry_file()), source)?;
    let begun = Instant::now();
    let loaded = wasm.load(Arc::new(program(language, directory.path()))).await?;
    println!("{language}: load {:?}", begun.elapsed());
    let mut cold = Vec::new();
    let mut starts = Vec::new();
    let mut polls = 0;
    for _ in 0..COLD_RUNS {
        let begun = Instant::now();
        let mut instance = loaded.start().await?;
        starts.push(begun.elapsed());
        greet(instance.as_mut()).await?;
        cold.push(begun.elapsed());
        polls += 1;
    }
    report(language, "start", &mut starts);
    report(language, "cold (start + first call)", &mut cold);
    let mut instance = loaded.start().await?;
    let (mut warm, mut engine, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..WARM_RUNS {
        let begun = Instant::now();
        let within = greet(instance.as_mut()).await?;
        let took = begun.elapsed();
        warm.push(took);
        engine.push(within);
        rest.push(took.saturating_sub(within));
    }
    report(language, "warm call", &mut warm);
    report(language, "of it the engine, as its process sees it", &mut engine);
    report(language, "and that it is in another process", &mut rest);
    hold(wasm, language, loaded.as_ref()).await?;
    println!("{language}: {polls} instances came and went");
    Ok(())
}

/// Warm calls of the sample function, which also logs: what a server runs when it is asked for a greeting.
async fn measure_sample(wasm: &Wasm, language: Language) -> Result<(), Box<dyn Error>> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    let loaded = wasm
        .load(Arc::new(program(language, &samples.join(format!("hello-{language}")))))
        .await?;
    let mut instance = loaded.start().await?;
    let mut warm = Vec::new();
    for _ in 0..WARM_RUNS {
        let begun = Instant::now();
        let finished = instance.call(ada()).await;
        warm.push(begun.elapsed());
        if finished.logs.text.is_empty() || !matches!(finished.outcome, Outcome::Returned(_)) {
            return Err(format!("{finished:?}").into());
        }
    }
    report(language, "warm call of the sample", &mut warm);
    Ok(())
}

/// The growth of the workers' memory by many live instances that have each served once.
async fn hold(wasm: &Wasm, language: Language, loaded: &dyn Loaded) -> Result<(), Box<dyn Error>> {
    let before = wasm.beside().memory_bytes;
    let mut instances = Vec::new();
    for _ in 0..LIVE {
        let mut instance = loaded.start().await?;
        greet(instance.as_mut()).await?;
        instances.push(instance);
    }
    let each = wasm.beside().memory_bytes.saturating_sub(before) / LIVE as u64;
    println!(
        "{language}: {LIVE} live, {} KiB each; told {} KiB",
        each >> 10,
        instances[0].memory_bytes() >> 10
    );
    Ok(())
}

/// How long the engine took.
async fn greet(instance: &mut dyn Instance) -> Result<Duration, Box<dyn Error>> {
    let finished = instance.call(ada()).await;
    if finished.outcome != Outcome::Returned(r#"{"hello":"Ada"}"#.into()) {
        return Err(format!("{finished:?}").into());
    }
    Ok(finished.duration)
}

fn ada() -> Call {
    Call {
        job: JobId([1; 16]),
        event: r#"{"name":"Ada"}"#.into(),
        parameters: "null".into(),
        deadline_ms: 0,
        time_left: Duration::from_secs(5),
        stop: piecework_sandbox::CancellationToken::new(),
        egress: piecework_sandbox::EgressMeter::default(),
        body: None,
        outlet: piecework_sandbox::Outlet::nowhere(),
    }
}

fn program(language: Language, directory: &Path) -> Program {
    Program {
        owner: AccountId([1; 20]),
        language,
        code: Digest::of(b"medians"),
        directory: directory.to_owned(),
        handler: None,
        image: None,
        env: BTreeMap::new(),
        limits: Limits::DEFAULT,
        egress: piecework_model::EgressList::default(),
        function_name: "medians".to_owned(),
        version: 1,
    }
}

fn report(language: Language, what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{language}: {what}: median {:?}, min {:?}, p95 {:?}",
        at(0.5),
        at(0.0),
        at(0.95)
    );
}
