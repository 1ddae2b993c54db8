//! One image from a registry in every sandbox that runs images.

use std::path::PathBuf;

use super::*;
use crate::dockerd::Dockerd;

/// The same image as a server and run once, called over HTTP and paid in this sandbox.
async fn is_called_and_paid(bench: &Bench, reference: &str, sandbox: &str) {
    let web = format!("web-{sandbox}");
    let deploy = [
        "deploy",
        "--image",
        reference,
        "--sandbox",
        sandbox,
        "--timeout",
        "30s",
        "--name",
    ];
    bench.ok(&[&deploy[..], &[web.as_str()]].concat()).await;
    let path = format!("/fn/operator/{web}/a/b?c=d");
    for _ in 0..2 {
        let answered = bench.at(Method::PUT, &path, b"hello").await;
        assert_eq!(answered.status().as_u16(), 200, "{sandbox}");
        let body: Value = answered.json().await.expect("JSON");
        assert_eq!(
            (&body["line"], &body["body"]),
            (&json!("PUT /a/b?c=d HTTP/1.1"), &json!("hello"))
        );
    }
    let large = bench.at(Method::GET, &format!("/fn/operator/{web}/large"), b"").await;
    assert_eq!(large.bytes().await.expect("a whole answer").len(), 4 << 20, "{sandbox}");
    let copy = format!("copy-{sandbox}");
    let once = [&deploy[..], &[copy.as_str(), "--stdio", "--", "copy"]].concat();
    bench.ok(&once).await;
    for (name, input) in [(&web, json!([1])), (&copy, json!({"a": [1, null]}))] {
        let answer = bench.machine.call(name, input.clone()).await.ok();
        let said = if *name == web {
            &answer["output"]["line"]
        } else {
            &answer["output"]
        };
        let wanted = if *name == web { json!("POST / HTTP/1.1") } else { input };
        assert_eq!(*said, wanted, "{sandbox}: {answer}");
        let job = bench.machine.paid(answer["job_id"].as_str().expect("an id")).await;
        assert_eq!(job["sandbox"], sandbox, "{job}");
        assert!(job["price_ucr"].as_u64().is_some_and(|price| price > 0), "{job}");
    }
    // The exit code of a server is told, and the next call has a new one.
    let exit = json!({"method": "GET", "path": "/exit"});
    let ended = bench.machine.call(&web, exit).await;
    ended.refused(502, Code::FunctionCrashed);
    assert!(ended.body.to_string().contains("code 3"), "{sandbox}: {}", ended.body);
    assert_eq!(bench.machine.call(&web, json!(1)).await.ok()["cold"], true);
}

/// A registry with the image, and its reference there.
async fn registry_with_the_image() -> Option<(Registry, String)> {
    let program = needs()?;
    if !has("docker-registry") {
        skipped("docker-registry is not installed");
        return None;
    }
    let registry = Registry::start("").await;
    let image = Image::of_the_program(
        program,
        json!({"Entrypoint": [ENTRY], "WorkingDir": "/srv/app", "User": "web"}),
    );
    registry.push(&image, None).await;
    let reference = format!("{}/web:1", registry.address);
    Some((registry, reference))
}

#[tokio::test]
async fn an_image_from_a_registry_runs_in_the_jail_crun_and_gvisor() {
    let Some((_registry, reference)) = registry_with_the_image().await else {
        return;
    };
    if !has("crun") || !has("runsc") {
        return skipped("crun or runsc is not installed");
    }
    let bench = Bench::new();
    for sandbox in ["jail", "oci", "gvisor"] {
        is_called_and_paid(&bench, &reference, sandbox).await;
    }
    let refused = Code::SandboxUnsupported;
    bench
        .refused(&["deploy", "--image", &reference, "--sandbox", "wasm"], refused)
        .await;
    // The instances stand still between calls. A group is only gone when everything in it is.
    let pid = bench.machine.pid();
    let groups = groups_of(pid, Path::new("/sys/fs/cgroup"), 4);
    assert!(!groups.is_empty(), "they are somewhere");
    assert!(bench.machine.stop(), "it ends by itself");
    let left = groups_of(pid, Path::new("/sys/fs/cgroup"), 4);
    assert_eq!(left, Vec::<PathBuf>::new(), "a clean stop leaves nothing behind");
}

/// Control groups that a process has made for sandboxes, in any hierarchy.
fn groups_of(pid: u32, below: &Path, depth: u32) -> Vec<PathBuf> {
    let name = format!("piecework-jail-{pid}-");
    let directories = fs::read_dir(below).into_iter().flatten().flatten();
    let directories = directories.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let found = directories.flat_map(|entry| match entry.file_name().to_string_lossy().starts_with(&name) {
        true => vec![entry.path()],
        false if depth > 0 => groups_of(pid, &entry.path(), depth - 1),
        false => Vec::new(),
    });
    found.collect()
}

#[tokio::test]
async fn an_image_from_a_registry_runs_in_docker() {
    let Some((_registry, reference)) = registry_with_the_image().await else {
        return;
    };
    let Some(daemon) = Dockerd::start() else {
        return skipped("dockerd is not installed, or this is not root");
    };
    let socket = format!("unix://{}", daemon.socket().display());
    let bench = Bench::with(&[("DOCKER_HOST", &socket)]);
    is_called_and_paid(&bench, &reference, "docker").await;
}
