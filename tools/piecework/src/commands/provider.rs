//! `piecework provider`: the computers that run functions, and this one among them.

use std::path::PathBuf;

use anyhow::Context as _;
use piecework_api::{ledger::ProviderView, page::PageQuery};
use piecework_model::Credits;
use piecework_provider::{
    earned::{self, Sum},
    owner::{Hours, Rules},
};

use crate::{
    compose::control::{self, AgentStatus, Word},
    failure::Failure,
    places, session, show, units,
};

/// Show the providers, and control the one on this computer
#[derive(Debug, clap::Args)]
pub struct Provider {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show this computer's provider, if it runs, and every provider that the controller knows
    Status(Own),
    /// Show what this computer has earned, or, where no provider has run here, what all providers have
    Earnings(Own),
    /// Explain why this computer's provider gets no jobs
    WhyIdle(Own),
    /// Take no new jobs on this computer; finish running ones
    Drain(Own),
    /// Freeze this computer's jobs now; they run elsewhere if that lasts
    Pause(Own),
    /// Take jobs on this computer again
    Resume(Own),
    /// Show or change when this computer gives way to its owner; changes last until `provide` is restarted
    Limits(Limits),
}

/// Rules to change.
#[derive(Debug, clap::Args)]
struct Limits {
    #[command(flatten)]
    own: Own,
    /// Give way while other programs are busy
    #[arg(long, value_name = "BOOL")]
    when_idle: Option<bool>,
    /// Give way while the computer runs on battery
    #[arg(long, value_name = "BOOL")]
    on_mains: Option<bool>,
    /// Start jobs only during these hours, in local time, like 22:00-07:00; `any` for no limit
    #[arg(long, value_name = "FROM-TO", value_parser = or_any(units::noun::<Hours>))]
    hours: Option<Change<Hours>>,
    /// Start no job while more memory is in use; `any` for no limit
    #[arg(long, value_name = "SIZE", value_parser = or_any(units::memory_mb))]
    memory: Option<Change<u32>>,
}

#[derive(Clone, Debug)]
enum Change<T> {
    Lift,
    Set(T),
}

impl<T> Change<T> {
    fn into_option(self) -> Option<T> {
        match self {
            Self::Lift => None,
            Self::Set(value) => Some(value),
        }
    }
}

fn or_any<T: Clone + Send + Sync + 'static>(
    read: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Change<T>, String> + Clone {
    move |text| match text {
        "any" => Ok(Change::Lift),
        text => read(text).map(Change::Set),
    }
}

/// Which provider of this computer.
#[derive(Debug, clap::Args)]
struct Own {
    /// Data directory of the provider [default: as for `provide`]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Own {
    fn directory(&self) -> Result<PathBuf, Failure> {
        match &self.data {
            Some(directory) => Ok(directory.clone()),
            None => places::default_role_dir("provider").map_err(Failure::Local),
        }
    }

    async fn ask(&self, word: Word) -> Result<Option<AgentStatus>, Failure> {
        control::ask(&self.directory()?, word).await.map_err(Failure::Local)
    }

    async fn must(&self, word: Word) -> Result<AgentStatus, Failure> {
        match self.ask(word).await? {
            Some(status) => Ok(status),
            None => Err(Failure::NoConnection {
                url: String::new(),
                reason: session::none_but_up()?.into(),
            }),
        }
    }
}

impl Provider {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        match self.action {
            Action::Status(own) => status(&own, json).await,
            Action::Earnings(own) => earnings(&own, json).await,
            Action::WhyIdle(own) => why_idle(&own.must(Word::Status).await?, json),
            Action::Drain(own) => show_own(&own.must(Word::Drain).await?, json),
            Action::Pause(own) => show_own(&own.must(Word::Pause).await?, json),
            Action::Resume(own) => show_own(&own.must(Word::Resume).await?, json),
            Action::Limits(limits) => limits.run(json).await,
        }
    }
}

impl Limits {
    async fn run(self, json: bool) -> Result<(), Failure> {
        let before = self.own.must(Word::Status).await?.rules;
        let memory = self
            .memory
            .map(|memory| memory.into_option().map(|mib| u64::from(mib) << 20));
        let rules = Rules {
            when_idle: self.when_idle.unwrap_or(before.when_idle),
            on_mains: self.on_mains.unwrap_or(before.on_mains),
            hours: self.hours.map_or(before.hours, Change::into_option),
            memory_bytes: memory.unwrap_or(before.memory_bytes),
        };
        let rules = match rules == before {
            true => before,
            false => self.own.must(Word::Limits(rules)).await?.rules,
        };
        if json {
            return show::json(&rules);
        }
        let yes = |holds| if holds { "yes" } else { "no" };
        show::text(&format!(
            "gives way while other programs are busy  {}\ngives way on battery                     {}\nstarts jobs                              {}\nmaximum memory                           {}\n",
            yes(rules.when_idle),
            yes(rules.on_mains),
            rules.hours.map_or("at any hour".to_owned(), |hours| hours.to_string()),
            rules
                .memory_bytes
                .map_or("no limit".to_owned(), |bytes| format!("{} MiB", bytes >> 20)),
        ))
    }
}

async fn status(own: &Own, json: bool) -> Result<(), Failure> {
    if let Some(status) = own.ask(Word::Status).await? {
        return show_own(&status, json);
    }
    let list = session::connect()?.providers(&PageQuery::default()).await?;
    if json {
        return show::json(&list);
    }
    let header = [
        "PROVIDER",
        "STATE",
        "TRUST",
        "SANDBOXES",
        "RUNNING",
        "WARM",
        "JOBS",
        "EARNED",
        "LAST SEEN",
    ];
    show::fitted(
        header,
        list.items.into_iter().map(row).collect(),
        "no providers",
        &["WARM", "TRUST", "LAST SEEN", "SANDBOXES"],
    )
}

fn row(provider: ProviderView) -> [String; 9] {
    [
        provider.name,
        format!("{:?}", provider.state).to_lowercase(),
        provider.standing.trust,
        provider.backends.join(" "),
        format!("{} of {}", provider.running, provider.slots),
        provider.warm_instances.to_string(),
        provider.jobs_done.to_string(),
        show::ucr(provider.earned_ucr),
        show::or_dash(provider.last_seen_at.map(show::time)),
    ]
}

/// Of this computer's provider, without a login: from the program while it runs, else from what it has left.
async fn earnings(own: &Own, json: bool) -> Result<(), Failure> {
    let running = own.ask(Word::Status).await?;
    let file = own.directory()?.join("earned");
    let earnings = match &running {
        Some(status) => Some(status.earnings),
        None if file.exists() => {
            let kept = earned::kept(&file, jiff::Zoned::now().date());
            Some(kept.context("cannot read what this computer has earned")?)
        }
        None => None,
    };
    let Some(earnings) = earnings else {
        return all_earnings(json).await;
    };
    if json {
        return show::json(&earnings);
    }
    let row = |when: &str, sum: Sum| {
        [
            when.to_owned(),
            sum.jobs.to_string(),
            show::ucr(Credits::from(sum.price_ucr)),
        ]
    };
    let rows = vec![
        row("today", earnings.today),
        row("last 7 days", earnings.last_7_days),
        row("last 30 days", earnings.last_30_days),
        row("total", earnings.in_all),
    ];
    show::table(["WHEN", "JOBS", "EARNED"], rows, "nothing yet")?;
    if let Some(owed) = running.map(|status| status.owed).filter(|owed| owed.jobs > 0) {
        let price = show::ucr(Credits::from(owed.price_ucr));
        show::text(&format!("not paid yet: jobs {}, {price}\n", owed.jobs))?;
    }
    show::text("before the network's commission; 1,000,000 ucr are one credit\n")
}

async fn all_earnings(json: bool) -> Result<(), Failure> {
    let list = session::connect()?.providers(&PageQuery::default()).await?;
    if json {
        return show::json(&list);
    }
    let row = |provider: ProviderView| {
        [
            provider.name,
            provider.jobs_done.to_string(),
            show::ucr(provider.earned_ucr),
        ]
    };
    show::table(
        ["PROVIDER", "JOBS PAID", "EARNED"],
        list.items.into_iter().map(row).collect(),
        "no providers",
    )
}

fn show_own(status: &AgentStatus, json: bool) -> Result<(), Failure> {
    if json {
        return show::json(status);
    }
    let link = status.linked_to.as_deref().unwrap_or("none");
    let state = match (&status.linked_to, status.draining, status.paused) {
        (_, true, _) => "draining",
        (None, false, _) => "not connected",
        (Some(_), false, true) => "paused (see `piecework provider why-idle`)",
        (Some(_), false, false) => "ready",
    };
    show::text(&format!(
        "{} ({})\n  state     {state}\n  link      {link}\n  running   {} of {}, {} idle instances\n  orders    {}\n  \
         unpaid    {} jobs, {} ucr; {} can be claimed without the controller\n",
        status.name,
        status.account,
        status.running,
        status.slots,
        status.idle_instances,
        status.orders,
        status.owed.jobs,
        status.owed.price_ucr,
        status.owed.claimable_jobs
    ))
}

fn why_idle(status: &AgentStatus, json: bool) -> Result<(), Failure> {
    if json {
        return show::json(&status.why_idle);
    }
    if status.why_idle.is_empty() {
        return show::text("nothing prevents it from getting jobs; there are none that it can run\n");
    }
    show::text(&format!("{}\n", status.why_idle.join("\n")))
}
