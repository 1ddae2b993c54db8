//! Counters for Prometheus.

use std::sync::atomic::AtomicU64;

use piecework_store::{Job, JobState};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::{Controller, functions::Live};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct JobLabels {
    sandbox: String,
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
    cpu_us: Counter,
    price_ucr: Counter,
    pub(crate) receipts_refused: Counter,
    pub(crate) receipts_held: Counter,
    pub(crate) mismatches: Counter,
    pub(crate) settled: Counter,
    pub(crate) settlements_failed: Counter,
    pub(crate) paid: Counter,
    pub(crate) results_delivered: Counter,
    pub(crate) results_undelivered: Counter,
}

/// 50 us to 27 minutes.
fn time_buckets() -> impl Iterator<Item = f64> {
    exponential_buckets(0.000_05, 2.0, 25)
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            jobs: Family::default(),
            cold: Counter::default(),
            duration: Histogram::new(time_buckets()),
            queued: Histogram::new(time_buckets()),
            pull: Histogram::new(time_buckets()),
            billed: Histogram::new(time_buckets()),
            cpu_us: Counter::default(),
            price_ucr: Counter::default(),
            receipts_refused: Counter::default(),
            receipts_held: Counter::default(),
            mismatches: Counter::default(),
            settled: Counter::default(),
            settlements_failed: Counter::default(),
            paid: Counter::default(),
            results_delivered: Counter::default(),
            results_undelivered: Counter::default(),
        }
    }
}

fn state_label(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::TimedOut => "timed_out",
        JobState::Cancelled => "cancelled",
        JobState::Expired => "expired",
    }
}

impl Telemetry {
    pub(crate) fn count(&self, live: &Live, job: &Job) {
        let labels = JobLabels {
            sandbox: job.backend.clone(),
            language: live.version.language.as_str(),
            state: state_label(job.state),
        };
        self.jobs.get_or_create(&labels).inc();
        if job.cold {
            self.cold.inc();
        }
        self.duration.observe(job.duration_us as f64 / 1e6);
        self.queued.observe(job.queued_us as f64 / 1e6);
        self.pull.observe(job.pull_us as f64 / 1e6);
        self.cpu_us.inc_by(job.counters.cpu_us);
        self.price_ucr.inc_by(job.price_ucr);
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<u64, AtomicU64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

/// The Prometheus text of this moment.
pub(crate) fn prometheus_text(controller: &Controller) -> String {
    let telemetry = &controller.telemetry;
    let mut registry = Registry::with_prefix("piecework");
    registry.register("jobs", "Jobs that ended", telemetry.jobs.clone());
    registry.register(
        "cold_starts",
        "Jobs that no instance waited for",
        telemetry.cold.clone(),
    );
    registry.register(
        "job_duration_seconds",
        "Wall time of handlers",
        telemetry.duration.clone(),
    );
    registry.register(
        "job_queued_seconds",
        "From arrival to the start on a provider",
        telemetry.queued.clone(),
    );
    registry.register(
        "job_pull_seconds",
        "Fetching and loading code, never billed",
        telemetry.pull.clone(),
    );
    registry.register(
        "job_billed_seconds",
        "From a result's arrival to its payment",
        telemetry.billed.clone(),
    );
    registry.register("job_cpu_microseconds", "CPU time of jobs", telemetry.cpu_us.clone());
    registry.register("job_price_ucr", "Prices of jobs", telemetry.price_ucr.clone());
    registry.register(
        "receipts_refused",
        "Receipts that did not pass the check",
        telemetry.receipts_refused.clone(),
    );
    registry.register(
        "receipts_held",
        "Receipts that stood out and waited for a decision",
        telemetry.receipts_held.clone(),
    );
    registry.register(
        "mismatches_reported",
        "Contradictions between two runs put on the ledger",
        telemetry.mismatches.clone(),
    );
    registry.register("jobs_settled", "Jobs in final settlements", telemetry.settled.clone());
    registry.register(
        "settlements_failed",
        "Settlements to be tried again",
        telemetry.settlements_failed.clone(),
    );
    registry.register("jobs_paid", "Jobs that the ledger paid", telemetry.paid.clone());
    registry.register(
        "results_delivered",
        "Results that their sinks have",
        telemetry.results_delivered.clone(),
    );
    registry.register(
        "results_undelivered",
        "Results given up on, which stay with their jobs",
        telemetry.results_undelivered.clone(),
    );
    let lag = controller.store.lag();
    let status = controller.chain.status();
    gauge(
        &mut registry,
        "jobs_inflight",
        "Jobs on their way",
        controller.inflight.len() as u64,
    );
    gauge(
        &mut registry,
        "jobs_queued",
        "Accepted jobs that wait or run",
        controller.queue.len() as u64,
    );
    gauge(
        &mut registry,
        "jobs_in_line",
        "Jobs that wait for a slot",
        controller.fair.waiting() as u64,
    );
    gauge(
        &mut registry,
        "outbox_receipts",
        "Receipts that wait for their settlement",
        controller.outbox.len() as u64,
    );
    gauge(
        &mut registry,
        "journal_jobs",
        "Jobs in the journal and not in the tables yet",
        lag.jobs,
    );
    gauge(
        &mut registry,
        "ledger_height",
        "Height of the last final block",
        status.height,
    );
    gauge(
        &mut registry,
        "ledger_queued",
        "Transactions that wait for a block",
        u64::from(status.queued),
    );
    let disk = controller.disk.reading();
    gauge(
        &mut registry,
        "disk_free_bytes",
        "Free bytes of the disk with the data that is nearest to its end",
        disk.free_bytes,
    );
    gauge(
        &mut registry,
        "disk_level",
        "0 ample, 1 low, 2 reserved: new work and data are refused",
        disk.level as u64,
    );
    let all = controller.providers.all();
    let (instances, running) = all.iter().fold((0, 0), |(instances, running), seen| {
        let load = seen.link.load();
        (instances + u64::from(load.instances), running + u64::from(load.running))
    });
    gauge(&mut registry, "warm_instances", "Idle instances", instances);
    gauge(
        &mut registry,
        "running_instances",
        "Instances that serve a job",
        running,
    );
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes every write");
    text
}
