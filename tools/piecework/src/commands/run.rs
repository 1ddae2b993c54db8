//! `piecework run`: code that is not deployed, once.

use std::path::PathBuf;

use piecework_api::{Client, execute::RunCode};
use piecework_model::Language;

use super::call;
use crate::{failure::Failure, session, show, source, units};

/// Run code once on the platform without deploying it
#[derive(Debug, clap::Args)]
pub struct Run {
    /// A file, a folder, an archive, or - for standard input, as for `deploy` [default: the code of the function given with --of]
    path: Option<PathBuf>,
    /// The event: JSON, @FILE, or - for standard input [default: null]
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    input: Option<String>,
    /// JSON value for `context.parameters`
    #[arg(long, value_name = "JSON")]
    parameters: Option<String>,
    /// Use the settings, variables and secrets of this function of yours; it stays as it is
    #[arg(long, value_name = "FUNCTION")]
    of: Option<String>,
    /// Use those of this version of it [default: the live one]
    #[arg(long, value_name = "N", requires = "of")]
    version: Option<u32>,
    /// python, javascript or typescript [default: from the file's extension, or from the entry file in the folder]
    #[arg(long, value_name = "L", value_parser = units::noun::<Language>)]
    language: Option<Language>,
    /// Handler: FILE or FILE:FUNCTION
    #[arg(long)]
    handler: Option<String>,
    /// Time limit of the run, like 500ms, 5s or 2m
    #[arg(long, value_parser = units::timeout_ms)]
    timeout: Option<u32>,
    /// Memory limit, 32MiB to 4GiB
    #[arg(long, value_parser = units::memory_mb)]
    memory: Option<u32>,
    /// Processes and threads that the run may have together
    #[arg(long, value_name = "N")]
    processes: Option<u32>,
    /// What the run may keep below /tmp, 1MiB to 1GiB
    #[arg(long, value_name = "SIZE", value_parser = units::memory_mb)]
    disk: Option<u32>,
    /// Sandbox: auto, or the name of a backend
    #[arg(long, value_name = "auto|BACKEND")]
    sandbox: Option<String>,
    /// Set an environment variable; may be repeated
    #[arg(long, value_name = "K=V", value_parser = units::assignment)]
    env: Vec<(String, String)>,
    /// Allow network access to this host; may be repeated, replaces the whole list; `none` blocks all
    #[arg(long, value_name = "HOST:PORT")]
    allow: Vec<String>,
    /// Print nothing except the output
    #[arg(long, short)]
    quiet: bool,
}

impl Run {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let quiet = self.quiet;
        let body = self.body()?;
        let client = session::connect()?;
        match client.run_code(&body).await.map_err(Failure::from) {
            Ok(done) if json => show::json(&done),
            Ok(done) => {
                show::text(&format!("{}\n", done.output))?;
                if !quiet {
                    call::print_logs(&client, done.job_id).await;
                    let (took, price) = (show::ms(done.duration_ms), show::ucr(done.price_ucr));
                    eprintln!("{} {} {took} {price}", done.job_id, show::start(Some(done.cold)));
                }
                Ok(())
            }
            Err(failure) => failed(&client, failure, quiet).await,
        }
    }

    fn body(self) -> Result<RunCode, Failure> {
        if self.path.is_none() && self.of.is_none() {
            return Err(Failure::usage(
                "name a file or a folder to run, or with --of a function whose code is to run",
            ));
        }
        let input = call::event(Some(self.input.as_deref().unwrap_or("null")))?;
        let parameters = self.parameters.as_deref().map(|text| call::value(text, "--parameters"));
        let source = self.path.map(|path| source::read(&path, self.language)).transpose()?;
        let mut body = RunCode {
            function: self.of,
            version: self.version,
            language: self.language.map(|language| language.to_string()),
            handler: self.handler,
            timeout_ms: self.timeout,
            memory_limit_mb: self.memory,
            process_limit: self.processes,
            disk_limit_mb: self.disk,
            sandbox: self.sandbox,
            env: (!self.env.is_empty()).then(|| self.env.into_iter().map(|(key, value)| (key, Some(value))).collect()),
            egress: match &*self.allow {
                [] => None,
                [none] if none == "none" => Some(Vec::new()),
                hosts => Some(hosts.to_vec()),
            },
            input,
            parameters: parameters.transpose()?,
            ..RunCode::default()
        };
        if let Some(source) = source {
            body.language = Some(source.language.to_string());
            body.handler = body.handler.or(source.handler);
            (body.code, body.bundle) = (source.code, source.bundle);
        }
        Ok(body)
    }
}

/// With the logs of the run, if there was one.
async fn failed(client: &Client, failure: Failure, quiet: bool) -> Result<(), Failure> {
    if let (Failure::Function(refusal), false) = (&failure, quiet)
        && let Some(job) = refusal.job_id
    {
        call::print_logs(client, job).await;
    }
    Err(failure)
}
