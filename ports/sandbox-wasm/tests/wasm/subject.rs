//! The backends under test, one for all tests of a process: compiling takes seconds when the cache is empty.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use piecework_model::Language;
use piecework_sandbox::Backend;
use piecework_sandbox_conformance::Subject;
use piecework_sandbox_wasm::{Options, Wasm};

pub const INSTANCES_MAX: u32 = 64;

fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../runtimes/build")
        .join(name)
}

pub fn options(rootless: bool) -> Options {
    Options {
        python: Some(built("python.wasm").into()),
        javascript: Some(built("javascript.wasm").into()),
        cache: built("cache"),
        zygote: env!("CARGO_BIN_EXE_wasm-zygote").into(),
        instances_max: INSTANCES_MAX,
        cores: 2,
        rootless,
        tell: None,
    }
}

pub fn backend(rootless: bool) -> Arc<Wasm> {
    static BACKENDS: [OnceLock<Arc<Wasm>>; 2] = [OnceLock::new(), OnceLock::new()];
    let make = || Arc::new(Wasm::new(options(rootless)).expect("a thread"));
    Arc::clone(BACKENDS[usize::from(rootless)].get_or_init(make))
}

/// Whether both components are built; else the test says so and ends, except in CI.
pub fn complete(backend: &Wasm) -> bool {
    let complete = backend.languages().len() == Language::ALL.len();
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        complete || !in_ci,
        "in CI both components must be built: run runtimes/build.sh"
    );
    if !complete {
        eprintln!("SKIPPED: runtimes/build.sh has not built both components");
    }
    complete
}

fn subject(rootless: bool) -> Subject {
    let backend = backend(rootless);
    complete(&backend);
    let languages = backend.languages();
    Subject {
        backend: backend as Arc<dyn Backend>,
        languages,
        exemptions: vec![],
    }
}

pub async fn full() -> Subject {
    subject(false)
}

pub async fn rootless() -> Subject {
    subject(true)
}
