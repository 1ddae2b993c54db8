//! Every code is asserted by a test that names its variant, and none is written as text.

use std::{collections::BTreeSet, fs, path::Path};

use piecework_model::Code;

/// Calls and macros whose arguments are what a test expects.
const ASSERTING: [&str; 8] = [
    "assert",
    "assert_eq",
    "assert_ne",
    "prop_assert",
    "prop_assert_eq",
    "ensure",
    "refused",
    "ended",
];

/// Calls that make a refusal: a test that hands one in asserts nothing by it.
const MAKING: [&str; 4] = ["new", "from", "refuse", "refusal"];

/// Texts that are something else than a code: names of entries in the audit log, and an example in the API's description.
const NO_CODES: [(&str, &str); 3] = [
    ("roles/controller/src/functions/tests/life.rs", "function.stopped"),
    ("ports/store/tests/store/conformance/jobs.rs", "lease.closed"),
    ("ports/api/src/errors.rs", "function.not_found"),
];

/// What a source consists of, as far as this test looks.
enum Token<'a> {
    Word(&'a str),
    Text(&'a str),
    Mark(char),
}

/// Comments and characters are left out.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let (mut rest, mut found) = (source, Vec::new());
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(end) = raw_string(rest) {
            end
        } else if first == '"' {
            let end = string(rest);
            found.push(Token::Text(&rest[1..end - 1]));
            end
        } else if let Some(end) = character(rest) {
            end
        } else if is_word(first) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            found.push(Token::Word(&rest[..end]));
            end
        } else {
            if !first.is_whitespace() {
                found.push(Token::Mark(first));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    found
}

fn string(source: &str) -> usize {
    let mut escaped = true;
    let end = source.char_indices().find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(source.len(), |(at, _)| at + 1)
}

fn raw_string(source: &str) -> Option<usize> {
    let opened = ["r", "br", "cr"].iter().find_map(|mark| source.strip_prefix(mark))?;
    let content = opened.trim_start_matches('#').strip_prefix('"')?;
    let close = format!("\"{}", &opened[..opened.len() - content.len() - 1]);
    let end = content.find(&close).map_or(content.len(), |at| at + close.len());
    Some(source.len() - content.len() + end)
}

/// A lifetime is none.
fn character(source: &str) -> Option<usize> {
    let inside = source.strip_prefix('\'')?;
    let skipped = if inside.starts_with('\\') {
        2
    } else {
        inside.chars().next()?.len_utf8()
    };
    let closed = inside.get(skipped..)?.find('\'')?;
    let is_escape = inside.starts_with('\\') && closed < 9;
    (is_escape || closed == 0).then_some(1 + skipped + closed + 1)
}

/// What a pair of brackets holds.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    /// What is expected: an assertion's arguments, or a table that a loop goes through.
    Expected,
    Made,
    Other,
    Block,
}

/// The variants of `Code` that a source names where it asserts.
fn asserted(source: &str) -> BTreeSet<String> {
    let tokens = tokens(source);
    let (mut open, mut found) = (Vec::new(), BTreeSet::new());
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Mark('(') => open.push(arguments(word_before(&tokens, at))),
            Token::Mark('[') => open.push(match word_before(&tokens, at) {
                None | Some("vec" | "in" | "return") => Inside::Expected,
                Some(_) => Inside::Other,
            }),
            Token::Mark('{') => open.push(Inside::Block),
            Token::Mark(')' | ']' | '}') => drop(open.pop()),
            Token::Word("Code") => {
                let within = open.iter().rev().find(|inside| **inside != Inside::Other);
                if let (Some(Token::Word(variant)), Some(Inside::Expected)) = (tokens.get(at + 3), within) {
                    found.insert((*variant).to_owned());
                }
            }
            Token::Word(_) | Token::Text(_) | Token::Mark(_) => {}
        }
    }
    found
}

fn arguments(of: Option<&str>) -> Inside {
    match of {
        Some(name) if ASSERTING.contains(&name) => Inside::Expected,
        Some(name) if MAKING.contains(&name) => Inside::Made,
        Some(_) | None => Inside::Other,
    }
}

/// The name of what is called, indexed or made at a bracket.
fn word_before<'a>(tokens: &[Token<'a>], at: usize) -> Option<&'a str> {
    let before = |back: usize| at.checked_sub(back).and_then(|at| tokens.get(at));
    match (before(1), before(2)) {
        (Some(Token::Word(name)), _) | (Some(Token::Mark('!')), Some(Token::Word(name))) => Some(name),
        _ => None,
    }
}

/// Each Rust source of the shelves, by its path from the root.
fn sources(each: &mut dyn FnMut(&str, &str)) {
    fn walk(folder: &Path, root: &Path, each: &mut dyn FnMut(&str, &str)) {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("readable").path();
            let below = path.strip_prefix(root).expect("below it").to_str().expect("UTF-8");
            if path.is_dir() && !matches!(path.file_name().and_then(|name| name.to_str()), Some("target")) {
                walk(&path, root, each);
            } else if below.ends_with(".rs") {
                each(below, &fs::read_to_string(&path).expect("UTF-8"));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root.canonicalize().expect("the root");
    for shelf in ["core", "ports", "roles", "tools"] {
        walk(&root.join(shelf), &root, each);
    }
}

/// The part of a source that is tests: all of it in a folder of tests or of a conformance suite, else its test module.
fn tests_of<'a>(path: &str, source: &'a str) -> &'a str {
    let is_test = |part: &str| matches!(part, "tests" | "tests.rs" | "conformance" | "conformance.rs");
    match (path.split('/').any(is_test), source.find("#[cfg(test)]\nmod ")) {
        (true, _) => source,
        (false, Some(from)) => &source[from..],
        (false, None) => "",
    }
}

#[test]
fn every_code_is_met_by_a_test() {
    let mut met = BTreeSet::new();
    sources(&mut |path, source| {
        if !path.ends_with("codes.rs") && path != "core/model/src/code.rs" {
            met.extend(asserted(tests_of(path, source)));
        }
    });
    let unmet: Vec<Code> = Code::ALL
        .iter()
        .copied()
        .filter(|code| !met.contains(&format!("{code:?}")))
        .collect();
    assert!(unmet.is_empty(), "no test asserts {unmet:?}");
}

#[test]
fn no_code_is_written_as_text() {
    let (mut written, mut seen) = (BTreeSet::new(), 0);
    sources(&mut |path, source| {
        seen += 1;
        for token in tokens(source) {
            if let Token::Text(text) = token
                && Code::parse(text).is_some()
                && !NO_CODES.contains(&(path, text))
                && !path.ends_with("codes.rs")
                && path != "core/model/src/code.rs"
            {
                written.insert(format!("{path}: {text}"));
            }
        }
    });
    assert!(seen > 100, "the sources were not found");
    assert!(written.is_empty(), "write `Code::...` instead: {written:#?}");
}

#[test]
fn only_what_is_asserted_counts() {
    let source = r##"
        // assert_eq!(refused.code, Code::Commented);
        let text = "assert_eq!(a, Code::Quoted)"; let raw = r#"assert!(Code::Raw)"#; let quote = '"';
        let lost = Err(Rejection::new(Code::Made, "it's lost"));
        assert_eq!(told(Refusal::new(Code::Handed, "x")).code, Code::Told);
        answer.refused(422, Code::Answered);
        for (path, code) in [("/a", Code::Listed), ("/b", Code::AlsoListed)] { look(path, code); }
        const TABLE: [(Code, Scenario); 1] = [(Code::Tabled, || { Err(Code::InClosure) })];
        match code { Code::Matched => None }
        assert!(said.contains(Code::Shown.as_str()), "{said}");
    "##;
    let expected = ["AlsoListed", "Answered", "Listed", "Shown", "Tabled", "Told"];
    assert_eq!(asserted(source), expected.map(str::to_owned).into());
}
