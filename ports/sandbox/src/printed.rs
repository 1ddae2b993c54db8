//! What a function printed: bytes in order, cut at a limit, and for each line its level and time.
//!
//! Standard output is `info`, standard error `error`; a line that begins with `<0>` to `<7>` (syslog's severities, as
//! systemd reads them) has that level instead, without the mark. The runners mark what `logging` and `console` print.

use std::time::SystemTime;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// How serious a line is.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    BorshSerialize,
    BorshDeserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

impl LogLevel {
    fn of_severity(digit: u8) -> Option<Self> {
        match digit {
            b'0'..=b'3' => Some(Self::Error),
            b'4' => Some(Self::Warn),
            b'5' | b'6' => Some(Self::Info),
            b'7' => Some(Self::Debug),
            _ => None,
        }
    }
}

/// One line of the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct LogLine {
    /// Unix milliseconds at which its first byte came.
    pub at_ms: u64,
    pub level: LogLevel,
}

/// Logs as they are handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Logs {
    /// Valid UTF-8, without the marks of levels.
    pub text: String,
    /// One for each of `text.lines()`.
    pub lines: Vec<LogLine>,
}

/// Collects what one instance prints, from call to call.
#[derive(Debug)]
pub struct Printed {
    bytes: Vec<u8>,
    bytes_max: usize,
    /// Where each line begins, when it came, and the level of its stream.
    starts: Vec<(usize, LogLine)>,
    /// What did not fit.
    dropped_bytes: u64,
}

/// Lines are kept while they have so many bytes on average: each costs more than its text.
const BYTES_PER_LINE: usize = 8;
/// And so many in any case.
const LINES_MIN: usize = 1_000;

impl Printed {
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes: Vec::new(),
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            starts: Vec::new(),
            dropped_bytes: 0,
        }
    }

    /// Adds what came of a stream; `level` is the stream's. A line that another stream has begun is ended before.
    pub fn append(&mut self, level: LogLevel, bytes: &[u8]) {
        let other = self.starts.last().is_some_and(|(_, line)| line.level != level);
        if other && self.is_inside_a_line() {
            self.append_as(level, b"\n");
        }
        self.append_as(level, bytes);
    }

    fn is_inside_a_line(&self) -> bool {
        self.bytes.last().is_some_and(|byte| *byte != b'\n')
    }

    fn append_as(&mut self, level: LogLevel, bytes: &[u8]) {
        let lines_max = LINES_MIN.max(self.bytes_max / BYTES_PER_LINE);
        let room = match self.starts.len() < lines_max {
            true => self.bytes_max - self.bytes.len(),
            false => 0,
        };
        let mut fits = &bytes[..bytes.len().min(room)];
        let line = LogLine { at_ms: now_ms(), level };
        let mut begins = !self.is_inside_a_line();
        for (index, byte) in fits.iter().enumerate() {
            if begins && self.starts.len() == lines_max {
                fits = &fits[..index];
                break;
            }
            if begins {
                self.starts.push((self.bytes.len() + index, line));
            }
            begins = *byte == b'\n';
        }
        self.bytes.extend_from_slice(fits);
        self.dropped_bytes += (bytes.len() - fits.len()) as u64;
    }

    /// Whether these bytes were printed.
    pub fn contains(&self, bytes: &[u8]) -> bool {
        self.bytes.windows(bytes.len()).any(|window| window == bytes)
    }

    /// Everything since the last time, with a marker where it was cut; what is not UTF-8 becomes U+FFFD.
    pub fn take(&mut self) -> Logs {
        if self.bytes.is_empty() {
            return Logs::default();
        }
        let bytes = std::mem::take(&mut self.bytes);
        let starts = std::mem::take(&mut self.starts);
        let mut dropped_bytes = std::mem::take(&mut self.dropped_bytes);
        let mut logs = Logs::default();
        for (index, (start, line)) in starts.iter().enumerate() {
            let end = starts.get(index + 1).map_or(bytes.len(), |(next, _)| *next);
            let (level, rest) = marked(&bytes[*start..end], line.level);
            let rest = if dropped_bytes > 0 && end == bytes.len() {
                whole(rest)
            } else {
                rest
            };
            let text = String::from_utf8_lossy(rest);
            // A replacement is longer than what it replaces.
            if logs.text.len() + text.len() > self.bytes_max {
                dropped_bytes += (bytes.len() - start) as u64;
                break;
            }
            logs.text.push_str(&text);
            logs.lines.push(LogLine { level, ..*line });
        }
        if dropped_bytes > 0 {
            logs.mark_cut(self.bytes_max, dropped_bytes);
        }
        logs
    }
}

impl Logs {
    /// Adds what the platform itself has to say, beyond the limit of what the function prints.
    pub fn add(&mut self, level: LogLevel, text: &str) {
        if !self.text.is_empty() && !self.text.ends_with('\n') && !text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text);
        let at_ms = now_ms();
        self.lines.resize(self.text.lines().count(), LogLine { at_ms, level });
    }

    fn mark_cut(&mut self, bytes_max: usize, dropped_bytes: u64) {
        let at_ms = self.lines.last().map_or(0, |line| line.at_ms);
        self.text.push_str(&crate::logs_cut(bytes_max, dropped_bytes));
        let level = LogLevel::Warn;
        self.lines.resize(self.text.lines().count(), LogLine { at_ms, level });
    }
}

/// The line without its mark, and the level that it names.
fn marked(line: &[u8], level: LogLevel) -> (LogLevel, &[u8]) {
    match line {
        [b'<', digit, b'>', rest @ ..] => LogLevel::of_severity(*digit).map_or((level, line), |level| (level, rest)),
        _ => (level, line),
    }
}

/// Without a last character that was cut in two.
fn whole(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        Ok(_) | Err(_) => bytes,
    }
}

fn now_ms() -> u64 {
    piecework_model::unix_ms(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(logs: &Logs) -> Vec<(LogLevel, &str)> {
        assert_eq!(logs.lines.len(), logs.text.lines().count(), "{logs:?}");
        let lines = logs.lines.iter().zip(logs.text.lines());
        lines.map(|(line, text)| (line.level, text)).collect()
    }

    #[test]
    fn each_line_has_its_streams_level_or_the_one_that_it_names() {
        let mut printed = Printed::new(1_000);
        printed.append(LogLevel::Info, b"plain\n<7>detail\nhalf");
        printed.append(LogLevel::Error, b"oops\n<4>careful\n<9>no mark\n");
        printed.append(LogLevel::Info, b"<");
        printed.append(LogLevel::Info, b"3>in two parts");
        let logs = printed.take();
        assert_eq!(
            levels(&logs),
            [
                (LogLevel::Info, "plain"),
                (LogLevel::Debug, "detail"),
                (LogLevel::Info, "half"),
                (LogLevel::Error, "oops"),
                (LogLevel::Warn, "careful"),
                (LogLevel::Error, "<9>no mark"),
                (LogLevel::Error, "in two parts"),
            ]
        );
        assert!(logs.lines.iter().all(|line| line.at_ms > 1_700_000_000_000));
        assert_eq!(printed.take(), Logs::default());
    }

    #[test]
    fn logs_are_cut_between_characters_with_a_marker() {
        let mut printed = Printed::new(5);
        printed.append(LogLevel::Info, "abcd".as_bytes());
        printed.append(LogLevel::Info, "é!".as_bytes());
        let logs = printed.take();
        assert_eq!(logs.text, "abcd\n[the logs were cut at 5 bytes; 2 more were dropped]\n");
        assert_eq!(levels(&logs)[1].0, LogLevel::Warn);
        printed.append(LogLevel::Info, b"abcd\nefgh");
        assert_eq!(levels(&printed.take()).len(), 3, "a blank line before the marker");
    }

    #[test]
    fn lines_are_bounded_too() {
        let mut printed = Printed::new(4_000);
        printed.append(LogLevel::Info, &[b'\n'; 3_000]);
        printed.append(LogLevel::Info, b"more\n");
        let logs = printed.take();
        assert!(
            logs.text
                .ends_with("[the logs were cut at 4000 bytes; 2005 more were dropped]\n")
        );
        assert!(levels(&logs).len() <= LINES_MIN + 2);
        printed.append(LogLevel::Info, b"and again\n");
        assert_eq!(printed.take().text, "and again\n");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_count_as_what_they_became() {
        let mut printed = Printed::new(100);
        printed.append(LogLevel::Info, b"a\xffb");
        assert_eq!(printed.take().text, "a\u{fffd}b");
        let mut printed = Printed::new(10);
        printed.append(LogLevel::Info, b"fine\n\xff\xff\xff\xff\xff");
        let text = printed.take().text;
        assert!(
            text.starts_with("fine\n") && text.contains("cut at 10 bytes"),
            "{text:?}"
        );
    }
}
