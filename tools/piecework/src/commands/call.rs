//! `piecework call`: one run; the output on standard output, everything else on standard error.

use std::{io::Read as _, path::Path};

use anyhow::Context as _;
use piecework_api::{
    Client,
    execute::{Execute, Executed},
    jobs::JobLogsQuery,
};
use piecework_model::JobId;
use serde_json::value::RawValue;

use crate::{failure::Failure, session, show, source};

/// Run a function
#[derive(Debug, clap::Args)]
pub struct Call {
    /// Name or id of the function
    name: String,
    /// The event: JSON, @FILE, or - for standard input [default: null]
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
            input: event(self.input.as_deref().unwrap_or("null"))?,
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
        let answer = client.execute(&self.name, &body, key).await.map_err(Failure::from);
        match answer {
            Ok(done) => self.done(&client, &done, json).await,
            Err(failure) => self.failed(&client, failure).await,
        }
    }

    async fn done(&self, client: &Client, done: &Executed, json: bool) -> Result<(), Failure> {
        if !self.quiet {
            print_logs(client, done.job_id).await?;
            let start = if done.cold { "cold" } else { "warm" };
            let (took, price) = (show::ms(done.duration_ms), show::ucr(done.price_ucr));
            eprintln!("{} {start} {took} {price}", done.job_id);
        }
        if json {
            show::json(done)
        } else {
            show::text(&format!("{}\n", done.output))
        }
    }

    async fn failed(&self, client: &Client, failure: Failure) -> Result<(), Failure> {
        if let (Failure::Function(refusal), false) = (&failure, self.quiet)
            && let Some(job) = refusal.job_id
        {
            print_logs(client, job).await?;
        }
        Err(failure)
    }
}

/// A token that may run but not look has no logs to see: that is no failure of the call.
async fn print_logs(client: &Client, job: JobId) -> Result<(), Failure> {
    match client
        .job_logs(job, &JobLogsQuery::default())
        .await
        .map_err(Failure::from)
    {
        Ok(logs) => {
            let text = logs.text.trim_end_matches('\n');
            if !text.is_empty() {
                eprintln!("{text}");
            }
            Ok(())
        }
        Err(Failure::Refused { refusal, .. }) if refusal.code == "auth.scope" => Ok(()),
        Err(failure) => Err(failure),
    }
}

fn event(given: &str) -> Result<Box<RawValue>, Failure> {
    if given == "-" {
        let mut text = String::new();
        std::io::stdin()
            .lock()
            .read_to_string(&mut text)
            .context("standard input is not valid UTF-8")?;
        return value(&text, "standard input");
    }
    match given.strip_prefix('@') {
        Some(path) => value(&source::read_text(Path::new(path))?, path),
        None => value(given, "the event"),
    }
}

fn value(text: &str, what: &str) -> Result<Box<RawValue>, Failure> {
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
        assert_eq!(event("{\"a\": 1}").expect("JSON").get(), "{\"a\": 1}");
        assert_eq!(event("-1").expect("a number").get(), "-1");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "[1]\n").expect("written");
        assert_eq!(
            event(&format!("@{}", file.path().display())).expect("a file").get(),
            "[1]"
        );
        assert!(event("hello").expect_err("no JSON").to_string().contains("quotes"));
        assert!(event("@/no/such/file").is_err());
    }
}
