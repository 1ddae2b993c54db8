//! What a call requested from the network, and whether it was allowed: lines for the job's logs, each written once.

use std::{collections::BTreeSet, fmt::Write as _};

/// Different lines of one call.
const LINES_MAX: usize = 100;

/// The lines of one call.
#[derive(Default)]
pub(crate) struct Log {
    lines: Vec<String>,
    said: BTreeSet<String>,
    cut: bool,
    connections: u64,
}

impl Log {
    pub(crate) fn say(&mut self, what: &str, verdict: &str) {
        let line = format!("[network] {what}: {verdict}");
        if self.said.contains(&line) {
            return;
        }
        if self.lines.len() >= LINES_MAX {
            self.cut = true;
            return;
        }
        self.said.insert(line.clone());
        self.lines.push(line);
    }

    pub(crate) fn connected(&mut self, what: &str) {
        self.connections += 1;
        self.say(what, "allowed");
    }

    /// Each line, and what was moved in all; empty if nothing was asked for.
    pub(crate) fn tell(&self, bytes: u64) -> String {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        if self.cut {
            text.push_str("[network] further lines were left out\n");
        }
        if self.connections > 0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "[network] {bytes} bytes in {} connections", self.connections);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_said_once_and_all_are_bounded() {
        let mut log = Log::default();
        assert_eq!(log.tell(0), "");
        log.connected("a.example.com:443");
        log.connected("a.example.com:443");
        assert_eq!(
            log.tell(7),
            "[network] a.example.com:443: allowed\n[network] 7 bytes in 2 connections\n"
        );
        for number in 0..10 * LINES_MAX {
            log.say(&format!("h{number}.example.com"), "refused");
        }
        let text = log.tell(7);
        assert_eq!(text.lines().count(), LINES_MAX + 2);
        assert!(text.contains("left out"));
    }
}
