//! Cold calls: functions that nobody called yet, and the way from a deployment to its first answer.

use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use crate::{Options, load::Latencies, server::Server, warm::Sample};

#[derive(Debug, Serialize)]
pub struct Cold {
    pub language: &'static str,
    pub functions: usize,
    /// First calls that the server itself called cold.
    pub cold: usize,
    /// The first call of a function that was deployed a while before, microseconds.
    pub first_call_p50_us: f64,
    pub first_call_p95_us: f64,
    pub deploy_p50_us: f64,
    pub deploy_p95_us: f64,
    /// From the request to deploy to the first answer.
    pub deploy_to_answer_p50_us: f64,
    pub deploy_to_answer_p95_us: f64,
}

/// Each function's code differs, so that no two share an instance or a template.
pub fn variant(sample: &Sample, kind: &str, number: usize) -> String {
    let comment = if sample.name == "python" { "#" } else { "//" };
    format!("{comment} {kind} {number}\n{}", sample.code)
}

pub fn measure(server: &Server, sample: &'static Sample, options: &Options) -> Result<Cold> {
    let input = json!({"input": {"name": "Ada"}});
    let mut connection = server.connect()?;
    let (mut deploys, mut ids) = (Vec::new(), Vec::new());
    for number in 0..options.cold {
        let name = format!("cold-{}-{number}", sample.name);
        let request = server.deployment(&name, sample.name, &variant(sample, "cold", number), &options.sandbox);
        let began = Instant::now();
        let view = connection.json(&request).with_context(|| format!("deploy {name}"))?;
        deploys.push(began.elapsed());
        ids.push(view["id"].as_str().context("a deployment has an id")?.to_owned());
    }
    let (mut firsts, mut cold) = (Vec::new(), 0);
    for id in &ids {
        let request = server.request("POST", &format!("/execute/{id}"), Some(&input));
        let began = Instant::now();
        let answer = connection.json(&request).with_context(|| format!("call {id}"))?;
        firsts.push(began.elapsed());
        cold += usize::from(answer["cold"] == true);
    }
    let mut whole = Vec::new();
    for number in 0..options.cold.min(20) {
        let name = format!("first-{}-{number}", sample.name);
        let deployment = server.deployment(&name, sample.name, &variant(sample, "first", number), &options.sandbox);
        let call = server.request("POST", &format!("/execute/{name}"), Some(&input));
        let began = Instant::now();
        connection.json(&deployment).with_context(|| format!("deploy {name}"))?;
        connection.json(&call).with_context(|| format!("call {name}"))?;
        whole.push(began.elapsed());
    }
    let (deploys, firsts, whole) = (Latencies::of(deploys), Latencies::of(firsts), Latencies::of(whole));
    Ok(Cold {
        language: sample.name,
        functions: firsts.count(),
        cold,
        first_call_p50_us: firsts.us(0.5),
        first_call_p95_us: firsts.us(0.95),
        deploy_p50_us: deploys.us(0.5),
        deploy_p95_us: deploys.us(0.95),
        deploy_to_answer_p50_us: whole.us(0.5),
        deploy_to_answer_p95_us: whole.us(0.95),
    })
}
