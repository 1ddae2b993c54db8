//! Prints cold and warm medians of the jail on this machine: `cargo run --release --example cold_and_warm`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::Bytes;
use piecework_model::{AccountId, Digest, JobId, Language, Limits};
use piecework_sandbox::{Backend, Call, Instance, Loaded, Outcome, Program};
use piecework_sandbox_jail::{INIT_ARGUMENT, Jail, Options, init_main};

const ROUNDS: usize = 60;
const WARM_CALLS: usize = 3_000;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first()
        && first == INIT_ARGUMENT
    {
        init_main(rest);
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let mut options = Options::new(std::env::current_exe()?);
    options.search = std::env::var_os("PATH").unwrap_or_default();
    let jail = Jail::new(options)?;
    println!("{:#?}", jail.probe().await);
    for language in jail.languages() {
        let bundle = bundle(language)?;
        println!("{language}");
        measure_language(&jail, language, bundle.path()).await?;
    }
    Ok(())
}

fn bundle(language: Language) -> anyhow::Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    let source = match language {
        Language::Python => "def handler(event, context):\n    return event\n",
        Language::JavaScript => "export default (event) => event;\n",
        Language::Image => bail!("see image_cold"),
    };
    std::fs::write(directory.path().join(language.entry_file()), source)?;
    Ok(directory)
}

async fn measure_language(jail: &Jail, language: Language, directory: &Path) -> anyhow::Result<()> {
    let mut loads = Vec::new();
    let mut after_load = Vec::new();
    for number in 0..ROUNDS / 3 {
        let begun = Instant::now();
        let loaded = jail
            .load(Arc::new(program(language, directory.to_owned(), number)))
            .await?;
        let mut instance = loaded.start().await?;
        call(&mut *instance).await?;
        loads.push(begun.elapsed());
        drop((instance, loaded));
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    tell("load, start and first call of a new program", &mut loads);
    let loaded = jail.load(Arc::new(program(language, directory.to_owned(), 0))).await?;
    drop(loaded.start().await?);
    for pause in [Duration::ZERO, Duration::from_millis(100)] {
        after_load.clear();
        for _ in 0..ROUNDS {
            tokio::time::sleep(pause).await;
            after_load.push(cold(&*loaded).await?);
        }
        let what = if pause.is_zero() {
            "in a row, no time to prepare"
        } else {
            "from a jail made ahead"
        };
        tell(&format!("start and first call, {what}"), &mut after_load);
    }
    let mut instance = loaded.start().await?;
    let mut warm = Vec::with_capacity(WARM_CALLS);
    for _ in 0..WARM_CALLS {
        let begun = Instant::now();
        call(&mut *instance).await?;
        warm.push(begun.elapsed());
    }
    tell("warm call", &mut warm);
    println!("  an idle instance holds {} KiB", instance.memory_bytes() >> 10);
    Ok(())
}

async fn cold(loaded: &dyn Loaded) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut instance = loaded.start().await?;
    call(&mut *instance).await?;
    Ok(begun.elapsed())
}

async fn call(instance: &mut dyn Instance) -> anyhow::Result<()> {
    let event = Bytes::from_static(b"{\"name\":\"Ada\"}");
    let call = Call {
        job: JobId::default(),
        event: event.clone(),
        parameters: Bytes::from_static(b"null"),
        deadline_ms: 0,
        time_left: Duration::from_secs(5),
        stop: piecework_sandbox::CancellationToken::new(),
        egress: piecework_sandbox::EgressMeter::default(),
        body: None,
        outlet: piecework_sandbox::Outlet::nowhere(),
    };
    match instance.call(call).await.outcome {
        Outcome::Returned(output) if output == event => Ok(()),
        other => bail!("an echo ended as {other:?}"),
    }
}

fn program(language: Language, directory: PathBuf, number: usize) -> Program {
    Program {
        owner: AccountId([0; 20]),
        language,
        code: Digest::of(&number.to_le_bytes()),
        directory,
        handler: None,
        image: None,
        env: BTreeMap::new(),
        limits: Limits::DEFAULT,
        egress: piecework_model::EgressList::default(),
        function_name: "echo".to_owned(),
        version: 1,
    }
}

fn tell(what: &str, times: &mut [Duration]) {
    times.sort();
    let least = times
        .first()
        .context("at least one")
        .map(|time| time.as_micros())
        .unwrap_or_default();
    println!(
        "  {what}: median {} us, least {least} us, n = {}",
        times[times.len() / 2].as_micros(),
        times.len()
    );
}
