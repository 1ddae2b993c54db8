//! The command line against a whole machine: what a user types, what is printed where, how it ends.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::machine::{Machine, piecework};
use piecework_model::Code;
use serde_json::Value;

/// A home directory whose default data directory a machine runs in.
struct Home {
    folder: tempfile::TempDir,
    machine: Machine,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data/piecework");
        fs::create_dir_all(&data).expect("made");
        Self {
            machine: Machine::start(&data),
            folder,
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(self.path());
        command.env("XDG_DATA_HOME", self.path().join("data")).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it runs")
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The controller hears of what the ledger says of a lease a moment later.
    fn call_when_fed(&self, function: &str) -> Value {
        let deadline = std::time::Instant::now() + crate::machine::SETTLED_WITHIN;
        loop {
            let output = self.run(&["call", function, "null", "--json"]);
            if output.status.success() {
                return serde_json::from_slice(&output.stdout).expect("JSON");
            }
            ended(&output, 3, Code::AccountInsufficientCredits.as_str());
            assert!(std::time::Instant::now() < deadline, "the lease is never fed");
        }
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).expect("JSON")
    }
}

/// With nothing of this user's in its environment.
pub fn command(home: &Path) -> Command {
    let mut command = piecework();
    command
        .env_remove("PIECEWORK_URL")
        .env_remove("PIECEWORK_TOKEN")
        .env("HOME", home)
        .current_dir(home);
    command
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_DATA_HOME")
        .stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn ended(output: &Output, code: i32, sentence: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    assert!(said(output).contains(sentence), "{}", said(output));
}

#[tokio::test]
async fn a_key_registers_logs_in_and_is_rotated() {
    let home = Home::new();
    let url = home.machine.url.clone();
    let invite = home.ok(&["invite", "--grant", "1000"]);
    let key = home.path().join("ada.key");
    let key = key.to_str().expect("UTF-8");
    ended(
        &home.run(&["login", &url, "--name", "ada", "--key", key]),
        2,
        "no key in",
    );
    home.ok(&["login", &url, "--name", "ada", "--key", key, "--invite", invite.trim()]);
    let before = home.json(&["account", "--json"]);
    assert_eq!(
        (&before["name"], &before["posted_ucr"]),
        (&Value::from("ada"), &Value::from(1_000))
    );
    let other = home.path().join("other.key");
    let other = other.to_str().expect("UTF-8");
    ended(
        &home.run(&["account", "rotate-key"]),
        3,
        Code::AccountBadSignature.as_str(),
    );
    home.ok(&["account", "rotate-key", "--key", key, "--new-key", other]);
    let after = home.json(&["account", "--json"]);
    assert!(after["key"] != before["key"] && after["id"] == before["id"], "{after}");
    let deadline = std::time::Instant::now() + crate::machine::SETTLED_WITHIN;
    while home
        .run(&["login", &url, "--name", "ada", "--key", other])
        .status
        .code()
        != Some(0)
    {
        assert!(std::time::Instant::now() < deadline, "the new key never logs in");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    ended(
        &home.run(&["login", &url, "--name", "ada", "--key", key]),
        3,
        Code::AuthBadCredentials.as_str(),
    );
    let audit = home.ok(&["audit"]);
    for action in ["account.registered", "account.key_rotated", "session.opened"] {
        assert!(audit.contains(action), "{action} is missing:\n{audit}");
    }
}

#[tokio::test]
async fn who_keeps_the_key_opens_leases_pays_and_lends_with_it() {
    let home = Home::new();
    let url = home.machine.url.clone();
    let invite = home.ok(&["invite", "--grant", "5cr"]);
    let key = home.path().join("ada.key");
    let key = key.to_str().expect("UTF-8");
    home.ok(&["login", &url, "--name", "ada", "--key", key, "--invite", invite.trim()]);
    home.ok(&["new", "hello", "--language", "javascript"]);
    home.ok(&["deploy", "hello"]);
    let refused = home.run(&["call", "hello", "null"]);
    ended(&refused, 3, Code::LeaseNone.as_str());
    ended(&refused, 3, "piecework leases open --key FILE");

    // So little that no run is covered.
    let lease = home.json(&["leases", "open", "10", "--key", key, "--json"]);
    assert_eq!(lease["budget_ucr"], 10, "{lease}");
    ended(
        &home.run(&["call", "hello", "null"]),
        3,
        Code::AccountInsufficientCredits.as_str(),
    );
    ended(
        &home.run(&["call", "hello", "null"]),
        3,
        "piecework leases top-up AMOUNT --key FILE",
    );
    let lease = home.json(&["leases", "top-up", "2cr", "--key", key, "--json"]);
    assert_eq!(lease["budget_ucr"], 2_000_010, "{lease}");
    ended(
        &home.run(&["leases", "open", "--key", key]),
        2,
        "is already open; add to it with `piecework leases top-up",
    );
    let called = home.call_when_fed("hello");
    let job = called["job_id"].as_str().expect("an id");
    let deadline = std::time::Instant::now() + crate::machine::SETTLED_WITHIN;
    while home.json(&["account", "--json"])["posted_ucr"] == 5_000_000 {
        assert!(std::time::Instant::now() < deadline, "{job} is never paid");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    let refused = home.run(&["transfer", "operator", "7"]);
    ended(&refused, 3, "piecework transfer NAME AMOUNT --key FILE");
    let sent = home.json(&["transfer", "operator", "7", "--key", key, "--json"]);
    assert_eq!(
        (&sent["from"], &sent["to"]),
        (&Value::from("ada"), &Value::from("operator"))
    );
    ended(
        &home.run(&["invite", "--grant", "5"]),
        3,
        Code::AccountBadSignature.as_str(),
    );
    home.ok(&["invite", "--grant", "0"]);
    ended(&home.run(&["lend", "operator"]), 2, "give an amount");
    ended(
        &home.run(&["lend", "operator", "1000"]),
        3,
        Code::AccountBadSignature.as_str(),
    );
    let borrower = home.json(&["lend", "operator", "1000", "--key", key, "--json"]);
    assert_eq!(borrower["limit_ucr"], 1_000, "{borrower}");
    ended(
        &home.run(&["lend", "operator", "--cover", "5", "--key", key]),
        3,
        Code::AccountNoDebt.as_str(),
    );
    let borrower = home.json(&["lend", "operator", "0", "--key", key, "--json"]);
    assert_eq!(borrower["limit_ucr"], 0, "{borrower}");
}

#[tokio::test]
async fn a_kept_key_is_rotated_and_still_pays() {
    let home = Home::new();
    let before = home.json(&["account", "--json"]);
    let after = home.json(&["account", "rotate-key", "--json"]);
    assert!(after["key"] != before["key"] && after["id"] == before["id"], "{after}");
    home.ok(&["new", "hello", "--language", "javascript"]);
    home.ok(&["deploy", "hello"]);
    let called = home.json(&["call", "hello", "null", "--json"]);
    home.machine.paid(called["job_id"].as_str().expect("an id")).await;
    home.ok(&["transfer", "provider", "5"]);
}

#[tokio::test]
async fn canaries_budgets_logs_and_limits_by_command() {
    let home = Home::new();
    let write = |code: &str| fs::write(home.path().join("c.mjs"), code).expect("written");
    write("export default () => { console.log('plain'); console.warn('careful'); return 1; };\n");
    home.ok(&["deploy", "c.mjs", "--budget", "1cr"]);
    write("export default () => 2;\n");
    let deployed = home.ok(&["deploy", "c.mjs", "--canary", "10"]);
    assert!(deployed.contains("v1 90 %, v2 10 %"), "{deployed}");
    let shown = home.ok(&["function", "c"]);
    assert!(
        shown.contains("v1 90 %, v2 10 %") && shown.contains("1,000,000 ucr"),
        "{shown}"
    );
    home.ok(&["traffic", "c", "v1=100", "v2=0", "--max-errors", "5%"]);
    let split = home.json(&["traffic", "c", "--json"]);
    assert_eq!(split["errors_permille_max"], 50);
    home.ok(&["traffic", "c", "--end"]);
    home.ok(&["function", "c", "--budget", "0"]);
    assert!(!home.ok(&["function", "c"]).contains("budget"));
    let called = home.json(&["call", "c", "--json"]);
    let job = called["job_id"].as_str().expect("an id");
    for name in ["c", job] {
        let all = home.ok(&["logs", name]);
        assert!(all.contains("info  plain") && all.contains("warn  careful"), "{all}");
        let some = home.ok(&["logs", name, "--level", "warn"]);
        assert!(!some.contains("plain") && some.contains("careful"), "{some}");
    }
    home.ok(&["limits", "provider", "--rate", "500", "--weight", "3"]);
    let limits = home.json(&["limits", "provider", "--json"]);
    assert_eq!(
        (&limits["requests_per_s"], &limits["weight"]),
        (&Value::from(500), &Value::from(3))
    );
    home.ok(&["delete", "c"]);
    assert!(home.ok(&["functions", "--deleted"]).contains('c'));
    home.ok(&["restore", "c"]);
    let audit = home.json(&["audit", "--json", "--action", "function."]);
    assert_eq!(audit["items"][0]["action"], "function.restored");
}

#[tokio::test]
async fn a_starter_is_deployed_called_seen_and_paid() {
    let home = Home::new();
    for language in ["python", "javascript"] {
        let name = format!("hello-{language}");
        home.ok(&["new", &name, "--language", language]);
        let deployed = home.ok(&[
            "deploy",
            &name,
            "--timeout",
            "10s",
            "--memory",
            "160MiB",
            "--env",
            "A=b=c",
        ]);
        assert!(
            deployed.contains("version 1 in ") && deployed.contains(&format!("/fn/operator/{name}")),
            "{deployed}"
        );
        let called = home.run(&["call", &name, r#"{"name": "Ada"}"#]);
        assert_eq!(
            String::from_utf8_lossy(&called.stdout),
            "{\"hello\":\"Ada\"}\n",
            "the output alone: {}",
            said(&called)
        );
        let notes = said(&called);
        assert!(
            notes.contains("job job_") && notes.contains(" ucr"),
            "logs and price: {notes}"
        );
        let called = home.json(&["call", &name, "null", "--json"]);
        assert_eq!(called["output"]["hello"], "world");
        let job = called["job_id"].as_str().expect("an id");
        home.machine.paid(job).await;
        let shown = home.ok(&["job", job]);
        for step in ["opened", "metered", "received", "paid", "operator -", "provider +"] {
            assert!(shown.contains(step), "{step} is missing:\n{shown}");
        }
        let view = home.json(&["function", &name, "--json"]);
        assert_eq!(
            (&view["timeout_ms"], &view["memory_limit_mb"], &view["env"]["A"]),
            (&10_000.into(), &160.into(), &"b=c".into())
        );
        assert_eq!(home.ok(&["logs", &name]).matches("job job_").count(), 2);
    }
    assert_eq!(
        home.json(&["functions", "--json"])["items"].as_array().map(Vec::len),
        Some(2)
    );
    assert_eq!(
        home.json(&["jobs", "--function", "hello-python", "--json"])["items"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
}

#[tokio::test]
async fn versions_go_up_come_back_and_are_deleted() {
    let home = Home::new();
    for text in ["one", "two"] {
        let code = format!("def handler(event, context):\n    return '{text}'");
        home.ok(&["deploy", "--code", &code, "--name", "say", "--language", "python"]);
    }
    assert_eq!(home.ok(&["call", "say"]), "\"two\"\n");
    assert!(home.ok(&["versions", "say"]).contains("live"));
    assert_eq!(home.ok(&["rollback", "say", "1"]), "say runs version 1\n");
    assert_eq!(home.ok(&["call", "say", "--quiet"]), "\"one\"\n");
    ended(&home.run(&["rollback", "say", "9"]), 3, Code::VersionNotFound.as_str());
    home.ok(&["delete", "say"]);
    ended(&home.run(&["call", "say"]), 3, Code::FunctionNotFound.as_str());
}

#[tokio::test]
async fn each_end_has_its_exit_code() {
    let home = Home::new();
    let raising = "def handler(event, context):\n    print('before')\n    raise ValueError('too bad')";
    home.ok(&["deploy", "--code", raising, "--name", "raises", "--language", "python"]);
    let failed = home.run(&["call", "raises"]);
    ended(&failed, 1, Code::FunctionRaised.as_str());
    assert!(said(&failed).contains("too bad") && said(&failed).contains("before") && failed.stdout.is_empty());
    let broken = home.run(&[
        "deploy",
        "--code",
        "def handler(:",
        "--name",
        "broken",
        "--language",
        "python",
    ]);
    ended(&broken, 3, Code::FunctionSyntaxError.as_str());
    ended(&home.run(&["call", "raises", "not json"]), 2, "not JSON");
    ended(&home.run(&["deploy", "nowhere"]), 2, "cannot open nowhere");
    ended(&home.run(&["call", "raises", "@nowhere"]), 2, "cannot open nowhere");
    ended(&home.run(&["call", "nothing"]), 3, "with the id or name `nothing`");
    ended(
        &home.run(&["rollback", "raises", "v9"]),
        3,
        Code::VersionNotFound.as_str(),
    );
    ended(&home.run(&["rollback", "raises", "last"]), 2, "`last` is not a version");
    ended(&home.run(&["transfer", "provider", "-5"]), 2, "`-5` is not an amount");
    ended(
        &home.run(&["up", "--listen", "localhost"]),
        2,
        "`localhost` is not ADDR:PORT",
    );
    let mut nobody = command(home.path());
    nobody.env("PIECEWORK_URL", "http://127.0.0.1:1").arg("functions");
    ended(&nobody.output().expect("it runs"), 4, "http://127.0.0.1:1");
    let mut wrong = home.command(&["functions"]);
    ended(
        &wrong.env("PIECEWORK_TOKEN", "pw_wrong").output().expect("it runs"),
        3,
        Code::AuthBadToken.as_str(),
    );
}

#[tokio::test]
async fn an_async_call_gives_its_id_and_the_job_ends() {
    let home = Home::new();
    home.ok(&[
        "deploy",
        "--code",
        "export default async (event) => event",
        "--name",
        "echo",
        "--language",
        "javascript",
    ]);
    let job = home.ok(&["call", "echo", "[1,2]", "--async"]).trim().to_owned();
    assert!(job.starts_with("job_"), "{job}");
    home.machine.paid(&job).await;
    let view = home.json(&["job", &job, "--json"]);
    assert_eq!(
        (&view["state"], &view["output"]),
        (&"succeeded".into(), &serde_json::json!([1, 2]))
    );
    let keyed = || home.json(&["call", "echo", "3", "--idempotency-key", "k1", "--json"])["job_id"].clone();
    assert_eq!(keyed(), keyed(), "one key runs once");
    ended(&home.run(&["cancel", &job]), 3, Code::JobFinished.as_str());
}

#[tokio::test]
async fn a_guest_registers_with_an_invite_and_is_remembered_until_logout() {
    let home = Home::new();
    let says = home.run(&["invite", "--role", "provider"]).stderr;
    assert!(String::from_utf8_lossy(&says).contains("piecework provide --controller "));
    let invite = home.ok(&["invite", "--grant", "2cr"]).trim().to_owned();
    let guest = tempfile::tempdir().expect("a home");
    let run = |arguments: &[&str], input: &str| {
        let mut child = command(guest.path());
        child
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = child.spawn().expect("it runs");
        std::io::Write::write_all(&mut child.stdin.take().expect("piped"), input.as_bytes()).expect("taken");
        child.wait_with_output().expect("it ends")
    };
    let login = run(
        &["login", &home.machine.url, "--name", "ada", "--invite", &invite],
        "correct horse\n",
    );
    ended(&login, 0, "logged in");
    let account: Value = serde_json::from_slice(&run(&["account", "--json"], "").stdout).expect("JSON");
    assert_eq!(
        (&account["name"], &account["posted_ucr"]),
        (&"ada".into(), &2_000_000.into())
    );
    ended(&run(&["transfer", "operator", "0.5cr"], ""), 0, "");
    ended(
        &run(&["transfer", "operator", "5cr"], ""),
        3,
        Code::TransferInsufficient.as_str(),
    );
    let csv = String::from_utf8(run(&["statement", "--csv"], "").stdout).expect("UTF-8");
    assert!(csv.lines().count() >= 2 && csv.contains("-500000"), "{csv}");
    ended(&run(&["logout"], ""), 0, "logged out");
    ended(&run(&["account"], ""), 4, "piecework up");
}

#[tokio::test]
async fn a_narrow_token_does_only_what_it_may() {
    let home = Home::new();
    home.ok(&[
        "deploy",
        "--code",
        "def handler(event, context): return 1",
        "--name",
        "one",
        "--language",
        "python",
    ]);
    let token = home
        .ok(&[
            "tokens",
            "create",
            "--scope",
            "invoke",
            "--expires",
            "1h",
            "--label",
            "ci",
        ])
        .trim()
        .to_owned();
    let with = |arguments: &[&str]| {
        home.command(arguments)
            .env("PIECEWORK_TOKEN", &token)
            .output()
            .expect("it runs")
    };
    assert_eq!(String::from_utf8_lossy(&with(&["call", "one"]).stdout), "1\n");
    ended(&with(&["delete", "one"]), 3, Code::AuthScope.as_str());
    let tokens = home.json(&["tokens", "--json"]);
    let made = tokens["items"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|token| token["label"] == "ci")
        .expect("listed");
    home.ok(&["tokens", "delete", made["id"].as_str().expect("an id")]);
    ended(&with(&["call", "one"]), 3, Code::AuthBadToken.as_str());
}

#[tokio::test]
async fn the_ledger_and_the_market_are_shown() {
    let home = Home::new();
    home.ok(&[
        "deploy",
        "--code",
        "def handler(event, context): return 1",
        "--name",
        "one",
        "--language",
        "python",
    ]);
    let job = home.json(&["call", "one", "--json"])["job_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let height = home.machine.paid(&job).await["paid_height"].as_u64().expect("a block");
    assert!(home.ok(&["ledger", "block", &height.to_string()]).contains("settle"));
    for (arguments, seen) in [
        (&["ledger", "status"][..], "state root"),
        (&["ledger", "blocks"], "TRANSACTIONS"),
        (&["offers"], "PROVIDER"),
        (&["provider", "status"], "ready"),
        (&["leases"], "open"),
        (&["quote", "one"], "at most"),
        (&["metrics", "one"], "P99"),
        (&["statement"], "AMOUNT"),
        (&["account", "provider"], "available"),
    ] {
        let shown = home.ok(arguments);
        assert!(shown.contains(seen), "{arguments:?}:\n{shown}");
        let mut json = arguments.to_vec();
        json.push("--json");
        home.json(&json);
    }
    ended(
        &home.run(&["ledger", "block", "999999999"]),
        3,
        Code::BlockNotFound.as_str(),
    );
}

#[tokio::test]
async fn a_trigger_is_paused_and_resumed_as_it_is() {
    let home = Home::new();
    home.machine
        .deploy("f", "javascript", "export default (event) => event;\n")
        .await;
    let set = [
        "triggers",
        "set",
        "f",
        "early",
        "--cron",
        "30 6 * * MON-FRI",
        "--time-zone",
        "Europe/Berlin",
        "--input",
        "[1]",
    ];
    home.ok(&set);
    let trigger = |arguments: &[&str]| -> Value { serde_json::from_str(&home.ok(arguments)).expect("JSON") };
    let paused = trigger(&["triggers", "pause", "f", "early", "--json"]);
    assert_eq!(paused["paused"], true);
    let resumed = trigger(&["triggers", "resume", "f", "early", "--json"]);
    assert_eq!(resumed["paused"], false);
    for view in [paused, resumed] {
        assert_eq!(view["schedule"]["cron"], "30 6 * * MON-FRI");
        assert_eq!(view["schedule"]["time_zone"], "Europe/Berlin");
        assert_eq!(view["input"], serde_json::json!([1]));
    }
    ended(&home.run(&["triggers", "pause", "f", "late"]), 2, "triggers list f");
}

#[tokio::test]
async fn commands_for_this_computers_provider_say_that_it_is_inside_up() {
    let home = Home::new();
    for action in ["why-idle", "limits", "pause"] {
        ended(
            &home.run(&["provider", action]),
            4,
            "the provider inside `piecework up`",
        );
    }
    let elsewhere = tempfile::tempdir().expect("a folder");
    let nothing = |arguments: &[&str]| command(elsewhere.path()).args(arguments).output().expect("it runs");
    ended(
        &nothing(&["provider", "limits"]),
        4,
        "start one with `piecework provide`",
    );
    ended(&nothing(&["jobs"]), 4, "PIECEWORK_TOKEN=$(cat DIR/token)");
    ended(&nothing(&["provide", "config", "check"]), 2, "no file is needed");
}

#[tokio::test]
async fn a_wrong_invite_is_refused_with_its_code_and_what_to_do() {
    let home = Home::new();
    let away = tempfile::tempdir().expect("a folder");
    let refused = command(away.path())
        .args([
            "provide",
            "--controller",
            &home.machine.url,
            "--invite",
            "inv_wrong",
            "--name",
            "desk",
        ])
        .output()
        .expect("it runs");
    ended(&refused, 2, "invite.bad: ");
    ended(&refused, 2, "--role provider");
}

#[tokio::test]
async fn the_price_of_a_streamed_answer_is_shown() {
    let home = Home::new();
    let streams = "export default function* () { yield 'one'; yield 'two'; }\n";
    home.machine.deploy("s", "javascript", streams).await;
    let output = home.run(&["call", "s"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(output.stdout, b"onetwo");
    let told = said(&output);
    assert!(told.contains(" ucr") && !told.contains(" 0 ucr"), "{told}");
}
