//! A Docker daemon of a test's own: without a network, on a directory that goes with it.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Longer than a start takes on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Told of its log where a test fails.
const LAST_LINES: usize = 40;
const ENDS_WITHIN: Duration = Duration::from_secs(20);

pub struct Dockerd {
    child: Child,
    directory: tempfile::TempDir,
}

impl Dockerd {
    /// None where there is none, or nobody may start one.
    pub fn start() -> Option<Self> {
        let program = ["/usr/sbin/dockerd", "/usr/bin/dockerd"]
            .into_iter()
            .find(|path| std::path::Path::new(path).is_file())?;
        let is_root = Command::new("id").arg("-u").output().ok()?.stdout == b"0\n";
        if !is_root {
            return None;
        }
        let directory = tempfile::Builder::new().prefix("dockerd-").tempdir().ok()?;
        let at = |name: &str| directory.path().join(name).display().to_string();
        let log = File::create(at("log")).ok()?;
        let child = Command::new(program)
            .args([
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
                "--pidfile",
                &at("pid"),
            ])
            .args(["--host", &format!("unix://{}", at("docker.sock"))])
            .args([
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--storage-driver=vfs",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .ok()?;
        let mut daemon = Self { child, directory };
        daemon.ready();
        Some(daemon)
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    fn ready(&mut self) {
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            let waited = begun.elapsed();
            // The daemon's last words are told where it is dropped.
            assert!(waited < READY_WITHIN, "dockerd does not listen after {waited:?}");
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("dockerd ended with {status}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read(self.directory.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for Dockerd {
    /// With its containerd and every container.
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the last lines of dockerd's log:\n{}", self.last_words());
        }
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let begun = Instant::now();
        while begun.elapsed() < ENDS_WITHIN && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
