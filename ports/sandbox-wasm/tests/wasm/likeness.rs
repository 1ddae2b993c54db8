//! What a function computes in wasm is what the language's usual interpreter computes, or the run ends where it would not be.

use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

use piecework_model::Language;
use piecework_sandbox::{Call, Finished, Instance, LoadError, Loaded, Outcome};

use crate::particular::{Bundle, backend, call, returned};

/// The table of expressions, below `runtimes/`.
fn table(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../runtimes")
        .join(file)
}

/// What a program prints; none where it is not installed.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let ran = Command::new(program)
        .args(arguments)
        .envs([("TZ", "UTC"), ("HOME", "/tmp")])
        .output();
    let Ok(output) = ran else {
        assert!(std::env::var_os("CI").is_none(), "in CI {program} is installed");
        eprintln!("SKIPPED: {program} is not installed");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text"))
}

/// What became of the expressions.
#[derive(Debug, Default)]
struct Tally {
    same: u32,
    touched: u32,
    unlike: Vec<String>,
}

impl Tally {
    fn add(&mut self, expression: &str, due: &str, finished: &Finished) {
        match &finished.outcome {
            Outcome::Returned(_) if returned(finished) == due => self.same += 1,
            Outcome::FellShort(_) => self.touched += 1,
            other => self
                .unlike
                .push(format!("{expression}: {due} is due, and it is {other:?}")),
        }
    }
}

async fn tally(loaded: &Arc<dyn Loaded>, lines: &str) -> Tally {
    let mut tally = Tally::default();
    let mut instance: Option<Box<dyn Instance>> = None;
    for line in lines.lines() {
        let (expression, due): (String, String) = serde_json::from_str(line).expect("an expression and its value");
        let mut live = match instance.take() {
            Some(live) => live,
            None => loaded.start().await.expect("it starts"),
        };
        let event = serde_json::Value::from(expression.as_str()).to_string();
        let finished = live.call(call(&event)).await;
        tally.add(&expression, &due, &finished);
        instance = finished.reusable.then_some(live);
    }
    tally
}

/// A table of Node's expressions with what it gives there, and the program that evaluates them, loaded here.
async fn javascript(file: &str) -> Option<(String, Arc<dyn Loaded>)> {
    let backend = backend()?;
    let table = table(file);
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("main.mjs");
    let path = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let lines = said("node", &[&path(&table)])?;
    said("node", &[&path(&table), &path(&program)]).expect("it ran before");
    let source = std::fs::read_to_string(program).expect("a program");
    let bundle = Bundle::new(&[("main.mjs", &source)]);
    let loaded = bundle.load_for(&backend, Language::JavaScript, 1).await;
    Some((lines, loaded.expect("it loads")))
}

#[tokio::test]
async fn an_expression_gives_what_node_gives_or_ends_the_run() {
    let Some((lines, loaded)) = javascript("wasm-javascript/likeness/expressions.mjs").await else {
        return;
    };
    let tally = tally(&loaded, &lines).await;
    assert!(
        tally.unlike.is_empty(),
        "{} are unlike: {:#?}",
        tally.unlike.len(),
        tally.unlike
    );
    // Most of the language is there.
    assert!(
        tally.same > 4_500 && tally.touched < 1_000,
        "{} same, {} touched",
        tally.same,
        tally.touched
    );
}

/// Of the Minimum Common Web API, in one line for each name: what the documentation says of it.
#[tokio::test]
async fn the_common_web_api_is_nodes_or_ends_the_run() {
    let Some((lines, loaded)) = javascript("wasm-javascript/likeness/web-api.mjs").await else {
        return;
    };
    let mut names: Vec<(String, Vec<&str>)> = Vec::new();
    for line in lines.lines() {
        let name = line.split("/* ").nth(1).and_then(|rest| rest.split(" */").next());
        let name = name.expect("an expression begins with its name");
        match names.last_mut() {
            Some((last, expressions)) if last == name => expressions.push(line),
            Some(_) | None => names.push((name.to_owned(), vec![line])),
        }
    }
    let mut rows = String::new();
    let mut unlike = Vec::new();
    for (name, expressions) in &names {
        let is_absent = expressions.iter().all(|line| {
            line.ends_with(r#""\"undefined\""]"#)
                || line.contains("throws ReferenceError")
                || line.contains("globalThis.self")
        });
        let tally = tally(&loaded, &expressions.join("\n")).await;
        let here = match (tally.same, tally.touched) {
            _ if is_absent => "not in Node 20",
            (_, 0) => "yes",
            (0, _) => "in `jail`",
            (_, _) => "in part; the rest in `jail`",
        };
        let there = if is_absent { "not in Node 20" } else { "yes" };
        rows += &format!("| `{name}` | {here} | {there} |\n");
        unlike.extend(tally.unlike);
    }
    assert!(unlike.is_empty(), "{unlike:#?}");
    assert!(names.len() > 55, "{} names", names.len());
    if !said("node", &["--version"]).is_some_and(|version| version.starts_with("v20.")) {
        eprintln!("SKIPPED: the documentation is of Node 20");
        return;
    }
    let documented = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/web-api.md");
    let text = std::fs::read_to_string(&documented).expect("the documentation");
    let (before, _) = text.split_once("|---|---|---|\n").expect("a table");
    let due = format!("{before}|---|---|---|\n{rows}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&documented, &due).expect("written");
    }
    assert_eq!(
        std::fs::read_to_string(&documented).expect("the documentation"),
        due,
        "run with UPDATE_GOLDEN=1"
    );
}

#[tokio::test]
async fn an_expression_gives_what_cpython_gives_or_ends_the_run() {
    let Some(backend) = backend() else { return };
    let path = table("wasm-python/likeness/expressions.py");
    let Some(lines) = said("python3", &[path.to_str().expect("text")]) else {
        return;
    };
    let source = std::fs::read_to_string(&path).expect("a program");
    let bundle = Bundle::new(&[("main.py", &source)]);
    let loaded = bundle.load_for(&backend, Language::Python, 1).await.expect("it loads");
    let tally = tally(&loaded, &lines).await;
    assert!(
        tally.unlike.is_empty(),
        "{} are unlike: {:#?}",
        tally.unlike.len(),
        tally.unlike
    );
    assert!(
        tally.same > 150 && tally.touched > 20,
        "{} same, {} touched",
        tally.same,
        tally.touched
    );
}

async fn one(language: Language, file: &str, source: &str) -> Option<Result<Finished, LoadError>> {
    let backend = backend()?;
    let bundle = Bundle::new(&[(file, source)]);
    let loaded = match bundle.load_for(&backend, language, 1).await {
        Ok(loaded) => loaded,
        Err(error) => return Some(Err(error)),
    };
    let mut instance = loaded.start().await.expect("it starts");
    let call = Call {
        time_left: Duration::from_secs(5),
        ..call("{}")
    };
    Some(Ok(instance.call(call).await))
}

#[tokio::test]
async fn nothing_that_is_touched_can_be_swallowed() {
    let javascript =
        "export default () => { try { return String(new Intl.NumberFormat('en')); } catch { return 'swallowed'; } };";
    let python = "import importlib\ndef handler(event, context):\n    try:\n        return importlib.import_module('ssl').OPENSSL_VERSION\n    except BaseException:\n        return 'swallowed'\n";
    let table = [
        (Language::JavaScript, "main.mjs", javascript, "Intl"),
        (Language::Python, "main.py", python, "ssl"),
    ];
    for (language, file, source, what) in table {
        let Some(ended) = one(language, file, source).await else {
            return;
        };
        let finished = ended.expect("it loads");
        let Outcome::FellShort(touched) = &finished.outcome else {
            panic!("{finished:?}");
        };
        assert!(touched.contains(what) && !finished.reusable, "{touched}");
    }
}

#[tokio::test]
async fn what_is_touched_outside_of_the_handler_is_for_another_sandbox() {
    let javascript = "const format = new Intl.NumberFormat('en');\nexport default () => format.format(1);";
    let Some(ended) = one(Language::JavaScript, "main.mjs", javascript).await else {
        return;
    };
    let Err(LoadError::Unsupported { reason }) = ended else {
        panic!("it loads");
    };
    assert!(reason.contains("Intl"), "{reason}");
}
