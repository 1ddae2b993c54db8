//! Prints how long a cold start with its first call and a warm call take, in both languages, and what instances hold.
//!
//! `cargo run --release -p piecework-sandbox-wasm --example medians`

use std::{
    collections::BTreeMap,
    error::Error,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use piecework_model::{Digest, JobId, Language, Limits};
use piecework_sandbox::{Backend, Call, Instance, Loaded, Outcome, Program};
use piecework_sandbox_wasm::{Options, Wasm};

const COLD_RUNS: usize = 300;
const WARM_RUNS: usize = 60_000;
const LIVE: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure_all())
}

async fn measure_all() -> Result<(), Box<dyn Error>> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtimes/build");
    let wasm = Wasm::new(Options {
        python: Some(std::env::var("PYW").map(Into::into).unwrap_or(built.join("python.wasm"))),
        javascript: Some(std::env::var("JSW").map(Into::into).unwrap_or(built.join("javascript.wasm"))),
        cache: "/tmp/wcache".into(),
        instances_max: 1_000,
    })?;
    let begun = Instant::now();
    wasm.precompile()?;
    println!("ready after {:?}", begun.elapsed());
    let only = std::env::args().nth(1).unwrap();
    for language in [Language::JavaScript, Language::Python] {
        if language.to_string() != only {
            continue;
        }
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
    let mut warm = Vec::new();
    for _ in 0..WARM_RUNS {
        let begun = Instant::now();
        greet(instance.as_mut()).await?;
        warm.push(begun.elapsed());
    }
    report(language, "warm call", &mut warm);
    hold(language, loaded.as_ref()).await?;
    println!("{language}: {polls} instances came and went");
    Ok(())
}

/// Warm calls of the sample function, which also logs: what a server runs when it is asked for a greeting.
async fn measure_sample(wasm: &Wasm, language: Language) -> Result<(), Box<dyn Error>> {
    let dir = std::path::PathBuf::from(std::env::args().nth(2).unwrap());
    let loaded = wasm.load(Arc::new(program(language, &dir))).await?;
    let instance = loaded.start().await?;
    drop(instance);
    let shared = std::env::args().nth(3).is_none();
    let mut list = Vec::new(); for _ in 0..3 { list.push(loaded.start().await?); }
    let stack = std::sync::Mutex::new(list);
    let mut warm = Vec::new();
    std::thread::scope(|scope| {
        let run = || {
            let mut own = (!shared).then(|| stack.lock().unwrap().pop().unwrap());
            let mut warm = Vec::new();
            let mut junk = vec![1u8; 256 << 10];
            for at in 0..20_000 {
                for i in (0..junk.len()).step_by(64) { junk[i] = junk[i].wrapping_add(at as u8); }
                let mut instance = own.take().unwrap_or_else(|| stack.lock().unwrap().pop().unwrap());
                let begun = Instant::now();
                futures::executor::block_on(instance.call(ada()));
                warm.push(begun.elapsed());
                if shared { stack.lock().unwrap().push(instance); } else { own = Some(instance); }
            }
            warm
        };
        let one = scope.spawn(run);
        let other = scope.spawn(run);
        warm.extend(one.join().unwrap());
        warm.extend(other.join().unwrap());
    });
    report(language, "warm call of the sample", &mut warm);
    Ok(())
}

/// The growth of this process's anonymous memory by many live instances that have each served once.
async fn hold(language: Language, loaded: &dyn Loaded) -> Result<(), Box<dyn Error>> {
    let before = resident_bytes()?;
    let mut instances = Vec::new();
    for _ in 0..LIVE {
        let mut instance = loaded.start().await?;
        greet(instance.as_mut()).await?;
        instances.push(instance);
    }
    let each = resident_bytes()?.saturating_sub(before) / LIVE as u64;
    println!(
        "{language}: {LIVE} live, {} KiB each; told {} KiB",
        each >> 10,
        instances[0].memory_bytes() >> 10
    );
    Ok(())
}

fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .ok_or("no RssAnon")?;
    let kib: u64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib << 10)
}

async fn greet(instance: &mut dyn Instance) -> Result<(), Box<dyn Error>> {
    let finished = instance.call(ada()).await;
    if finished.outcome != Outcome::Returned(r#"{"hello":"Ada"}"#.into()) {
        return Err(format!("{finished:?}").into());
    }
    Ok(())
}

fn ada() -> Call {
    Call {
        job: JobId([1; 16]),
        event: r#"{"name":"Ada"}"#.into(),
        parameters: "null".into(),
        deadline_ms: 0,
        time_left: Duration::from_secs(5),
    }
}

fn program(language: Language, directory: &Path) -> Program {
    Program {
        language,
        code: Digest::of(b"medians"),
        directory: directory.to_owned(),
        handler: None,
        env: BTreeMap::new(),
        limits: Limits::DEFAULT,
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
