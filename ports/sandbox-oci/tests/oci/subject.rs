//! The backends under test.

use piecework_model::Language;
use piecework_sandbox_oci::{Containers, Kind, Options};

use crate::dockerd::Dockerd;

fn options() -> Options {
    let mut options = Options::new(env!("CARGO_BIN_EXE_oci-keeper"));
    options.search = std::env::var_os("PATH").unwrap_or_default();
    options
}

pub fn containers(kind: Kind) -> Containers {
    Containers::of_runtime(kind, options())
}

/// With its things in a directory that is its owner's alone.
pub fn hidden(kind: Kind, scratch: &std::path::Path) -> Containers {
    let mut options = options();
    options.scratch = scratch.to_owned();
    Containers::of_runtime(kind, options)
}

pub fn docker(daemon: &Dockerd) -> Containers {
    Containers::docker(options(), daemon.socket())
}

/// Whether what the tests need is here; else the test says so and ends, except in CI.
pub fn complete(languages: &[Language], what: &str) -> bool {
    let complete = languages.len() == Language::ALL.len();
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(complete || !in_ci, "in CI {what} and both interpreters must be here");
    if !complete {
        println!("SKIPPED: {what}, root, python3 or node is missing here");
    }
    complete
}
