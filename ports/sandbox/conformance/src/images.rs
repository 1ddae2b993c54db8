//! Container images: what every backend that runs them must hold. One image, whose program does what its input says.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use piecework_model::{AccountId, Digest, EgressList, Language};
use piecework_sandbox::{Backend, BackendName, Image, Loaded, Outcome, Program};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bench::{Check, Kind, LIMITS, Running, TIMEOUT_SLACK, Told, ensure, mark, output, wait_for_marked};

/// Longer than any grace after an answer, many times.
const PAUSE: Duration = Duration::from_millis(500);
/// What may run after an answer before the instance stands still, on a machine as busy as tests make it.
const GRACE_MAX_US: u64 = 200_000;
const TIMEOUT: Duration = Duration::from_millis(700);
/// Until a process is seen to begin or to be gone, on such a machine.
const PROCESSES_WITHIN: Duration = Duration::from_secs(20);

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/image-program"));
const PORT: u16 = 8080;

/// Two bytes that are no text.
const BYTES: &str = "/wA=";

/// The image, unpacked once for all cases of a process, and the backend.
struct Images {
    backend: Arc<dyn Backend>,
    layers: TempDir,
    /// One for each way to run it.
    loaded: tokio::sync::Mutex<BTreeMap<String, Arc<dyn Loaded>>>,
    skipped: Mutex<Vec<&'static str>>,
    rootless: bool,
}

impl Images {
    fn new(backend: Arc<dyn Backend>, unpacked_by: Option<u32>) -> Self {
        let layers = tempfile::Builder::new()
            .prefix("layers-")
            .tempdir()
            .expect("a directory");
        let at = |path: &str| layers.path().join(path);
        let open = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own");
        };
        for directory in ["lower", "lower/data", "upper", "upper/bin"] {
            fs::create_dir(at(directory)).expect("made");
            open(&at(directory), if directory.ends_with("data") { 0o777 } else { 0o755 });
        }
        fs::write(at("lower/data/below"), "lower").expect("written");
        fs::write(at("upper/bin/program"), PROGRAM).expect("written");
        open(&at("upper/bin/program"), 0o755);
        open(layers.path(), 0o755);
        if let Some(id) = unpacked_by {
            for path in [
                "",
                "lower",
                "lower/data",
                "lower/data/below",
                "upper",
                "upper/bin",
                "upper/bin/program",
            ] {
                chown(at(path), Some(id), Some(id)).expect("root may");
            }
        }
        Self {
            backend,
            layers,
            loaded: tokio::sync::Mutex::default(),
            skipped: Mutex::default(),
            rootless: unpacked_by.is_some(),
        }
    }

    fn program(&self, verb: &str, timeout: Duration) -> Program {
        let port = (verb == "serve").then_some(PORT);
        Program {
            owner: AccountId([8; 20]),
            language: Language::Image,
            code: Digest::of(verb.as_bytes()),
            directory: self.layers.path().to_owned(),
            handler: None,
            image: Some(Image {
                layers_in: self.layers.path().to_owned(),
                layers: vec!["lower".to_owned(), "upper".to_owned()],
                arguments: vec!["/bin/program".to_owned(), verb.to_owned()],
                directory: "/data".to_owned(),
                user: (0, 0),
                port,
            }),
            env: [("PORT".to_owned(), PORT.to_string())].into(),
            limits: piecework_model::Limits {
                timeout_ms: u32::try_from(timeout.as_millis()).expect("short"),
                ..LIMITS
            },
            egress: EgressList::default(),
            function_name: "image".to_owned(),
            version: 1,
        }
    }

    /// An instance of a program that is loaded once.
    async fn start(&self, verb: &str) -> Result<Running, String> {
        self.start_within(verb, Duration::from_secs(10)).await
    }

    async fn start_within(&self, verb: &str, timeout: Duration) -> Result<Running, String> {
        let mut all = self.loaded.lock().await;
        let program = self.program(verb, timeout);
        let limits = program.limits;
        let key = format!("{verb} {timeout:?}");
        let loaded = match all.get(&key) {
            Some(loaded) => loaded.clone(),
            None => {
                let loaded = self.backend.load(Arc::new(program)).await;
                let loaded = loaded.map_err(|error| format!("`{verb}` did not load: {error}"))?;
                all.insert(key, loaded.clone());
                loaded
            }
        };
        drop(all);
        Running::of(loaded, limits).await
    }

    async fn obeys(&self, order: &str) -> Result<Value, String> {
        let mut running = self.start("obey").await?;
        output(&running.call(&json!(order).to_string()).await)
    }

    /// Whether processes inside are processes of the host's.
    fn sees_processes(&self) -> bool {
        self.backend.name() != BackendName::Gvisor
    }

    /// Without control groups a program finds that it gets no more memory, and ends itself.
    fn is_limited_softly(&self) -> bool {
        self.rootless
    }

    fn skip(&self, why: &'static str) -> Check {
        self.skipped.lock().expect("no panic holds it").push(why);
        Ok(())
    }
}

async fn a_server_answers_and_stays(images: &Images) -> Check {
    let mut running = images.start("serve").await?;
    for count in 0..2 {
        let finished = running.call("\"echo hello\"").await;
        let said = output(&finished)?;
        ensure!(
            said["said"] == "hello" && said["line"] == "POST / HTTP/1.1",
            "it said {said}"
        );
        ensure!(finished.reusable, "it is gone after {count} calls");
    }
    let first = output(&running.call("\"echo a\"").await)?["count"].as_u64();
    let second = output(&running.call("\"echo b\"").await)?["count"].as_u64();
    ensure!(
        first.zip(second).is_some_and(|(first, second)| second > first),
        "not the same server: {first:?}, {second:?}"
    );
    Ok(())
}

async fn input_goes_in_as_sent(images: &Images) -> Check {
    let mut running = images.start("copy").await?;
    for (input, wanted) in [
        (json!({"a": [1, null]}), json!({"a": [1, null]})),
        (json!("plain\n"), json!("plain\n")),
        (json!({"$bytes": BYTES}), json!({"$bytes": BYTES})),
        (Value::Null, json!("")),
    ] {
        let finished = running.call(&input.to_string()).await;
        let said = output(&finished)?;
        ensure!(said == wanted, "{input} came back as {said}");
        ensure!(finished.logs.text.contains("copied"), "no log: {}", Told(&finished));
        running.renew(finished.reusable).await?;
    }
    Ok(())
}

async fn an_exit_code_is_told(images: &Images) -> Check {
    let mut once = images.start("obey").await?;
    let finished = once.call("\"exit 7\"").await;
    let Outcome::Raised(raised) = &finished.outcome else {
        return Err(format!("it gave {}", Told(&finished)));
    };
    ensure!(raised.message.contains("code 7"), "it said {}", raised.message);
    let mut server = images.start("serve").await?;
    let finished = server.call("\"exit 3\"").await;
    let Outcome::Crashed(said) = &finished.outcome else {
        return Err(format!("the server gave {}", Told(&finished)));
    };
    ensure!(said.contains("code 3"), "of the server it said {said}");
    Ok(())
}

async fn time_is_limited(images: &Images) -> Check {
    for verb in ["obey", "serve"] {
        let mut running = images.start_within(verb, TIMEOUT).await?;
        let finished = running.call("\"spin\"").await;
        ensure!(
            Kind::of(&finished.outcome) == Kind::TimedOut && finished.duration <= TIMEOUT + TIMEOUT_SLACK,
            "`{verb}`: {}",
            Told(&finished)
        );
    }
    Ok(())
}

async fn memory_is_limited(images: &Images) -> Check {
    for verb in ["obey", "serve"] {
        let mut running = images.start(verb).await?;
        let finished = running.call("\"hoard\"").await;
        let without_groups = matches!(&finished.outcome, Outcome::Raised(_) | Outcome::Crashed(_));
        ensure!(
            Kind::of(&finished.outcome) == Kind::OutOfMemory || (without_groups && images.is_limited_softly()),
            "`{verb}`: {}",
            Told(&finished)
        );
        let peak = finished.memory_peak_bytes;
        ensure!(peak <= LIMITS.memory_bytes * 5 / 4, "`{verb}` held {peak} bytes");
    }
    Ok(())
}

async fn processes_are_limited(images: &Images) -> Check {
    let count = images.obeys("fork").await?.as_u64().unwrap_or(u64::MAX);
    ensure!(count <= LIMITS.processes.into(), "{count} processes were started");
    Ok(())
}

async fn disk_is_limited(images: &Images) -> Check {
    // gVisor's `/tmp` is apart.
    for place in ["/data", "/tmp"] {
        let total = images.obeys(&format!("fill {place}")).await?.as_u64();
        let total = total.unwrap_or(u64::MAX);
        ensure!(
            (1..=LIMITS.disk_bytes).contains(&total),
            "{total} bytes were written to {place} with a limit of {}",
            LIMITS.disk_bytes
        );
    }
    let files = images.obeys("files /data").await?.as_u64().unwrap_or(u64::MAX);
    ensure!((1..20_000).contains(&files), "{files} files were made");
    let open = images.obeys("open").await?.as_u64().unwrap_or(u64::MAX);
    ensure!((1..10_000).contains(&open), "{open} files were open");
    Ok(())
}

async fn logs_are_cut(images: &Images) -> Check {
    let mut running = images.start("obey").await?;
    let finished = running.call("\"print 200000\"").await;
    ensure!(output(&finished)?.is_null(), "it gave {}", Told(&finished));
    ensure!(
        finished.logs.text.contains(piecework_sandbox::LOGS_CUT) && finished.logs.text.len() < 64 << 10,
        "{} bytes of logs",
        finished.logs.text.len()
    );
    Ok(())
}

async fn nothing_is_left_behind(images: &Images) -> Check {
    let mut first = images.start("obey").await?;
    ensure!(
        output(&first.call("\"write /data/mine\"").await)? == true,
        "its own layer cannot be written"
    );
    drop(first);
    let there = images.obeys("exists /data/mine").await?;
    ensure!(there == false, "a file of another instance is there");
    ensure!(
        images.obeys("exists /data/below").await? == true,
        "the image's own file is not there"
    );
    ensure!(
        !images.layers.path().join("lower/data/mine").exists(),
        "the layer was written"
    );
    if !images.sees_processes() {
        return images.skip("processes inside are no processes of the host's");
    }
    let mark = mark();
    let mut server = images.start("serve").await?;
    let said = output(&server.call(&json!(format!("leave {mark}")).to_string()).await)?;
    ensure!(said["said"] == true, "it said {said}");
    // It has its mark a moment after it was started: see `exec`.
    wait_for_marked(&mark, |count| count > 0, PROCESSES_WITHIN).await?;
    drop(server);
    wait_for_marked(&mark, |count| count == 0, PROCESSES_WITHIN).await?;
    // Of a program that is run once, with its answer.
    let mut once = images.start("obey").await?;
    let said = output(&once.call(&json!(format!("leave {mark}")).to_string()).await)?;
    ensure!(said == true, "it said {said}");
    wait_for_marked(&mark, |count| count == 0, PROCESSES_WITHIN).await
}

async fn an_idle_server_stands_still(images: &Images) -> Check {
    let mut running = images.start("serve").await?;
    let said = output(&running.call("\"begin\"").await)?;
    ensure!(said["said"] == "begun", "it said {said}");
    tokio::time::sleep(PAUSE).await;
    let finished = running.call("\"echo on\"").await;
    ensure!(output(&finished)?["said"] == "on", "it gave {}", Told(&finished));
    let used_us = finished.counters.cpu_us;
    ensure!(
        used_us <= GRACE_MAX_US + u64::try_from(finished.duration.as_micros()).unwrap_or(u64::MAX),
        "between two calls it computed for {used_us} us"
    );
    Ok(())
}

async fn walls_stand(images: &Images) -> Check {
    let seen = images.obeys("look").await?;
    ensure!(seen["capabilities"] == "0000000000000000", "it sees {seen}");
    ensure!(seen["found"] == json!([]), "of the host it sees {seen}");
    ensure!(seen["got"] == json!([]), "it got {}", seen["got"]);
    if images.backend.name() != BackendName::Docker {
        ensure!(seen["uid"] == "0\t0\t0\t0", "the image's user is {seen}");
    }
    for address in ["10.255.255.1:80", "127.0.0.1:22"] {
        let connected = images.obeys(&format!("connect {address}")).await?;
        ensure!(connected == false, "it reached {address}");
    }
    // So nothing that was set through it is ever changed: the score by which the kernel ends guests first, for one.
    if images.backend.name() == BackendName::Jail {
        let written = images.obeys("write /proc/self/comm").await?;
        ensure!(written == false, "it wrote to /proc");
    }
    Ok(())
}

async fn a_program_that_is_not_there_is_told(images: &Images) -> Check {
    let mut program = images.program("serve", Duration::from_secs(10));
    if let Some(image) = &mut program.image {
        image.arguments = vec!["/bin/none".to_owned()];
    }
    match images.backend.load(Arc::new(program)).await {
        Ok(_) => Err("it loaded".to_owned()),
        Err(error) => {
            ensure!(error.to_string().contains("/bin/none"), "it said {error}");
            Ok(())
        }
    }
}

async fn a_frozen_call_goes_on(images: &Images) -> Check {
    let mut running = images.start("serve").await?;
    output(&running.call("\"echo a\"").await)?;
    if !images.backend.freeze(true) {
        return images.skip("this backend does not freeze");
    }
    let call = running.call("\"echo b\"");
    let early = tokio::time::timeout(Duration::from_millis(100), call).await;
    images.backend.freeze(false);
    ensure!(early.is_err(), "it answered while it was frozen");
    Ok(())
}

/// What is asked of a backend's images.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImageSuite {
    /// Whose the layers are, where the backend works without root: then it has no control groups either.
    pub unpacked_by: Option<u32>,
    /// None: every case.
    pub only: Option<&'static [&'static str]>,
}

/// Runs the cases, and panics with what failed: the body of a test. What is shared is made once.
pub async fn check_images(backend: Arc<dyn Backend>, suite: ImageSuite) {
    macro_rules! cases {
        ($images:ident, $failed:ident, $wanted:ident: $($name:ident,)*) => {
            const NAMES: &[&str] = &[$(stringify!($name)),*];
            $(if $wanted(stringify!($name)) {
                let begun = Instant::now();
                if let Err(reason) = $name(&$images).await {
                    $failed.push(format!("{}: {reason}", stringify!($name)));
                }
                println!("{}: {:?}", stringify!($name), begun.elapsed());
            })*
        };
    }
    let wanted = |name: &str| suite.only.is_none_or(|only| only.contains(&name));
    let images = Images::new(backend, suite.unpacked_by);
    let mut failed = Vec::new();
    cases! { images, failed, wanted:
        a_server_answers_and_stays,
        input_goes_in_as_sent,
        an_exit_code_is_told,
        time_is_limited,
        memory_is_limited,
        processes_are_limited,
        disk_is_limited,
        logs_are_cut,
        nothing_is_left_behind,
        an_idle_server_stands_still,
        walls_stand,
        a_program_that_is_not_there_is_told,
        a_frozen_call_goes_on,
    }
    for name in suite.only.into_iter().flatten() {
        assert!(NAMES.contains(name), "there is no case `{name}`");
    }
    for why in images.skipped.lock().expect("no panic holds it").iter() {
        println!("not asked of it: {why}");
    }
    assert!(failed.is_empty(), "not held by images:\n{}", failed.join("\n"));
}
