//! A whole machine for a test: `piecework up` on a directory of its own and a free port, killed when dropped.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use piecework_model::Code;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Longer than a start takes on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(240);
/// Longer than a settlement takes on a busy machine.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(60);

pub struct Machine {
    child: Child,
    pub url: String,
    pub token: String,
    directory: PathBuf,
    more: &'static [&'static str],
    http: reqwest::Client,
}

/// An answer as its caller sees it.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> Option<Code> {
        Code::parse(self.body["error"]["code"].as_str()?)
    }

    #[track_caller]
    pub fn refused(&self, status: u16, code: Code) {
        assert_eq!(
            (self.status.as_u16(), self.code()),
            (status, Some(code)),
            "{}",
            self.body
        );
        assert!(
            self.body["error"]["message"]
                .as_str()
                .is_some_and(|sentence| sentence.len() > 10),
            "{}",
            self.body
        );
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.body);
        self.body
    }
}

/// The binary, which carries its interpreters.
pub fn piecework() -> Command {
    Command::new(env!("CARGO_BIN_EXE_piecework"))
}

fn up(directory: &Path, more: &[&str]) -> Command {
    let mut command = piecework();
    command.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(directory);
    command.args(more);
    command
}

/// Whether a program is installed.
pub fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Says that a test did not run; CI fails where this is said.
pub fn skipped(reason: &str) {
    println!("SKIPPED: {reason}");
}

/// The command line as a user of this server has it, with a home of its own.
pub fn user(home: &Path, server: &Machine, arguments: &[&str]) -> Command {
    let mut command = crate::command_line::command(home);
    command
        .env("PIECEWORK_URL", &server.url)
        .env("PIECEWORK_TOKEN", &server.token)
        .args(arguments);
    command
}

impl Machine {
    /// Starts on `directory` and waits for `ready`.
    pub fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[])
    }

    /// The same with more options of `up`.
    pub fn start_with(directory: &Path, more: &'static [&'static str]) -> Self {
        Self::launch(up(directory, more), directory, more)
    }

    /// The same as [`Self::start`] with more in its environment.
    pub fn start_in(directory: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = up(directory, &[]);
        command.envs(environment.iter().copied());
        Self::launch(command, directory, &[])
    }

    /// A network of processes; killing it kills the one that keeps it.
    pub fn devnet(directory: &Path, peers: u16, providers: u16) -> Self {
        Self::devnet_of(piecework(), directory, peers, providers)
    }

    /// The same with another program or environment, which all of its processes have.
    pub fn devnet_of(mut command: Command, directory: &Path, peers: u16, providers: u16) -> Self {
        command.args(["devnet", "--listen", "127.0.0.1:0"]);
        command.args([
            "--peers",
            &peers.to_string(),
            "--providers",
            &providers.to_string(),
            "--data",
        ]);
        command.arg(directory);
        Self::launch(command, directory, &[])
    }

    /// A controller on the ledger of peers elsewhere; its directory has settings and a genesis.
    pub fn start_controller(directory: &Path) -> Self {
        let mut command = piecework();
        command.args(["controller", "run", "--data"]).arg(directory);
        Self::launch(command, directory, &[])
    }

    fn launch(mut command: Command, directory: &Path, more: &'static [&'static str]) -> Self {
        let began = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines
            .next()
            .and_then(Result::ok)
            .unwrap_or_else(|| panic!("it ended: {:?}", child.wait()));
        assert!(began.elapsed() < READY_WITHIN, "it took {:?}", began.elapsed());
        let url = line
            .strip_prefix("ready ")
            .unwrap_or_else(|| panic!("not a ready line: {line}"))
            .to_owned();
        let token = std::fs::read_to_string(directory.join("token")).expect("it writes a token");
        Self {
            child,
            url,
            token,
            directory: directory.to_owned(),
            more,
            http: http(),
        }
    }

    /// SIGKILL, and a new start on the same directory.
    pub fn kill_and_restart(mut self) -> Self {
        self.kill();
        let (directory, more) = (self.directory.clone(), self.more);
        drop(self);
        Self::start_with(&directory, more)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGKILL, and no more: who is talking to it notices.
    pub fn sigkill(&self) {
        self.signal("-KILL");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        Command::new("kill")
            .args([signal, &pid])
            .status()
            .expect("kill is there");
    }

    /// SIGTERM; whether it ended cleanly.
    pub fn stop(mut self) -> bool {
        self.signal("-TERM");
        self.child.wait().expect("it ends").success()
    }

    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.ask_as(Some(&self.token), method, path, body).await
    }

    pub async fn ask_as(&self, token: Option<&str>, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.send(request).await
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request_as(&self.token, method, path)
    }

    pub fn request_as(&self, token: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(token)
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("the server answers");
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.expect("a whole answer");
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answer { status, headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    pub async fn deploy(&self, name: &str, language: &str, code: &str) -> Value {
        self.deploy_with(name, language, code, json!({})).await.ok()
    }

    pub async fn deploy_with(&self, name: &str, language: &str, code: &str, more: Value) -> Answer {
        let mut body = json!({"name": name, "language": language, "code": code});
        let fields = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(fields);
        self.ask(Method::POST, "/functions", Some(body)).await
    }

    pub async fn call(&self, name: &str, input: Value) -> Answer {
        self.ask(Method::POST, &format!("/execute/{name}"), Some(json!({"input": input})))
            .await
    }

    /// The job, once it is paid.
    pub async fn paid(&self, job: &str) -> Value {
        let deadline = Instant::now() + SETTLED_WITHIN;
        loop {
            let view = self.get(&format!("/jobs/{job}")).await.ok();
            if view["paid"] == true {
                return view;
            }
            assert!(Instant::now() < deadline, "never paid: {view}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn posted(&self, account: &str) -> i64 {
        self.get(&format!("/accounts/{account}")).await.ok()["posted_ucr"]
            .as_i64()
            .expect("a small number")
    }

    /// A second person, with some credits; the token may do everything.
    pub async fn person(&self, name: &str, grant_ucr: u64) -> String {
        let invite = self
            .ask(Method::POST, "/invites", Some(json!({"grant_ucr": grant_ucr})))
            .await
            .ok();
        let body = json!({"name": name, "password": "correct horse", "invite": invite["code"]});
        self.ask_as(None, Method::POST, "/accounts", Some(body)).await.ok();
        let login = json!({"name": name, "password": "correct horse"});
        let session = self.ask_as(None, Method::POST, "/sessions", Some(login)).await.ok();
        session["token"].as_str().expect("a token").to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(Duration::from_secs(120))
        .build()
        .expect("a client")
}

/// What `up` says when it cannot start.
pub fn refused_start(directory: &Path, listen: &str) -> (Option<i32>, String) {
    let mut command = piecework();
    let output = command
        .args(["up", "--listen", listen, "--data"])
        .arg(directory)
        .output()
        .expect("it runs");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}
