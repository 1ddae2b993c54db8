//! `piecework call`: one run; the output on standard output, everything else on standard error.

use std::{
    io::{IsTerminal as _, Read as _},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use piecework_api::{
    Client, ClientError, Execution,
    execute::{Execute, Executed},
    jobs::JobLogsQuery,
};
use piecework_model::{Code, JobId};
use serde_json::value::RawValue;

use crate::{failure::Failure, session, show, source};

/// A job whose stream broke off is written down before, or when its client is found to be gone.
const JOB_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// What a server takes as an event.
const INPUT_BYTES_MAX: u64 = 6 << 20;

/// Run a function
#[derive(Debug, clap::Args)]
pub struct Call {
    /// Name or id of the function
    name: String,
    /// The event: JSON, @FILE, or - for standard input [default: what is piped in, else null]
    #[arg(value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    input: Option<String>,
    /// JSON value for `context.parameters`
    #[arg(long, value_name = "JSON")]
    parameters: Option<String>,
    /// Return the job's id as soon as the job is safely queued
    #[arg(long = "async")]
    later: bool,
    /// Idempotency key: repeated calls with the same key run once and get the same response
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print nothing except the output
    #[arg(long, short)]
    quiet: bool,
}

impl Call {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let body = Execute {
            input: event(self.input.as_deref())?,
            parameters: self
                .parameters
                .as_deref()
                .map(|text| value(text, "--parameters"))
                .transpose()?,
        };
        let client = session::connect()?;
        let key = self.idempotency_key.as_deref();
        if self.later {
            let accepted = client.execute_async(&self.name, &body, key).await?;
            return if json {
                show::json(&accepted)
            } else {
                show::text(&format!("{}\n", accepted.job_id))
            };
        }
        // An answer that is to be repeated, or to be JSON, is one piece.
        let answer = match json || key.is_some() {
            true => client.execute(&self.name, &body, key).await.map(Execution::Whole),
            false => client.execute_as_it_comes(&self.name, &body).await,
        };
        let ended = match answer.map_err(Failure::from) {
            Ok(Execution::Whole(done)) => return self.done(&client, &done, json).await,
            Ok(Execution::Stream { job, response }) => self.stream(&client, job, response).await,
            Err(failure) => Err(failure),
        };
        match ended {
            Ok(()) => Ok(()),
            Err(failure) => self.failed(&client, failure).await,
        }
    }

    /// Prints what comes as it comes, exactly.
    async fn stream(&self, client: &Client, job: JobId, mut response: reqwest::Response) -> Result<(), Failure> {
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if !show::bytes_are_read(&chunk)? => return Ok(()),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(broken) => return Err(why_broken(client, job, &broken).await),
            }
        }
        if self.quiet {
            return Ok(());
        }
        print_logs(client, job).await;
        // The answer's last byte comes before the receipt.
        match client.job(job, Some(JOB_ENDS_WITHIN)).await {
            Ok(view) => {
                let (took, price) = (show::ms(view.duration_ms), show::ucr(view.price_ucr));
                eprintln!("{job} {} {took} {price}", show::start(view.cold));
            }
            // The answer is there: that its price cannot be shown is no failure of the call.
            Err(_) => eprintln!("{job}"),
        }
        Ok(())
    }

    /// The answer first: it was paid for, whatever becomes of the rest.
    async fn done(&self, client: &Client, done: &Executed, json: bool) -> Result<(), Failure> {
        if json {
            show::json(done)?;
        } else {
            show::text(&format!("{}\n", done.output))?;
        }
        if !self.quiet {
            print_logs(client, done.job_id).await;
            let (took, price) = (show::ms(done.duration_ms), show::ucr(done.price_ucr));
            eprintln!("{} {} {took} {price}", done.job_id, show::start(Some(done.cold)));
        }
        Ok(())
    }

    async fn failed(&self, client: &Client, failure: Failure) -> Result<(), Failure> {
        if let (Failure::Function(refusal), false) = (&failure, self.quiet)
            && let Some(job) = refusal.job_id
        {
            print_logs(client, job).await;
        }
        Err(failure)
    }
}

/// The job knows why its stream broke off.
async fn why_broken(client: &Client, job: JobId, broken: &reqwest::Error) -> Failure {
    let said = client.job(job, Some(JOB_ENDS_WITHIN)).await;
    match said.ok().and_then(|view| view.error) {
        Some(error) => Failure::of_job(Box::new(error.job(job))),
        None => Failure::NoConnection {
            url: client.base().to_owned(),
            reason: format!("the answer broke off: {broken}"),
        },
    }
}

/// That they cannot be shown is no failure of the call. A token that may run but not look has none to see.
pub(super) async fn print_logs(client: &Client, job: JobId) {
    match client.job_logs(job, &JobLogsQuery::default()).await {
        Ok(logs) => {
            let text = logs.text.trim_end_matches('\n');
            if !text.is_empty() {
                eprintln!("{}", show::printed(text, std::io::stderr().is_terminal()));
            }
        }
        Err(ClientError::Refused { refusal, .. }) if refusal.code == Code::AuthScope => {}
        Err(error) => eprintln!("the logs cannot be shown: {error}\n  `piecework logs {job}` shows them later"),
    }
}

/// Whether somebody pipes something in, or names a file: what is inherited from a terminal, a service or a container is neither.
#[cfg(unix)]
fn is_piped() -> bool {
    use std::os::fd::AsFd as _;
    let stat = rustix::fs::fstat(std::io::stdin().as_fd());
    let kind = stat.map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode));
    kind.is_ok_and(|kind| matches!(kind, rustix::fs::FileType::Fifo | rustix::fs::FileType::RegularFile))
}

#[cfg(not(unix))]
fn is_piped() -> bool {
    !std::io::IsTerminal::is_terminal(&std::io::stdin())
}

pub(super) fn event(given: Option<&str>) -> Result<Box<RawValue>, Failure> {
    let given = match given {
        Some("-") => {
            let text = read_input()?;
            return value(&text, "standard input");
        }
        Some(given) => given,
        None if is_piped() => {
            let text = read_input()?;
            let text = if text.trim().is_empty() { "null" } else { &text };
            return value(text, "standard input");
        }
        None => "null",
    };
    match given.strip_prefix('@') {
        Some(path) => value(&source::read_text(Path::new(path))?, path),
        None => value(given, "the event"),
    }
}

fn read_input() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let mut input = std::io::stdin().lock().take(INPUT_BYTES_MAX + 1);
    input.read_to_end(&mut bytes).context("cannot read standard input")?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::usage(
            "standard input is larger than 6 MiB, the most that an event has\n  send larger data as the body of a request to the \
             function's URL",
        ));
    }
    Ok(String::from_utf8(bytes).context("standard input is not valid UTF-8")?)
}

pub(super) fn value(text: &str, what: &str) -> Result<Box<RawValue>, Failure> {
    serde_json::from_str(text.trim()).map_err(|error| {
        Failure::usage(format!(
            "{what} is not JSON: {error}\n  put a text in quotes: '\"text\"'; for a file use @FILE"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_json_or_a_file_of_json() {
        assert_eq!(event(Some("{\"a\": 1}")).expect("JSON").get(), "{\"a\": 1}");
        assert_eq!(event(Some("-1")).expect("a number").get(), "-1");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "[1]\n").expect("written");
        assert_eq!(
            event(Some(&format!("@{}", file.path().display())))
                .expect("a file")
                .get(),
            "[1]"
        );
        assert!(
            event(Some("hello"))
                .expect_err("no JSON")
                .to_string()
                .contains("quotes")
        );
        assert!(event(Some("@/no/such/file")).is_err());
    }
}
