//! Bounds the log: what strangers can make the program say again and again is said a bounded number of times.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use tracing::{Event, Subscriber, callsite::Identifier};
use tracing_subscriber::layer::{Context, Layer};

/// Lines of one place in the program within [`WINDOW`]. Some 4 KB a second at the usual length: 350 MB a day for each place
/// that is flooded.
const LINES_MAX: u32 = 200;
const WINDOW: Duration = Duration::from_secs(10);

struct Place {
    since: Instant,
    lines: u32,
}

/// Leaves out what one place in the program says too often; how much it was is said when the window is over.
#[derive(Default)]
pub struct Flood(Mutex<HashMap<Identifier, Place>>);

impl Flood {
    /// Whether one more line is written; and how many of the window before were not.
    fn count(&self, place: Identifier, now: Instant) -> (bool, u32) {
        let mut places = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = places.entry(place).or_insert(Place { since: now, lines: 0 });
        let mut left_out = 0;
        if now.saturating_duration_since(known.since) >= WINDOW {
            left_out = known.lines.saturating_sub(LINES_MAX);
            *known = Place { since: now, lines: 0 };
        }
        known.lines = known.lines.saturating_add(1);
        (known.lines <= LINES_MAX, left_out)
    }
}

impl<S: Subscriber> Layer<S> for Flood {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let (is_written, left_out) = self.count(metadata.callsite(), Instant::now());
        if left_out > 0 {
            eprintln!(
                "{} more lines like the next one of {} were left out",
                left_out,
                metadata.target()
            );
        }
        is_written
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_repeats_is_cut_and_counted() {
        let written = Written::default();
        let into = written.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || into.clone()).finish();
        tracing::subscriber::with_default(subscriber.with(Flood::default()), || {
            for number in 0..3 * LINES_MAX {
                tracing::warn!(number, "again");
            }
            tracing::warn!("another place");
        });
        let text = String::from_utf8(written.0.lock().expect("no panics").clone()).expect("text");
        assert_eq!(text.matches("again").count(), LINES_MAX as usize);
        assert_eq!(text.matches("another place").count(), 1);
    }

    #[test]
    fn after_a_while_it_is_said_again_with_how_much_was_left_out() {
        let (flood, now) = (Flood::default(), Instant::now());
        let place = tracing::callsite!(name: "a place", kind: tracing::metadata::Kind::EVENT, fields: );
        let place = tracing::callsite::Callsite::metadata(place).callsite();
        for _ in 0..LINES_MAX {
            assert_eq!(flood.count(place.clone(), now), (true, 0));
        }
        for _ in 0..5 {
            assert_eq!(flood.count(place.clone(), now), (false, 0));
        }
        assert_eq!(flood.count(place, now + WINDOW), (true, 5));
    }
}
