//! Floors: what the machine gives without any platform.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::{http::Site, load::Latencies, server::first_line, tree::Tree, warm::Target};

/// The start of a bare interpreter, to its end.
#[derive(Debug, Serialize)]
pub struct Start {
    pub name: &'static str,
    pub p50_us: f64,
    pub p95_us: f64,
}

const STARTS: usize = 20;

pub fn interpreter_starts() -> Result<Vec<Start>> {
    // The system's own, where it is: a version manager's `python3` is a shell script that starts another.
    let system = "/usr/bin/python3";
    let program = if Path::new(system).exists() { system } else { "python3" };
    let python = ["-I", "-S", "-c", "pass"].as_slice();
    [
        ("python3 -I -S -c pass", program, python),
        ("node -e 0", "node", &["-e", "0"]),
    ]
    .into_iter()
    .map(|(name, program, arguments)| {
        let times = (0..STARTS)
            .map(|_| {
                let began = Instant::now();
                let status = Command::new(program).args(arguments).stdin(Stdio::null()).status();
                ensure!(
                    status.with_context(|| format!("run {program}"))?.success(),
                    "{name} failed"
                );
                Ok(began.elapsed())
            })
            .collect::<Result<Vec<_>>>()?;
        let times = Latencies::of(times);
        Ok(Start {
            name,
            p50_us: times.us(0.5),
            p95_us: times.us(0.95),
        })
    })
    .collect()
}

/// A bare Node server that answers the same hello.
pub struct NodeServer {
    child: Child,
    site: Site,
}

const NODE_SERVER: &str = r#"
const server = require("node:http").createServer((request, response) => {
  let body = "";
  request.on("data", (part) => { body += part; });
  request.on("end", () => {
    const name = body ? JSON.parse(body).input.name : "world";
    const answer = JSON.stringify({ message: `Hello, ${name}!` });
    response.writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(answer) });
    response.end(answer);
  });
});
server.keepAliveTimeout = 600000;
server.listen(0, "127.0.0.1", () => console.log(`port ${server.address().port}`));
"#;

impl NodeServer {
    pub fn start() -> Result<Self> {
        let mut child = Command::new("node")
            .args(["-e", NODE_SERVER])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start node")?;
        let port = first_line(&mut child, "port ");
        let site = port.and_then(|port| Site::parse(&format!("http://127.0.0.1:{port}/")));
        match site {
            Ok(site) => Ok(Self { child, site }),
            Err(error) => {
                child.kill().context("end node")?;
                child.wait().context("end node")?;
                Err(error.context("the bare Node server"))
            }
        }
    }

    pub fn target(&self) -> Target {
        let body = r#"{"input":{"name":"Ada"}}"#;
        Target {
            name: "floor: bare node server".into(),
            request: self.site.request("POST", "/", None, Some(body)),
            site: self.site.clone(),
            tree: Some(Tree(self.child.id())),
        }
    }
}

impl Drop for NodeServer {
    fn drop(&mut self) {
        // It has no state; both only fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
