//! Messages of a real NATS server become jobs, each once, also where the forwarder is killed.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    command_line::command,
    machine::Machine,
    providers::{ECHO, until},
    server,
};

/// A connection that speaks the text protocol of NATS.
struct Nats {
    reader: BufReader<TcpStream>,
}

impl Nats {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        let mut nats = Self {
            reader: BufReader::new(stream),
        };
        assert!(nats.line().starts_with("INFO "));
        nats.send("CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB answers 1\r\n");
        nats
    }

    fn send(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).expect("sent");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("read");
        line.trim_end().to_owned()
    }

    /// Publishes and waits for the answer: of the API, or that the stream has kept it.
    fn ask(&mut self, subject: &str, headers: &str, body: &str) -> Value {
        let head = match headers {
            "" => String::new(),
            headers => format!("NATS/1.0\r\n{headers}\r\n\r\n"),
        };
        let all = head.len() + body.len();
        let verb = match head.len() {
            0 => format!("PUB {subject} answers {all}"),
            length => format!("HPUB {subject} answers {length} {all}"),
        };
        self.send(&format!("{verb}\r\n{head}{body}\r\n"));
        loop {
            let line = self.line();
            if line == "PING" {
                self.send("PONG\r\n");
            }
            if let Some(length) = line.strip_prefix("MSG answers 1 ") {
                // Of some answers another space stands before it.
                let mut bytes = vec![0; length.trim().parse::<usize>().expect("a length") + 2];
                self.reader.read_exact(&mut bytes).expect("read");
                return serde_json::from_slice(&bytes).expect("JSON");
            }
        }
    }
}

struct Forwarder(Child);

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn forward(home: &Path, machine: &Machine, port: u16) -> Command {
    let mut command = command(home);
    command
        .env("PIECEWORK_URL", &machine.url)
        .env("PIECEWORK_TOKEN", &machine.token)
        .env("PIECEWORK_QUEUE_URL", format!("nats://127.0.0.1:{port}"))
        .args(["triggers", "forward", "echo", "--stream", "ORDERS"]);
    command
}

async fn inputs(machine: &Machine) -> Vec<Value> {
    let list = machine.get("/jobs?function=echo&state=succeeded").await.ok();
    let mut outputs = Vec::new();
    for job in list["items"].as_array().expect("a list") {
        let id = job["id"].as_str().expect("an id");
        outputs.push(machine.get(&format!("/jobs/{id}/result")).await.ok());
    }
    outputs.sort_by_key(|output| output["id"].as_str().map(str::to_owned));
    outputs
}

#[tokio::test]
async fn each_message_of_a_queue_is_one_job_though_the_forwarder_is_killed() {
    let Some(server) = server::nats() else { return };
    let (home, data) = (
        tempfile::tempdir().expect("a home"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = Machine::start(data.path());
    machine.deploy("echo", "javascript", ECHO).await;
    let mut nats = Nats::connect(server.port);
    let refused = forward(home.path(), &machine, server.port).output().expect("it runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("find the stream"), "{said}");

    let made = nats.ask(
        "$JS.API.STREAM.CREATE.ORDERS",
        "",
        r#"{"name":"ORDERS","subjects":["orders.>"]}"#,
    );
    assert!(made.get("error").is_none(), "{made}");
    let start = || {
        let mut command = forward(home.path(), &machine, server.port);
        Forwarder(command.stderr(Stdio::null()).spawn().expect("it runs"))
    };
    let mut first = start();
    nats.ask("orders.new", "Nats-Msg-Id: a\r\nColor: red", r#"{"n": 1}"#);
    nats.ask("orders.new", "", "not JSON");
    until("two jobs", async || (inputs(&machine).await.len() == 2).then_some(())).await;
    let all = inputs(&machine).await;
    let expected = json!({"trigger": "queue", "function": "echo", "id": "a", "subject": "orders.new",
        "headers": {"Nats-Msg-Id": "a", "Color": "red"}, "body": {"n": 1}});
    let other = json!({"trigger": "queue", "function": "echo", "id": "ORDERS/2", "subject": "orders.new",
        "headers": {}, "body": "not JSON"});
    assert_eq!(all, [other, expected]);

    first.0.kill().expect("killed");
    // Another stream's consumer gives the first message once more, as after a lost acknowledgement.
    nats.ask("$JS.API.CONSUMER.DELETE.ORDERS.piecework-echo", "", "");
    let _second = start();
    nats.ask("orders.old", "Nats-Msg-Id: c", "3");
    until("the third", async || (inputs(&machine).await.len() == 3).then_some(())).await;
    let consumer = async || {
        let info = Nats::connect(server.port).ask("$JS.API.CONSUMER.INFO.ORDERS.piecework-echo", "", "");
        (info["ack_floor"]["stream_seq"] == 3).then_some(())
    };
    until("all are acknowledged", consumer).await;
    assert_eq!(inputs(&machine).await.len(), 3, "each was run once");
}
