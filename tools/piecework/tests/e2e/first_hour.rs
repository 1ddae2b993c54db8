//! What somebody meets in the first hour: nothing that was there is lost, and what is said is true.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use piecework_model::Code;
use serde_json::Value;

use crate::{
    command_line::command,
    computer::{Computer, invite, provide},
    machine::{self, Machine, user},
    providers::{ECHO, alone, until},
};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn ok(mut command: Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// With this on its standard input.
fn fed(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    // Who reads nothing closes it.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

#[tokio::test]
async fn functions_of_a_project_keep_their_secrets_and_say_what_is_wrong() {
    let home = tempfile::tempdir().expect("a home");
    let data = tempfile::tempdir().expect("a directory");
    let server = Machine::start(data.path());
    let run = |arguments: &[&str]| user(home.path(), &server, arguments);
    let json = |arguments: &[&str]| serde_json::from_str::<Value>(&ok(run(arguments))).expect("JSON");
    for name in ["hello", "other"] {
        fs::create_dir(home.path().join(name)).expect("made");
        fs::write(
            home.path().join(name).join("main.mjs"),
            "export default (event) => [event, process.env.A];\n",
        )
        .expect("written");
    }
    let project = |text: &str| fs::write(home.path().join("piecework.toml"), text).expect("written");
    project("timeout = '7s'\n[functions.hello]\nsecrets = ['KEY']\nenv = { A = '1', B = '2' }\n[functions.other]\n");

    // A secret that nobody gave, and then a file with it.
    let refused = fed(run(&["deploy", "--json"]), "");
    assert_eq!(refused.status.code(), Some(2));
    let error: Value = serde_json::from_slice(&refused.stderr).expect("an error in JSON");
    assert!(
        error["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("`KEY`")),
        "{error}"
    );
    let deployed = fed(run(&["deploy", "--secrets-from", "-"]), "KEY=hush\n");
    assert!(deployed.status.success(), "{}", said(&deployed));
    let view = json(&["function", "hello", "--json"]);
    assert_eq!(
        (&view["timeout_ms"], &view["secret_names"]),
        (&7_000.into(), &serde_json::json!(["KEY"])),
        "{view}"
    );

    // The file's variables are all of them; secrets that it does not name stay.
    let set = fed(run(&["secrets", "set", "hello", "MORE"]), "much\n");
    assert!(set.status.success(), "{}", said(&set));
    project("[functions.hello]\nsecrets = ['KEY']\nenv = { A = '3' }\n[functions.other]\n");
    ok(run(&["deploy", "--name", "hello", "--private"]));
    let view = json(&["function", "hello", "--json"]);
    assert_eq!(
        (&view["env"], &view["version"]),
        (&serde_json::json!({"A": "3"}), &3.into()),
        "{view}"
    );
    assert_eq!(ok(run(&["secrets", "list", "hello"])), "KEY\nMORE\n");
    ok(run(&["secrets", "remove", "hello", "MORE"]));
    ok(run(&["deploy", "hello", "--name", "hello", "--secret", "NEW=1"]));
    assert_eq!(ok(run(&["secrets", "list", "hello"])), "KEY\nNEW\n");

    // What is piped in is the event.
    let called = fed(run(&["call", "hello", "--quiet"]), "{\"n\": 1}");
    assert_eq!(
        String::from_utf8_lossy(&called.stdout),
        "[{\"n\":1},\"3\"]\n",
        "{}",
        said(&called)
    );
    let called = fed(run(&["call", "hello", "--quiet"]), "");
    assert_eq!(
        String::from_utf8_lossy(&called.stdout),
        "[null,\"3\"]\n",
        "{}",
        said(&called)
    );

    // Errors are JSON where JSON is asked for, of the command line too.
    for (arguments, code, says) in [
        (&["call", "nothing", "--json"][..], 3, Code::FunctionNotFound.as_str()),
        (&["call", "--json"], 2, "usage"),
    ] {
        let failed = run(arguments).output().expect("it runs");
        assert_eq!(failed.status.code(), Some(code));
        let error: Value = serde_json::from_slice(&failed.stderr).expect("JSON");
        assert_eq!(error["error"]["code"], says, "{error}");
    }
    assert_eq!(json(&["whoami", "--json"])["account"], "operator");
    assert!(ok(run(&["open", "hello", "--print"])).contains("hello"));
    assert!(!ok(run(&["logs", "hello", "--since", "10m"])).is_empty());
    assert!(ok(run(&["logs", "hello", "--since", "2999-01-01T00:00:00Z"])).is_empty());
    let deleted = run(&["delete", "other"]).output().expect("it runs");
    assert!(said(&deleted).contains("piecework restore other"), "{}", said(&deleted));
}

/// Answers one call, and never what comes after it.
fn answers_and_then_hangs() -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let body = r#"{"job_id":"job_00000000000000000000000000000001","output":{"paid":true},"cold":false,"duration_ms":1.0,"price_ucr":1}"#;
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = [0; 4_096];
        let read = stream.read(&mut request).expect("a request");
        assert!(read > 0);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).expect("sent");
        // Until the client is gone.
        while stream.read(&mut request).is_ok_and(|read| read > 0) {}
    });
    (url, serving)
}

#[test]
fn an_answer_is_printed_before_the_logs_are_asked_for() {
    let home = tempfile::tempdir().expect("a home");
    let (url, serving) = answers_and_then_hangs();
    let mut call = command(home.path());
    call.env("PIECEWORK_URL", url)
        .env("PIECEWORK_TOKEN", "t")
        .args(["call", "f", "{}"]);
    let mut child = call
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("a line");
    assert_eq!(line, "{\"paid\":true}\n");
    signal("-INT", child.id().to_string());
    child.wait().expect("it ends");
    serving.join().expect("no panic");
}

fn signal(name: &str, to: String) {
    let sent = Command::new("kill").args([name, "--", &to]).status();
    assert!(sent.expect("kill is there").success());
}

/// As from a terminal: everybody in the group hears it.
fn interrupt(child: &Child) {
    signal("-INT", format!("-{}", child.id()));
}

#[tokio::test]
async fn interrupted_at_the_terminal_running_jobs_end_and_nothing_else_is_said() {
    let home = tempfile::tempdir().expect("a home");
    let mut up = machine::piecework();
    up.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(home.path());
    let mut up = up
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut line = String::new();
    BufReader::new(up.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("a line");
    let url = line.trim().strip_prefix("ready ").expect("ready").to_owned();
    let token = fs::read_to_string(home.path().join("token")).expect("a token");
    let stderr = up.stderr.take().expect("piped");
    let hears = std::thread::spawn(move || {
        let mut said = String::new();
        let _ = BufReader::new(stderr).read_to_string(&mut said);
        said
    });
    let run = |arguments: &[&str]| {
        let mut command = command(home.path());
        command
            .env("PIECEWORK_URL", &url)
            .env("PIECEWORK_TOKEN", &token)
            .args(arguments);
        command
    };
    for (language, code) in [
        (
            "python",
            "import time\ndef handler(event, context):\n    time.sleep(1)\n    return 'slept'",
        ),
        ("javascript", "export default () => 1"),
    ] {
        ok(run(&[
            "deploy",
            "--code",
            code,
            "--name",
            language,
            "--language",
            language,
            "--sandbox",
            "auto",
        ]));
    }
    let sleeping = run(&["call", "python", "null"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let sleeping = sleeping.expect("it runs");
    let began = Instant::now();
    while !ok(run(&["jobs", "--state", "running", "--json"])).contains("job_") {
        assert!(began.elapsed() < Duration::from_secs(30), "it never runs");
    }
    interrupt(&up);
    let slept = sleeping.wait_with_output().expect("it ends");
    assert_eq!(
        String::from_utf8_lossy(&slept.stdout),
        "\"slept\"\n",
        "{}",
        said(&slept)
    );
    assert!(up.wait().expect("it ends").success());
    let said = hears.join().expect("no panic");
    assert!(
        !said.contains("Traceback") && !said.contains("KeyboardInterrupt"),
        "{said}"
    );
    assert!(
        said.contains("piecework new hello") && said.contains("stopped"),
        "the next steps: {said}"
    );
}

#[tokio::test]
async fn a_computer_joins_with_the_right_invite_alone_and_is_paid_after_it_left() {
    let (home, data) = (
        tempfile::tempdir().expect("a home"),
        tempfile::tempdir().expect("a directory"),
    );
    let server = alone(data.path());
    let plain = ok(user(home.path(), &server, &["invite", "--grant", "5cr"]))
        .trim()
        .to_owned();
    let at = home.path().join("provider");
    let refused = provide(&at, &server.url, "laptop", &["--invite", &plain])
        .output()
        .expect("it runs");
    assert!(
        !refused.status.success() && said(&refused).contains(Code::InviteWrongRole.as_str()),
        "{}",
        said(&refused)
    );
    let unknown = user(home.path(), &server, &["account", "laptop"])
        .output()
        .expect("it runs");
    assert!(
        said(&unknown).contains(Code::AccountNotFound.as_str()),
        "nothing is registered: {}",
        said(&unknown)
    );

    let right = invite(&server).await;
    let computer = Computer::start(&at, &server.url, "laptop", &["--invite", &right, "--price-start", "17"]);
    let directory = at.to_str().expect("UTF-8");
    let shown = ok(command_of(
        home.path(),
        &["provide", "config", "show", "--data", directory],
    ));
    assert!(
        shown.contains("runs now") && shown.contains("start = 17"),
        "of the one that runs: {shown}"
    );
    let twin = home.path().join("twin");
    let taken = provide(&twin, &server.url, "laptop", &["--invite", &invite(&server).await])
        .output()
        .expect("it runs");
    assert!(said(&taken).contains("--name"), "{}", said(&taken));

    server.deploy("f", "javascript", ECHO).await;
    let job = server.call("f", Value::Null).await.ok()["job_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert!(computer.stop(), "it ends cleanly");
    let paid = until("the job is paid without the computer", async || {
        let view = server.get(&format!("/jobs/{job}")).await.ok();
        (view["paid"] == true).then_some(view)
    })
    .await;
    assert_eq!(paid["provider"], "laptop");
    let earned = ok(command_of(
        home.path(),
        &["provider", "earnings", "--data", directory, "--json"],
    ));
    let earned: Value = serde_json::from_str(&earned).expect("JSON");
    // A reference job may have run besides.
    let (all, price) = (&earned["in_all"]["price_ucr"], &paid["price_ucr"]);
    assert!(
        all.as_u64() >= price.as_u64() && price.as_u64() >= Some(17),
        "{earned} {paid}"
    );
    assert_eq!(earned["today"], earned["in_all"], "{earned}");
}

/// Without a login.
fn command_of(home: &Path, arguments: &[&str]) -> Command {
    let mut command = command(home);
    command.args(arguments);
    command
}

#[tokio::test]
async fn a_saved_file_is_served_soon() {
    let home = tempfile::tempdir().expect("a home");
    let data = tempfile::tempdir().expect("a directory");
    let server = Machine::start(data.path());
    let file = home.path().join("f.mjs");
    fs::write(&file, "export default () => 0;\n").expect("written");
    let mut dev = user(home.path(), &server, &["dev", "f.mjs"]);
    let mut dev = dev
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(dev.stderr.take().expect("piped"))
        .lines()
        .map_while(Result::ok);
    lines.find(|line| line.contains("Ctrl-C")).expect("it watches");
    let mut took = Vec::new();
    for number in 1..=5 {
        fs::write(&file, format!("export default () => {number};\n")).expect("written");
        let saved = Instant::now();
        while server.call("f-dev", Value::Null).await.ok()["output"] != number {
            assert!(saved.elapsed() < Duration::from_secs(30), "never served: {number}");
        }
        took.push(saved.elapsed());
    }
    took.sort_unstable();
    println!("save to served: {took:?}");
    dev.kill().expect("killed");
    dev.wait().expect("it ends");
    assert!(took[0] < Duration::from_millis(1_000), "{took:?}");
}
