//! `piecework bench`: the sandboxes of this machine side by side.

mod figures;
mod measure;
mod report;
mod wall;

use std::path::PathBuf;

use piecework_model::Language;
use piecework_sandbox::BackendName;

use self::{measure::Plan, report::Report};
use crate::{compose, failure::Failure, show, units};

/// Compare the sandboxes of this machine: cold and warm calls, throughput, CPU and memory, with the fastest possible cold start beside each
///
/// Figures depend on how busy the machine is. Two sandboxes that turn out to be the same are refused.
#[derive(Debug, clap::Args)]
pub struct Bench {
    /// Sandbox to measure: wasm, jail, oci, gvisor or docker; may be repeated [default: all that work here]
    #[arg(long, value_name = "NAME", value_parser = units::noun::<BackendName>)]
    sandbox: Vec<BackendName>,
    /// Language to measure: python or javascript; may be repeated [default: both]
    #[arg(long, value_name = "LANGUAGE", value_parser = units::noun::<Language>)]
    language: Vec<Language>,
    /// Cold calls, each in a new instance
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    cold: u32,
    /// Warm calls of one instance, one after the other
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(3..=1_000_000))]
    warm: u32,
    /// Seconds of calls on all cores at once
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// File for the raw figures as comma-separated values
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

impl Bench {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let plan = Plan {
            cold: self.cold,
            warm: self.warm,
            seconds: self.seconds,
            languages: match self.language.is_empty() {
                true => Language::ALL.to_vec(),
                false => self.language,
            },
        };
        eprintln!("testing the sandboxes");
        let all = compose::backends(None, compose::Probing::Anew).await;
        let asked = |name: BackendName| self.sandbox.is_empty() || self.sandbox.contains(&name);
        for name in &self.sandbox {
            let found = all.iter().find(|(backend, _)| backend.name() == *name);
            let detail = found.map_or_else(|| compose::microvm().detail, |(_, probe)| probe.detail.clone());
            if !found.is_some_and(|(_, probe)| probe.works) {
                return Err(Failure::usage(format!(
                    "the sandbox `{name}` does not work here: {detail}"
                )));
            }
        }
        let subjects: Vec<_> = all
            .into_iter()
            .filter(|(backend, probe)| probe.works && asked(backend.name()))
            .collect();
        if subjects.is_empty() {
            return Err(Failure::usage(
                "no sandbox works here; run `piecework doctor` to see why",
            ));
        }
        let report = Report::new(measure::all(&plan, &subjects).await.map_err(Failure::Local)?);
        if let Some(path) = &self.csv {
            let written = std::fs::write(path, report.csv());
            written.map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))?;
        }
        match json {
            true => show::json(&report),
            false => show::text(&report.to_string()),
        }
    }
}
