//! Code on its way in and back out: forms, archives, git repositories, and read back.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::machine::{Machine, user};

const HELLO: &str = "def handler(event, context):\n    return {'hello': event}\n";

#[track_caller]
fn run(mut command: Command) -> String {
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn tool(program: &str, folder: &Path, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.current_dir(folder).args(arguments);
    run(command);
}

#[tokio::test]
async fn a_form_an_archive_and_a_repository_are_deployed_and_read_back() {
    let (home, data) = (
        tempfile::tempdir().expect("a home"),
        tempfile::tempdir().expect("a directory"),
    );
    let server = Machine::start(data.path());
    let work = home.path().join("hello.git");
    fs::create_dir_all(work.join("lib")).expect("made");
    fs::write(work.join("main.py"), HELLO).expect("written");
    fs::write(work.join("lib/names.py"), "A = 1\n").expect("written");
    let path = |name: &str| home.path().join(name).to_str().expect("text").to_owned();

    // As the API of the paper has it, by curl.
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--fail-with-body",
        "-H",
        &format!("Authorization: Bearer {}", server.token),
    ])
    .args([
        "-F",
        "name=formed",
        "-F",
        "language=python",
        "-F",
        "timeout=2s",
        "-F",
        "memory=64MiB",
    ])
    .args(["-F", &format!("code=@{};filename=app.py", path("hello.git/main.py"))])
    .arg(format!("{}/functions", server.url));
    let view: serde_json::Value = serde_json::from_str(&run(curl)).expect("JSON");
    assert_eq!(
        (&view["timeout_ms"], &view["memory_limit_mb"]),
        (&json!(2_000), &json!(64)),
        "{view}"
    );
    assert_eq!(
        server.call("formed", json!(1)).await.ok()["output"],
        json!({"hello": 1})
    );

    tool(
        "python3",
        &work,
        &["-c", "import shutil; shutil.make_archive('../zipped', 'zip', '.')"],
    );
    run(user(home.path(), &server, &["deploy", &path("zipped.zip")]));
    assert_eq!(
        server.call("zipped", json!(2)).await.ok()["output"],
        json!({"hello": 2})
    );

    tool("git", &work, &["init", "--quiet", "--initial-branch", "main"]);
    tool("git", &work, &["add", "."]);
    let author = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
    tool(
        "git",
        &work,
        &[&author[..], &["commit", "--quiet", "-m", "first"]].concat(),
    );
    let said = run(user(
        home.path(),
        &server,
        &["deploy", &format!("{}#main", path("hello.git"))],
    ));
    assert!(said.starts_with("commit "), "{said}");
    assert_eq!(server.call("hello", json!(3)).await.ok()["output"], json!({"hello": 3}));

    run(user(home.path(), &server, &["code", "hello", "--into", &path("back")]));
    for file in ["main.py", "lib/names.py"] {
        let read = |folder: &str| fs::read(home.path().join(folder).join(file)).expect("there");
        assert_eq!(read("back"), read("hello.git"), "{file}");
    }
    let again = user(home.path(), &server, &["code", "hello", "--into", &path("back")]).output();
    assert_eq!(again.expect("it runs").status.code(), Some(2), "it is not written over");
}
