//! The real pip and npm against packages made here: a folder of wheels and a registry on a local port. No network.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use piecework_model::Language;
use piecework_packages::{Options, Packages, ResolveError, Resolved};

/// Whether a tool is here. Where it is not the test is skipped and says so; in CI that fails.
fn present(program: &str, args: &[&str]) -> bool {
    let run = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let works = run.is_ok_and(|status| status.success());
    if !works {
        assert!(env::var_os("CI").is_none(), "{program} is missing and CI must not skip");
        eprintln!("SKIPPED: {program} {} does not work here", args.join(" "));
    }
    works
}

fn pip_is_here() -> bool {
    present("python3", &["-m", "pip", "--version"])
}

fn npm_is_here() -> bool {
    present("npm", &["--version"])
}

fn options(more: &[(&str, &str)]) -> Options {
    let mut options = Options::default();
    options.env.insert("PATH".into(), env::var("PATH").expect("a PATH"));
    options.env.extend(
        more.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    options
}

fn bundle(name: &str, text: &str) -> BTreeMap<String, Bytes> {
    BTreeMap::from([(name.to_owned(), Bytes::copy_from_slice(text.as_bytes()))])
}

fn code(result: Result<Option<Resolved>, ResolveError>) -> String {
    match result.expect_err("refused") {
        ResolveError::Rejected(rejection) => rejection.code.into_owned(),
        ResolveError::Io { operation, source } => panic!("{operation}: {source}"),
    }
}

/// A wheel is a zip with metadata; Python's own library writes it.
fn make_wheel(folder: &Path, name: &str, module: &[(&str, &str)], requires: &str) {
    let script = r#"
import sys, json, zipfile
folder, name, requires = sys.argv[1:]
version, info = "1.2.3", f"{name}-1.2.3.dist-info"
with zipfile.ZipFile(f"{folder}/{name}-{version}-py3-none-any.whl", "w") as wheel:
    for path, text in json.load(sys.stdin):
        wheel.writestr(path, text)
    meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (f"Requires-Dist: {requires}\n" if requires else "")
    wheel.writestr(f"{info}/METADATA", meta)
    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(f"{info}/RECORD", "")
"#;
    let files = serde_json::to_string(module).expect("JSON");
    let folder = folder.to_str().expect("UTF-8");
    let mut maker = Command::new("python3")
        .args(["-c", script, folder, name, requires])
        .stdin(Stdio::piped())
        .spawn()
        .expect("starts");
    maker
        .stdin
        .take()
        .expect("piped")
        .write_all(files.as_bytes())
        .expect("takes the files");
    assert!(maker.wait().expect("runs").success());
}

fn pip(folder: &Path) -> Packages {
    let folder = folder.to_str().expect("UTF-8");
    Packages::new(options(&[("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", folder)]))
}

#[tokio::test]
async fn a_pure_wheel_and_what_it_requires_are_resolved() {
    if !pip_is_here() {
        return;
    }
    let wheels = tempfile::tempdir().expect("a folder");
    make_wheel(
        wheels.path(),
        "greeting",
        &[("greeting/__init__.py", "WORD = 'hello'\n")],
        "dots>=1",
    );
    make_wheel(wheels.path(), "dots", &[("dots.py", "DOTS = '...'\n")], "");
    let bundle = bundle("requirements.txt", "greeting == 1.2.3  # a comment\n");
    let resolved = pip(wheels.path())
        .resolve(Language::Python, &bundle)
        .await
        .expect("resolves")
        .expect("some");
    assert_eq!(resolved.folder, "packages");
    assert_eq!(resolved.versions, ["dots==1.2.3", "greeting==1.2.3"]);
    assert!(!resolved.native);
    assert_eq!(resolved.files["packages/greeting/__init__.py"], "WORD = 'hello'\n");
    assert_eq!(resolved.files["packages/dots.py"], "DOTS = '...'\n");
    assert!(
        resolved
            .files
            .keys()
            .all(|path| path.starts_with("packages/") && !path.contains("__pycache__"))
    );
}

#[tokio::test]
async fn a_wheel_with_compiled_code_is_called_native() {
    if !pip_is_here() {
        return;
    }
    let wheels = tempfile::tempdir().expect("a folder");
    make_wheel(
        wheels.path(),
        "fast",
        &[("fast/_speed.cpython-311-x86_64-linux-gnu.so", "\u{7f}ELF")],
        "",
    );
    let bundle = bundle("requirements.txt", "fast");
    let resolved = pip(wheels.path())
        .resolve(Language::Python, &bundle)
        .await
        .expect("resolves")
        .expect("some");
    assert!(resolved.native);
}

#[tokio::test]
async fn a_source_package_is_never_built() {
    if !pip_is_here() {
        return;
    }
    let sources = tempfile::tempdir().expect("a folder");
    let witness = sources.path().join("ran");
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let setup = format!(
        "open({:?}, 'w'); from setuptools import setup; setup(name='evil', version='1.0')",
        witness
    );
    append(&mut tar, "evil-1.0/setup.py", setup.as_bytes());
    append(
        &mut tar,
        "evil-1.0/PKG-INFO",
        b"Metadata-Version: 1.0\nName: evil\nVersion: 1.0\n",
    );
    let archive = tar.into_inner().expect("ends").finish().expect("ends");
    fs::write(sources.path().join("evil-1.0.tar.gz"), archive).expect("writes");
    let refused = pip(sources.path())
        .resolve(Language::Python, &bundle("requirements.txt", "evil==1.0"))
        .await;
    assert_eq!(code(refused), "packages.unresolvable");
    assert!(!witness.exists());
}

#[tokio::test]
async fn an_unknown_package_is_unresolvable_in_the_words_of_the_tool() {
    if !pip_is_here() {
        return;
    }
    let empty = tempfile::tempdir().expect("a folder");
    let refused = pip(empty.path())
        .resolve(Language::Python, &bundle("requirements.txt", "no-such-package==9"))
        .await;
    let ResolveError::Rejected(rejection) = refused.expect_err("refused") else {
        panic!("a rejection")
    };
    assert_eq!(rejection.code, "packages.unresolvable");
    assert!(
        rejection.message.contains("no-such-package==9"),
        "{}",
        rejection.message
    );
    assert!(
        !rejection.message.contains(env::temp_dir().to_str().expect("UTF-8")),
        "{}",
        rejection.message
    );
}

#[tokio::test]
async fn packages_above_the_cap_are_refused() {
    if !pip_is_here() {
        return;
    }
    let wheels = tempfile::tempdir().expect("a folder");
    make_wheel(wheels.path(), "large", &[("large.py", &"#".repeat(1 << 20))], "");
    let mut small = options(&[
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", wheels.path().to_str().expect("UTF-8")),
    ]);
    small.bytes_max = 1 << 19;
    let refused = Packages::new(small)
        .resolve(Language::Python, &bundle("requirements.txt", "large"))
        .await;
    assert_eq!(code(refused), "packages.too_large");
}

#[tokio::test]
async fn nothing_declared_starts_no_tool() {
    let mut nowhere = options(&[]);
    nowhere.python = "/no/such/python".into();
    nowhere.npm = "/no/such/npm".into();
    let packages = Packages::new(nowhere);
    let none = packages
        .resolve(Language::Python, &bundle("requirements.txt", "# nothing\n"))
        .await
        .expect("fine");
    assert_eq!(none, None);
    assert_eq!(
        packages
            .resolve(Language::Python, &bundle("package.json", "{"))
            .await
            .expect("not its manifest"),
        None
    );
    assert_eq!(
        packages
            .resolve(Language::JavaScript, &bundle("package.json", "{}"))
            .await
            .expect("fine"),
        None
    );
    let missing = packages
        .resolve(Language::Python, &bundle("requirements.txt", "six"))
        .await;
    assert_eq!(code(missing), "packages.tool_missing");
    let missing = packages
        .resolve(
            Language::JavaScript,
            &bundle("package.json", r#"{"dependencies":{"a":"1"}}"#),
        )
        .await;
    assert_eq!(code(missing), "packages.tool_missing");
}

#[tokio::test]
async fn a_manifest_with_options_or_urls_is_refused_before_any_tool_starts() {
    let mut nowhere = options(&[]);
    nowhere.python = "/no/such/python".into();
    nowhere.npm = "/no/such/npm".into();
    let packages = Packages::new(nowhere);
    let refused = packages
        .resolve(Language::Python, &bundle("requirements.txt", "-r /etc/passwd"))
        .await;
    assert_eq!(code(refused), "packages.bad_requirement");
    let manifest = bundle("package.json", r#"{"dependencies": {"a": "file:/etc"}}"#);
    assert_eq!(
        code(packages.resolve(Language::JavaScript, &manifest).await),
        "packages.bad_requirement"
    );
}

/// A tool that never ends and has a child of its own: both are gone after the timeout.
#[tokio::test]
async fn a_tool_that_hangs_is_killed_with_its_children() {
    let folder = tempfile::tempdir().expect("a folder");
    let tool = folder.path().join("npm");
    let pids = folder.path().join("pids");
    let script = format!("#!/bin/sh\nsleep 1000 &\necho $$ $! > {}\nwait\n", pids.display());
    fs::write(&tool, script).expect("writes");
    let made = Command::new("chmod").arg("+x").arg(&tool).status().expect("runs");
    assert!(made.success());
    let mut slow = options(&[]);
    slow.npm = tool;
    slow.timeout = Duration::from_secs(1);
    let manifest = bundle("package.json", r#"{"dependencies": {"a": "1"}}"#);
    assert_eq!(
        code(Packages::new(slow).resolve(Language::JavaScript, &manifest).await),
        "packages.timeout"
    );
    let pids = fs::read_to_string(pids).expect("it began");
    let deadline = Instant::now() + Duration::from_secs(10);
    for pid in pids.split_whitespace() {
        while is_running(pid) {
            assert!(Instant::now() < deadline, "process {pid} lives on");
            thread::yield_now();
        }
    }
}

/// A process that was killed and not yet reaped by its new parent does not count.
fn is_running(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn append(tar: &mut tar::Builder<impl Write>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).expect("appends");
}

/// A package registry on a free port with one package, `left`, whose install script would leave a witness.
fn registry(witness: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let manifest = serde_json::json!({"name": "left", "version": "2.0.1", "main": "index.js", "bin": {"left": "index.js"},
        "scripts": {"install": format!("touch {}", witness.display())}});
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    append(&mut tar, "package/package.json", manifest.to_string().as_bytes());
    append(
        &mut tar,
        "package/index.js",
        b"module.exports = (text) => ' ' + text;\n",
    );
    let tarball = tar.into_inner().expect("ends").finish().expect("ends");
    let mut version = manifest;
    version["dist"] = serde_json::json!({"tarball": format!("{url}/left/-/left-2.0.1.tgz")});
    version["hasInstallScript"] = true.into();
    let document =
        serde_json::json!({"name": "left", "dist-tags": {"latest": "2.0.1"}, "versions": {"2.0.1": version}})
            .to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (document, tarball) = (document.clone(), tarball.clone());
            thread::spawn(move || answer(stream, document.as_bytes(), &tarball));
        }
    });
    url
}

fn answer(mut stream: TcpStream, document: &[u8], tarball: &[u8]) {
    let mut lines = BufReader::new(stream.try_clone().expect("clones"))
        .lines()
        .map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let (status, kind, body) = match request.split(' ').nth(1) {
        Some("/left") => ("200 OK", "application/json", document),
        Some("/left/-/left-2.0.1.tgz") => ("200 OK", "application/octet-stream", tarball),
        _ => ("404 Not Found", "application/json", &b"{}"[..]),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // The client may be gone: then nobody waits for the answer.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

#[tokio::test]
async fn an_npm_package_is_resolved_and_none_of_its_scripts_run() {
    if !npm_is_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let witness = folder.path().join("ran");
    let url = registry(&witness);
    let packages = Packages::new(options(&[("NPM_CONFIG_REGISTRY", &url)]));
    let manifest = r#"{"dependencies": {"left": "^2.0.0"}, "scripts": {"postinstall": "exit 1"}}"#;
    let resolved = packages
        .resolve(Language::JavaScript, &bundle("package.json", manifest))
        .await
        .expect("resolves")
        .expect("some");
    assert_eq!(resolved.folder, "node_modules");
    assert_eq!(resolved.versions, ["left==2.0.1"]);
    assert!(!resolved.native && !witness.exists());
    let names: Vec<&str> = resolved.files.keys().map(String::as_str).collect();
    assert_eq!(names, ["node_modules/left/index.js", "node_modules/left/package.json"]);
    let unknown = packages
        .resolve(
            Language::JavaScript,
            &bundle("package.json", r#"{"dependencies":{"right":"1"}}"#),
        )
        .await;
    assert_eq!(code(unknown), "packages.unresolvable");
}
