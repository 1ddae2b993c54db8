//! Servers of the machine, started for one test on free ports.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use piecework_loopback::free_addresses;
use tempfile::TempDir;

/// A server; ended when dropped.
pub struct Server {
    pub port: u16,
    process: Child,
    ended_by: Option<Command>,
    _directory: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have children: all are in its group.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.process.wait();
        if let Some(mut command) = self.ended_by.take() {
            let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    let free = <[SocketAddr; N]>::try_from(free_addresses(N).unwrap()).unwrap();
    free.map(|address| address.port())
}

/// Whether a program is there; in CI it must be.
fn is_there(path: &str) -> bool {
    let there = fs::exists(path).unwrap();
    assert!(there || std::env::var_os("CI").is_none(), "{path} is missing");
    if !there {
        println!("SKIPPED: {path} is missing");
    }
    there
}

fn start(mut command: Command, port: u16, directory: TempDir, ended_by: Option<Command>) -> Server {
    use std::os::unix::process::CommandExt as _;
    let process = command
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let server = Server {
        port,
        process: process.unwrap(),
        ended_by,
        _directory: directory,
    };
    let until = Instant::now() + Duration::from_secs(120);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "the server does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    server
}

pub fn nats() -> Option<Server> {
    const PROGRAM: &str = "/usr/sbin/nats-server";
    if !is_there(PROGRAM) {
        return None;
    }
    let (directory, [port]) = (tempfile::tempdir().unwrap(), free_ports());
    let mut command = Command::new(PROGRAM);
    command
        .args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"])
        .arg(directory.path());
    Some(start(command, port, directory, None))
}

pub fn rabbitmq() -> Option<Server> {
    const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
    if !is_there(PROGRAM) {
        return None;
    }
    let (directory, [port, between, names]) = (tempfile::tempdir().unwrap(), free_ports());
    let path = |name: &str| directory.path().join(name);
    fs::write(path("plugins"), "[].").unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .env("HOME", directory.path())
        .env("RABBITMQ_NODENAME", format!("piecework{port}@localhost"))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", port.to_string())
        .env("RABBITMQ_DIST_PORT", between.to_string())
        .env("ERL_EPMD_PORT", names.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_MNESIA_BASE", path("data"))
        .env("RABBITMQ_LOG_BASE", path("log"))
        .env("RABBITMQ_PID_FILE", path("pid"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
    // Erlang's directory of names is a daemon of its own.
    let mut ended_by = Command::new("epmd");
    ended_by.args(["-port", &names.to_string(), "-kill"]);
    Some(start(command, port, directory, Some(ended_by)))
}
