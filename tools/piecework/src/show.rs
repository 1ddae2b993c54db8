//! Output for people: tables, amounts and times; or JSON with `--json`.

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use piecework_model::Credits;
use serde::Serialize;

use crate::failure::Failure;

/// One JSON value on standard output.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut text = serde_json::to_vec_pretty(value).map_err(anyhow::Error::new)?;
    text.push(b'\n');
    let mut out = std::io::stdout().lock();
    // A closed pipe (`| head`) is the reader's wish, not an error.
    match out.write_all(&text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(anyhow::Error::new(error).into()),
        _ => Ok(()),
    }
}

/// What others wrote, for a terminal: characters that move its cursor, or turn the direction of text, are written as escapes.
pub fn harmless(text: &str) -> String {
    let is_of_text = |c: char| matches!(c, '\n' | '\t') || !c.is_control();
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_of_text(c) && !turns(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_unicode()),
        }
    }
    shown
}

/// What a function printed, for a terminal or what is shown on one later: as [`harmless`], but colours stay where `colours`, and
/// are taken out where not. Each line ends in the terminal's own colours.
pub fn printed(text: &str, colours: bool) -> String {
    let line = |line: &str| {
        let mut shown = String::with_capacity(line.len());
        let (mut rest, mut is_coloured) = (line.strip_suffix('\r').unwrap_or(line), false);
        while let Some(at) = rest.find("\u{1b}[") {
            let (before, from) = rest.split_at(at);
            shown.push_str(&harmless(before));
            let length = colour_length(from);
            if length == 0 {
                shown.push_str(&harmless("\u{1b}["));
                rest = &from[2..];
                continue;
            }
            if colours {
                shown.push_str(&from[..length]);
                is_coloured = true;
            }
            rest = &from[length..];
        }
        shown.push_str(&harmless(rest));
        if is_coloured {
            shown.push_str("\u{1b}[0m");
        }
        shown
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Bytes of the sequence at the start that only sets colours and weight of what follows (ECMA-48, SGR); 0 where it is another.
fn colour_length(text: &str) -> usize {
    const LENGTH_MAX: usize = 32;
    let is_parameter = |c: &char| c.is_ascii_digit() || matches!(c, ';' | ':');
    let parameters = text[2..].chars().take_while(is_parameter).count();
    let end = 2 + parameters;
    match text[end..].starts_with('m') && parameters <= LENGTH_MAX {
        true => end + 1,
        false => 0,
    }
}

/// Text on standard output.
pub fn text(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(anyhow::Error::new(error).into()),
        _ => Ok(()),
    }
}

/// Bytes on standard output, as they are and at once; `false` once nobody reads them any more.
pub fn bytes_are_read(bytes: &[u8]) -> Result<bool, Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow::Error::new(error).into()),
    }
}

/// Rows below a header; what there is none of is said instead of an empty table.
pub fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>, none: &str) -> Result<(), Failure> {
    fitted(header, rows, none, &[])
}

/// The same where a terminal may be too narrow: then columns are left out, in the order in which they are named, and lines that are
/// still too long are cut.
pub fn fitted<const N: usize>(
    header: [&str; N],
    rows: Vec<[String; N]>,
    none: &str,
    dispensable: &[&str],
) -> Result<(), Failure> {
    if rows.is_empty() {
        return text(&format!("{none}\n"));
    }
    text(&laid_out(header, &rows, dispensable, width()))
}

/// Of the terminal; anything else takes lines as they are.
fn width() -> Option<usize> {
    let term = console::Term::stdout();
    term.is_term().then(|| usize::from(term.size().1).max(40))
}

fn laid_out<const N: usize>(
    header: [&str; N],
    rows: &[[String; N]],
    dispensable: &[&str],
    width: Option<usize>,
) -> String {
    let mut shown: Vec<usize> = (0..N).collect();
    let mut gone = dispensable.iter();
    loop {
        let mut table = plain();
        table.set_header(shown.iter().map(|column| header[*column]));
        table.add_rows(
            rows.iter()
                .map(|row| shown.iter().map(|column| row[*column].clone()).collect::<Vec<_>>()),
        );
        let lines = trimmed(&table);
        let longest = lines.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        let too_wide = width.is_some_and(|width| longest > width);
        match gone.next().filter(|_| too_wide) {
            Some(name) => shown.retain(|column| header[*column] != *name),
            None if too_wide && !dispensable.is_empty() => return painted(&cut(&lines, width.unwrap_or(longest))),
            None => return painted(&lines),
        }
    }
}

/// What is still too wide loses its end; `--json` has all of it.
fn cut(lines: &str, width: usize) -> String {
    let fitting = lines.lines().map(|line| match line.chars().count() > width {
        true => line.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        false => line.to_owned(),
    });
    fitting.collect::<Vec<_>>().join("\n")
}

/// On a terminal the header stands out and states have colours; NO_COLOR is heeded.
fn painted(lines: &str) -> String {
    let mut lines = lines.lines();
    let header = console::style(lines.next().unwrap_or_default()).bold();
    let mut painted = format!("{header}\n");
    for line in lines {
        painted.push_str(&coloured(line));
        painted.push('\n');
    }
    painted
}

fn coloured(line: &str) -> String {
    let is_state = |word: &&str| STATES.iter().any(|(_, words)| words.contains(word));
    let Some(state) = line.split_whitespace().find(is_state) else {
        return line.to_owned();
    };
    let colour = STATES
        .iter()
        .find(|(_, words)| words.contains(&state))
        .map(|(colour, _)| *colour);
    let painted = console::style(state)
        .fg(colour.unwrap_or(console::Color::White))
        .to_string();
    line.replacen(state, &painted, 1)
}

/// Of jobs, functions and providers.
const STATES: [(console::Color, &[&str]); 3] = [
    (console::Color::Green, &["succeeded", "ready"]),
    (
        console::Color::Red,
        &["failed", "timed_out", "expired", "quarantined", "gone"],
    ),
    (
        console::Color::Yellow,
        &["queued", "running", "paused", "draining", "stopped", "cancelled"],
    ),
];

/// Names and values below each other.
pub fn fields(rows: &[(&str, String)]) -> Result<(), Failure> {
    let names = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 3;
    let room = width().map(|width| width.saturating_sub(names).max(20));
    let mut table = plain();
    for (name, value) in rows {
        table.add_row([(*name).to_owned(), wrapped(value, room)]);
    }
    text(&format!("{}\n", trimmed(&table)))
}

/// Broken between words, where there is little room.
fn wrapped(value: &str, room: Option<usize>) -> String {
    let Some(room) = room else { return value.to_owned() };
    let mut lines: Vec<String> = Vec::new();
    for line in value.lines() {
        let mut current = String::new();
        for word in line.split(' ') {
            if !current.is_empty() && current.chars().count() + 1 + word.chars().count() > room {
                lines.push(std::mem::take(&mut current));
            } else if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        lines.push(current);
    }
    lines.join("\n")
}

fn plain() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn trimmed(table: &Table) -> String {
    let lines: Vec<String> = table
        .to_string()
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// `1,234 ucr`.
pub fn ucr(amount: Credits) -> String {
    format!("{} ucr", thousands(amount.0))
}

/// `1,234 ucr (0.001234 credits)`.
pub fn ucr_long(amount: Credits) -> String {
    let size = amount.0.unsigned_abs();
    let sign = if amount.is_negative() { "-" } else { "" };
    format!(
        "{} ({sign}{}.{:06} credits)",
        ucr(amount),
        size / 1_000_000,
        size % 1_000_000
    )
}

fn thousands(number: i128) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3 + 1);
    if number < 0 {
        grouped.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// In this computer's time zone; seconds are enough for people. `--json` has the rest, in UTC.
pub fn time(at: Timestamp) -> String {
    local(at).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The time of day, to the millisecond.
pub fn clock(at: Timestamp) -> String {
    local(at).strftime("%H:%M:%S%.3f").to_string()
}

fn local(at: Timestamp) -> jiff::Zoned {
    at.to_zoned(jiff::tz::TimeZone::system())
}

/// `0.084 ms`, `12.3 ms`, `1.50 s`.
pub fn ms(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.3} ms"),
        ms if ms < 1_000.0 => format!("{ms:.1} ms"),
        ms => format!("{:.2} s", ms / 1_000.0),
    }
}

/// `12.3 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// `cold` or `warm`; a job that has not run was neither.
pub fn start(cold: Option<bool>) -> &'static str {
    match cold {
        Some(true) => "cold",
        Some(false) => "warm",
        None => "-",
    }
}

pub fn yes(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}

pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_moves_no_cursor() {
        assert_eq!(harmless("two\nlines\tü"), "two\nlines\tü");
        assert_eq!(harmless("\u{1b}]0;x\u{7}\r"), "\\u{1b}]0;x\\u{7}\\u{d}");
        assert_eq!(harmless("gpj\u{202e}.exe"), "gpj\\u{202e}.exe");
    }

    #[test]
    fn of_what_functions_print_only_colours_reach_a_terminal() {
        let said = "\u{1b}[1;31mred\u{1b}[2J\u{1b}]0;x\u{7}\r\nplain\u{1b}[";
        assert_eq!(
            printed(said, true),
            "\u{1b}[1;31mred\\u{1b}[2J\\u{1b}]0;x\\u{7}\u{1b}[0m\nplain\\u{1b}["
        );
        assert_eq!(printed(said, false), "red\\u{1b}[2J\\u{1b}]0;x\\u{7}\nplain\\u{1b}[");
        let long = format!("\u{1b}[{}m", "1;".repeat(99));
        assert!(!printed(&long, true).contains('\u{1b}'));
        assert_eq!(printed("a\tb\n\n", true), "a\tb\n\n");
    }

    #[test]
    fn a_narrow_terminal_shows_fewer_columns() {
        let header = ["JOB", "STATE", "PRICE"];
        let rows = [["job_1".to_owned(), "succeeded".to_owned(), "84 ucr".to_owned()]];
        let table = |width| laid_out(header, &rows, &["PRICE", "STATE"], width);
        assert_eq!(table(None), table(Some(80)));
        assert!(table(None).contains("84 ucr"));
        let narrow = table(Some(20));
        assert!(narrow.contains("succeeded") && !narrow.contains("ucr"), "{narrow}");
        assert!(!table(Some(10)).contains("succeeded"));
        let widest = |table: &str| table.lines().map(|line| line.chars().count()).max();
        let long = [["job_1".to_owned(), "x".repeat(100)]];
        let cut = laid_out(["JOB", "DETAIL"], &long, &["JOB"], Some(40));
        assert_eq!(widest(&cut), Some(40), "{cut}");
        assert!(cut.contains('…'));
        let whole = laid_out(["JOB", "DETAIL"], &long, &[], Some(40));
        assert!(!whole.contains('…'), "an id is not cut");
        assert_eq!(wrapped("one two three", Some(8)), "one two\nthree");
        assert_eq!(wrapped("one two three", None), "one two three");
    }

    #[test]
    fn amounts_are_grouped_and_never_rounded() {
        assert_eq!(ucr(Credits(1_234_567)), "1,234,567 ucr");
        assert_eq!(ucr(Credits(-999)), "-999 ucr");
        assert_eq!(ucr(Credits(0)), "0 ucr");
        assert_eq!(ucr_long(Credits(-1_500_001)), "-1,500,001 ucr (-1.500001 credits)");
    }

    #[test]
    fn sizes_and_durations_keep_three_digits() {
        assert_eq!(
            (bytes(999), bytes(1_536), bytes(128 << 20)),
            ("999 B".into(), "1.5 KiB".into(), "128.0 MiB".into())
        );
        assert_eq!(
            (ms(0.084), ms(12.34), ms(1_500.0)),
            ("0.084 ms".into(), "12.3 ms".into(), "1.50 s".into())
        );
    }
}
