//! The rooms of a crate that is too large for one floor: which may use which.

use super::{
    Finding,
    sources::{is_test, without_tests},
};

/// A crate whose modules lie in rooms; each room may name those after it, and never one before it.
struct Plan {
    /// The folder of its sources.
    sources: &'static str,
    /// From the top down.
    rooms: &'static [&'static str],
    /// What composes the rooms. Only the root of the crate and the first room may take it: the others take their own state.
    whole: &'static str,
}

/// Modules of a planned crate that are in no room (the clock, failures, codecs) are the ground that every room stands on, and
/// name none of them; the root of the crate names all.
const PLANS: [Plan; 1] = [Plan {
    sources: "roles/controller/src/",
    rooms: &[
        "http",
        "alerts",
        "triggers",
        "calls",
        "functions",
        "money",
        "providers",
        "accounts",
    ],
    whole: "Controller",
}];
const ROOT: &str = "lib.rs";

/// Every way up that the file at `path` takes.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let Some((plan, inside)) = PLANS
        .iter()
        .find_map(|plan| Some((plan, path.strip_prefix(plan.sources)?)))
    else {
        return Vec::new();
    };
    // A test may look from anywhere; what it tests is held by the rule.
    if is_test(path) || inside == ROOT {
        return Vec::new();
    }
    let (shown, above) = match inside.split_once('/') {
        None => ("the ground", plan.rooms),
        Some((room, _)) => match plan.rooms.iter().position(|name| *name == room) {
            Some(own) => (room, &plan.rooms[..own]),
            None => {
                return vec![Finding::new(
                    path,
                    format!("the room `{room}` is not on the plan in tools/xtask/src/tidy/rooms.rs"),
                )];
            }
        },
    };
    let mut findings = Vec::new();
    for (line, name) in named(without_tests(text)) {
        let message = if above.contains(&name.as_str()) {
            format!("{shown} must not use `{name}`, which stands above it: move what both need down")
        } else if name == plan.whole && !above.is_empty() {
            format!("{shown} must not take the whole `{name}`: it takes the state of its own room")
        } else {
            continue;
        };
        findings.push(Finding::new(format!("{path}:{line}"), message));
    }
    findings
}

/// What follows `crate::` anywhere, also within the braces of a `use`, with its line.
fn named(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, start) in text.match_indices("crate::") {
        let is_word = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$');
        let line = text[..at].lines().count().max(1) + usize::from(text[..at].ends_with('\n'));
        let rest = &text[at + start.len()..];
        if is_word || in_comment(text, at) {
            continue;
        }
        match rest.strip_prefix('{') {
            Some(group) => found.extend(first_segments(group).into_iter().map(|name| (line, name))),
            None => found.push((line, segment(rest))),
        }
    }
    found
}

fn in_comment(text: &str, at: usize) -> bool {
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    text[line..at].contains("//")
}

fn segment(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first segments of the entries of a group that has been opened.
fn first_segments(group: &str) -> Vec<String> {
    let (mut depth, mut expected, mut found) = (0, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expected = true,
            c if expected && depth == 0 && !c.is_whitespace() => {
                found.push(segment(&group[at..]));
                expected = false;
            }
            _ => {}
        }
    }
    found
}
