//! Warm calls: latency with one connection, throughput at saturation, requests per CPU-second.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;

use crate::{Options, http::Site, load, server::Server, tree::Tree};

/// A language with the hello that is measured.
#[derive(Debug)]
pub struct Sample {
    pub name: &'static str,
    pub code: &'static str,
}

pub const LANGUAGES: [&Sample; 2] = [
    &Sample {
        name: "javascript",
        code: "export default async (event, context) => ({ message: `Hello, ${event.name ?? \"world\"}!` });\n",
    },
    &Sample {
        name: "python",
        code: "def handler(event, context):\n    return {\"message\": f\"Hello, {event.get('name', 'world')}!\"}\n",
    },
];

/// Something that answers one fixed request.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub site: Site,
    pub request: Vec<u8>,
    /// Whose CPU time counts; unknown for a peer without a process id.
    pub tree: Option<Tree>,
}

/// One measurement of one target.
#[derive(Clone, Debug, Serialize)]
pub struct Warm {
    pub target: String,
    /// One connection, microseconds.
    pub p50_us: f64,
    pub p95_us: f64,
    pub p99_us: f64,
    /// At saturation.
    pub requests_per_s: f64,
    pub saturated_p50_us: f64,
    pub saturated_p99_us: f64,
    pub requests: u64,
    /// Answers other than 2xx; they do not count as requests.
    pub refused: u64,
    pub first_refusal: Option<String>,
    pub cpu_s: Option<f64>,
    pub requests_per_cpu_s: Option<f64>,
    pub processes: Option<usize>,
    pub memory_bytes: Option<u64>,
}

/// `NAME=URL` or `NAME=URL,PID`, called with GET.
pub fn peer(text: &str) -> Result<Target> {
    let (name, rest) = text.split_once('=').context("a peer is NAME=URL or NAME=URL,PID")?;
    let (url, pid) = match rest.rsplit_once(',') {
        Some((url, pid)) => (
            url,
            Some(pid.parse().with_context(|| format!("{pid} is not a process id"))?),
        ),
        None => (rest, None),
    };
    let site = Site::parse(url)?;
    let request = site.request("GET", &site.path, None, None);
    Ok(Target {
        name: format!("peer: {name}"),
        site,
        request,
        tree: pid.map(Tree),
    })
}

/// Deploys a hello in each language; each is a target by `/execute` and by its URL.
pub fn deploy(server: &Server, options: &Options) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for sample in LANGUAGES {
        let deployed = server.deploy(
            &format!("hello-{}", sample.name),
            sample.name,
            sample.code,
            &options.sandbox,
        )?;
        let by_url = Site::parse(&deployed.url)?.path;
        let execute = format!("/execute/{}", deployed.id);
        let input = json!({"input": {"name": "Ada"}});
        let target = |how: &str, request| Target {
            name: format!("{} {how} ({})", sample.name, deployed.sandbox),
            site: server.site.clone(),
            request,
            tree: Some(server.tree()),
        };
        targets.push(target("/execute", server.request("POST", &execute, Some(&input))));
        targets.push(target("/fn", server.request("GET", &by_url, None)));
    }
    Ok(targets)
}

pub fn measure(target: &Target, options: &Options) -> Result<Warm> {
    let warm_up = Duration::from_secs_f64(options.seconds.min(1.0));
    let first = load::saturate(&target.site, &target.request, options.connections, warm_up)?;
    ensure!(
        first.answers > 0,
        "nothing but refusals: {}",
        first.first_refusal.unwrap_or_default()
    );
    let single = load::single(&target.site, &target.request, options.single)?;

    settle(target)?;
    let cpu_before = target.tree.map(Tree::cpu).transpose()?;
    let time = Duration::from_secs_f64(options.seconds);
    let saturated = load::saturate(&target.site, &target.request, options.connections, time)?;
    // What the answers left to do is part of their price.
    settle(target)?;
    let cpu_after = target.tree.map(Tree::cpu).transpose()?;
    let cpu_s = cpu_before
        .zip(cpu_after)
        .map(|(before, after)| after.saturating_sub(before).as_secs_f64());
    Ok(Warm {
        target: target.name.clone(),
        p50_us: single.us(0.5),
        p95_us: single.us(0.95),
        p99_us: single.us(0.99),
        requests_per_s: saturated.answers as f64 / saturated.elapsed.as_secs_f64(),
        saturated_p50_us: saturated.latencies.us(0.5),
        saturated_p99_us: saturated.latencies.us(0.99),
        requests: saturated.answers,
        refused: saturated.refused,
        first_refusal: saturated.first_refusal,
        cpu_s,
        requests_per_cpu_s: cpu_s.filter(|cpu| *cpu > 0.0).map(|cpu| saturated.answers as f64 / cpu),
        processes: target.tree.map(Tree::processes).transpose()?,
        memory_bytes: target.tree.map(Tree::memory_bytes).transpose()?,
    })
}

/// Waits until the target's work behind the answers (settlement) is done, so that its CPU time falls to whom it belongs.
fn settle(target: &Target) -> Result<()> {
    let Some(tree) = target.tree else { return Ok(()) };
    let (slice, until) = (Duration::from_millis(250), Instant::now() + Duration::from_secs(8));
    let mut before = tree.cpu()?;
    while Instant::now() < until {
        std::thread::sleep(slice);
        let after = tree.cpu()?;
        if after.saturating_sub(before) < slice / 10 {
            return Ok(());
        }
        before = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::floors::NodeServer;

    #[test]
    fn a_real_server_is_measured_with_the_cpu_time_of_its_process() {
        if std::process::Command::new("node").arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "node is missing and CI must not skip");
            eprintln!("SKIPPED: node is not here");
            return;
        }
        let options = Options::parse_from(["bench", "--seconds", "0.5", "--single", "200", "--connections", "4"]);
        let node = NodeServer::start().expect("starts");
        let warm = measure(&node.target(), &options).expect("measures");
        assert_eq!((warm.refused, warm.first_refusal), (0, None));
        assert!(warm.requests > 100 && warm.p50_us > 1.0 && warm.p50_us <= warm.p99_us);
        let cpu_s = warm.cpu_s.expect("its process is known");
        assert!(cpu_s > 0.0 && cpu_s < 10.0, "{cpu_s}");
        assert!(warm.memory_bytes.expect("known") > 10 << 20);
    }

    #[test]
    fn a_peer_is_a_name_with_a_url_and_perhaps_a_process() {
        let bare = peer("other=http://127.0.0.1:8080/hello?x=1").expect("parses");
        assert_eq!(
            (bare.name.as_str(), bare.site.path.as_str(), bare.tree),
            ("peer: other", "/hello?x=1", None)
        );
        assert_eq!(
            peer("other=http://127.0.0.1:8080,77").expect("parses").tree,
            Some(Tree(77))
        );
        for text in ["other", "other=ftp://127.0.0.1", "other=http://127.0.0.1:8080,x"] {
            assert!(peer(text).is_err(), "{text}");
        }
    }
}
