//! The probes look from inside, and nothing outlives a backend.

use piecework_model::Language;
use piecework_sandbox::{Backend, BackendName};
use piecework_sandbox_oci::{Containers, Kind, Options};

use crate::subject;

async fn sees_its_own_walls(kind: Kind, name: BackendName) {
    let backend = subject::containers(kind);
    let languages = backend.languages().await;
    if !subject::complete(&languages, "the runtime") {
        return;
    }
    let probe = backend.probe().await;
    assert!(probe.works, "{probe:?}");
    let all: Vec<Language> = languages.into_iter().chain([Language::Image]).collect();
    assert_eq!((probe.backend, &probe.languages), (name, &all), "{probe:?}");
    assert!(probe.cold_us.is_some() && probe.warm_us.is_some(), "{probe:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crun_sees_its_own_walls() {
    sees_its_own_walls(Kind::Crun, BackendName::Oci).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runc_sees_its_own_walls() {
    sees_its_own_walls(Kind::Runc, BackendName::Oci).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gvisor_sees_its_own_walls() {
    sees_its_own_walls(Kind::Runsc, BackendName::Gvisor).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executable_that_is_no_keeper_is_told() {
    let probe = Containers::oci(Options::new("/bin/true")).probe().await;
    assert!(!probe.works, "{probe:?}");
    assert!(
        probe.detail.contains("keeper")
            || probe.detail.contains("not installed")
            || probe.detail.contains("control groups"),
        "{probe:?}"
    );
}
