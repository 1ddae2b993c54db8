//! `./bench network`: a controller and providers as processes, each in a network namespace where that can be had.
//!
//! Latency over the link beside the same call inside one process; jobs a CPU-second of the controller; a thousand idle
//! links; how long joining takes; how long a killed provider's job is away.

mod computers;
mod idle_links;

use std::{
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use piecework_api::{Client, execute::Execute, jobs::JobState};
use serde::Serialize;
use serde_json::json;

use crate::{
    load,
    report::{Machine, now, write_json},
    server::Server,
    tree::Tree,
    warm::LANGUAGES,
};
use computers::{Computer, Net};

#[derive(Clone, Debug, Args)]
pub struct NetworkOptions {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/piecework")]
    binary: PathBuf,
    /// Providers that run jobs.
    #[arg(long, default_value_t = 3)]
    providers: usize,
    /// Requests of each measurement with one connection.
    #[arg(long, default_value_t = 3_000)]
    single: usize,
    /// Seconds of each measurement at saturation.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Connections at saturation.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Links that do nothing but live.
    #[arg(long, default_value_t = 1_000)]
    idle: usize,
    /// Providers killed in the middle of a job, one after the other.
    #[arg(long, default_value_t = 5)]
    kills: usize,
    /// Everything over loopback, even where namespaces can be had.
    #[arg(long)]
    loopback: bool,
    /// Where the raw numbers go.
    #[arg(long, default_value = "bench-results")]
    results: PathBuf,
}

/// Calls of one connection, and jobs at saturation.
#[derive(Clone, Debug, Serialize)]
struct Calls {
    p50_us: f64,
    p99_us: f64,
    jobs_per_s: f64,
    /// Of the controller's process alone where the providers are apart.
    jobs_per_controller_cpu_s: f64,
    refused: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Figures {
    began_at: u64,
    machine: Machine,
    namespaces: bool,
    providers: usize,
    /// Provider in the controller's process.
    inside: Calls,
    /// Over links.
    linked: Calls,
    /// From the command to the line `ready`, seconds.
    join_s: Vec<f64>,
    /// From the command to the first credits on the ledger, seconds.
    paid_s: Vec<f64>,
    /// From the kill of a provider to its job's answer, less what the job itself takes, seconds.
    killed_s: Vec<f64>,
    idle_links: idle_links::IdleLinks,
}

pub fn measure(options: &NetworkOptions) -> Result<()> {
    let machine = Machine::read();
    eprintln!("inside one process");
    let inside = {
        let mut server = Server::start(&options.binary)?;
        let calls = calls(&server, options, server.tree())?;
        server.stop()?;
        calls
    };

    let net = Net::new(!options.loopback)?;
    let mut server = Server::start_with(&options.binary, &net.listen(), &["--no-provider"])?;
    let mut computers = Vec::new();
    let (mut join_s, mut paid_s) = (Vec::new(), Vec::new());
    for index in 0..options.providers {
        eprintln!("provider {index} joins");
        let computer = Computer::join(&options.binary, &server, &net, index)?;
        join_s.push(computer.joined_in.as_secs_f64());
        paid_s.push(computer.paid_in.as_secs_f64());
        computers.push(computer);
    }
    eprintln!("over {} links", computers.len());
    let linked = calls(&server, options, server.tree())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("start a runtime")?;
    let killed_s = runtime.block_on(kill_some(&server, &net, &mut computers, options))?;
    eprintln!("{} idle links", options.idle);
    let idle_links = runtime.block_on(idle_links::measure(&server, options.idle))?;
    drop(computers);
    server.stop()?;
    let figures = Figures {
        began_at: now(),
        machine,
        namespaces: net.is_apart(),
        providers: options.providers,
        inside,
        linked,
        join_s,
        paid_s,
        killed_s,
        idle_links,
    };
    println!("{figures}");
    let path = write_json(&options.results, &format!("network-{}", figures.began_at), &figures)?;
    println!("raw: {}", path.display());
    Ok(())
}

fn calls(server: &Server, options: &NetworkOptions, tree: Tree) -> Result<Calls> {
    let sample = LANGUAGES[0];
    let deployed = server.deploy("hello", sample.name, sample.code, "wasm")?;
    let path = format!("/execute/{}", deployed.id);
    let request = server.request("POST", &path, Some(&json!({"input": {"name": "Ada"}})));
    load::saturate(&server.site, &request, options.connections, Duration::from_secs(1))?;
    let single = load::single(&server.site, &request, options.single)?;
    let before = tree.cpu()?;
    let time = Duration::from_secs_f64(options.seconds);
    let saturated = load::saturate(&server.site, &request, options.connections, time)?;
    let cpu_s = (tree.cpu()? - before).as_secs_f64();
    if let Some(refusal) = &saturated.first_refusal {
        eprintln!("refused: {refusal}");
    }
    Ok(Calls {
        p50_us: single.us(0.5),
        p99_us: single.us(0.99),
        jobs_per_s: saturated.answers as f64 / saturated.elapsed.as_secs_f64(),
        jobs_per_controller_cpu_s: saturated.answers as f64 / cpu_s.max(0.01),
        refused: saturated.refused,
    })
}

/// What the job that is interrupted takes by itself.
const JOB: Duration = Duration::from_millis(500);
const BUSY: &str = "export default (ms) => { const end = Date.now() + ms; while (Date.now() < end); return ms; };\n";

/// Kills the provider that runs a job, `kills` times; each time until the job is answered, less the job's own time.
async fn kill_some(
    server: &Server,
    net: &Net,
    computers: &mut [Computer],
    options: &NetworkOptions,
) -> Result<Vec<f64>> {
    let client = Client::new(&server.url, Some(server.token.clone()))?;
    let busy = server.deploy("busy", "javascript", BUSY, "wasm")?;
    let body: Execute = serde_json::from_value(json!({"input": JOB.as_millis()}))?;
    let mut away = Vec::new();
    for kill in 0..options.kills {
        eprintln!("kill {kill}");
        let job = client.execute_async(&busy.id, &body, None).await?.job_id;
        let deadline = Instant::now() + Duration::from_secs(60);
        let victim = loop {
            ensure!(Instant::now() < deadline, "the job never ran");
            let view = client.job(job, None).await?;
            if let Some(provider) = view.provider.filter(|_| view.state == JobState::Running) {
                break provider;
            }
        };
        let index = computers.iter().position(|computer| computer.name() == victim);
        let index = index.context("the job runs on one of these providers")?;
        computers[index].kill()?;
        let killed = Instant::now();
        while client.job(job, Some(Duration::from_secs(5))).await?.state != JobState::Succeeded {
            ensure!(Instant::now() < deadline, "the job was never answered");
        }
        away.push(killed.elapsed().saturating_sub(JOB).as_secs_f64());
        computers[index].start_again(&options.binary, server, net)?;
    }
    Ok(away)
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let where_ = if self.namespaces {
            "network namespaces"
        } else {
            "loopback"
        };
        writeln!(f, "{}\n{} providers over {where_}\n", self.machine, self.providers)?;
        writeln!(
            f,
            "{:<22}{:>9}{:>9}{:>10}{:>22}{:>9}",
            "hello in JavaScript", "p50 us", "p99 us", "jobs/s", "jobs/controller CPU-s", "refused"
        )?;
        for (name, calls) in [("inside one process", &self.inside), ("over links", &self.linked)] {
            writeln!(
                f,
                "{name:<22}{:>9.0}{:>9.0}{:>10.0}{:>22.0}{:>9}",
                calls.p50_us, calls.p99_us, calls.jobs_per_s, calls.jobs_per_controller_cpu_s, calls.refused
            )?;
        }
        let added = self.linked.p50_us - self.inside.p50_us;
        writeln!(f, "a link adds {added:.0} us at the median\n")?;
        let seconds = |list: &[f64]| list.iter().map(|s| format!("{s:.2}")).collect::<Vec<_>>().join(", ");
        writeln!(f, "joining, command to ready: {} s", seconds(&self.join_s))?;
        writeln!(f, "joining, command to first credits: {} s", seconds(&self.paid_s))?;
        writeln!(f, "a killed provider's job was away for: {} s", seconds(&self.killed_s))?;
        write!(f, "{}", self.idle_links)
    }
}
