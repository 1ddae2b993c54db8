//! Where time or memory run short on this machine, the platform comes before what strangers run on it.

use std::fs;

use rustix::process::{getpid, setpriority_process};

use super::cores::{threads, unless_gone};

/// The kernel ends guests first (they have 1,000), then other programs, then this one.
const OOM_SCORE_ADJ: &str = "-500";
/// Threads that pass calls on run for microseconds at a time, and are behind nobody while they do.
const NICE: i32 = -5;

/// Best effort: only root may do it, and without it guests still come last.
pub(super) fn come_first() {
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    for thread in threads(getpid()).unwrap_or_default() {
        if unless_gone(setpriority_process(Some(thread), NICE)).is_err() {
            return;
        }
    }
}
