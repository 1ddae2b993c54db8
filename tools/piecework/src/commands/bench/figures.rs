//! What repeated measurements say: median, percentiles and how sure the median is.

use serde::Serialize;

/// One measure of one sandbox, with every value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    pub(super) unit: &'static str,
    pub(super) n: usize,
    pub(super) median: f64,
    /// The interval that holds the true median with a probability of 95 % or more, by the ranks of the values: no shape of their
    /// distribution is assumed.
    pub(super) median_ci95: [f64; 2],
    pub(super) p95: f64,
    pub(super) p99: f64,
    /// In the order of measurement.
    pub(super) raw: Vec<f64>,
}

/// Two-sided, of the normal distribution.
const Z_95: f64 = 1.96;

impl Figures {
    /// `None` of nothing.
    pub(super) fn of(unit: &'static str, raw: Vec<f64>) -> Option<Self> {
        let mut sorted = raw.clone();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let last = n.checked_sub(1)?;
        let at = |share: f64| sorted[rank(share * n as f64, last)];
        let spread = Z_95 * (n as f64).sqrt() / 2.0;
        let middle = n as f64 / 2.0;
        let low = sorted[((middle - spread).floor().max(0.0) as usize).min(last)];
        let high = sorted[((middle + spread).ceil() as usize).min(last)];
        Some(Self {
            unit,
            n,
            median: at(0.5),
            median_ci95: [low, high],
            p95: at(0.95),
            p99: at(0.99),
            raw,
        })
    }
}

/// The nearest rank, from 0.
fn rank(position: f64, last: usize) -> usize {
    (position.ceil().max(1.0) as usize - 1).min(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let raw: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let figures = Figures::of("ms", raw.clone()).expect("some");
        assert_eq!(
            (figures.n, figures.median, figures.p95, figures.p99),
            (100, 50.0, 95.0, 99.0)
        );
        // Ranks 50 - 9.8 and 50 + 9.8.
        assert_eq!(figures.median_ci95, [41.0, 61.0]);
        assert_eq!(figures.raw, raw);
    }

    #[test]
    fn few_values_give_a_wide_interval_and_none_give_nothing() {
        let figures = Figures::of("us", vec![3.0, 1.0, 2.0]).expect("some");
        assert_eq!((figures.median, figures.median_ci95), (2.0, [1.0, 3.0]));
        assert_eq!(Figures::of("us", Vec::new()), None);
    }
}
