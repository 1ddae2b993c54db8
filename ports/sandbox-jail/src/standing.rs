//! What this process has started and has to take down before it ends: processes beside it, and their control groups.
//!
//! It is dropped by whatever thread held it last, and a process that ends meanwhile would leave the rest behind.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

static STANDING: AtomicUsize = AtomicUsize::new(0);
const LOOK: Duration = Duration::from_millis(2);

/// Counts as long as it lives: the last field of what takes something down when it is dropped.
pub(crate) struct Stands(());

impl Stands {
    pub(crate) fn new() -> Self {
        STANDING.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Stands {
    fn drop(&mut self) {
        STANDING.fetch_sub(1, Ordering::Release);
    }
}

/// Waits until nothing stands any more, at most for so long. Whether that is so.
pub fn all_ended(within: Duration) -> bool {
    let begun = Instant::now();
    while STANDING.load(Ordering::Acquire) > 0 {
        if begun.elapsed() >= within {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}
