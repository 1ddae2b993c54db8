//! Sums and distributions of finished jobs by minute, hour and day.

use std::{collections::BTreeMap, sync::OnceLock};

use hdrhistogram::Histogram;
use piecework_model::FunctionId;

use crate::{Job, MetricScope, Point};

pub(crate) const MINUTE_MS: u64 = 60_000;
pub(crate) const HOUR_MS: u64 = 60 * MINUTE_MS;
pub(crate) const DAY_MS: u64 = 24 * HOUR_MS;
pub(crate) const STEPS_MS: [u64; 3] = [MINUTE_MS, HOUR_MS, DAY_MS];

/// An hour: four times the longest timeout; longer is recorded as this.
const DURATION_US_MAX: u64 = 3_600_000_000;
/// Two significant digits: buckets are at most 1 % wide.
const SIGNIFICANT_DIGITS: u8 = 2;

fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, DURATION_US_MAX, SIGNIFICANT_DIGITS).expect("constant bounds that fit")
}

/// The bucket of a duration, named by the lowest value in it.
fn bucket(duration_us: u64) -> u64 {
    static BUCKETS: OnceLock<Histogram<u64>> = OnceLock::new();
    let buckets = BUCKETS.get_or_init(empty_histogram);
    buckets.lowest_equivalent(duration_us.min(DURATION_US_MAX))
}

/// One row of the rollups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RollupKey {
    pub(crate) scope: MetricScope,
    pub(crate) step_ms: u64,
    pub(crate) start_ms: u64,
}

impl RollupKey {
    pub(crate) fn scope_bytes(scope: MetricScope) -> Vec<u8> {
        match scope {
            MetricScope::System => Vec::new(),
            MetricScope::Function(FunctionId(bytes)) => bytes.to_vec(),
            MetricScope::Version(FunctionId(bytes), version) => [&bytes[..], &version.to_be_bytes()].concat(),
        }
    }
}

/// Sums saturate: a figure of metrics is never worth a failed transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rollup {
    pub(crate) count: u64,
    pub(crate) errors: u64,
    pub(crate) cold: u64,
    pub(crate) cpu_us: u64,
    pub(crate) duration_us: u64,
    pub(crate) price_ucr: u64,
    pub(crate) memory_peak_bytes: u64,
    /// Jobs by bucket of duration.
    pub(crate) durations: BTreeMap<u64, u64>,
}

impl Rollup {
    pub(crate) fn add(&mut self, job: &Job) {
        self.count += 1;
        self.errors += u64::from(job.state.is_error());
        self.cold += u64::from(job.cold);
        self.cpu_us = self.cpu_us.saturating_add(job.counters.cpu_us);
        self.duration_us = self.duration_us.saturating_add(job.duration_us);
        self.price_ucr = self.price_ucr.saturating_add(job.price_ucr);
        self.memory_peak_bytes = self.memory_peak_bytes.max(job.memory_peak_bytes);
        *self.durations.entry(bucket(job.duration_us)).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.errors += other.errors;
        self.cold += other.cold;
        self.cpu_us = self.cpu_us.saturating_add(other.cpu_us);
        self.duration_us = self.duration_us.saturating_add(other.duration_us);
        self.price_ucr = self.price_ucr.saturating_add(other.price_ucr);
        self.memory_peak_bytes = self.memory_peak_bytes.max(other.memory_peak_bytes);
        for (bucket, count) in &other.durations {
            *self.durations.entry(*bucket).or_default() += count;
        }
    }

    pub(crate) fn point(&self, start_ms: u64) -> Point {
        let mut histogram = empty_histogram();
        for (bucket, count) in &self.durations {
            histogram.saturating_record_n(*bucket, *count);
        }
        Point {
            start_ms,
            count: self.count,
            errors: self.errors,
            cold: self.cold,
            cpu_us: self.cpu_us,
            duration_us: self.duration_us,
            price_ucr: self.price_ucr,
            memory_peak_bytes: self.memory_peak_bytes,
            p50_us: histogram.value_at_quantile(0.50),
            p95_us: histogram.value_at_quantile(0.95),
            p99_us: histogram.value_at_quantile(0.99),
        }
    }

    /// Pairs of bucket (as the difference to the one before) and count, each a LEB128 number.
    pub(crate) fn encode_durations(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.durations.len() * 4);
        let mut before = 0;
        for (bucket, count) in &self.durations {
            push_number(&mut bytes, bucket - before);
            push_number(&mut bytes, *count);
            before = *bucket;
        }
        bytes
    }

    /// `None` if the bytes are not what [`Rollup::encode_durations`] gives.
    pub(crate) fn decode_durations(mut bytes: &[u8]) -> Option<BTreeMap<u64, u64>> {
        let mut durations = BTreeMap::new();
        let mut bucket = 0u64;
        while !bytes.is_empty() {
            bucket = bucket.checked_add(take_number(&mut bytes)?)?;
            durations.insert(bucket, take_number(&mut bytes)?);
        }
        Some(durations)
    }
}

fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The rollups that a finished job belongs to.
pub(crate) fn keys_of(job: &Job) -> impl Iterator<Item = RollupKey> {
    let (created, function, version) = (job.created_at_ms, job.function, job.version);
    STEPS_MS.into_iter().flat_map(move |step_ms| {
        let scopes = [
            MetricScope::System,
            MetricScope::Function(function),
            MetricScope::Version(function, version),
        ];
        scopes.map(|scope| RollupKey {
            scope,
            step_ms,
            start_ms: created - created % step_ms,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_survive_their_encoding() {
        let mut rollup = Rollup::default();
        for duration in [0, 1, 127, 128, 5_000, 1_000_000, DURATION_US_MAX, u64::MAX] {
            rollup.durations.insert(bucket(duration), duration.max(1));
        }
        let decoded = Rollup::decode_durations(&rollup.encode_durations());
        assert_eq!(decoded.as_ref(), Some(&rollup.durations));
        assert_eq!(Rollup::decode_durations(&[0x80]), None, "cut");
    }

    #[test]
    fn quantiles_are_within_one_percent() {
        let mut rollup = Rollup::default();
        for duration in 1..=100_000 {
            *rollup.durations.entry(bucket(duration)).or_default() += 1;
        }
        let point = rollup.point(0);
        for (found, exact) in [
            (point.p50_us, 50_000f64),
            (point.p95_us, 95_000f64),
            (point.p99_us, 99_000f64),
        ] {
            assert!((found as f64 / exact - 1.0).abs() < 0.01, "{found} for {exact}");
        }
    }
}
