//! The suite that every backend passes, over the built components.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use piecework_sandbox::Backend;
use piecework_sandbox_conformance::Subject;
use piecework_sandbox_wasm::{Options, Wasm};

fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../runtimes/build")
        .join(name)
}

/// One backend for all tests of this process: compiling takes seconds when the cache is empty.
fn backend() -> Arc<Wasm> {
    static BACKEND: OnceLock<Arc<Wasm>> = OnceLock::new();
    let make = || {
        let options = Options {
            python: Some(built("python.wasm")),
            javascript: Some(built("javascript.wasm")),
            cache: built("cache"),
            instances_max: 64,
        };
        Arc::new(Wasm::new(options).expect("a thread for the ticker"))
    };
    Arc::clone(BACKEND.get_or_init(make))
}

async fn subject() -> Subject {
    let backend = backend();
    let languages = backend.languages();
    let complete = languages.len() == 2;
    assert!(
        complete || std::env::var_os("CI").is_none_or(|value| value != "true"),
        "in CI both components must be built: run runtimes/build.sh"
    );
    Subject {
        backend: backend as Arc<dyn Backend>,
        languages,
        exemptions: vec![],
    }
}

piecework_sandbox_conformance::conformance_tests!(crate::conformance::subject);
