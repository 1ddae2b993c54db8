//! The backends under test, one for all tests of a process: compiling takes seconds when the cache is empty.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use piecework_model::Language;
use piecework_sandbox::Backend;
use piecework_sandbox_conformance::{Exemption, Instead, Subject};
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

/// Cases whose Python does what the component does not have at all, and what that is: the run ends where it reaches for it, or the
/// code does not load.
const BY_OTHER_MEANS: [(&str, &str); 14] = [
    ("a_disk_fill_is_bounded", "files that can be written"),
    ("a_failing_module_is_told", "`os._exit`"),
    ("a_fork_bomb_is_bounded", "`os.fork`"),
    ("a_stubborn_daemon_dies_with_the_timeout", "`os.fork`"),
    ("an_exit_is_a_crash_of_itself", "`os._exit`"),
    ("dropping_a_call_kills_all_of_it", "`os.fork`"),
    ("dropping_an_instance_kills_all_of_it", "`os.fork`"),
    ("many_files_are_bounded", "files that can be written"),
    ("processes_left_behind_end_with_their_instance", "`os.fork`"),
    ("scratch_is_never_shared", "`/tmp`"),
    ("the_bundle_is_read_only", "`/tmp`"),
    ("the_network_is_shut", "`socket.SOCK_STREAM`"),
    ("what_a_call_leaves_running_ends_its_instance_and_is_told", "threads"),
    ("what_runs_after_the_answer_stands_still_and_is_billed", "threads"),
];

fn elsewhere((case, what): (&'static str, &'static str)) -> Exemption {
    Exemption {
        case,
        language: Some(Language::Python),
        reason: "CPython's part that it uses is not in the component",
        instead: Instead::Elsewhere(what),
    }
}

fn subject(rootless: bool) -> Subject {
    let backend = backend(rootless);
    complete(&backend);
    let languages = backend.languages();
    Subject {
        backend: backend as Arc<dyn Backend>,
        languages,
        exemptions: BY_OTHER_MEANS.map(elsewhere).to_vec(),
    }
}

pub async fn full() -> Subject {
    subject(false)
}

pub async fn rootless() -> Subject {
    subject(true)
}
