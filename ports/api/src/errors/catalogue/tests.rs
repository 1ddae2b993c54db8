use std::{fmt::Write as _, fs, path::Path};

use super::*;

#[test]
fn each_status_is_of_an_error_and_each_cause_is_said() {
    for Entry { code, status, when } in catalogue() {
        assert!(status.is_none_or(|status| (400..600).contains(&status)), "{code}");
        assert!(!when.is_empty(), "{code}");
    }
}

fn page() -> String {
    let mut codes: Vec<_> = catalogue().collect();
    codes.sort_by_key(|entry| entry.code.as_str());
    let mut page = String::from(
        "# Errors\n\nEvery refusal is `{\"error\": {\"code\", \"message\", \"hint\"?, \"field\"?, \"fields\"?, \"job_id\"?, \
         \"details\"?}}` with the\nstatus below. Codes are stable. Messages are for people and may change. A code without a \
         status never reaches a client: a\nprogram reports it when it cannot start. This list is \
         generated from the tables in ports/api by\n`UPDATE_GOLDEN=1 cargo test -p piecework-api`.\n\n\
         | code | status | when |\n|---|---|---|\n",
    );
    for Entry { code, status, when } in codes {
        let status = status.map_or("–".to_owned(), |status| status.to_string());
        writeln!(page, "| `{code}` | {status} | {when} |").expect("a string takes every write");
    }
    page
}

#[test]
fn the_documentation_lists_every_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, page()).expect("docs can be written");
    }
    let written = fs::read_to_string(&path).expect("docs/errors.md is there");
    assert!(
        written == page(),
        "docs/errors.md is stale: run UPDATE_GOLDEN=1 cargo test -p piecework-api"
    );
}
