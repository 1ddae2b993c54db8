//! `piecework triggers`: what calls functions by itself.

use clap::Subcommand;
use piecework_api::{
    Client,
    triggers::{Missed, Schedule, SetTrigger, TriggerView},
};

use super::forward;
use crate::{failure::Failure, session, show};

/// List, set or remove schedules that call functions, or forward a queue's messages
#[derive(Debug, clap::Args)]
pub struct Triggers {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List triggers and when they run next
    List {
        /// Name or id of the function; all of yours if absent
        function: Option<String>,
    },
    /// Add or replace a trigger that calls a function on a schedule
    Set {
        /// Name or id of the function
        function: String,
        /// Name of the trigger, unique for the function
        name: String,
        /// Minute, hour, day of month, month and day of week, such as "30 6 * * MON-FRI", or @hourly, @daily, @weekly
        #[arg(long, value_name = "PATTERN")]
        cron: String,
        /// Time zone of the pattern [default: UTC]
        #[arg(long, value_name = "NAME", default_value = "UTC", hide_default_value = true)]
        time_zone: String,
        /// Input of each call, as JSON or @FILE [default: {"trigger": NAME, "at": TIME}]
        #[arg(long, value_name = "JSON")]
        input: Option<String>,
        /// Do not make up for a call that was missed while the server was down
        #[arg(long)]
        skip_missed: bool,
        /// Keep the trigger, but start nothing
        #[arg(long)]
        paused: bool,
    },
    Forward(Box<forward::Forward>),
    /// Start nothing until the trigger is resumed; its schedule stays
    Pause {
        /// Name or id of the function
        function: String,
        /// Name of the trigger
        name: String,
    },
    /// Resume a paused trigger
    Resume {
        /// Name or id of the function
        function: String,
        /// Name of the trigger
        name: String,
    },
    /// Remove a trigger; jobs that it has started continue
    Remove {
        /// Name or id of the function
        function: String,
        /// Name of the trigger
        name: String,
    },
}

impl Triggers {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let action = self.action.unwrap_or(Action::List { function: None });
        if let Action::Forward(forward) = action {
            return forward.run().await;
        }
        let client = session::connect()?;
        match action {
            Action::Forward(_) => unreachable!("it has run"),
            Action::List { function } => {
                let list = client.triggers(function.as_deref()).await?;
                match json {
                    true => show::json(&list),
                    false => table(&list.items),
                }
            }
            Action::Set {
                function,
                name,
                cron,
                time_zone,
                input,
                skip_missed,
                paused,
            } => {
                let missed = match skip_missed {
                    true => Missed::Skip,
                    false => Missed::RunLast,
                };
                let body = SetTrigger {
                    schedule: Schedule {
                        cron,
                        time_zone,
                        missed,
                    },
                    input: input.map(|input| super::call::event(Some(&input))).transpose()?,
                    paused,
                };
                let view = client.set_trigger(&function, &name, &body).await?;
                match json {
                    true => show::json(&view),
                    false => table(&[view]),
                }
            }
            Action::Pause { function, name } => pause(&client, (&function, &name), true, json).await,
            Action::Resume { function, name } => pause(&client, (&function, &name), false, json).await,
            Action::Remove { function, name } => {
                client.remove_trigger(&function, &name).await?;
                match json {
                    true => Ok(()),
                    false => show::text(&format!("removed {function}/{name}\n")),
                }
            }
        }
    }
}

/// Sets the trigger as it is, but paused or not.
async fn pause(client: &Client, (function, name): (&str, &str), paused: bool, json: bool) -> Result<(), Failure> {
    let list = client.triggers(Some(function)).await?;
    let found = list.items.into_iter().find(|view| view.name == name);
    let known = found.ok_or_else(|| {
        Failure::usage(format!(
            "{function} has no trigger `{name}`\n  `piecework triggers list {function}` lists those that it has"
        ))
    })?;
    let body = SetTrigger {
        schedule: known.schedule,
        input: known.input,
        paused,
    };
    let view = client.set_trigger(function, name, &body).await?;
    match json {
        true => show::json(&view),
        false => table(&[view]),
    }
}

fn table(views: &[TriggerView]) -> Result<(), Failure> {
    let rows = views.iter().map(|view| {
        let last = view.last.as_ref();
        [
            view.function.clone(),
            view.name.clone(),
            view.schedule.cron.clone(),
            view.schedule.time_zone.clone(),
            match view.next_at {
                Some(at) => show::time(at),
                None => "paused".to_owned(),
            },
            last.map_or_else(
                || "-".to_owned(),
                |last| match (&last.job_id, &last.refused) {
                    (Some(job), _) => job.to_string(),
                    (None, Some(code)) => code.to_string(),
                    (None, None) => "-".to_owned(),
                },
            ),
        ]
    });
    show::fitted(
        ["FUNCTION", "TRIGGER", "SCHEDULE", "TIME ZONE", "NEXT", "LAST JOB"],
        rows.collect(),
        "no triggers; add one with `piecework triggers set FUNCTION NAME --cron \"*/5 * * * *\"`",
        &["LAST JOB", "TIME ZONE", "SCHEDULE"],
    )
}
