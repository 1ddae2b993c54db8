//! The real pip and npm in a jail, against an index made here on a local port: what is resolved, and what a hostile package
//! cannot do.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use parking_lot::Mutex;
use piecework_egress::Egress;
use piecework_model::{AccountId, Code, EgressPolicy, Language};
use piecework_packages::{Options, Packages, ResolveError, Resolved};
use piecework_sandbox_jail::Jail;
use serde_json::{Value, json};

const ACCOUNT: AccountId = AccountId([1; 20]);

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
    present("/usr/bin/python3", &["-m", "pip", "--version"])
}

fn npm_is_here() -> bool {
    present("npm", &["--version"])
}

/// A package index of both kinds on a free port: files by path, and who asked for what.
#[derive(Clone)]
struct Index {
    address: SocketAddr,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Index {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let index = Self {
            address: listener.local_addr().expect("an address"),
            files: Arc::default(),
        };
        let files = index.files.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let files = files.clone();
                thread::spawn(move || answer(stream, &files));
            }
        });
        index
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.files.lock().insert(path.to_owned(), content.into());
    }

    /// A file of the Python index, listed under its project.
    fn put_python(&self, project: &str, file: &str, content: Vec<u8>) {
        self.put(&format!("/files/{file}"), content);
        self.put(
            &format!("/simple/{project}/"),
            format!("<html><a href=\"/files/{file}\">{file}</a></html>"),
        );
    }

    fn put_wheel(&self, name: &str, modules: &[(&str, &str)], requires: &str) {
        self.put_python(
            name,
            &format!("{name}-1.2.3-py3-none-any.whl"),
            wheel(name, modules, requires),
        );
    }

    /// A package of the npm registry, version 1.0.0.
    fn put_npm(&self, name: &str, more: Value) {
        let mut package = json!({"name": name, "version": "1.0.0", "main": "index.js"});
        package
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        let tarball = targz(&[
            ("package/package.json", package.to_string().as_bytes()),
            ("package/index.js", b"module.exports = 1;\n"),
        ]);
        self.put(&format!("/npm/{name}/-/{name}-1.0.0.tgz"), tarball);
        package["dist"] = json!({"tarball": self.url(&format!("/npm/{name}/-/{name}-1.0.0.tgz"))});
        let document = json!({"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": package}});
        self.put(&format!("/npm/{name}"), document.to_string());
    }

    fn packages(&self) -> Packages {
        self.packages_with(|_| {})
    }

    fn packages_with(&self, change: impl FnOnce(&mut Options)) -> Packages {
        let mut options = Options::default();
        let settings = [
            ("PATH", env::var("PATH").expect("a PATH")),
            ("PIP_INDEX_URL", self.url("/simple")),
            ("NPM_CONFIG_REGISTRY", self.url("/npm/")),
        ];
        for (name, value) in settings {
            options.env.insert(name.to_owned(), value);
        }
        change(&mut options);
        Packages::new(
            options,
            Arc::new(|| Some(Arc::new(jail()) as Arc<dyn piecework_sandbox::Backend>)),
        )
    }
}

fn jail() -> Jail {
    let mut options = piecework_sandbox_jail::Options::new(env!("CARGO_BIN_EXE_jail-init"));
    options.search = env::var_os("PATH").unwrap_or_default();
    options.ahead = false;
    options.egress = Some(Egress::new(EgressPolicy {
        private: vec!["127.0.0.0/8".parse().expect("a network")],
    }));
    Jail::new(options).expect("a launcher")
}

fn answer(mut stream: TcpStream, files: &Mutex<BTreeMap<String, Vec<u8>>>) {
    let mut lines = BufReader::new(stream.try_clone().expect("clones"))
        .lines()
        .map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    if path.starts_with("/simple/slow") {
        thread::sleep(Duration::from_secs(30));
    }
    let found = files.lock().get(&path).cloned();
    let (status, body) = found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    let kind = if path.starts_with("/npm/") {
        "application/json"
    } else {
        "text/html"
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // The client may be gone: then nobody waits for the answer.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

/// A wheel is a zip with metadata; Python's own library writes it.
fn wheel(name: &str, modules: &[(&str, &str)], requires: &str) -> Vec<u8> {
    let script = r#"
import sys, json, zipfile, io
name, requires = sys.argv[1:]
info, out = f"{name}-1.2.3.dist-info", io.BytesIO()
with zipfile.ZipFile(out, "w") as wheel:
    for path, text in json.load(sys.stdin):
        wheel.writestr(path, text)
    meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n" + (f"Requires-Dist: {requires}\n" if requires else "")
    wheel.writestr(f"{info}/METADATA", meta)
    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(f"{info}/RECORD", "")
sys.stdout.buffer.write(out.getvalue())
"#;
    let modules = serde_json::to_string(modules).expect("JSON");
    let mut maker = Command::new("python3")
        .args(["-c", script, name, requires])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = maker.stdin.take().expect("piped");
    stdin.write_all(modules.as_bytes()).expect("takes the modules");
    drop(stdin);
    let made = maker.wait_with_output().expect("runs");
    assert!(made.status.success());
    made.stdout
}

fn targz(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, *content).expect("appends");
    }
    tar.into_inner().expect("ends").finish().expect("ends")
}

/// A source package whose build backend leaves a mark on the host, were it to run there.
fn marking_source(name: &str, mark: &Path) -> Vec<u8> {
    let project = format!(
        "[build-system]\nrequires = []\nbuild-backend = 'evil'\nbackend-path = ['.']\n[project]\nname = '{name}'\nversion = '1.0'\n"
    );
    let backend = format!(
        "import os\ntry:\n    open({mark:?}, 'w').write(str(os.getuid()))\nexcept OSError:\n    pass\n\
         def get_requires_for_build_wheel(c=None): return []\n\
         def build_wheel(d, c=None, m=None): raise SystemExit(1)\n"
    );
    let info = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n");
    targz(&[
        (&format!("{name}-1.0/pyproject.toml"), project.as_bytes()),
        (&format!("{name}-1.0/evil.py"), backend.as_bytes()),
        (&format!("{name}-1.0/PKG-INFO"), info.as_bytes()),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_tools_say_is_kept_without_the_way_to_the_index() {
    if !pip_is_here() || !npm_is_here() {
        return;
    }
    let index = Index::start();
    index.put_wheel("dots", &[("dots.py", "DOTS = '...'\n")], "");
    index.put_npm("left", json!({}));
    let packages = index.packages();
    let mut said = String::new();
    let requirements = bundle("requirements.txt", "dots==1.2.3");
    let resolves = packages.resolve(ACCOUNT, Language::Python, &requirements, &mut said);
    resolves.await.expect("resolves");
    assert!(
        said.contains("Collecting dots==1.2.3") && said.contains("Successfully installed"),
        "{said}"
    );
    let wrong = bundle("requirements.txt", "dots==9");
    let resolves = packages.resolve(ACCOUNT, Language::Python, &wrong, &mut said);
    resolves.await.expect_err("there is none");
    assert!(said.contains("No matching distribution found for dots==9"), "{said}");
    let manifest = bundle("package.json", r#"{"dependencies": {"left": "1.0.0"}}"#);
    let resolves = packages.resolve(ACCOUNT, Language::JavaScript, &manifest, &mut said);
    resolves.await.expect("resolves");
    assert!(said.contains("added 1 package"), "{said}");
    for hidden in ["Looking in", "127.0.0.1", "/tmp/"] {
        assert!(!said.contains(hidden), "{hidden}: {said}");
    }
}

async fn python(packages: &Packages, requirements: &str) -> Result<Option<Resolved>, ResolveError> {
    packages
        .resolve(
            ACCOUNT,
            Language::Python,
            &bundle("requirements.txt", requirements),
            &mut String::new(),
        )
        .await
}

async fn javascript(packages: &Packages, dependency: &str) -> Result<Option<Resolved>, ResolveError> {
    let manifest = json!({"dependencies": {dependency: "1.0.0"}}).to_string();
    packages
        .resolve(
            ACCOUNT,
            Language::JavaScript,
            &bundle("package.json", &manifest),
            &mut String::new(),
        )
        .await
}

fn bundle(name: &str, text: &str) -> BTreeMap<String, Bytes> {
    BTreeMap::from([(name.to_owned(), Bytes::copy_from_slice(text.as_bytes()))])
}

fn rejection(result: Result<Option<Resolved>, ResolveError>) -> piecework_model::Rejection {
    match result.expect_err("refused") {
        ResolveError::Rejected(rejection) => rejection,
        ResolveError::Jail(reason) => panic!("{reason}"),
        ResolveError::Io { operation, source } => panic!("{operation}: {source}"),
    }
}

fn code(result: Result<Option<Resolved>, ResolveError>) -> Code {
    rejection(result).code.known().expect("one of ours")
}

#[tokio::test]
async fn a_pure_wheel_and_what_it_requires_are_resolved() {
    if !pip_is_here() {
        return;
    }
    let index = Index::start();
    index.put_wheel("greeting", &[("greeting/__init__.py", "WORD = 'hello'\n")], "dots>=1");
    index.put_wheel("dots", &[("dots.py", "DOTS = '...'\n")], "");
    let resolved = python(&index.packages(), "greeting == 1.2.3  # a comment\n")
        .await
        .expect("resolves")
        .expect("some");
    assert_eq!(resolved.folder, "packages");
    assert_eq!(resolved.versions, ["dots==1.2.3", "greeting==1.2.3"]);
    assert!(!resolved.native);
    assert_eq!(resolved.files["packages/greeting/__init__.py"], "WORD = 'hello'\n");
    assert_eq!(resolved.files["packages/dots.py"], "DOTS = '...'\n");
    let strange = |path: &&String| !path.starts_with("packages/") || path.contains("__pycache__");
    assert_eq!(resolved.files.keys().find(strange), None);
}

#[tokio::test]
async fn a_wheel_with_compiled_code_is_called_native() {
    if !pip_is_here() {
        return;
    }
    let index = Index::start();
    index.put_wheel(
        "fast",
        &[("fast/_speed.cpython-311-x86_64-linux-gnu.so", "\u{7f}ELF")],
        "",
    );
    let resolved = python(&index.packages(), "fast")
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
    let (index, folder) = (Index::start(), tempfile::tempdir().expect("a folder"));
    let mark = folder.path().join("ran");
    index.put_python("evil", "evil-1.0.tar.gz", marking_source("evil", &mark));
    assert_eq!(
        code(python(&index.packages(), "evil==1.0").await),
        Code::PackagesUnresolvable
    );
    assert!(!mark.exists());
}

#[tokio::test]
async fn what_a_dependency_takes_from_elsewhere_is_refused_and_never_runs_on_the_host() {
    if !pip_is_here() {
        return;
    }
    let (index, folder) = (Index::start(), tempfile::tempdir().expect("a folder"));
    // Everybody may write there: only the jail's walls keep a mark out.
    let mark = folder.path().join("ran");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("opens");
    index.put("/files/direct-1.0.tar.gz", marking_source("direct", &mark));
    let direct = format!("direct @ {}", index.url("/files/direct-1.0.tar.gz"));
    index.put_wheel("byurl", &[("byurl.py", "")], &direct);
    assert_names(
        python(&index.packages(), "byurl").await,
        &["`byurl`", "direct", "/files/direct-1.0.tar.gz"],
    );
    assert!(!mark.exists());
    index.put(
        "/files/plain-1.2.3-py3-none-any.whl",
        wheel("plain", &[("plain.py", "")], ""),
    );
    let wheel = format!("plain @ {}", index.url("/files/plain-1.2.3-py3-none-any.whl"));
    index.put_wheel("bywheel", &[("bywheel.py", "")], &wheel);
    assert_names(
        python(&index.packages(), "bywheel").await,
        &["`bywheel`", "plain", "/files/plain-1.2.3"],
    );
    // Through a package that is fine itself, with a version behind its name.
    index.put_wheel("above", &[("above.py", "")], "bywheel==1.2.3");
    assert_names(python(&index.packages(), "above").await, &["`bywheel`", "plain"]);
    index.put_wheel(
        "bygit",
        &[("bygit.py", "")],
        "repo @ git+https://user:secret@example.org/repo.git@main",
    );
    let told = assert_names(
        python(&index.packages(), "bygit").await,
        &["repo", "git+https://example.org/repo.git"],
    );
    assert!(!told.contains("secret"), "{told}");
    let private = folder.path().join("private");
    fs::create_dir(&private).expect("makes");
    index.put_wheel(
        "byfile",
        &[("byfile.py", "")],
        &format!("gone @ file://{}", private.display()),
    );
    assert_names(python(&index.packages(), "byfile").await, &["`byfile`", "private"]);
}

/// It is a reference away from the index, and the message has all of these words; gives the message.
#[track_caller]
fn assert_names(result: Result<Option<Resolved>, ResolveError>, words: &[&str]) -> String {
    let refused = rejection(result);
    assert_eq!(refused.code, Code::PackagesDirectReference, "{}", refused.message);
    for word in words {
        assert!(refused.message.contains(word), "no {word}: {}", refused.message);
    }
    refused.message
}

#[tokio::test]
async fn nothing_but_the_index_can_be_reached() {
    if !pip_is_here() {
        return;
    }
    let index = Index::start();
    let internal = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!(
        "http://{}/secret-1.0.tar.gz",
        internal.local_addr().expect("an address")
    );
    let visits = Arc::new(AtomicUsize::new(0));
    let counted = visits.clone();
    thread::spawn(move || {
        internal.incoming().for_each(|_| {
            counted.fetch_add(1, Ordering::SeqCst);
        })
    });
    index.put_wheel("spy", &[("spy.py", "")], &format!("secret @ {url}"));
    assert_names(python(&index.packages(), "spy").await, &["`spy`", "secret"]);
    assert_eq!(visits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_unknown_package_is_unresolvable_in_the_words_of_the_tool() {
    if !pip_is_here() {
        return;
    }
    let refused = rejection(python(&Index::start().packages(), "no-such-package==9").await);
    assert_eq!(refused.code, Code::PackagesUnresolvable);
    assert!(refused.message.contains("no-such-package==9"), "{}", refused.message);
    assert!(!refused.message.contains("/tmp"), "{}", refused.message);
}

#[tokio::test]
async fn packages_above_the_cap_are_refused() {
    if !pip_is_here() {
        return;
    }
    let index = Index::start();
    index.put_wheel("large", &[("large.py", &"#".repeat(1 << 20))], "");
    let small = index.packages_with(|options| options.bytes_max = 1 << 19);
    assert_eq!(code(python(&small, "large").await), Code::PackagesTooLarge);
    let few = index.packages_with(|options| options.files_max = 1);
    assert_eq!(code(python(&few, "large").await), Code::PackagesTooLarge);
}

#[tokio::test]
async fn a_tool_that_takes_too_long_is_ended_with_all_its_processes() {
    if !pip_is_here() {
        return;
    }
    let index = Index::start();
    let hasty = index.packages_with(|options| options.timeout = Duration::from_secs(2));
    assert_eq!(code(python(&hasty, "slow").await), Code::PackagesTimeout);
}

#[tokio::test]
async fn nothing_declared_starts_no_jail_and_a_machine_without_one_says_so() {
    let nowhere = Packages::new(Options::default(), Arc::new(|| None));
    assert_eq!(python(&nowhere, "# nothing\n").await.expect("fine"), None);
    let other = bundle("package.json", "{");
    let none = nowhere
        .resolve(ACCOUNT, Language::Python, &other, &mut String::new())
        .await;
    assert_eq!(none.expect("not its manifest"), None);
    assert_eq!(code(python(&nowhere, "six").await), Code::PackagesNoJail);
    assert_eq!(
        code(python(&nowhere, "-r /etc/passwd").await),
        Code::PackagesBadRequirement
    );
    let manifest = bundle("package.json", r#"{"dependencies": {"a": "file:/etc"}}"#);
    let refused = nowhere
        .resolve(ACCOUNT, Language::JavaScript, &manifest, &mut String::new())
        .await;
    assert_eq!(code(refused), Code::PackagesBadRequirement);
}

#[tokio::test]
async fn a_machine_without_npm_says_what_to_install() {
    let index = Index::start();
    let without = index.packages_with(|options| drop(options.env.insert("PATH".into(), "/nowhere".into())));
    assert_eq!(code(javascript(&without, "a").await), Code::PackagesToolMissing);
}

#[tokio::test]
async fn an_npm_package_is_resolved_and_none_of_its_scripts_run() {
    if !npm_is_here() {
        return;
    }
    let (index, folder) = (Index::start(), tempfile::tempdir().expect("a folder"));
    let mark = folder.path().join("ran");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("opens");
    let script = format!("touch {}", mark.display());
    index.put_npm(
        "left",
        json!({"scripts": {"install": script}, "hasInstallScript": true}),
    );
    let resolved = javascript(&index.packages(), "left")
        .await
        .expect("resolves")
        .expect("some");
    assert_eq!(resolved.folder, "node_modules");
    assert_eq!(resolved.versions, ["left==1.0.0"]);
    assert!(!resolved.native && !mark.exists());
    let names: Vec<&str> = resolved.files.keys().map(String::as_str).collect();
    assert_eq!(names, ["node_modules/left/index.js", "node_modules/left/package.json"]);
    assert_eq!(
        code(javascript(&index.packages(), "right").await),
        Code::PackagesUnresolvable
    );
}

#[tokio::test]
async fn npm_dependencies_from_repositories_paths_and_urls_are_refused() {
    if !npm_is_here() {
        return;
    }
    let (index, folder) = (Index::start(), tempfile::tempdir().expect("a folder"));
    index.put(
        "/inner.tgz",
        targz(&[("package/package.json", br#"{"name":"inner","version":"1.0.0"}"#)]),
    );
    let places = [
        ("togit", format!("git+file://{}", folder.path().display())),
        ("tohost", "git+https://example.org/inner.git".to_owned()),
        ("toshort", "somebody/inner".to_owned()),
        ("tofile", "file:../inner.tgz".to_owned()),
        ("topath", "file:/etc".to_owned()),
        ("tourl", index.url("/inner.tgz")),
    ];
    for (name, place) in places {
        index.put_npm(name, json!({"dependencies": {"inner": place}}));
        assert_names(javascript(&index.packages(), name).await, &["inner@"]);
        // At one more remove.
        let above = format!("above-{name}");
        index.put_npm(&above, json!({"dependencies": {name: "^1.0.0"}}));
        assert_names(javascript(&index.packages(), &above).await, &["inner@"]);
    }
}
