//! `piecework job`: one job: what it used, what it cost, and each step to its payment.

use std::{collections::BTreeSet, io::IsTerminal as _, path::PathBuf};

use piecework_api::{
    Client,
    jobs::{JobEvent, JobLogsQuery, JobView, PassedOverView},
    ledger::JobProofView,
};
use piecework_model::{Code, JobId};
use piecework_proof::{Invalid, Proof};
use serde::Serialize;

use super::verify::{self, Trusted};
use crate::{failure::Failure, session, show, units};

/// Show a job: its receipt, its steps from opened to paid, and the credits that moved
#[derive(Debug, clap::Args)]
pub struct Job {
    /// Job id, like job_0123...
    #[arg(value_parser = units::noun::<JobId>)]
    id: JobId,
    /// Fetch and check the proof that the job was metered and paid: receipt, Merkle path, block, certificate
    #[arg(long)]
    proof: bool,
    /// Save the proof to a file, for `piecework ledger verify`
    #[arg(short, long, value_name = "FILE", requires = "proof")]
    output: Option<PathBuf>,
    #[command(flatten)]
    trusted: Trusted,
    /// Print the job's logs
    #[arg(long, conflicts_with = "proof")]
    logs: bool,
}

#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    job: JobView,
    history: Vec<JobEvent>,
}

impl Job {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        if self.proof {
            return self.check(&client, json).await;
        }
        if self.logs {
            let logs = client.job_logs(self.id, &JobLogsQuery::default()).await?;
            return show::text(&show::printed(&logs.text, std::io::stdout().is_terminal()));
        }
        let job = client.job(self.id, None).await?;
        let history = client.job_history(self.id).await?.items;
        if json {
            return show::json(&Whole { job, history });
        }
        show::fields(&rows(&job))?;
        show::text("\n")?;
        show::table(
            ["STEP", "AT", "BLOCK", "BLOCK'S TIME", "WHAT"],
            history.iter().map(step).collect(),
            "nothing has happened to it yet",
        )
    }
}

impl Job {
    /// A peer remembers the blocks of the latest jobs; of older ones the controller does.
    async fn shown(&self, client: &Client) -> Result<JobProofView, Failure> {
        let refused = match client.job_proof(self.id, &[]).await.map_err(Failure::from) {
            Err(refused) if refused.is_refusal(Code::JobNotFound) => refused,
            answered => return answered,
        };
        let Ok(history) = client.job_history(self.id).await else {
            return Err(refused);
        };
        let blocks: BTreeSet<u64> = history.items.iter().filter_map(|event| event.height).collect();
        match blocks.is_empty() {
            true => Err(refused),
            false => Ok(client.job_proof(self.id, &Vec::from_iter(blocks)).await?),
        }
    }

    async fn check(&self, client: &Client, json: bool) -> Result<(), Failure> {
        let shown = self.shown(client).await?;
        let Proof::Job(proof) = verify::read(&shown.proof, self.output.as_deref())? else {
            return Err(Invalid::Malformed("the proof is not for a job").into());
        };
        let ground = self.trusted.ground(Some(client)).await?;
        verify::job(&ground, &proof, self.id, json)
    }
}

fn rows(job: &JobView) -> Vec<(&'static str, String)> {
    let state = job.state.as_str();
    let mut rows = vec![
        ("job", job.id.to_string()),
        ("function", format!("{} version {}", job.function, job.version)),
        (
            "state",
            match job.cold {
                Some(true) => format!("{state}, cold start"),
                Some(false) => format!("{state}, warm"),
                None => state.to_owned(),
            },
        ),
        ("developer", job.developer.clone()),
        ("provider", show::or_dash(job.provider.as_ref())),
        ("sandbox", show::or_dash(job.sandbox.as_ref())),
        ("why there", show::or_dash(job.sandbox_reason.as_ref())),
        ("created", show::time(job.created_at)),
        ("queued", show::ms(job.queued_ms)),
        ("pull", show::ms(job.pull_ms)),
        ("ran", show::ms(job.duration_ms)),
        ("cpu", show::ms(job.cpu_us as f64 / 1_000.0)),
        (
            "memory",
            format!(
                "{} s, peak {}",
                show::bytes(job.memory_byte_ms / 1_000),
                show::bytes(job.memory_peak_bytes)
            ),
        ),
        ("egress", show::bytes(job.egress_bytes)),
        ("price", show::ucr_long(job.price_ucr)),
        ("commission", job.commission_ucr.map_or_else(|| "-".into(), show::ucr)),
        ("received", show::yes(job.received)),
        (
            "paid",
            job.paid_height
                .map_or_else(|| show::yes(job.paid), |height| format!("yes, in block {height}")),
        ),
    ];
    rows.extend(job.replaces.map(|replaced| ("replaces", replaced.to_string())));
    rows.extend(
        job.passed_over
            .as_ref()
            .map(|passed| ("passed over", passed_over(passed))),
    );
    rows.extend(job.rerun_of.map(|first| ("compared with", first.to_string())));
    rows.extend(job.held.as_ref().map(|held| ("not paid", held.reason.clone())));
    rows.extend(job.output.as_ref().map(|output| ("output", shortened(output.get()))));
    rows.extend(job.error.as_ref().map(|error| ("error", error.to_string())));
    rows
}

/// `laptop: too_dear, desk: no_free_slot, 12 more: outranked`
fn passed_over(passed: &PassedOverView) -> String {
    let named = passed.providers.iter();
    let named = named.map(|each| format!("{}: {}", each.provider, each.reason));
    let counted = passed
        .others
        .iter()
        .map(|(reason, count)| format!("{count} more: {reason}"));
    named.chain(counted).collect::<Vec<_>>().join(", ")
}

/// A terminal is no place for megabytes: `--json` has it all.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 500;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}... ({} bytes, --json has them all)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

fn step(event: &JobEvent) -> [String; 5] {
    let moved = event.moved.iter().map(|moved| {
        let sign = if moved.amount_ucr.is_positive() { "+" } else { "" };
        format!("{} {sign}{}", moved.account, show::ucr(moved.amount_ucr))
    });
    let what: Vec<String> = event.detail.clone().into_iter().chain(moved).collect();
    [
        event.event.as_str().to_owned(),
        show::time(event.at),
        show::or_dash(event.height),
        show::or_dash(event.block_at.map(show::time)),
        what.join("; "),
    ]
}
