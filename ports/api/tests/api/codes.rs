//! Whatever code the sources say is in the catalogue: none reaches a caller without a status and a line of documentation.

use std::{collections::BTreeSet, fs, path::Path};

use piecework_api::errors::catalogue;

/// Of the form of a code, but names of files and of fields.
const NO_CODES: [&str; 4] = ["package.json", "placement.pin", "placement.policy", "placement.trust"];

/// Every `"noun.reason"` of the Rust sources below `folder`, tests beside the sources left out.
fn said(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("readable").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        if path.is_dir() && !matches!(name.as_str(), "tests" | "target" | "examples" | "catalogue") {
            said(&path, into);
        } else if name.ends_with(".rs") && !matches!(name.as_str(), "tests.rs" | "catalogue.rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            into.extend(text.split('"').skip(1).filter(|part| is_code(part)).map(str::to_owned));
        }
    }
}

fn is_code(text: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    text.split_once('.')
        .is_some_and(|(noun, reason)| plain(noun) && plain(reason))
        && !NO_CODES.contains(&text)
}

#[test]
fn every_code_in_the_sources_is_in_the_catalogue() {
    let listed: BTreeSet<&str> = catalogue().map(|code| code.code).collect();
    let nouns: BTreeSet<&str> = listed.iter().filter_map(|code| Some(code.split_once('.')?.0)).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = BTreeSet::new();
    for shelf in ["core", "ports", "roles"] {
        said(&root.join(shelf), &mut found);
    }
    let of_a_noun = |code: &&String| code.split_once('.').is_some_and(|(noun, _)| nouns.contains(noun));
    let unlisted: Vec<&String> = found
        .iter()
        .filter(of_a_noun)
        .filter(|code| !listed.contains(code.as_str()))
        .collect();
    assert!(
        unlisted.is_empty(),
        "add to ports/api/src/errors/catalogue.rs: {unlisted:?}"
    );
    assert!(found.contains("function.not_found"), "the sources were not found");
}

/// What the tests of the tree say: files of tests and of conformance suites, and the test modules of the sources.
fn tested(folder: &Path, inside_tests: bool, into: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_test = inside_tests || matches!(name, "tests" | "tests.rs" | "conformance" | "conformance.rs");
        if path.is_dir() && !matches!(name, "target" | "node_modules" | "catalogue") {
            tested(&path, is_test, into);
        } else if name.ends_with(".rs") && !matches!(name, "catalogue.rs" | "codes.rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            let from = if is_test {
                Some(0)
            } else {
                text.find("#[cfg(test)]\nmod ")
            };
            into.push_str(from.map_or("", |from| &text[from..]));
        }
    }
}

/// Told only in moments that no test can hold still: a peer that reads a long history, a ledger that stands between two
/// blocks.
const MOMENTARY: [&str; 2] = ["ledger.indexing", "transaction.pending"];

#[test]
fn every_code_is_met_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut text = String::new();
    for shelf in ["core", "ports", "roles", "tools"] {
        tested(&root.join(shelf), false, &mut text);
    }
    let unmet: Vec<&str> = catalogue()
        .map(|code| code.code)
        .filter(|code| !text.contains(*code) && !MOMENTARY.contains(code))
        .collect();
    assert!(unmet.is_empty(), "no test meets {unmet:?}");
}
