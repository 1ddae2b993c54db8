//! Runs one tool within its bounds: its own environment, its time, its disk; all its processes die with it.

use std::{io, path::Path, process::Stdio, time::Duration};

use piecework_model::Rejection;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::{Instant, interval, sleep_until},
};

use crate::{Options, ResolveError, collect};

/// How often the disk that a tool uses is measured.
const DISK_CHECK: Duration = Duration::from_millis(250);
/// Downloads and unpacked copies lie beside the result while a tool works.
const DISK_FACTOR: u64 = 3;
/// The end of standard error that is kept; the reason of a failure stands there.
const STDERR_BYTES_KEPT: usize = 16 << 10;
const LINES_SHOWN: usize = 8;
const SHOWN_BYTES_MAX: usize = 1_500;

/// Runs `command` (called `name`) in `work` until it ends well; rejects with `packages.tool_missing`,
/// `packages.timeout`, `packages.too_large` or `packages.unresolvable`.
pub(crate) async fn run(
    mut command: Command,
    name: &'static str,
    options: &Options,
    work: &Path,
) -> Result<(), ResolveError> {
    prepare(&mut command, options, work);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(name).into()),
        Err(error) => return Err(ResolveError::io("start the package tool")(error)),
    };
    // Whatever way this function is left, the tool and all that it started are killed.
    let _group = Group::of(&child);
    let stderr = child.stderr.take().expect("stderr is piped");
    let ended = async {
        let (status, said) = tokio::join!(child.wait(), tail(stderr));
        status
            .map(|status| (status, said))
            .map_err(ResolveError::io("wait for the package tool"))
    };
    let (status, said) = tokio::select! {
        ended = ended => ended?,
        () = sleep_until(Instant::now() + options.timeout) => return Err(too_slow(name, options).into()),
        () = disk_exceeded(work, options.bytes_max.saturating_mul(DISK_FACTOR)) => return Err(too_large(options).into()),
    };
    if status.success() {
        return Ok(());
    }
    if said.contains("No module named pip") {
        return Err(missing(name).into());
    }
    Err(unresolvable(name, &sanitised(&said, work)).into())
}

fn prepare(command: &mut Command, options: &Options, work: &Path) {
    command
        .env_clear()
        .env("PIP_RETRIES", "1")
        .env("PIP_TIMEOUT", "15")
        .env("npm_config_fetch_retries", "1")
        .env("npm_config_fetch_timeout", "15000")
        .envs(&options.env)
        .env("HOME", work)
        .env("TMPDIR", work)
        .env("LC_ALL", "C.UTF-8")
        .current_dir(work)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
}

/// A process group that is killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // The only failure is that nobody is left in the group.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The last bytes of a stream; the rest is read and thrown away.
async fn tail(mut stream: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0; 4_096];
    while let Ok(got @ 1..) = stream.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..got]);
        if kept.len() > 2 * STDERR_BYTES_KEPT {
            kept.drain(..kept.len() - STDERR_BYTES_KEPT);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Returns once the files below `work` are larger than `bytes_max`.
async fn disk_exceeded(work: &Path, bytes_max: u64) {
    let mut checks = interval(DISK_CHECK);
    loop {
        checks.tick().await;
        let work = work.to_owned();
        let used = tokio::task::spawn_blocking(move || collect::bytes_below(&work)).await;
        if used.is_ok_and(|used| used > bytes_max) {
            return;
        }
    }
}

/// The last lines that tell the reason, without control characters, credentials or this machine's paths.
fn sanitised(said: &str, work: &Path) -> String {
    let work = work.to_string_lossy();
    let plain = without_escapes(said).replace(&*work, "");
    let noise = |line: &&str| {
        line.is_empty()
            || line.starts_with("WARNING:")
            || line.contains("A complete log of this run")
            || line.contains("debug-0.log")
            || line.starts_with("[notice]")
    };
    let lines: Vec<&str> = plain.lines().map(str::trim).filter(|line| !noise(line)).collect();
    let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
    let text = without_credentials(&last.join("\n"));
    text.chars().take(SHOWN_BYTES_MAX).collect()
}

/// Drops control characters and the terminal sequences that begin with one.
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => {
                // CSI: everything up to its final letter.
                if rest.next() == Some('[') {
                    rest.by_ref().find(|c| ('@'..='~').contains(c));
                }
            }
            '\n' => plain.push('\n'),
            c if c.is_control() => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
}

/// `scheme://user:password@host` without what stands before the `@`.
fn without_credentials(text: &str) -> String {
    let mut parts = text.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let authority_end = part.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(part.len());
        let host_start = part[..authority_end].rfind('@').map_or(0, |at| at + 1);
        clean.push_str("://");
        clean.push_str(&part[host_start..]);
    }
    clean
}

fn missing(name: &'static str) -> Rejection {
    let package = if name == "pip" { "python3-pip" } else { "npm" };
    Rejection::new(
        "packages.tool_missing",
        format!("this function declares packages, but `{name}` is not installed on the server"),
    )
    .hint(format!(
        "ask the operator to install it (on Debian: apt-get install {package}), or include the packages in the bundle"
    ))
}

fn too_slow(name: &'static str, options: &Options) -> Rejection {
    Rejection::new(
        "packages.timeout",
        format!("`{name}` did not finish within {} s", options.timeout.as_secs_f32()),
    )
    .hint("retry; pin versions so that there is less to search, or include the packages in the bundle")
}

pub(crate) fn too_large(options: &Options) -> Rejection {
    let (bytes, files) = (options.bytes_max >> 20, options.files_max);
    Rejection::new(
        "packages.too_large",
        format!("the packages are larger than {bytes} MiB or have more than {files} files"),
    )
    .hint("use fewer or smaller packages")
}

fn unresolvable(name: &'static str, said: &str) -> Rejection {
    Rejection::new(
        "packages.unresolvable",
        format!("`{name}` could not get the packages:\n{said}"),
    )
    .hint("check names and versions; Python packages must be available as wheels")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_said_is_shown_without_paths_credentials_and_escapes() {
        let said = "\u{1b}[31mERROR: no match for nothing==9\u{1b}[0m\nin /tmp/w/packages\n\
                    from https://bob:secret@example.org/simple/ and https://t0ken@example.org\n\
                    npm error A complete log of this run can be found in: /tmp/w/_logs/debug-0.log\u{7}\n";
        assert_eq!(
            sanitised(said, Path::new("/tmp/w")),
            "ERROR: no match for nothing==9\nin /packages\nfrom https://example.org/simple/ and https://example.org"
        );
    }

    #[test]
    fn only_the_last_lines_are_shown() {
        let said: String = (0..100).map(|at| format!("line {at}\n")).collect();
        assert_eq!(sanitised(&said, Path::new("/w")).lines().next(), Some("line 92"));
        assert!(sanitised(&"x".repeat(100_000), Path::new("/w")).len() <= SHOWN_BYTES_MAX);
    }
}
