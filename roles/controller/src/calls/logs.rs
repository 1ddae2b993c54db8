//! A job's logs: secrets cut out, kept as one text with each line's level and time, read back line by line.
//!
//! Kept text: each line is `0x1e`, the level's first letter, milliseconds since the job was created, `0x1f`, the line. Text
//! that does not begin with `0x1e` is from before there were levels: all of it is `info`. A first line with the letter `s` is ours:
//! why the job ran in another sandbox than others of its version.

use std::fmt::Write as _;

use piecework_api::{errors::Refusal, jobs as api};
use piecework_sandbox::{LOGS_CUT, LogLevel, Logs};

use crate::clock::timestamp;

const BEGIN: char = '\u{1e}';
const END: char = '\u{1f}';
/// What stands in place of a secret.
const REDACTED: &str = "[secret]";
/// The beginning of a secret at the end of cut logs: shorter ones may be anything.
const REMNANT_MIN: usize = 4;

fn letter(level: LogLevel) -> char {
    match level {
        LogLevel::Debug => 'd',
        LogLevel::Info => 'i',
        LogLevel::Warn => 'w',
        LogLevel::Error => 'e',
    }
}

fn level(letter: char) -> api::LogLevel {
    match letter {
        'd' => api::LogLevel::Debug,
        'w' => api::LogLevel::Warn,
        'e' => api::LogLevel::Error,
        _ => api::LogLevel::Info,
    }
}

/// How the line begins that says why a call ran in another sandbox than others of its version.
const NOTE: &str = "[sandbox] ";
/// Its letter: no function prints a line with it.
const NOTE_LETTER: char = 's';

/// Why a call was moved to the jail, in one line.
pub(crate) fn moved(why: &str) -> String {
    let told = why.replace(['\n', '\r'], " ");
    format!("the run in wasm was given up ({told}); it ran again in the jail and is billed once")
}

/// The note that kept logs begin with, if they do.
pub(crate) fn note(kept: &str) -> Option<&str> {
    let first = kept.lines().next()?.strip_prefix(BEGIN)?.strip_prefix(NOTE_LETTER)?;
    first.split_once(END)?.1.strip_prefix(NOTE)
}

/// The logs as they are kept, after a note about their job's sandbox.
pub(crate) fn kept(note: Option<&str>, logs: &Logs, secrets: &[String], created_at_ms: u64) -> String {
    let text = without_secrets(&logs.text, secrets);
    let mut kept = String::with_capacity(text.len() + 12 * logs.lines.len());
    if let Some(note) = note {
        let note = redact(note, secrets);
        writeln!(kept, "{BEGIN}{NOTE_LETTER}0{END}{NOTE}{note}").expect("a string takes every write");
    }
    for (line, text) in logs.lines.iter().zip(text.lines()) {
        let after_ms = line.at_ms.saturating_sub(created_at_ms);
        writeln!(kept, "{BEGIN}{}{after_ms}{END}{text}", letter(line.level)).expect("a string takes every write");
    }
    kept
}

/// Cuts secrets out of what a function printed. As many lines as before: a secret of several becomes as many marks.
fn without_secrets(text: &str, secrets: &[String]) -> String {
    let (mut said, marker) = match text.rfind(LOGS_CUT) {
        Some(at) if text[at..].lines().count() == 1 => (text[..at].to_owned(), &text[at..]),
        Some(_) | None => (text.to_owned(), ""),
    };
    for secret in secrets {
        if said.contains(secret.as_str()) {
            said = said.replace(secret.as_str(), &marks(secret));
        }
        if !marker.is_empty() {
            cut_remnant(&mut said, secret);
        }
    }
    said + marker
}

fn marks(secret: &str) -> String {
    vec![REDACTED; secret.matches('\n').count() + 1].join("\n")
}

/// What is left of a secret that the limit cut in two.
fn cut_remnant(said: &mut String, secret: &str) {
    let end = said.trim_end_matches('\n').len();
    let remnant = secret
        .char_indices()
        .map(|(at, _)| at)
        .rev()
        .find(|at| *at >= REMNANT_MIN && said[..end].ends_with(&secret[..*at]));
    if let Some(length) = remnant {
        said.replace_range(end - length..end, &marks(&secret[..length]));
    }
}

/// A message of an error without secrets.
pub(crate) fn redact(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| {
        if text.contains(secret.as_str()) {
            text.replace(secret.as_str(), REDACTED)
        } else {
            text
        }
    })
}

/// What a caller may see of a failure: an exception's text may quote a variable.
pub(crate) fn redact_error(error: &mut Refusal, secrets: &[String]) {
    error.message = redact(&error.message, secrets);
    let fields = error.details.as_mut().and_then(|details| details.as_object_mut());
    for value in fields.into_iter().flat_map(|fields| fields.values_mut()) {
        if let Some(text) = value.as_str() {
            *value = redact(text, secrets).into();
        }
    }
}

/// Kept logs for a reader: lines of at least this level.
pub(crate) struct Read {
    pub(crate) lines: Vec<api::LogLineView>,
    /// The lines as plain text.
    pub(crate) text: String,
    pub(crate) truncated: bool,
}

pub(crate) fn read(kept: &str, created_at_ms: u64, least: api::LogLevel) -> Read {
    let mut read = Read {
        lines: Vec::new(),
        text: String::new(),
        truncated: false,
    };
    for line in kept.lines() {
        let line = line_of(line, created_at_ms);
        read.truncated |= line.text.starts_with(LOGS_CUT);
        if line.level >= least {
            read.text.push_str(&line.text);
            read.text.push('\n');
            read.lines.push(line);
        }
    }
    read
}

fn line_of(line: &str, created_at_ms: u64) -> api::LogLineView {
    let headed = line.strip_prefix(BEGIN).and_then(|rest| {
        let (head, text) = rest.split_once(END)?;
        let mut head = head.chars();
        let letter = head.next()?;
        let after_ms: u64 = head.as_str().parse().ok()?;
        Some((level(letter), created_at_ms + after_ms, text))
    });
    let (level, at_ms, text) = headed.unwrap_or((api::LogLevel::Info, created_at_ms, line));
    api::LogLineView {
        at: timestamp(at_ms),
        level,
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use piecework_model::Code;
    use piecework_sandbox::Printed;

    use super::*;

    const CREATED_MS: u64 = 1_700_000_000_000;

    fn logs(limit: u64, parts: &[(LogLevel, &str)]) -> Logs {
        let mut printed = Printed::new(limit);
        for (level, text) in parts {
            printed.append(*level, text.as_bytes());
        }
        printed.take()
    }

    #[test]
    fn levels_and_text_are_read_back_and_filtered() {
        let logs = logs(
            1_000,
            &[
                (LogLevel::Info, "one\n\n<7>detail\n"),
                (LogLevel::Error, "two\u{1e}i0\u{1f}x\n"),
            ],
        );
        let kept = kept(None, &logs, &[], CREATED_MS);
        let all = read(&kept, CREATED_MS, api::LogLevel::Debug);
        assert_eq!(all.text, "one\n\ndetail\ntwo\u{1e}i0\u{1f}x\n");
        let levels: Vec<_> = all.lines.iter().map(|line| line.level).collect();
        let (info, debug, error) = (api::LogLevel::Info, api::LogLevel::Debug, api::LogLevel::Error);
        assert_eq!(levels, [info, info, debug, error]);
        assert!(all.lines[0].at > timestamp(CREATED_MS) && !all.truncated);
        assert_eq!(read(&kept, CREATED_MS, api::LogLevel::Warn).lines.len(), 1);
        assert_eq!(read("old\nlogs", CREATED_MS, info).text, "old\nlogs\n");
        assert_eq!(read("", CREATED_MS, info).text, "");
    }

    #[test]
    fn secrets_are_cut_out_whole_and_in_part() {
        let secrets = ["s3cr3t-value".to_owned(), "BEGIN\nkey\nEND".to_owned()];
        let said = logs(1_000, &[(LogLevel::Info, "a s3cr3t-value b\nBEGIN\nkey\nEND.\nlast\n")]);
        let shown = read(
            &kept(None, &said, &secrets, CREATED_MS),
            CREATED_MS,
            api::LogLevel::Info,
        );
        assert_eq!(shown.text, "a [secret] b\n[secret]\n[secret]\n[secret].\nlast\n");
        let cut = logs(10, &[(LogLevel::Info, "key=s3cr3t-value")]);
        let shown = read(&kept(None, &cut, &secrets, CREATED_MS), CREATED_MS, api::LogLevel::Info);
        assert!(
            shown.truncated && shown.text.starts_with("key=[secret]\n"),
            "{:?}",
            shown.text
        );
    }

    #[test]
    fn a_note_about_the_sandbox_is_the_platforms_alone() {
        let said = logs(1_000, &[(LogLevel::Info, "[sandbox] s3cr3t\n")]);
        let secrets = ["s3cr3t".to_owned()];
        let plain = kept(None, &said, &secrets, CREATED_MS);
        assert_eq!(note(&plain), None, "{plain:?}");
        let noted = kept(Some(&moved("it said\ns3cr3t")), &said, &secrets, CREATED_MS);
        let told = note(&noted).expect("it has one");
        assert!(told.contains("given up (it said [secret]); it ran again"), "{told}");
        let shown = read(&noted, CREATED_MS, api::LogLevel::Info).text;
        assert_eq!(shown, format!("[sandbox] {told}\n[sandbox] [secret]\n"));
        assert_eq!((note(""), note("old\nlogs")), (None, None));
    }

    #[test]
    fn an_exceptions_text_shows_no_secret() {
        let details =
            serde_json::json!({"type": "KeyError", "message": "'s3cr3t-value'", "stack": "at s3cr3t-value\n"});
        let mut error = Refusal::new(Code::FunctionRaised, "raised KeyError: 's3cr3t-value'").details(details);
        redact_error(&mut error, &["s3cr3t-value".to_owned()]);
        let text = serde_json::to_string(&error).expect("JSON");
        assert!(!text.contains("s3cr3t") && text.contains("[secret]"), "{text}");
    }
}
