//! Idle functions: what a deployed function that nobody calls costs in memory and on disk.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use serde_json::json;

use crate::{Options, cold::variant, server::Server, warm::LANGUAGES};

#[derive(Debug, Serialize)]
pub struct Idle {
    pub functions: usize,
    pub deploys_per_s: f64,
    pub memory_before_bytes: u64,
    pub memory_after_bytes: u64,
    pub disk_before_bytes: u64,
    pub disk_after_bytes: u64,
}

impl Idle {
    /// Memory that came with the functions, for each of them.
    pub fn bytes_each(&self) -> f64 {
        self.memory_after_bytes.saturating_sub(self.memory_before_bytes) as f64 / self.functions.max(1) as f64
    }
}

/// As many as keep the server's two cores and its disk busy.
const DEPLOYERS: usize = 8;

pub fn measure(server: &Server, options: &Options) -> Result<Idle> {
    lift_quotas(server, options)?;
    settle(server)?;
    let (memory_before_bytes, disk_before_bytes) = (server.tree().memory_bytes()?, server.disk_bytes());
    let began = Instant::now();
    std::thread::scope(|scope| {
        let deployers: Vec<_> = (0..DEPLOYERS)
            .map(|first| scope.spawn(move || deploy_each(server, options, (first..options.idle).step_by(DEPLOYERS))))
            .collect();
        deployers
            .into_iter()
            .try_for_each(|deployer| deployer.join().map_err(|_| anyhow!("a deployer panicked"))?)
    })?;
    let elapsed = began.elapsed();
    settle(server)?;
    Ok(Idle {
        functions: options.idle,
        deploys_per_s: options.idle as f64 / elapsed.as_secs_f64(),
        memory_before_bytes,
        memory_after_bytes: server.tree().memory_bytes()?,
        disk_before_bytes,
        disk_after_bytes: server.disk_bytes(),
    })
}

/// An account usually keeps fewer functions than are measured here.
fn lift_quotas(server: &Server, options: &Options) -> Result<()> {
    let most = options.idle as u64 + 1_000;
    let body = json!({"functions": most, "versions": most, "bundles_mb": 65_536});
    let request = server.request("PUT", "/accounts/operator/limits", Some(&body));
    server.connect()?.json(&request).context("raise the quotas")?;
    Ok(())
}

fn deploy_each(server: &Server, options: &Options, numbers: impl Iterator<Item = usize>) -> Result<()> {
    let mut connection = server.connect()?;
    for number in numbers {
        let sample = LANGUAGES[number % LANGUAGES.len()];
        let name = format!("idle-{number}");
        let request = server.deployment(&name, sample.name, &variant(sample, "idle", number), &options.sandbox);
        connection.json(&request).with_context(|| format!("deploy {name}"))?;
    }
    Ok(())
}

/// Waits until memory stands still: what a deployment needed for a moment is not what an idle function costs.
fn settle(server: &Server) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    let mut before = server.tree().memory_bytes()?;
    while Instant::now() < until {
        std::thread::sleep(Duration::from_secs(2));
        let now = server.tree().memory_bytes()?;
        if now.abs_diff(before) < 256 << 10 {
            break;
        }
        before = now;
    }
    Ok(())
}
