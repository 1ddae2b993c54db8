//! How often instances of one version may be started anew after they ended badly: each start takes the machine more than a call does,
//! and nobody pays for it.

use std::time::{Duration, Instant};

/// What one instance that ended badly costs its version: 20 of them a second.
const COST: Duration = Duration::from_millis(50);
/// So much may be owed before a start has to wait: ten in one moment.
const OWED_MAX: Duration = Duration::from_millis(500);

/// A debt that time pays off.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crashes {
    paid_at: Option<Instant>,
}

impl Crashes {
    pub(super) fn note(&mut self, now: Instant) {
        let paid_at = self.paid_at.map_or(now, |at| at.max(now));
        // However many end at once, the next start waits no longer than for twice what may be owed.
        self.paid_at = Some((paid_at + COST).min(now + 2 * OWED_MAX));
    }

    /// Before the next instance is started.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let owed = self
            .paid_at
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        owed.saturating_sub(OWED_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_keeps_crashing_starts_at_a_bounded_rate() {
        let (mut crashes, begun) = (Crashes::default(), Instant::now());
        let mut now = begun;
        for _ in 0..100 {
            now += crashes.wait(now);
            crashes.note(now);
        }
        let took = now - begun;
        assert!(took >= COST * 85, "{took:?}");
        assert_eq!(crashes.wait(now + 2 * OWED_MAX), Duration::ZERO, "it is forgotten");
    }

    #[test]
    fn a_few_crashes_delay_nobody() {
        let (mut crashes, now) = (Crashes::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(crashes.wait(now), Duration::ZERO);
            crashes.note(now);
        }
        for _ in 0..1_000 {
            crashes.note(now);
        }
        assert_eq!(crashes.wait(now), OWED_MAX, "and many delay the next by half a second");
    }
}
