//! `piecework doctor`: probes every sandbox backend by running something in it.

use piecework_api::{Client, alerts::AlertView};
use piecework_sandbox::{BackendName, Probe};

use crate::{compose, failure::Failure, session, show};

/// Test every sandbox backend on this machine, the server's disk space and its alerts, and explain what does not work
#[derive(Debug, clap::Args)]
pub struct Doctor {}

impl Doctor {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let mut probes: Vec<Probe> = compose::backends(None, compose::Probing::Anew)
            .await
            .into_iter()
            .map(|(_, probe)| probe)
            .collect();
        let missing = BackendName::ALL
            .into_iter()
            .filter(|name| probes.iter().all(|probe| probe.backend != *name));
        let absent: Vec<Probe> = missing.map(absent).collect();
        probes.extend(absent);
        if json {
            return show::json(&probes);
        }
        let mut told: String = probes.iter().map(described).collect();
        if let Ok(client) = session::connect() {
            told += &disk(&client).await.unwrap_or_default();
            told += &alerts(&client).await;
        }
        show::text(&told)?;
        if probes.iter().any(|probe| probe.works) {
            return Ok(());
        }
        Err(Failure::usage(
            "no sandbox works here, so this machine cannot run functions",
        ))
    }
}

/// The disk of the server that the command line talks to, if there is one.
async fn disk(client: &Client) -> Option<String> {
    let disk = client.health().await.ok()?.disk?;
    let mib = |bytes: u64| bytes >> 20;
    let (free, low, reserve) = (mib(disk.free_bytes), mib(disk.low_bytes), mib(disk.reserve_bytes));
    Some(match disk.level.as_str() {
        "ample" => format!("works  disk     {free} MiB are free on the server\n"),
        "low" => format!(
            "  -    disk     only {free} MiB are free on the server: free some space before {reserve} MiB (low: {low} MiB)\n"
        ),
        _ => format!(
            "  -    disk     {free} MiB are free on the server: new work and data are refused below {reserve} MiB\n"
        ),
    })
}

/// What the server tells its operator; others do not hear of it.
async fn alerts(client: &Client) -> String {
    let alerts = client.alerts().await.map(|alerts| alerts.items).unwrap_or_default();
    let line = |alert: AlertView| format!("  -    {:8} {}\n", alert.rule, alert.message);
    // The disk has a line of its own.
    alerts
        .into_iter()
        .filter(|alert| alert.rule != "disk")
        .map(line)
        .collect()
}

/// A backend that this build cannot start here.
fn absent(backend: BackendName) -> Probe {
    let detail = match backend {
        BackendName::Wasm => "it could not be started; see the warning above".to_owned(),
        BackendName::Jail => "neither python3 nor node found; install one of them".to_owned(),
        BackendName::Oci | BackendName::Gvisor | BackendName::Docker => "it could not be started".to_owned(),
        BackendName::Microvm => return compose::microvm(),
    };
    Probe {
        backend,
        works: false,
        languages: Vec::new(),
        detail,
        weaker: Vec::new(),
        cold_us: None,
        warm_us: None,
    }
}

fn described(probe: &Probe) -> String {
    let mark = if probe.works { "works" } else { "  -  " };
    let mut told = format!("{mark}  {:8} {}\n", probe.backend.as_str(), probe.detail);
    if probe.works {
        let languages: Vec<_> = probe.languages.iter().map(|language| language.as_str()).collect();
        let time = |us: Option<u64>| us.map_or_else(|| "?".to_owned(), |us| format!("{:.2} ms", us as f64 / 1_000.0));
        let (cold, warm) = (time(probe.cold_us), time(probe.warm_us));
        told += &format!("                {}; cold {cold}, warm {warm}\n", languages.join(", "));
    }
    for weaker in &probe.weaker {
        told += &format!("                weaker here: {weaker}\n");
    }
    told
}
