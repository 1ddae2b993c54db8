//! Providers as processes, each behind a network interface of its own where namespaces can be made.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use piecework_model::Credits;
use serde_json::json;

use crate::server::{Server, first_line};

/// Where controller and providers meet: a bridge with a namespace for each provider, or loopback.
pub struct Net {
    /// Set off by this process' id, so that two runs do not meet.
    bridge: Option<String>,
    spaces: std::cell::RefCell<Vec<String>>,
}

/// The benchmark's network (RFC 2544 keeps it for such).
const CONTROLLER: &str = "198.19.7.1";

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {said}", arguments.join(" "));
    Ok(())
}

impl Net {
    pub fn new(apart: bool) -> Result<Self> {
        let mut net = Self {
            bridge: None,
            spaces: std::cell::RefCell::default(),
        };
        if !apart {
            return Ok(net);
        }
        let bridge = format!("pwb{}", std::process::id() % 100_000);
        if let Err(error) = ip(&["link", "add", &bridge, "type", "bridge"]) {
            eprintln!("no namespaces, everything over loopback: {error:#}");
            return Ok(net);
        }
        net.bridge = Some(bridge.clone());
        ip(&["addr", "add", &format!("{CONTROLLER}/24"), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        Ok(net)
    }

    pub fn is_apart(&self) -> bool {
        self.bridge.is_some()
    }

    /// Where the controller listens.
    pub fn listen(&self) -> String {
        match self.is_apart() {
            true => format!("{CONTROLLER}:0"),
            false => "127.0.0.1:0".into(),
        }
    }

    /// A command that runs `binary` as the provider of this number sees the network.
    fn command(&self, binary: &Path, index: usize) -> Result<Command> {
        let Some(bridge) = &self.bridge else {
            return Ok(Command::new(binary));
        };
        let space = format!("{bridge}n{index}");
        if !self.spaces.borrow().contains(&space) {
            self.make(bridge, &space, index)?;
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &space]).arg(binary);
        Ok(command)
    }

    fn make(&self, bridge: &str, space: &str, index: usize) -> Result<()> {
        let (out, inside) = (format!("{bridge}o{index}"), format!("{bridge}i{index}"));
        ip(&["netns", "add", space])?;
        self.spaces.borrow_mut().push(space.to_owned());
        ip(&[
            "link", "add", &out, "type", "veth", "peer", "name", &inside, "netns", space,
        ])?;
        ip(&["link", "set", &out, "master", bridge, "up"])?;
        let address = format!("198.19.7.{}/24", index + 2);
        ip(&["-n", space, "addr", "add", &address, "dev", &inside])?;
        ip(&["-n", space, "link", "set", &inside, "up"])?;
        ip(&["-n", space, "link", "set", "lo", "up"])
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for space in self.spaces.borrow().iter() {
            if let Err(error) = ip(&["netns", "del", space]) {
                eprintln!("{error:#}");
            }
        }
        if let Some(bridge) = &self.bridge
            && let Err(error) = ip(&["link", "del", bridge])
        {
            eprintln!("{error:#}");
        }
    }
}

const PAID_WITHIN: Duration = Duration::from_secs(120);

/// `piecework provide`.
pub struct Computer {
    child: Child,
    folder: tempfile::TempDir,
    index: usize,
    /// From the command to `ready`.
    pub joined_in: Duration,
    /// From the command until the ledger shows the first credits it has earned, with its reference job.
    pub paid_in: Duration,
}

impl Computer {
    pub fn join(binary: &Path, server: &Server, net: &Net, index: usize) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a directory")?;
        let invite = json!({"roles": ["provider"]});
        let invite = server
            .connect()?
            .json(&server.request("POST", "/invites", Some(&invite)))?;
        let code = invite["code"].as_str().context("an invite")?.to_owned();
        let began = Instant::now();
        let child = launch(binary, server, net, index, folder.path(), &["--invite", &code])?;
        let joined_in = began.elapsed();
        let mut joined = Self {
            child,
            folder,
            index,
            joined_in,
            paid_in: Duration::ZERO,
        };
        let granted: Credits = serde_json::from_value(invite["grant_ucr"].clone())?;
        while joined.posted(server)? <= granted {
            ensure!(began.elapsed() < PAID_WITHIN, "provider {index} has earned nothing");
            std::thread::sleep(Duration::from_millis(50));
        }
        joined.paid_in = began.elapsed();
        Ok(joined)
    }

    pub fn name(&self) -> String {
        name(self.index)
    }

    fn posted(&self, server: &Server) -> Result<Credits> {
        let request = server.request("GET", &format!("/accounts/{}", self.name()), None);
        let account = server.connect()?.json(&request)?;
        Ok(serde_json::from_value(account["posted_ucr"].clone())?)
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill a provider")?;
        self.child.wait().context("wait for a provider")?;
        Ok(())
    }

    pub fn start_again(&mut self, binary: &Path, server: &Server, net: &Net) -> Result<()> {
        self.child = launch(binary, server, net, self.index, self.folder.path(), &[])?;
        Ok(())
    }
}

impl Drop for Computer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn name(index: usize) -> String {
    format!("bench-{index}")
}

fn launch(binary: &Path, server: &Server, net: &Net, index: usize, folder: &Path, more: &[&str]) -> Result<Child> {
    let log = File::create(folder.join("provider.log")).context("make a provider's log")?;
    let mut command = net.command(binary, index)?;
    let mut child = command
        .args(["provide", "--controller", &server.url, "--name", &name(index), "--data"])
        .arg(folder.join("data"))
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("start a provider")?;
    first_line(&mut child, "ready ")?;
    Ok(child)
}
