//! Runs the handler of a bundle once, and prints what came of it.
//!
//! `cargo run --release -p piecework-sandbox-wasm --example once -- DIRECTORY [EVENT]`

use std::{collections::BTreeMap, error::Error, path::Path, sync::Arc, time::Duration};

use piecework_model::{AccountId, Digest, JobId, Language, Limits};
use piecework_sandbox::{Backend, Call, Program};
use piecework_sandbox_wasm::{Options, Wasm, ZYGOTE_ARGUMENT, zygote_main};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == ZYGOTE_ARGUMENT) {
        zygote_main(&arguments[2..]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(once())
}

async fn once() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("which directory?")?;
    let event = arguments.next().unwrap_or_else(|| "null".to_owned());
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtimes/build");
    let wasm = Wasm::new(Options {
        python: Some(built.join("python.wasm").into()),
        javascript: Some(built.join("javascript.wasm").into()),
        cache: built.join("cache"),
        zygote: std::env::current_exe()?,
        instances_max: 8,
        cores: 2,
        rootless: false,
        tell: None,
    })?;
    let found = |language: &Language| Path::new(&directory).join(language.entry_file()).is_file();
    let language = Language::ALL.into_iter().find(found).ok_or("no main.py, no main.mjs")?;
    let program = Program {
        owner: AccountId([1; 20]),
        language,
        code: Digest::of(directory.as_bytes()),
        directory: directory.into(),
        handler: None,
        image: None,
        env: BTreeMap::new(),
        limits: Limits::DEFAULT,
        egress: piecework_model::EgressList::default(),
        function_name: "once".to_owned(),
        version: 1,
    };
    let loaded = wasm.load(Arc::new(program)).await?;
    let call = Call {
        job: JobId([1; 16]),
        event: event.into(),
        parameters: "null".into(),
        deadline_ms: 0,
        time_left: Duration::from_millis(Limits::DEFAULT.timeout_ms.into()),
        stop: piecework_sandbox::CancellationToken::new(),
        egress: piecework_sandbox::EgressMeter::default(),
        body: None,
        outlet: piecework_sandbox::Outlet::nowhere(),
    };
    let finished = loaded.start().await?.call(call).await;
    println!("{}", finished.logs.text);
    println!("{:?}", finished.outcome);
    println!(
        "{:?}, {:?}, reusable {}",
        finished.duration, finished.counters, finished.reusable
    );
    Ok(())
}
