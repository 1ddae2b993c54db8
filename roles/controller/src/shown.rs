//! Single values as the API shows them.

pub(crate) fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}
