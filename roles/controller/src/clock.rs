//! The wall clock, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is past 1970");
    u64::try_from(since.as_millis()).expect("milliseconds fit 64 bits for ages")
}

/// For answers: RFC 3339 in UTC.
pub(crate) fn timestamp(unix_ms: u64) -> Timestamp {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}
