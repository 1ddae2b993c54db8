//! How long to wait after a failure.

use std::time::Duration;

/// Authorities count refused proofs: the best known one takes five an hour for a name. This makes four in the first hour.
const AFTER_REFUSAL: Duration = Duration::from_secs(300);
/// The network may be a moment away, as after the start of a machine.
const AFTER_FAILURE: Duration = Duration::from_secs(15);
const MOST: Duration = Duration::from_secs(6 * 3_600);

/// After so many failures before this one.
pub fn pause(is_refusal: bool, failures: u32) -> Duration {
    let first = match is_refusal {
        true => AFTER_REFUSAL,
        false => AFTER_FAILURE,
    };
    // Beyond it the longest pause is reached.
    first.saturating_mul(1 << failures.min(16)).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_proofs_stay_below_what_authorities_count() {
        let mut at = Duration::ZERO;
        let mut in_the_first_hour = 0;
        for failures in 0.. {
            if at >= Duration::from_secs(3_600) {
                break;
            }
            in_the_first_hour += 1;
            at += pause(true, failures);
        }
        assert_eq!(in_the_first_hour, 4);
        assert_eq!(pause(true, u32::MAX), MOST);
        assert_eq!(pause(false, 0), AFTER_FAILURE);
    }
}
