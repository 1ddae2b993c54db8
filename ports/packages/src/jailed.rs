//! Runs the resolver in a jail and takes in what it hands out.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use piecework_model::{AccountId, Code, Digest, JobId, Language, Limits, Rejection};
use piecework_sandbox::{
    Backend, Call, CancellationToken, EgressMeter, Finished, LoadError, Outcome, Outlet, Program, Raised, Sent,
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{Options, ResolveError, collect, index::Index};

const RESOLVER: &str = include_str!("resolver.py");
/// pip and npm with a few hundred packages stay below half of it; their disk is memory too.
const MEMORY_BYTES: u64 = 512 << 20;
/// npm starts a process for each core, with threads.
const PROCESSES: u32 = 96;
/// Downloads and unpacked copies lie beside the result while a tool works.
const DISK_FACTOR: u64 = 3;
/// What a tar adds to a file: its header, its padding, a long name.
const TAR_BYTES_PER_FILE: u64 = 2_048;
const LINES_SHOWN: usize = 8;
/// How the jail's lines about connections begin.
const NETWORK: &str = "[network] ";
const SHOWN_BYTES_MAX: usize = 1_500;

/// The archive of what `manifest` resolves to, at the versions that `lock` names. What the tool says goes to `said`.
pub(crate) async fn run(
    backend: &dyn Backend,
    language: Language,
    (manifest, lock, said): (&str, Option<&str>, &mut String),
    options: &Options,
) -> Result<Bytes, ResolveError> {
    let index = Index::new(language, &options.env);
    let bundle = bundle(&index).await?;
    let tool = match language {
        Language::Python => "pip",
        Language::JavaScript => "npm",
        Language::Image => unreachable!("an image declares no packages"),
    };
    let program = program(bundle.path(), index, options)?;
    let limits = program.limits;
    let loaded = backend.load(Arc::new(program)).await.map_err(not_loaded)?;
    let mut instance = loaded.start().await.map_err(not_loaded)?;
    let (outlet, parts) = Outlet::channel();
    let call = Call {
        job: JobId([0; 16]),
        event: json!({"tool": tool, "manifest": manifest, "lock": lock})
            .to_string()
            .into(),
        parameters: "null".into(),
        deadline_ms: 0,
        time_left: options.timeout,
        stop: CancellationToken::new(),
        egress: EgressMeter::default(),
        body: None,
        outlet,
    };
    let archive_max = options
        .bytes_max
        .saturating_add((options.files_max as u64).saturating_mul(TAR_BYTES_PER_FILE));
    let (finished, archive) = tokio::join!(instance.call(call), gather(parts, archive_max));
    said.push_str(&told(&finished.logs.text));
    ended(finished, archive, tool, options, &limits)
}

/// The resolver and the operator's certificates, where the jail can read them. Deleted when dropped.
async fn bundle(index: &Index) -> Result<tempfile::TempDir, ResolveError> {
    let directory = tempfile::Builder::new()
        .prefix("piecework-packages-")
        .tempdir()
        .map_err(ResolveError::io("make a directory for packages"))?;
    let files = index
        .files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    for (name, bytes) in files.chain([("main.py", RESOLVER.as_bytes())]) {
        tokio::fs::write(directory.path().join(name), bytes)
            .await
            .map_err(ResolveError::io("write the resolver"))?;
    }
    Ok(directory)
}

fn program(directory: &Path, index: Index, options: &Options) -> Result<Program, ResolveError> {
    let disk_bytes = options.bytes_max.saturating_mul(DISK_FACTOR);
    Ok(Program {
        // Each resolution has a jail of its own.
        owner: AccountId([0; 20]),
        language: Language::Python,
        code: Digest::of(RESOLVER.as_bytes()),
        directory: directory.to_owned(),
        handler: None,
        egress: index.list()?,
        image: None,
        env: environment(index.env),
        limits: Limits {
            timeout_ms: u32::try_from(options.timeout.as_millis()).unwrap_or(u32::MAX),
            memory_bytes: MEMORY_BYTES + disk_bytes,
            processes: PROCESSES,
            disk_bytes,
            output_bytes: 0,
            log_bytes: 64 << 10,
            egress_bytes: disk_bytes,
        },
        function_name: "packages".into(),
        version: 1,
    })
}

/// Fewer tries and shorter waits than by default: a developer waits for the answer.
fn environment(mut env: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let quick = [
        ("PIP_RETRIES", "1"),
        ("PIP_TIMEOUT", "15"),
        ("npm_config_fetch_retries", "1"),
        ("npm_config_fetch_timeout", "15000"),
        // Dependencies in git repositories are refused; npm then says so at once.
        ("npm_config_git", "/nonexistent/git"),
    ];
    for (name, value) in quick {
        env.insert(name.into(), value.into());
    }
    env
}

/// Everything that comes out, up to `bytes_max`; `None` past that. Ending early closes the outlet, which ends the run.
async fn gather(mut parts: mpsc::Receiver<Sent>, bytes_max: u64) -> Option<Bytes> {
    let mut archive = BytesMut::new();
    while let Some(part) = parts.recv().await {
        match part {
            Sent::Head(_) => {}
            Sent::Chunk(chunk) if (archive.len() + chunk.len()) as u64 > bytes_max => return None,
            Sent::Chunk(chunk) => archive.extend_from_slice(&chunk),
        }
    }
    Some(archive.freeze())
}

fn ended(
    finished: Finished,
    archive: Option<Bytes>,
    tool: &'static str,
    options: &Options,
    limits: &Limits,
) -> Result<Bytes, ResolveError> {
    let Some(archive) = archive else {
        return Err(collect::too_large(options).into());
    };
    match finished.outcome {
        Outcome::Streamed => Ok(archive),
        Outcome::TimedOut => Err(too_slow(tool, options.timeout).into()),
        Outcome::OutputTooLarge => Err(collect::too_large(options).into()),
        Outcome::OutOfMemory => Err(out_of_memory(tool, limits).into()),
        Outcome::Raised(raised) => Err(raised_by(&raised, tool, options)),
        Outcome::Returned(_) | Outcome::OutputInvalid(_) => {
            Err(ResolveError::jail("the resolver handed out no archive"))
        }
        Outcome::Stopped => Err(ResolveError::jail("the resolver was stopped")),
        Outcome::Crashed(how) => Err(ResolveError::jail(how)),
        Outcome::FellShort(what) => Err(ResolveError::jail(what)),
        Outcome::Lost => Err(ResolveError::jail("the resolver's process was lost")),
    }
}

/// By the resolver's own exceptions.
fn raised_by(raised: &Raised, tool: &'static str, options: &Options) -> ResolveError {
    match raised.kind.as_str() {
        "ToolMissing" => missing(tool).into(),
        "DiskFull" => collect::too_large(options).into(),
        "DirectReference" => referred(&raised.message).into(),
        "Unresolvable" => unresolvable(tool, &sanitised(&raised.message)).into(),
        _ => ResolveError::jail(format!("{}: {}", raised.kind, raised.message)),
    }
}

fn not_loaded(error: LoadError) -> ResolveError {
    match error {
        LoadError::Unsupported { reason } | LoadError::Failed(reason) => ResolveError::jail(reason),
        LoadError::Code(rejection) => ResolveError::jail(rejection.message),
    }
}

/// The last lines that tell the reason, without control characters or credentials.
fn sanitised(said: &str) -> String {
    let plain = without_escapes(said);
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

/// What the tool said, for the developer: not the jail's own lines, which tell where the operator's index is.
fn told(logs: &str) -> String {
    let plain = without_credentials(&without_escapes(logs));
    let lines = plain.lines().filter(|line| !line.starts_with(NETWORK));
    lines.map(|line| format!("{line}\n")).collect()
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

fn missing(tool: &'static str) -> Rejection {
    let package = if tool == "pip" { "python3-pip" } else { "npm" };
    Rejection::new(
        Code::PackagesToolMissing,
        format!("this function declares packages and `{tool}` is not installed on the server"),
    )
    .hint(format!(
        "ask the operator to install it (on Debian: apt-get install {package}), or deploy with the packages in the bundle"
    ))
}

fn too_slow(tool: &'static str, timeout: Duration) -> Rejection {
    Rejection::new(
        Code::PackagesTimeout,
        format!("`{tool}` did not finish within {} s", timeout.as_secs_f32()),
    )
    .hint("try again; pin versions so that there is less to search, or deploy with the packages in the bundle")
}

fn out_of_memory(tool: &'static str, limits: &Limits) -> Rejection {
    Rejection::new(
        Code::PackagesTooLarge,
        format!(
            "`{tool}` needed more than {} MiB of memory and disk",
            limits.memory_bytes >> 20
        ),
    )
    .hint("use fewer or smaller packages")
}

/// The reference, and on the next line the package that asks for it, if the tool said so.
fn referred(said: &str) -> Rejection {
    let mut lines = said.lines().map(|line| without_credentials(&without_escapes(line)));
    let reference = lines.next().unwrap_or_default();
    collect::direct(&reference, lines.next().as_deref())
}

fn unresolvable(tool: &'static str, said: &str) -> Rejection {
    Rejection::new(
        Code::PackagesUnresolvable,
        format!("`{tool}` could not get the packages:\n{said}"),
    )
    .hint("check names and versions; Python packages must be published as wheels")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_said_is_shown_without_credentials_and_escapes() {
        let said = "\u{1b}[31mERROR: no match for nothing==9\u{1b}[0m\nin /packages\n\
                    from https://bob:secret@example.org/simple/ and https://t0ken@example.org\n\
                    npm error A complete log of this run can be found in: /w/_logs/debug-0.log\u{7}\n";
        assert_eq!(
            sanitised(said),
            "ERROR: no match for nothing==9\nin /packages\nfrom https://example.org/simple/ and https://example.org"
        );
    }

    #[test]
    fn only_the_last_lines_are_shown() {
        let said: String = (0..100).map(|at| format!("line {at}\n")).collect();
        assert_eq!(sanitised(&said).lines().next(), Some("line 92"));
        assert!(sanitised(&"x".repeat(100_000)).len() <= SHOWN_BYTES_MAX);
    }

    #[tokio::test]
    async fn more_than_may_come_out_ends_the_run() {
        let (outlet, parts) = Outlet::channel();
        let sending = async move { while outlet.send(Sent::Chunk(Bytes::from_static(&[0; 1_000]))).await.is_ok() {} };
        let ((), archive) = tokio::join!(sending, gather(parts, 2_500));
        assert_eq!(archive, None);
    }
}
