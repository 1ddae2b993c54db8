//! Metrics against the jobs they are made of.

use std::collections::BTreeMap;

use piecework_model::FunctionId;

use super::samples::{self, unique};
use piecework_store::{HOURS_KEPT_MS, Job, JobState, MINUTES_KEPT_MS, MetricScope, Point, Store};

const STATES: [JobState; 5] = [
    JobState::Succeeded,
    JobState::Failed,
    JobState::TimedOut,
    JobState::Cancelled,
    JobState::Expired,
];

/// Jobs over three days, spread by a fixed but irregular rule.
fn irregular(function: FunctionId, count: u64) -> Vec<Job> {
    let job = |index: u64| {
        let scatter = u64::from_le_bytes(samples::digest(index).0[..8].try_into().expect("eight bytes"));
        let mut job = samples::finished(unique(), function, samples::account(1));
        job.created_at_ms = samples::START_MS + scatter % (3 * 86_400_000);
        job.state = STATES[(scatter % 5) as usize];
        job.duration_us = scatter % 5_000_000;
        job
    };
    (0..count).map(job).collect()
}

/// The sums of a step, computed from the jobs; quantiles exactly.
pub fn raw_points(jobs: &[Job], step_ms: u64) -> Vec<Point> {
    let mut by_start: BTreeMap<u64, Vec<&Job>> = BTreeMap::new();
    for job in jobs {
        by_start
            .entry(job.created_at_ms - job.created_at_ms % step_ms)
            .or_default()
            .push(job);
    }
    by_start
        .into_iter()
        .map(|(start_ms, jobs)| raw_point(start_ms, &jobs))
        .collect()
}

fn raw_point(start_ms: u64, jobs: &[&Job]) -> Point {
    let mut durations: Vec<u64> = jobs.iter().map(|job| job.duration_us).collect();
    durations.sort_unstable();
    let quantile = |per_cent: usize| durations[(durations.len() * per_cent).div_ceil(100).max(1) - 1];
    let is_error = |job: &&&Job| matches!(job.state, JobState::Failed | JobState::TimedOut | JobState::Expired);
    Point {
        start_ms,
        count: jobs.len() as u64,
        errors: jobs.iter().filter(is_error).count() as u64,
        cold: jobs.iter().filter(|job| job.cold).count() as u64,
        cpu_us: jobs.iter().map(|job| job.counters.cpu_us).sum(),
        duration_us: durations.iter().sum(),
        price_ucr: jobs.iter().map(|job| job.price_ucr).sum(),
        memory_peak_bytes: jobs.iter().map(|job| job.memory_peak_bytes).max().unwrap_or(0),
        p50_us: quantile(50),
        p95_us: quantile(95),
        p99_us: quantile(99),
    }
}

/// Sums are equal; quantiles within the 1 % that is promised.
pub fn assert_same(found: &[Point], raw: &[Point]) {
    assert_eq!(found.len(), raw.len());
    for (found, raw) in found.iter().zip(raw) {
        let quantiles = |point: &Point| [point.p50_us, point.p95_us, point.p99_us];
        for (near, exact) in quantiles(found).into_iter().zip(quantiles(raw)) {
            assert!(
                near.abs_diff(exact) as f64 <= exact as f64 * 0.01 + 1.0,
                "{near} for {exact}"
            );
        }
        let sums = |point: &Point| Point {
            p50_us: 0,
            p95_us: 0,
            p99_us: 0,
            ..*point
        };
        assert_eq!(sums(found), sums(raw));
    }
}

pub(super) async fn rollups_equal_the_raw_sums(store: &dyn Store) {
    let function = samples::function_id(unique());
    let jobs = irregular(function, 600);
    for (index, job) in jobs.iter().enumerate() {
        store.finish(job.clone()).expect("kept");
        if index % 250 == 0 {
            store.flush().await.expect("filed");
        }
    }
    store.flush().await.expect("filed");
    for step_ms in [60_000, 5 * 60_000, 3_600_000, 6 * 3_600_000, 86_400_000] {
        let points = store
            .points(MetricScope::Function(function), 0, u64::MAX, step_ms)
            .await
            .expect("read");
        assert_same(&points, &raw_points(&jobs, step_ms));
    }
    let (from, to) = (samples::START_MS + 86_400_000, samples::START_MS + 2 * 86_400_000);
    let day = store
        .points(MetricScope::Function(function), from, to, 86_400_000)
        .await
        .expect("read");
    assert_eq!(
        day.iter().map(|point| point.start_ms).collect::<Vec<_>>(),
        [from],
        "the day asked for"
    );
    let system = store
        .points(MetricScope::System, from, to, 86_400_000)
        .await
        .expect("read");
    assert!(
        system[0].count >= day[0].count,
        "the system's points hold every function's"
    );
}

/// The sums of the versions are the function's.
pub(super) async fn each_version_has_its_own_rollups(store: &dyn Store) {
    let function = samples::function_id(unique());
    let jobs = irregular(function, 60);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (index, job) in jobs.into_iter().enumerate() {
        let version = 1 + u32::try_from(index % 2).expect("small");
        let job = Job { version, ..job };
        store.finish(job.clone()).expect("kept");
        if version == 1 {
            first.push(job)
        } else {
            second.push(job)
        }
    }
    store.flush().await.expect("filed");
    for (version, jobs) in [(1, &first), (2, &second)] {
        let scope = MetricScope::Version(function, version);
        let points = store.points(scope, 0, i64::MAX as u64, 86_400_000).await.expect("read");
        assert_same(&points, &raw_points(jobs, 86_400_000));
    }
    let scope = MetricScope::Version(function, 3);
    assert_eq!(
        store.points(scope, 0, i64::MAX as u64, 86_400_000).await.expect("read"),
        []
    );
}

/// To be run last: it takes the minutes of everybody's jobs.
pub(super) async fn minutes_go_after_a_month_and_days_stay(store: &dyn Store) {
    let function = samples::function_id(unique());
    let jobs = irregular(function, 40);
    for job in &jobs {
        store.finish(job.clone()).expect("kept");
    }
    store.flush().await.expect("filed");
    let points = async |step_ms| {
        let points = store.points(MetricScope::Function(function), 0, i64::MAX as u64, step_ms);
        points.await.expect("read")
    };
    let minutes = points(60_000).await;
    store
        .prune_points(samples::START_MS + MINUTES_KEPT_MS)
        .await
        .expect("pruned");
    assert_eq!(points(60_000).await, minutes, "they are not that old");
    let pruned = store
        .prune_points(samples::START_MS + 4 * 86_400_000 + MINUTES_KEPT_MS)
        .await;
    assert!(pruned.expect("pruned") >= minutes.len() as u64);
    assert_eq!(points(60_000).await, []);
    assert_same(&points(3_600_000).await, &raw_points(&jobs, 3_600_000));
    store
        .prune_points(samples::START_MS + 4 * 86_400_000 + HOURS_KEPT_MS)
        .await
        .expect("pruned");
    assert_eq!(points(3_600_000).await, []);
    assert_same(&points(86_400_000).await, &raw_points(&jobs, 86_400_000));
}
