//! Moments as they are written.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 before.
pub fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whole_milliseconds_count_and_there_is_none_before_1970() {
        let span = Duration::from_micros(1_999);
        assert_eq!(unix_ms(UNIX_EPOCH + span), 1);
        assert_eq!(unix_ms(UNIX_EPOCH - span), 0);
    }
}
