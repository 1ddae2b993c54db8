//! Counters for Prometheus.

use std::sync::atomic::AtomicU64;

use piecework_model::{BackendName, Language};
use piecework_serve::requests::Requests;
use piecework_store::Job;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct JobLabels {
    sandbox: &'static str,
    language: &'static str,
    state: &'static str,
}

pub(crate) struct Telemetry {
    jobs: Family<JobLabels, Counter>,
    cold: Counter,
    duration: Histogram,
    queued: Histogram,
    pull: Histogram,
    /// From a result's arrival to the block that paid for it.
    pub(crate) billed: Histogram,
    cpu_s: Counter<f64, AtomicU64>,
    price_ucr: Counter,
    pub(crate) receipts_refused: Counter,
    pub(crate) receipts_held: Counter,
    pub(crate) mismatches: Counter,
    pub(crate) settled: Counter,
    pub(crate) settlements_failed: Counter,
    pub(crate) paid: Counter,
    pub(crate) results_delivered: Counter,
    pub(crate) results_undelivered: Counter,
    pub(crate) requests: Requests,
    pub(crate) alerts_unheard: Counter,
}

/// 50 us to 27 minutes.
fn time_buckets() -> impl Iterator<Item = f64> {
    exponential_buckets(0.000_05, 2.0, 25)
}

/// As requests are counted.
fn route_class(path: &str) -> &'static str {
    match path.split('/').nth(1).unwrap_or_default() {
        "execute" => "execute",
        "fn" | "r" => OF_A_FUNCTION,
        "functions" | "triggers" | "routes" => "functions",
        "jobs" => "jobs",
        "accounts" | "account" | "sessions" | "tokens" | "invites" | "audit" => "accounts",
        "transfers" | "statement" | "deposits" | "withdrawals" | "leases" | "held" | "offers" | "providers" => "money",
        "ledger" => "ledger",
        "metrics" => "metrics",
        "events" => "events",
        "link" => "link",
        "healthz" | "readyz" => "health",
        "portal" => "portal",
        _ => "other",
    }
}

/// A function's own URL.
pub(crate) const OF_A_FUNCTION: &str = "function";

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            jobs: Family::default(),
            cold: Counter::default(),
            duration: Histogram::new(time_buckets()),
            queued: Histogram::new(time_buckets()),
            pull: Histogram::new(time_buckets()),
            billed: Histogram::new(time_buckets()),
            cpu_s: Counter::default(),
            price_ucr: Counter::default(),
            receipts_refused: Counter::default(),
            receipts_held: Counter::default(),
            mismatches: Counter::default(),
            settled: Counter::default(),
            settlements_failed: Counter::default(),
            paid: Counter::default(),
            results_delivered: Counter::default(),
            results_undelivered: Counter::default(),
            requests: Requests::new(route_class),
            alerts_unheard: Counter::default(),
        }
    }
}

impl Telemetry {
    pub(crate) fn count(&self, language: Language, job: &Job) {
        let labels = JobLabels {
            sandbox: job.backend.map_or("", BackendName::as_str),
            language: language.as_str(),
            state: job.state.as_str(),
        };
        self.jobs.get_or_create(&labels).inc();
        if job.cold {
            self.cold.inc();
        }
        self.duration.observe(job.duration_us as f64 / 1e6);
        self.queued.observe(job.queued_us as f64 / 1e6);
        self.pull.observe(job.pull_us as f64 / 1e6);
        self.cpu_s.inc_by(job.counters.cpu_us as f64 / 1e6);
        self.price_ucr.inc_by(job.price_ucr);
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        self.requests.register(registry);
        registry.register(
            "alerts_unheard",
            "Attempts to tell operators that a webhook or command did not take",
            self.alerts_unheard.clone(),
        );
        registry.register("jobs", "Jobs that ended", self.jobs.clone());
        registry.register("cold_starts", "Jobs that no instance waited for", self.cold.clone());
        registry.register("job_duration_seconds", "Wall time of handlers", self.duration.clone());
        registry.register(
            "job_queued_seconds",
            "From arrival to the start on a provider",
            self.queued.clone(),
        );
        registry.register(
            "job_pull_seconds",
            "Fetching and loading code, never billed",
            self.pull.clone(),
        );
        registry.register(
            "job_billed_seconds",
            "From a result's arrival to its payment",
            self.billed.clone(),
        );
        registry.register("job_cpu_seconds", "CPU time of jobs", self.cpu_s.clone());
        registry.register("job_price_ucr", "Prices of jobs", self.price_ucr.clone());
        registry.register(
            "receipts_refused",
            "Receipts that did not pass the check",
            self.receipts_refused.clone(),
        );
        registry.register(
            "receipts_held",
            "Receipts that stood out and waited for a decision",
            self.receipts_held.clone(),
        );
        registry.register(
            "mismatches_reported",
            "Contradictions between two runs put on the ledger",
            self.mismatches.clone(),
        );
        registry.register("jobs_settled", "Jobs in final settlements", self.settled.clone());
        registry.register(
            "settlements_failed",
            "Settlements to be tried again",
            self.settlements_failed.clone(),
        );
        registry.register("jobs_paid", "Jobs that the ledger paid", self.paid.clone());
        registry.register(
            "results_delivered",
            "Results that their sinks have",
            self.results_delivered.clone(),
        );
        registry.register(
            "results_undelivered",
            "Results given up on, which stay with their jobs",
            self.results_undelivered.clone(),
        );
    }
}
