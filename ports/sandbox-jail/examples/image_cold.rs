//! Prints what a small static image takes to start in the jail, beside its bare exec and beside crun, in turns:
//! `cargo run --release --example image_cold`. Debian's crun runs nothing on a hybrid mount of control groups; there, start it in a
//! mount namespace without `/sys/fs/cgroup/unified`.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use piecework_model::{AccountId, Digest, JobId, Language, Limits};
use piecework_sandbox::{Backend, Call, Image, Loaded, Outcome, Program, runner::image_runner};
use piecework_sandbox_jail::{INIT_ARGUMENT, Jail, Options, init_main};
use serde_json::json;

const ROUNDS: usize = 100;

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
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let layer = folder.path().join("rootfs");
    // What crun mounts over.
    for directory in ["dev", "proc", "tmp"] {
        fs::create_dir_all(layer.join(directory))?;
    }
    let program_file = layer.join("program");
    fs::write(&program_file, image_runner())?;
    fs::set_permissions(&program_file, fs::Permissions::from_mode(0o755))?;
    let has_crun = write_bundle(folder.path())?;

    let mut options = Options::new(std::env::current_exe()?);
    options.search = std::env::var_os("PATH").unwrap_or_default();
    let jail = Jail::new(options)?;
    let loaded = jail.load(Arc::new(program(folder.path(), 0))).await?;
    drop(loaded.start().await?);
    let (mut exec, mut crun, mut fresh, mut started) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 1..=ROUNDS {
        exec.push(run(Command::new(&program_file).arg("look"))?);
        if has_crun {
            let name = format!("piecework-bench-{}-{number}", std::process::id());
            let mut command = Command::new("crun");
            command.args(["--cgroup-manager=disabled", "run", "--bundle"]);
            crun.push(run(command.arg(folder.path()).arg(name))?);
        }
        let begun = Instant::now();
        let other = jail.load(Arc::new(program(folder.path(), number))).await?;
        first_call(&*other).await?;
        fresh.push(begun.elapsed());
        drop(other);
        let begun = Instant::now();
        first_call(&*loaded).await?;
        started.push(begun.elapsed());
    }
    tell("bare fork and exec", &mut exec)?;
    if has_crun {
        tell("crun run", &mut crun)?;
    }
    tell("jail: load, start and call of a new image", &mut fresh)?;
    tell("jail: start and call of a known image", &mut started)
}

/// Until it has answered and is gone.
fn run(command: &mut Command) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let took = begun.elapsed();
    ensure!(
        output.status.success() && output.stdout.starts_with(b"{"),
        "it did not run: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(took)
}

async fn first_call(loaded: &dyn Loaded) -> anyhow::Result<()> {
    let mut instance = loaded.start().await?;
    let call = Call {
        job: JobId::default(),
        event: Bytes::from_static(b"null"),
        parameters: Bytes::from_static(b"null"),
        deadline_ms: 0,
        time_left: Duration::from_secs(5),
        stop: piecework_sandbox::CancellationToken::new(),
        egress: piecework_sandbox::EgressMeter::default(),
        body: None,
        outlet: piecework_sandbox::Outlet::nowhere(),
    };
    match instance.call(call).await.outcome {
        Outcome::Returned(output) if output.starts_with(b"{") => Ok(()),
        other => bail!("it ended as {other:?}"),
    }
}

fn program(folder: &Path, number: usize) -> Program {
    Program {
        owner: AccountId([0; 20]),
        language: Language::Image,
        code: Digest::of(&number.to_le_bytes()),
        directory: folder.to_owned(),
        handler: None,
        image: Some(Image {
            layers_in: folder.to_owned(),
            layers: vec!["rootfs".to_owned()],
            arguments: vec!["/program".to_owned(), "look".to_owned()],
            directory: "/".to_owned(),
            user: (0, 0),
            port: None,
        }),
        env: BTreeMap::new(),
        limits: Limits::DEFAULT,
        egress: piecework_model::EgressList::default(),
        function_name: "look".to_owned(),
        version: 1,
    }
}

/// What crun is to run: the same program in the same root, with the namespaces of a usual container. Whether crun is here.
fn write_bundle(folder: &Path) -> anyhow::Result<bool> {
    let mount = |kind: &str, at: &str| json!({"destination": at, "type": kind, "source": kind});
    let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({"type": kind}));
    let config = json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/program", "look"], "cwd": "/", "env": ["PATH=/"]},
        "mounts": [mount("proc", "/proc"), mount("tmpfs", "/tmp")],
        "linux": {"namespaces": namespaces},
    });
    fs::write(folder.join("config.json"), config.to_string())?;
    Ok(Command::new("crun").arg("--version").output().is_ok())
}

fn tell(what: &str, times: &mut [Duration]) -> anyhow::Result<()> {
    times.sort();
    let least = times.first().context("at least one")?.as_micros();
    let at = |percent: usize| times[times.len() * percent / 100].as_micros();
    println!(
        "{what}: median {} us, p95 {} us, least {least} us, n = {}",
        at(50),
        at(95),
        times.len()
    );
    Ok(())
}
