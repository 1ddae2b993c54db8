//! Rules about the text of one file.

use super::{Finding, edges::BANNED_NAMES};

/// Files are reported above this and refused above the next; tests at the end of a file do not count.
const LINES_NOTED: usize = 500;
const LINES_MAX: usize = 700;

/// Something that may stand only below certain paths.
struct Place {
    words: &'static [&'static str],
    /// Beginnings of paths.
    allowed: &'static [&'static str],
    message: &'static str,
}

const PLACES: [Place; 5] = [
    Place {
        words: &["env::var(", "env::var_os(", "env::vars(", "env::vars_os("],
        allowed: &["tools/"],
        message: "environment variables are read only in tools/",
    },
    Place {
        words: &[
            "\"SELECT ",
            "\"INSERT ",
            "\"UPDATE ",
            "\"DELETE FROM",
            "\"CREATE TABLE",
            "\"PRAGMA ",
            "sqlx::",
        ],
        allowed: &["ports/store/", "tools/xtask/"],
        message: "SQL lives only in ports/store",
    },
    Place {
        words: &["commonware_"],
        // The filter of the log names one of the engine's sources of noise.
        allowed: &[
            "ports/chain-simplex/",
            "ports/chain-node/",
            "tools/xtask/",
            "tools/piecework/src/places.rs",
        ],
        message: "the consensus engine is named only in ports/chain-simplex and ports/chain-node",
    },
    Place {
        words: &["StatusCode"],
        allowed: &[
            "ports/api/",
            "ports/serve/",
            "roles/controller/src/http/",
            "roles/controller/src/http.rs",
            "roles/peer/src/http/",
            "tools/",
        ],
        message: "HTTP status codes live only in ports/api, ports/serve and the handlers",
    },
    Place {
        words: &[".unwrap()", ".unwrap_err()"],
        allowed: &["tools/xtask/src/tidy/sources.rs"],
        message: "no unwrap outside tests; `expect(\"why this cannot happen\")` is a claim that can be checked",
    },
];

/// Whether the rules apply to the file at `path`.
pub fn is_source(path: &str) -> bool {
    [".rs", ".py", ".mjs", ".js", ".ts"]
        .iter()
        .any(|suffix| path.ends_with(suffix))
}

/// A crate or module has a name that says what it is for.
pub fn check_name(path: &str) -> Option<Finding> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.split('.').next().unwrap_or(name);
    let banned = stem.split(['-', '_']).any(|part| BANNED_NAMES.contains(&part));
    banned.then(|| {
        Finding::new(
            path,
            "name it for what it holds; common, utils, shared and helpers say nothing",
        )
    })
}

/// Everything that is wrong in the text of a file.
pub fn check_text(path: &str, text: &str) -> Vec<Finding> {
    if is_generated(text) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if let Some(lines) = code_lines(path, text).filter(|lines| *lines > LINES_MAX) {
        findings.push(Finding::new(
            path,
            format!("{lines} lines; split it (at most {LINES_MAX}, better {LINES_NOTED})"),
        ));
    }
    if (path.ends_with("src/lib.rs") || path.ends_with("src/main.rs")) && !text.starts_with("//!") {
        findings.push(Finding::new(
            path,
            "a crate begins with its charter: `//! One sentence.`",
        ));
    }
    if path.ends_with(".rs") && !is_test(path) {
        findings.extend(misplaced(path, text));
        findings.extend(untested_examples(path, text));
    }
    findings
}

/// A file that grows long.
pub fn note_length(path: &str, text: &str) -> Option<Finding> {
    let lines = if is_test(path) {
        text.lines().count()
    } else {
        code_lines(path, text)?
    };
    let long = (LINES_NOTED + 1..).contains(&lines) && !is_generated(text);
    long.then(|| Finding::new(path, format!("{lines} lines")))
}

fn misplaced(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in without_tests(text).lines().enumerate() {
        let code = without_comment(line);
        for place in &PLACES {
            let allowed = place.allowed.iter().any(|prefix| path.starts_with(prefix));
            if !allowed && place.words.iter().any(|word| code.contains(word)) {
                findings.push(Finding::new(format!("{path}:{}", number + 1), place.message));
            }
        }
    }
    findings
}

/// No step compiles what the documentation shows: there is no such code, and looking for it would take every crate once more.
fn untested_examples(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let said = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        let Some(language) = said.and_then(|said| said.trim_start().strip_prefix("```")) else {
            continue;
        };
        inside = !inside;
        if inside && !["text", "sh", "json", "toml"].contains(&language.trim_end()) {
            findings.push(Finding::new(
                format!("{path}:{}", number + 1),
                "mark the block `text`, or make it a test: code in documentation is not run",
            ));
        }
    }
    findings
}

/// Integration tests, the doubles that tests use, examples, and build scripts (which cargo talks to by variables). A conformance suite is a test
/// that other crates run.
pub(super) fn is_test(path: &str) -> bool {
    ["/tests/", "/doubles/", "/benches/", "/examples/", "/conformance"]
        .iter()
        .any(|part| path.contains(part))
        || path.ends_with("/tests.rs")
        || path.ends_with("/build.rs")
}

fn is_generated(text: &str) -> bool {
    text.lines().take(3).any(|line| line.contains("@generated"))
}

/// Lines before the test module; `None` for a file that is all tests.
fn code_lines(path: &str, text: &str) -> Option<usize> {
    if is_test(path) {
        None
    } else {
        Some(without_tests(text).lines().count())
    }
}

/// The text before `#[cfg(test)] mod tests {`, which ends a file by custom.
pub(super) fn without_tests(text: &str) -> &str {
    let start = text.match_indices("#[cfg(test)]").map(|(at, _)| at).find(|at| {
        let after = text[*at + "#[cfg(test)]".len()..].trim_start();
        after.starts_with("mod ") && after.lines().next().is_some_and(|line| line.ends_with('{'))
    });
    &text[..start.unwrap_or(text.len())]
}

fn without_comment(line: &str) -> &str {
    match line.find("//") {
        // `http://` in a string begins no comment.
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    }
}
