//! Functions from container images: from a layout, a file and a registry; called, paid, refused.

mod engines;
mod made;
mod registry;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use base64::Engine as _;
use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};

use made::{Image, Layer, needs, sha256};
use registry::Registry;

use crate::{
    command_line::command,
    computer::{Computer, invite},
    machine::{Machine, has, skipped},
};

/// A machine, and the command line beside it.
struct Bench {
    machine: Machine,
    home: tempfile::TempDir,
    _data: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with(&[])
    }

    /// With these variables in the machine's environment.
    fn with(variables: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        Self {
            machine: Machine::start_in(data.path(), variables),
            home: tempfile::tempdir().expect("a home"),
            _data: data,
        }
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = command(self.home.path());
        command
            .env("PIECEWORK_URL", &self.machine.url)
            .env("PIECEWORK_TOKEN", &self.machine.token)
            .args(arguments);
        tokio::task::spawn_blocking(move || command.output().expect("it runs"))
            .await
            .expect("it ends")
    }

    async fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The code of a refusal.
    async fn refused(&self, arguments: &[&str], code: Code) {
        let output = self.run(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(code.as_str()),
            "{code:?}: {said}"
        );
    }

    /// Status, headers and body of the plain URL.
    async fn at(&self, method: Method, path: &str, body: &'static [u8]) -> reqwest::Response {
        let request = self.machine.request(method, path).header("x-mark", "here").body(body);
        request.send().await.expect("an answer")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

const ENTRY: &str = "/bin/program";

#[tokio::test]
async fn an_image_from_a_layout_is_called_over_http_and_paid() {
    let Some(program) = needs() else { return };
    let bench = Bench::new();
    let config = json!({"Entrypoint": [ENTRY], "Env": ["GREETING=hello"], "WorkingDir": "/srv/app", "User": "web"});
    let image = Image::of_the_program(program, config);
    let layout = image.layout(bench.home.path());
    let said = bench.ok(&["deploy", "--image", text(&layout)]).await;
    let digest = sha256(&image.manifest());
    assert!(said.contains(&digest) && said.contains("linux/"), "{said}");
    let shown = bench.ok(&["function", "web"]).await;
    assert!(shown.contains(&digest), "{shown}");

    let called: Value = serde_json::from_str(&bench.ok(&["call", "web", r#"{"a": 1}"#]).await).expect("JSON");
    let sent: Value = serde_json::from_str(called["body"].as_str().expect("text")).expect("JSON");
    assert_eq!((sent, &called["greeting"]), (json!({"a": 1}), &json!("hello")));
    let answer = bench.machine.call("web", json!([1])).await.ok();
    assert_eq!(answer["output"]["line"], "POST / HTTP/1.1");
    assert_eq!(
        (&answer["output"]["count"], &answer["cold"]),
        (&json!(2), &json!(false)),
        "the same server"
    );
    let job = bench.machine.paid(answer["job_id"].as_str().expect("an id")).await;
    assert!(
        job["price_ucr"].as_u64().expect("a price") > 0 && job["sandbox"] == "jail",
        "{job}"
    );

    let answered = bench.at(Method::PUT, "/fn/operator/web/a/b?c=d", b"hello").await;
    assert_eq!(
        (answered.status().as_u16(), answered.headers()["x-answered"].as_bytes()),
        (200, &b"yes"[..])
    );
    let body: Value = answered.json().await.expect("JSON");
    assert_eq!(body["line"], "PUT /a/b?c=d HTTP/1.1");
    assert_eq!((&body["body"], &body["mark"]), (&json!("hello"), &json!("here")));
    let missing = bench.at(Method::GET, "/fn/operator/web/missing", b"").await;
    assert_eq!(
        (missing.status().as_u16(), missing.text().await.expect("text")),
        (404, "no".to_owned())
    );
    let large = bench.at(Method::GET, "/fn/operator/web/large", b"").await;
    assert_eq!(
        large.bytes().await.expect("a whole answer").len(),
        4 << 20,
        "it is streamed"
    );
    let sent = vec![b'x'; 9 << 20];
    let request = bench.machine.request(Method::POST, "/fn/operator/web/up").body(sent);
    let body: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(body["bytes"], 9 << 20, "a large body is streamed in");

    // The server ends: this call fails with its exit code, and the next one has a new one.
    let ended = bench
        .machine
        .call("web", json!({"method": "GET", "path": "/exit"}))
        .await;
    ended.refused(502, Code::FunctionCrashed);
    assert!(ended.body.to_string().contains("code 3"), "{}", ended.body);
    assert_eq!(bench.machine.call("web", json!(1)).await.ok()["cold"], true);

    // A new version of other settings, without a new upload; then back.
    bench
        .ok(&["deploy", "--image", text(&layout), "--env", "GREETING=ciao"])
        .await;
    assert_eq!(
        bench.machine.call("web", json!(1)).await.ok()["output"]["greeting"],
        "ciao"
    );
}

#[tokio::test]
async fn an_image_runs_on_a_computer_of_somebody_else() {
    let Some(program) = needs() else { return };
    let bench = Bench::new();
    let code = invite(&bench.machine).await;
    let away = tempfile::tempdir().expect("a directory");
    let _computer = Computer::start(away.path(), &bench.machine.url, "afar", &["--invite", &code]);
    let image = Image::of_the_program(program, json!({"Entrypoint": [ENTRY]}));
    let layout = image.layout(bench.home.path());
    bench.ok(&["deploy", "--image", text(&layout), "--pin", "afar"]).await;
    let answer = bench.machine.call("web", json!([1])).await.ok();
    assert_eq!(answer["output"]["line"], "POST / HTTP/1.1", "{answer}");
    let job = bench.machine.paid(answer["job_id"].as_str().expect("an id")).await;
    assert_eq!(
        (&job["provider"], &job["sandbox"]),
        (&json!("afar"), &json!("jail")),
        "{job}"
    );
}

#[tokio::test]
async fn an_image_sees_its_own_root_and_nothing_of_the_host() {
    let Some(program) = needs() else { return };
    let bench = Bench::new();
    let layout = Image::of_the_program(program, json!({"Entrypoint": [ENTRY], "WorkingDir": "/new/place"}))
        .layout(bench.home.path());
    bench
        .ok(&[
            "deploy",
            "--image",
            text(&layout),
            "--stdio",
            "--name",
            "look",
            "--",
            "look",
        ])
        .await;
    let seen: Value = serde_json::from_str(&bench.ok(&["call", "look"]).await).expect("JSON");
    assert_eq!(seen["uid"], "0\t0\t0\t0", "{seen}");
    assert_eq!(
        (&seen["capabilities"], &seen["seccomp"]),
        (&json!("0000000000000000"), &json!("2"))
    );
    assert_eq!(
        seen["written"],
        json!([true, true, true, true]),
        "its writable layer is all over it"
    );
    assert_eq!(
        (&seen["hidden"], &seen["opaque"]),
        (&json!([false, false]), &json!(true)),
        "whiteouts"
    );
    assert_eq!(
        (&seen["host"], &seen["connected"]),
        (&json!([false, false, false, false]), &json!(false))
    );
    assert_eq!(seen["directory"], "/new/place");
}

#[tokio::test]
async fn an_image_that_is_run_once_has_its_input_and_exit_code() {
    let Some(program) = needs() else { return };
    let bench = Bench::new();
    let image = Image::of_the_program(program, json!({"Entrypoint": [ENTRY], "Cmd": ["copy"]}));
    let saved = image.saved(bench.home.path());
    let said = bench
        .ok(&["deploy", "--image", text(&saved), "--stdio", "--name", "copy"])
        .await;
    assert!(said.contains("me/web:1"), "{said}");
    for (input, output) in [
        (json!({"a": [1, null]}), json!({"a": [1, null]})),
        (json!("plain\n"), json!("plain\n")),
        (json!({"$bytes": "/w=="}), json!({"$bytes": "/w=="})),
        (Value::Null, json!("")),
    ] {
        assert_eq!(bench.machine.call("copy", input).await.ok()["output"], output);
    }
    let logs = bench.ok(&["logs", "copy"]).await;
    assert!(logs.contains("copied 0 bytes"), "{logs}");
    bench
        .ok(&[
            "deploy",
            "--image",
            text(&saved),
            "--stdio",
            "--name",
            "seven",
            "--",
            "exit",
            "7",
        ])
        .await;
    let failed = bench.machine.call("seven", Value::Null).await;
    failed.refused(502, Code::FunctionRaised);
    assert!(
        failed.body.to_string().contains("exited with code 7"),
        "{}",
        failed.body
    );
}

#[tokio::test]
async fn an_image_from_a_registry_is_pinned_by_its_digest() {
    let Some(program) = needs() else { return };
    if !has("docker-registry") {
        return skipped("docker-registry is not installed");
    }
    let (bench, registry) = (Bench::new(), Registry::start("").await);
    let image = Image::of_the_program(program, json!({"Entrypoint": [ENTRY]}));
    registry.push(&image, None).await;
    let reference = format!("{}/web:1", registry.address);
    let said = bench.ok(&["deploy", "--image", &reference]).await;
    assert!(
        said.contains(&reference) && said.contains(&sha256(&image.manifest())),
        "{said}"
    );
    assert_eq!(bench.machine.call("web", json!(1)).await.ok()["output"]["body"], "1");
    bench
        .ok(&[
            "deploy",
            "--image",
            &format!("{}/web@{}", registry.address, sha256(&image.manifest())),
        ])
        .await;
    let other = format!("{}/web@{}", registry.address, sha256(b"other"));
    bench
        .refused(&["deploy", "--image", &other], Code::ImageRegistryFailed)
        .await;
    bench
        .refused(
            &["deploy", "--image", &format!("{}/none", registry.address)],
            Code::ImageRegistryFailed,
        )
        .await;
}

#[tokio::test]
async fn a_registry_with_passwords_says_how_to_log_in() {
    let Some(program) = needs() else { return };
    if !has("docker-registry") {
        return skipped("docker-registry is not installed");
    }
    // `secret`, as htpasswd -B writes it.
    let passwords = tempfile::NamedTempFile::new().expect("a file");
    fs::write(
        passwords.path(),
        "ada:$2b$05$QiWENGKZXWLKbrVE7QVkieO81.wOtB8VIRKYd9zan2L57lAU.SEZ6\n",
    )
    .expect("written");
    let auth = format!(
        "auth: {{htpasswd: {{realm: x, path: {}}}}}\n",
        passwords.path().display()
    );
    let (bench, registry) = (Bench::new(), Registry::start(&auth).await);
    let reference = format!("{}/web:1", registry.address);
    let output = bench.run(&["deploy", "--image", &reference]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains(Code::ImageLoginRequired.as_str()) && said.contains("docker login"),
        "{said}"
    );
    registry
        .push(
            &Image::of_the_program(program, json!({"Entrypoint": [ENTRY]})),
            Some(("ada", "secret")),
        )
        .await;
    let logged_in = |password: &str| {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("ada:{password}"));
        let folder = bench.home.path().join(".docker");
        fs::create_dir_all(&folder).expect("made");
        let config = json!({"auths": {registry.address.clone(): {"auth": auth}}});
        fs::write(folder.join("config.json"), config.to_string()).expect("written");
    };
    logged_in("wrong");
    bench
        .refused(&["deploy", "--image", &reference], Code::ImageLoginRequired)
        .await;
    logged_in("secret");
    bench.ok(&["deploy", "--image", &reference]).await;
}

#[tokio::test]
async fn registries_that_hang_and_lie_are_given_up() {
    let Some(program) = needs() else { return };
    let bench = Bench::new();
    let image = Image::of_the_program(program, json!({"Entrypoint": [ENTRY]}));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let manifest = image.manifest();
    let lying = async move {
        loop {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let manifest = manifest.clone();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let mut asked = vec![0; 4096];
                let got = socket.read(&mut asked).await.unwrap_or(0);
                let is_manifest = String::from_utf8_lossy(&asked[..got]).contains("/manifests/");
                // Whatever is asked for beside the manifest is something else.
                let body = if is_manifest {
                    manifest
                } else {
                    b"something else".to_vec()
                };
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = socket.write_all(&[head.as_bytes(), &body].concat()).await;
            });
        }
    };
    let lying = tokio::spawn(lying);
    bench
        .refused(
            &["deploy", "--image", &format!("{address}/web")],
            Code::ImageDigestMismatch,
        )
        .await;
    lying.abort();
    bench
        .refused(&["deploy", "--image", "127.0.0.1:1/web"], Code::ImageRegistryFailed)
        .await;
}

#[tokio::test]
async fn what_is_no_image_is_refused_before_anything_runs() {
    let Some(program) = needs() else { return };
    let bench = Bench::new();
    let home = bench.home.path().to_owned();
    fs::create_dir(home.join("folder")).expect("made");
    fs::write(home.join("file.tar"), "not a tar").expect("written");
    for path in ["folder", "file.tar"] {
        bench
            .refused(&["deploy", "--image", path, "--name", "x"], Code::ImageBad)
            .await;
    }
    let entry = json!({"Entrypoint": [ENTRY]});
    let mut other = Image::of_the_program(program, entry.clone());
    other.config["architecture"] = json!("s390x");
    let at = |name: &str| {
        let folder = home.join(name);
        fs::create_dir(&folder).expect("made");
        folder
    };
    let layout = other.layout(&at("other"));
    bench
        .refused(&["deploy", "--image", text(&layout)], Code::ImageOtherPlatform)
        .await;
    let silent = Image::of_the_program(program, json!({})).layout(&at("silent"));
    bench
        .refused(&["deploy", "--image", text(&silent)], Code::ImageBad)
        .await;
    // The bytes of a layer are others than its name says.
    let whole = Image::of_the_program(program, entry);
    let layout = whole.layout(&at("changed"));
    let layer = layout.join("blobs/sha256").join(&sha256(&whole.layers[1].1)[7..]);
    let mut bytes = fs::read(&layer).expect("it is there");
    *bytes.last_mut().expect("some") ^= 1;
    fs::write(&layer, bytes).expect("written");
    bench
        .refused(&["deploy", "--image", text(&layout)], Code::ImageDigestMismatch)
        .await;
    let none = bench.machine.get("/functions").await.ok();
    assert_eq!(none["items"], json!([]), "nothing of them is left");
}

#[tokio::test]
async fn hostile_layers_are_refused_by_the_process_that_unpacks_them() {
    let Some(program) = needs() else { return };
    let bench = Bench::new();
    let with = |layer: Layer| {
        Image::new(
            json!({"Entrypoint": [ENTRY]}),
            vec![layer.file("bin/program", 0o755, program).tar()],
        )
    };
    let bomb = Layer::new().file("zeros", 0o644, &vec![0; 32 << 20]);
    let cases: Vec<(&str, Image, Code)> = vec![
        (
            "dots",
            with(Layer::new().file("../out", 0o644, b"x")),
            Code::ImageBadLayer,
        ),
        (
            "device",
            with(Layer::new().entry(tar::EntryType::Block, "disk", (0o666, b""))),
            Code::ImageBadLayer,
        ),
        (
            "hard",
            with(Layer::new().link(tar::EntryType::Link, "shadow", "../../etc/shadow")),
            Code::ImageBadLayer,
        ),
        (
            "nowhere",
            with(Layer::new().link(tar::EntryType::Link, "a", "b")),
            Code::ImageBadLayer,
        ),
        (
            "through",
            with(
                Layer::new()
                    .link(tar::EntryType::Symlink, "etc", "/etc")
                    .file("etc/x/y", 0o644, b"x")
                    .file("bin/x", 0o755, b""),
            ),
            Code::FunctionLoadFailed,
        ),
    ];
    for (name, image, code) in &cases[..4] {
        let folder = bench.home.path().join(name);
        fs::create_dir(&folder).expect("made");
        bench
            .refused(
                &["deploy", "--image", text(&image.layout(&folder)), "--name", name],
                *code,
            )
            .await;
    }
    // A link out of the layer is inert: what is written through it lands inside.
    let (name, image, _) = &cases[4];
    let folder = bench.home.path().join(name);
    fs::create_dir(&folder).expect("made");
    bench
        .run(&["deploy", "--image", text(&image.layout(&folder)), "--name", name])
        .await;
    assert!(!Path::new("/etc/x/y").exists(), "it was written on the host");
    // What is said of a layer, and what it is, differ: nobody but the process that unpacks can see that.
    let mut lying = with(bomb);
    lying.config["rootfs"]["diff_ids"][0] = json!(sha256(b"other"));
    let folder = bench.home.path().join("lying");
    fs::create_dir(&folder).expect("made");
    bench
        .refused(
            &["deploy", "--image", text(&lying.layout(&folder)), "--name", "lying"],
            Code::ImageDigestMismatch,
        )
        .await;
}

#[tokio::test]
async fn parts_are_an_accounts_own_and_counted() {
    let bench = Bench::new();
    let machine = &bench.machine;
    let part = vec![1u8; 1_000];
    let digest = blake3_of(&part);
    let put = |digest: String, bytes: Vec<u8>| {
        machine.send(
            machine
                .request(Method::PUT, &format!("/images/parts/{digest}"))
                .body(bytes),
        )
    };
    let missing = || machine.ask(Method::POST, "/images/parts", Some(json!({"parts": [digest]})));
    assert_eq!(missing().await.ok()["missing"], json!([digest]));
    put("00".repeat(32), part.clone())
        .await
        .refused(422, Code::ImageDigestMismatch);
    put(digest.clone(), Vec::new()).await.refused(413, Code::ImageTooLarge);
    assert_eq!(put(digest.clone(), part.clone()).await.status.as_u16(), 204);
    assert_eq!(missing().await.ok()["missing"], json!([]));
    let token = machine.person("ada", 1_000).await;
    let query = Some(json!({"parts": [digest]}));
    let others = machine
        .ask_as(Some(&token), Method::POST, "/images/parts", query)
        .await
        .ok();
    assert_eq!(others["missing"], json!([digest]), "what others have is not told");

    // Whoever knows the digest of a part does not get it by naming it.
    let image = Image::new(json!({"Entrypoint": ["x"]}), vec![part.clone()]).uncompressed();
    let settings = piecework_image::Settings {
        reference: "x".to_owned(),
        layers: vec![vec![piecework_model::Digest::of(&part)]],
        ..piecework_image::Settings::default()
    };
    let bundle = piecework_image::bundle_of(&settings, image.manifest().into(), image.config().into()).expect("small");
    let bundle = base64::engine::general_purpose::STANDARD.encode(bundle.pack().tar);
    let body = json!({"name": "x", "language": "image", "bundle": bundle});
    let others = machine
        .ask_as(Some(&token), Method::POST, "/functions", Some(body.clone()))
        .await;
    others.refused(409, Code::ImageMissingPart);
    // Its owner may; then it is no layer.
    let own = machine.ask(Method::POST, "/functions", Some(body)).await;
    own.refused(422, Code::ImageBadLayer);
    let mut body = json!({"name": "x", "language": "image", "code": "x"});
    let refused = machine.ask(Method::POST, "/functions", Some(body.clone())).await;
    refused.refused(422, Code::FunctionBadCode);
    body["sandbox"] = json!("wasm");
    body["bundle"] = json!(base64::engine::general_purpose::STANDARD.encode("no tar"));
    body.as_object_mut().expect("an object").remove("code");
    machine
        .ask(Method::POST, "/functions", Some(body))
        .await
        .refused(422, Code::BundleBadArchive);
}

/// Files below a folder whose names have this in them.
fn named(folder: &Path, name: &str) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let count = |entry: fs::DirEntry| match entry.path() {
        path if path.is_dir() => named(&path, name),
        path => usize::from(path.to_string_lossy().replace('/', "").contains(name)),
    };
    entries.map(count).sum()
}

#[tokio::test]
async fn parts_go_with_the_last_version_that_has_them() {
    let Some(program) = needs() else { return };
    let bench = Bench::new();
    let image = Image::of_the_program(program, json!({"Entrypoint": [ENTRY], "Cmd": ["copy"]}));
    let layout = image.layout(bench.home.path());
    for name in ["one", "two"] {
        bench
            .ok(&["deploy", "--image", text(&layout), "--stdio", "--name", name])
            .await;
    }
    let part = blake3_of(&image.layers[1].1);
    let Bench { machine, _data, .. } = bench;
    let blobs = _data.path().join("blobs");
    assert_eq!(named(&blobs, &part), 1, "it is kept once");
    let gone = |name: &str| format!("/functions/{name}?for_good=true");
    machine.ask(Method::DELETE, &gone("one"), None).await;
    // Uploads are held for an hour; after a restart nothing is.
    let machine = machine.kill_and_restart();
    assert_eq!(machine.call("two", json!("x")).await.ok()["output"], "x");
    assert_eq!(named(&blobs, &part), 1, "another function has it");
    machine.ask(Method::DELETE, &gone("two"), None).await;
    let machine = machine.kill_and_restart();
    let deadline = Instant::now() + Duration::from_secs(30);
    while named(&blobs, &part) > 0 {
        assert!(Instant::now() < deadline, "nobody has it, and it is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(machine);
}

fn blake3_of(bytes: &[u8]) -> String {
    piecework_model::Digest::of(bytes).to_string()
}

/// Made from this machine's own packages, so that nothing is downloaded.
async fn base_image_serves(language: &str, (file, source): (&str, &str), program: &str) {
    let bench = Bench::new();
    let home = bench.home.path();
    fs::write(home.join(file), source).expect("written");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtimes/images/build.py");
    let folder = home.join("base");
    let add = format!("{}:app/{file}", home.join(file).display());
    let built = Command::new("python3")
        .arg(script)
        .args([
            language,
            text(&folder),
            "--add",
            &add,
            "--",
            program,
            &format!("/app/{file}"),
        ])
        .output()
        .expect("it runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    bench
        .ok(&["deploy", "--image", text(&folder), "--timeout", "20s"])
        .await;
    let answered = bench.at(Method::POST, "/fn/operator/base/x", b"hello").await;
    assert_eq!(
        (answered.status().as_u16(), answered.text().await.expect("text")),
        (200, "hello".to_owned())
    );
}

#[tokio::test]
async fn the_base_image_of_python_serves() {
    let source = "import os\nfrom http.server import BaseHTTPRequestHandler, HTTPServer\n\n\nclass Echo(BaseHTTPRequestHandler):\n    def do_POST(self):\n        body = self.rfile.read(int(self.headers['content-length']))\n        self.send_response(200)\n        self.send_header('content-length', str(len(body)))\n        self.end_headers()\n        self.wfile.write(body)\n\n\nHTTPServer(('', int(os.environ['PORT'])), Echo).serve_forever()\n";
    match has("/usr/bin/python3") {
        true => base_image_serves("python", ("serve.py", source), "/usr/bin/python3").await,
        false => skipped("python3 is not installed"),
    }
}

#[tokio::test]
async fn the_base_image_of_javascript_serves() {
    let source =
        "require('http').createServer((request, response) => request.pipe(response)).listen(process.env.PORT);\n";
    match has("node") && has("python3") {
        true => base_image_serves("javascript", ("serve.js", source), "/usr/bin/node").await,
        false => skipped("node or python3 is not installed"),
    }
}
