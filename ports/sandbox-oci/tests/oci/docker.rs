//! A Docker daemon that goes, and one that is not there.

use piecework_sandbox::Backend;
use piecework_sandbox_oci::{Containers, Options};

use crate::{dockerd::Dockerd, subject};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_ends_is_told_and_ends_nothing_else() {
    let Some(daemon) = Dockerd::start() else {
        subject::complete(&[], "dockerd");
        return;
    };
    let backend = subject::docker(&daemon);
    assert!(backend.probe().await.works);
    drop(daemon);
    let probe = backend.probe().await;
    assert!(!probe.works, "{probe:?}");
    assert!(probe.detail.contains("does not answer"), "{probe:?}");
}

#[tokio::test]
async fn without_a_daemon_the_probe_says_what_to_install() {
    let probe = Containers::docker(Options::new("/bin/true"), "/nonexistent/docker.sock")
        .probe()
        .await;
    assert!(
        !probe.works && probe.detail.contains("apt install docker.io"),
        "{probe:?}"
    );
}
