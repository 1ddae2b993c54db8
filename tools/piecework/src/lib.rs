//! The one binary: the command line, and the only place where roles and backends are composed.
//!
//! A library, so that a release only links it anew: `main.rs` is all that is compiled for that.

mod cli;
mod commands;
#[cfg(target_os = "linux")]
mod compose;
mod failure;
mod flood;
mod git;
mod keyfile;
mod pack;
mod pending;
mod places;
mod private;
mod project;
mod session;
#[cfg(target_os = "linux")]
mod settings;
mod show;
mod source;
mod target;
#[cfg(target_os = "linux")]
mod tether;
mod units;

use std::{io::IsTerminal as _, pin::Pin, process::ExitCode, time::Duration};

use clap::Parser as _;
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How long threads that block have to end once everything else has.
const THREADS_END_WITHIN: Duration = Duration::from_millis(500);
/// Some milliseconds, on a machine that is busy with nothing else.
#[cfg(target_os = "linux")]
const SANDBOXES_END_WITHIN: Duration = Duration::from_secs(3);

/// Before anything can look up a name, in this process or in those that it starts again.
#[cfg(target_os = "linux")]
pub use piecework_sandbox_jail::look_up_without_plugins;

/// What the program is: a command, or a process that its sandboxes start.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    #[cfg(target_os = "linux")]
    of_a_sandbox(&arguments);
    // Also where the command line itself is at fault.
    let wants_json = arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == "--json");
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if wants_json && error.use_stderr() => {
            eprintln!(
                "{}",
                failure::Failure::usage(error.render().to_string().trim_end()).json()
            );
            return ExitCode::from(2);
        }
        Err(error) => error.exit(),
    };
    start_log(cli.log_format);
    failure::keep_engine_panics_quiet();
    #[cfg(target_os = "linux")]
    compose::raise_descriptor_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::from(2);
        }
    };
    // Boxed: it is compiled into each place that polls it by name.
    let run: Pin<Box<dyn Future<Output = _>>> = Box::pin(cli::run(cli));
    let ended = runtime.block_on(run);
    // Whatever is still at work in a thread of its own, such as pip, is nothing that anybody waits for.
    runtime.shutdown_timeout(THREADS_END_WITHIN);
    // Except what takes sandboxes down: what is left of them would have nobody.
    #[cfg(target_os = "linux")]
    piecework_sandbox_jail::all_ended(SANDBOXES_END_WITHIN);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match wants_json {
                true => eprintln!("{}", failure.json()),
                false => eprintln!("{}", show::harmless(&failure.to_string())),
            }
            failure.exit_code()
        }
    }
}

/// Where this process is one that a sandbox has started, it ends here.
#[cfg(target_os = "linux")]
fn of_a_sandbox(arguments: &[String]) {
    let Some(role) = arguments.get(1) else { return };
    let rest = &arguments[2..];
    if role == piecework_sandbox_jail::INIT_ARGUMENT {
        piecework_sandbox_jail::init_main(rest);
    }
    if role == piecework_sandbox_oci::KEEPER_ARGUMENT {
        piecework_sandbox_oci::keeper_main(rest);
    }
    if role == piecework_sandbox_wasm::ZYGOTE_ARGUMENT {
        piecework_sandbox_wasm::zygote_main(rest);
    }
    if role == piecework_image::UNPACK_ARGUMENT {
        piecework_image::unpack_main(rest);
    }
}

/// To standard error.
fn start_log(format: cli::LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_new(places::log_filter()).unwrap_or_else(|_| "warn".into());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        cli::LogFormat::Text => log
            .with_ansi(std::io::stderr().is_terminal())
            .finish()
            .with(flood::Flood::default())
            .init(),
        cli::LogFormat::Json => log
            .json()
            .flatten_event(true)
            .finish()
            .with(flood::Flood::default())
            .init(),
    }
}
