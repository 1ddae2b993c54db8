//! `piecework logs`: what a function's runs printed.

use std::io::IsTerminal as _;

use piecework_api::{
    Client,
    jobs::{FunctionLogsItem, FunctionLogsQuery, JobLogsQuery, JobState, LogLevel, LogLineView},
};
use piecework_model::JobId;

use crate::{failure::Failure, session, show, units};

/// The server holds the request so long when there is nothing new.
const WAIT_MS: u32 = 20_000;
const LIMIT: u32 = 20;
const LIMIT_MAX: u32 = 1_000;

/// Show the logs of a function's newest jobs, or of one job
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Name of a function, or id of a job
    name: String,
    /// Only lines at this level or above: debug, info, warn or error
    #[arg(long, value_parser = level)]
    level: Option<LogLevel>,
    /// Only runs that began after this: a duration like 10m, or a time like 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = units::since)]
    since: Option<jiff::Timestamp>,
    /// Keep printing new lines
    #[arg(long, short)]
    follow: bool,
    /// Number of past jobs to start with, 1 to 1000 [default: 20; with --since 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: Option<u32>,
    /// Print control characters as the function wrote them; otherwise they are escaped, and only colours reach a terminal
    #[arg(long)]
    raw: bool,
}

/// How lines are printed.
#[derive(Clone, Copy)]
enum Form {
    Json,
    /// As they were written.
    Raw,
    /// They move no cursor.
    Shown,
}

impl Logs {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        let form = match (json, self.raw) {
            (true, _) => Form::Json,
            (false, true) => Form::Raw,
            (false, false) => Form::Shown,
        };
        if let Ok(id) = self.name.parse::<JobId>() {
            return one_job(&client, id, (self.level, self.since), form).await;
        }
        let first = FunctionLogsQuery {
            limit: Some(
                self.limit
                    .unwrap_or(if self.since.is_some() { LIMIT_MAX } else { LIMIT }),
            ),
            level: self.level,
            // An id begins with the time.
            after: self.since.map(|since| JobId::new(unix_ms(since), [0; 10]).to_string()),
            ..FunctionLogsQuery::default()
        };
        let page = client.function_logs(&self.name, &first).await?;
        let mut after = emit(&page.items, form)?;
        if page.items.is_empty() && !self.follow && !json {
            let when = if self.since.is_some() { "since then" } else { "yet" };
            eprintln!("{} has not run {when}", self.name);
        }
        if !self.follow {
            return Ok(());
        }
        loop {
            let query = FunctionLogsQuery {
                after,
                wait_ms: Some(WAIT_MS),
                limit: None,
                level: self.level,
            };
            let page = client.function_logs(&self.name, &query).await?;
            after = emit(&page.items, form)?.or(query.after);
        }
    }
}

fn level(text: &str) -> Result<LogLevel, String> {
    let named = LogLevel::ALL.into_iter().find(|level| level.as_str() == text);
    named.ok_or_else(|| format!("`{text}` is not a level: debug, info, warn or error"))
}

/// Before 1970 is 1970.
fn unix_ms(at: jiff::Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

async fn one_job(
    client: &Client,
    id: JobId,
    (level, since): (Option<LogLevel>, Option<jiff::Timestamp>),
    form: Form,
) -> Result<(), Failure> {
    let mut logs = client.job_logs(id, &JobLogsQuery { level }).await?;
    logs.lines.retain(|line| since.is_none_or(|since| line.at >= since));
    match form {
        Form::Json => show::json(&logs),
        Form::Raw | Form::Shown => lines(&logs.lines, form),
    }
}

/// One line each: time, level, text.
fn lines(lines: &[LogLineView], form: Form) -> Result<(), Failure> {
    let colours = std::io::stdout().is_terminal();
    let mut text = String::new();
    for line in lines {
        let (at, level) = (show::clock(line.at), line.level.as_str());
        let said = match form {
            Form::Shown => &show::printed(&line.text, colours),
            Form::Raw | Form::Json => &line.text,
        };
        text.push_str(&format!("{at} {level:<5} {said}\n"));
    }
    show::text(&text)
}

fn emit(items: &[FunctionLogsItem], form: Form) -> Result<Option<String>, Failure> {
    match form {
        Form::Raw | Form::Shown => return print_as(items, form),
        Form::Json => {}
    }
    for item in items {
        let line = serde_json::to_string(item).map_err(anyhow::Error::new)?;
        show::text(&format!("{line}\n"))?;
    }
    Ok(items.last().map(|item| item.job_id.to_string()))
}

/// Prints items, oldest first; gives the newest job's id.
pub fn print(items: &[FunctionLogsItem]) -> Result<Option<String>, Failure> {
    print_as(items, Form::Shown)
}

fn print_as(items: &[FunctionLogsItem], form: Form) -> Result<Option<String>, Failure> {
    for item in items {
        let ended = if item.state == JobState::Succeeded {
            ""
        } else {
            item.state.as_str()
        };
        let head = format!("-- {} {} v{} {ended}", show::time(item.at), item.job_id, item.version);
        show::text(&format!("{}\n", head.trim_end()))?;
        lines(&item.lines, form)?;
    }
    Ok(items.last().map(|item| item.job_id.to_string()))
}

/// The newest job's id, to follow from now on.
pub async fn newest(client: &Client, name: &str) -> Result<Option<String>, Failure> {
    let query = FunctionLogsQuery {
        limit: Some(1),
        ..FunctionLogsQuery::default()
    };
    let page = client.function_logs(name, &query).await?;
    Ok(page.items.last().map(|item| item.job_id.to_string()))
}
