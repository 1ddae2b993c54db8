//! The tree keeps its rules, and each rule catches what it is for.

use xtask::tidy::{
    self,
    edges::{self, Edge, Shelf},
    packages::{self, Package, Rules},
    rooms, sources,
    targets::{self, Target},
};

#[test]
fn the_tree_is_tidy() {
    let report = tidy::run(&xtask::root()).expect("runs");
    assert!(
        report.edges > 50 && report.files > 20 && report.packages > 200,
        "only {} edges, {} files and {} packages were seen",
        report.edges,
        report.files,
        report.packages
    );
    println!("{report}");
    assert!(report.is_tidy(), "{report}");
}

fn edge(from: (&str, Shelf), to: (&str, Option<Shelf>)) -> Edge {
    Edge {
        from: from.0.into(),
        from_shelf: from.1,
        to: to.0.into(),
        to_shelf: to.1,
        is_dev: false,
    }
}

#[test]
fn edges_against_the_shelves_are_refused() {
    use Shelf::{Core, Ports, Roles, Tools};
    let refused = [
        edge(("piecework-ledger", Core), ("piecework-store", Some(Ports))),
        edge(("piecework-ledger", Core), ("tokio", None)),
        edge(("piecework-queue", Ports), ("piecework-fuzz", Some(Tools))),
        edge(("piecework-ledger", Core), ("rand", None)),
        edge(("piecework-store", Ports), ("piecework-controller", Some(Roles))),
        edge(("piecework-store", Ports), ("piecework-blobs", Some(Ports))),
        edge(("piecework-sandbox", Ports), ("piecework-sandbox-wasm", Some(Ports))),
        edge(("piecework-provider", Roles), ("piecework-sandbox-jail", Some(Ports))),
        edge(("piecework-provider", Roles), ("piecework-controller", Some(Roles))),
        edge(("piecework-provider", Roles), ("piecework", Some(Tools))),
        edge(("piecework-controller", Roles), ("sqlx", None)),
        edge(("piecework-controller", Roles), ("commonware-consensus", None)),
        edge(("piecework-chain-http", Ports), ("commonware-runtime", None)),
        edge(("piecework-chain-simplex", Ports), ("piecework-api", Some(Ports))),
        edge(("piecework-chain", Ports), ("piecework-api", Some(Ports))),
        edge(("piecework-peer", Roles), ("piecework-chain-node", Some(Ports))),
        edge(("piecework", Tools), ("wasmtime", None)),
        edge(("piecework-controller", Roles), ("piecework-common", Some(Core))),
        edge(("piecework-verifier", Tools), ("piecework-model", Some(Core))),
    ];
    for edge in refused {
        assert!(edges::check(&edge).is_some(), "{edge:?}");
    }
}

#[test]
fn edges_along_the_shelves_are_taken() {
    use Shelf::{Core, Ports, Roles, Tools};
    let taken = [
        edge(("piecework-ledger", Core), ("piecework-model", Some(Core))),
        edge(("piecework-ledger", Core), ("borsh", None)),
        edge(("piecework-chain-simplex", Ports), ("commonware-consensus", None)),
        edge(("piecework-chain-simplex", Ports), ("piecework-chain", Some(Ports))),
        edge(("piecework-chain-node", Ports), ("commonware-runtime", None)),
        edge(("piecework-chain", Ports), ("piecework-ledger", Some(Core))),
        edge(("piecework-sandbox-wasm", Ports), ("piecework-sandbox", Some(Ports))),
        edge(("piecework-provider", Roles), ("piecework-sandbox", Some(Ports))),
        edge(("piecework", Tools), ("piecework-sandbox-jail", Some(Ports))),
        Edge {
            is_dev: true,
            ..edge(("piecework-provider", Roles), ("piecework-sandbox-wasm", Some(Ports)))
        },
        Edge {
            is_dev: true,
            ..edge(("piecework-ledger", Core), ("proptest", None))
        },
        Edge {
            is_dev: true,
            ..edge(("piecework-ledger", Core), ("piecework-fuzz", Some(Tools)))
        },
        Edge {
            is_dev: true,
            ..edge(("piecework-verifier", Tools), ("piecework-chain-node", Some(Ports)))
        },
    ];
    for edge in taken {
        assert_eq!(edges::check(&edge), None, "{edge:?}");
    }
}

#[test]
fn what_stands_in_the_wrong_place_is_found_with_its_line() {
    for (path, line) in [
        ("core/model/src/id.rs", "let home = std::env::var(\"HOME\");"),
        ("roles/controller/src/jobs.rs", "query(\"SELECT id FROM jobs\")"),
        ("roles/controller/src/jobs.rs", "use axum::http::StatusCode;"),
        ("roles/peer/src/lib.rs", "use commonware_consensus::simplex;"),
        ("ports/blobs/src/files.rs", "let file = open(path).unwrap();"),
    ] {
        let text = format!("//! A charter.\n\n{line}\n");
        let found = sources::check_text(path, &text);
        assert_eq!(found.len(), 1, "{path}: {line}: {found:?}");
        assert_eq!(found[0].place, format!("{path}:3"));
    }
}

#[test]
fn tests_comments_and_the_right_places_are_left_alone() {
    for (path, text) in [
        ("ports/store/src/jobs.rs", "query(\"SELECT id FROM jobs\")"),
        ("roles/controller/src/http/jobs.rs", "use axum::http::StatusCode;"),
        ("tools/piecework/src/main.rs", "//! Charter.\nstd::env::var(\"HOME\")"),
        ("ports/blobs/tests/files.rs", "open(path).unwrap()"),
        ("ports/blobs/src/files.rs", "// never .unwrap() here"),
        (
            "ports/blobs/src/files.rs",
            "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    x.unwrap();\n}\n",
        ),
    ] {
        assert_eq!(sources::check_text(path, text), [], "{path}: {text}");
    }
}

#[test]
fn names_that_say_nothing_are_found() {
    for path in [
        "core/common",
        "ports/store/src/utils.rs",
        "roles/controller/src/http_helpers.rs",
        "tools/shared",
    ] {
        assert!(sources::check_name(path).is_some(), "{path}");
    }
    for path in [
        "core/model",
        "ports/store/src/uncommon.rs",
        "ports/chain-simplex/src/engine.rs",
    ] {
        assert_eq!(sources::check_name(path), None, "{path}");
    }
}

#[test]
fn a_long_file_is_noted_and_a_longer_one_refused() {
    let lines = |count: usize| "fn f() {}\n".repeat(count);
    let path = "core/model/src/id.rs";
    assert_eq!(sources::note_length(path, &lines(500)), None);
    assert!(sources::note_length(path, &lines(501)).is_some());
    assert_eq!(sources::check_text(path, &lines(700)), []);
    assert_eq!(sources::check_text(path, &lines(701)).len(), 1);
    assert_eq!(
        sources::check_text(path, &("// @generated\n".to_owned() + &lines(2_000))),
        []
    );
    let with_tests = lines(400) + "#[cfg(test)]\nmod tests {\n" + &lines(400) + "}\n";
    assert_eq!(sources::note_length(path, &with_tests), None);
}

#[test]
fn code_in_documentation_that_nothing_runs_is_found() {
    let found = sources::check_text("core/model/src/id.rs", "/// ```\n/// id()\n/// ```\nfn id() {}\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].place, "core/model/src/id.rs:1");
    assert_eq!(
        sources::check_text("core/model/src/id.rs", "/// ```text\n/// a -> b\n/// ```\nfn id() {}\n"),
        []
    );
}

#[test]
fn a_second_executable_of_tests_is_found_and_a_test_that_nobody_builds() {
    let target = |name: &str, kind: &str| Target {
        name: name.into(),
        kind: vec![kind.into()],
        src_path: String::new(),
        test: true,
    };
    let one = [target("store", "lib"), target("store", "test")];
    assert_eq!(targets::check("piecework-store", &one), None);
    let two = [&one[..], &[target("crash", "test")]].concat();
    assert!(targets::check("piecework-store", &two).is_some());

    assert!(targets::holds_a_test(
        "mod a;\n\n    #[tokio::test(flavor = \"multi_thread\")]\n"
    ));
    assert!(!targets::holds_a_test("//! `#[test]` is named here.\n"));
}

#[test]
fn a_crate_without_a_charter_is_refused() {
    assert_eq!(sources::check_text("core/model/src/lib.rs", "mod id;\n").len(), 1);
    assert_eq!(
        sources::check_text("core/model/src/lib.rs", "//! The nouns.\nmod id;\n"),
        []
    );
}

fn package(name: &str, license: Option<&str>, source: Option<&str>) -> Package {
    Package {
        name: name.into(),
        source: source.map(Into::into),
        license: license.map(Into::into),
    }
}

#[test]
fn packages_under_other_licences_or_from_elsewhere_are_found() {
    let text = "[licenses]\nallow = [\"MIT\", \"Apache-2.0\", \"Apache-2.0 WITH LLVM-exception\"]\n\
        [bans]\ndeny = [{ crate = \"openssl\", reason = \"one TLS\" }]\n";
    let rules = Rules::parse(text).expect("rules");
    let check = |name, license, source| packages::check(&rules, &package(name, license, source));
    for taken in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "(GPL-3.0 OR MIT) AND Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "GPL-3.0 OR MIT AND Apache-2.0",
    ] {
        assert_eq!(check("a", Some(taken), None), None, "{taken}");
    }
    for refused in [
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "MIT WITH strange-exception",
        "(MIT",
        "MIT MIT",
        "MIT OR",
        "",
    ] {
        assert!(check("a", Some(refused), None).is_some(), "{refused}");
    }
    assert!(check("a", None, None).is_some(), "no licence");
    assert!(check("a", Some("MIT"), Some("git+https://example.org/a")).is_some());
    assert!(check("openssl", Some("MIT"), None).is_some());
}

/// Every `file::test_name` of a document.
fn tests_named(document: &str) -> Vec<String> {
    let quoted = document.split('`').skip(1).step_by(2);
    let names = quoted.filter_map(|words| Some(words.split_once("::")?.1));
    let is_name =
        |name: &&str| name.len() > 20 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    names.filter(is_name).map(str::to_owned).collect()
}

#[test]
fn the_tests_that_documents_name_are_there() {
    let root = xtask::root();
    let mut sources = String::new();
    for shelf in ["core", "ports", "roles", "tools"] {
        read_all(&root.join(shelf), &mut sources);
    }
    for document in ["operating-a-ledger.md", "providing.md"] {
        let text = std::fs::read_to_string(root.join("docs").join(document)).expect("a document");
        let named = tests_named(&text);
        assert!(named.len() > 20, "{document} names {} tests", named.len());
        for name in named {
            assert!(sources.contains(&format!("fn {name}(")), "{document}: no test `{name}`");
        }
    }
}

fn read_all(folder: &std::path::Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("readable").path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
            read_all(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(&path).expect("UTF-8"));
        }
    }
}

#[test]
fn a_room_uses_the_rooms_below_it_and_none_above() {
    let within = |room: &str, line: &str| {
        rooms::check(
            &format!("roles/controller/src/{room}/x.rs"),
            &format!("//! A charter.\n\n{line}\n"),
        )
    };
    for (room, line) in [
        ("accounts", "use crate::http::views;"),
        (
            "money",
            "use crate::{\n    accounts::audit,\n    calls::{dispatch, invoke},\n    clock,\n};",
        ),
        ("providers", "fn f() -> crate::money::Payable {}"),
        ("calls", "use crate::{Answer, Controller, functions};"),
        ("accounts", "fn f(whole: &crate::Controller) {}"),
    ] {
        let found = within(room, line);
        assert_eq!(found.len(), 1, "{room}: {line}: {found:?}");
        assert_eq!(found[0].place, format!("roles/controller/src/{room}/x.rs:3"));
    }
    for (room, line) in [
        ("calls", "use crate::{Answer, functions::{self, calls}, money::leases};"),
        ("http", "use crate::{Controller, calls::invoke};"),
        ("accounts", "use crate::accounts::Accounts;"),
        ("money", "use crate::{money::lane, failure::store};"),
        ("accounts", "// as crate::http does"),
        ("accounts", "#[cfg(test)]\nmod tests {\n    use crate::http::views;\n}"),
    ] {
        assert_eq!(within(room, line), [], "{room}: {line}");
    }
    assert_eq!(within("attic", "").len(), 1, "a new room is put on the plan");
    let ground = |line: &str| rooms::check("roles/controller/src/clock.rs", line).len();
    assert_eq!(ground("use crate::http;"), 1, "the ground stands on no room");
    assert_eq!(ground("use crate::Controller;"), 1);
    assert_eq!(ground("use crate::failure;"), 0);
    assert_eq!(
        rooms::check("roles/controller/src/lib.rs", "use crate::{http, money};"),
        [],
        "the root composes them"
    );
    assert_eq!(rooms::check("roles/peer/src/http/x.rs", "use crate::anything;"), []);
}
