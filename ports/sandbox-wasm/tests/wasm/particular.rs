//! What only this backend does: which programs it leaves to others, CommonJS packages, timers, clocks, a whole pool.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use piecework_model::{AccountId, Digest, JobId, Language, Limits};
use piecework_sandbox::{Backend, Call, Finished, LoadError, Loaded, Outcome, Program};
use piecework_sandbox_wasm::Wasm;

use crate::subject::{self, INSTANCES_MAX};

/// The backend, unless the components are not built.
pub fn backend() -> Option<Arc<Wasm>> {
    let backend = subject::backend(false);
    subject::complete(&backend).then_some(backend)
}

pub struct Bundle(tempfile::TempDir);

impl Bundle {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let readable = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        let directory = tempfile::Builder::new()
            .permissions(readable)
            .tempdir()
            .expect("a directory");
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().expect("inside")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }
        Self(directory)
    }

    async fn load(&self, backend: &Wasm, language: Language) -> Result<Arc<dyn Loaded>, LoadError> {
        self.load_for(backend, language, 1).await
    }

    pub async fn load_for(&self, backend: &Wasm, language: Language, owner: u8) -> Result<Arc<dyn Loaded>, LoadError> {
        let program = Program {
            owner: AccountId([owner; 20]),
            language,
            code: Digest::of(b"test"),
            directory: self.0.path().to_owned(),
            handler: None,
            image: None,
            env: BTreeMap::new(),
            limits: Limits::DEFAULT,
            egress: piecework_model::EgressList::default(),
            function_name: "test".to_owned(),
            version: 1,
        };
        backend.load(Arc::new(program)).await
    }
}

pub fn call(event: &str) -> Call {
    Call {
        job: JobId([1; 16]),
        event: event.to_owned().into(),
        parameters: "null".into(),
        deadline_ms: 0,
        time_left: Duration::from_secs(5),
        stop: piecework_sandbox::CancellationToken::new(),
        egress: piecework_sandbox::EgressMeter::default(),
        body: None,
        outlet: piecework_sandbox::Outlet::nowhere(),
    }
}

async fn run(backend: &Wasm, language: Language, files: &[(&str, &str)], event: &str) -> Finished {
    let bundle = Bundle::new(files);
    let loaded = bundle.load(backend, language).await.expect("it loads");
    let mut instance = loaded.start().await.expect("it starts");
    instance.call(call(event)).await
}

pub fn returned(finished: &Finished) -> serde_json::Value {
    let Outcome::Returned(json) = &finished.outcome else {
        panic!("{finished:?}");
    };
    serde_json::from_slice(json).expect("JSON")
}

async fn unsupported(backend: &Wasm, language: Language, source: &str) -> String {
    let bundle = Bundle::new(&[(language.entry_file(), source)]);
    match bundle.load(backend, language).await {
        Err(LoadError::Unsupported { reason }) => reason,
        Err(other) => panic!("{source}: {other:?}"),
        Ok(_) => panic!("{source}: it loaded"),
    }
}

#[tokio::test]
async fn what_webassembly_lacks_is_left_to_other_sandboxes() {
    let Some(backend) = backend() else { return };
    for source in [
        "import subprocess\ndef handler(event, context):\n    return 1\n",
        "import socket\ndef handler(event, context):\n    return 1\n",
        "import ctypes\ndef handler(event, context):\n    return 1\n",
        "import threading\ndef handler(event, context):\n    threading.Thread(target=print).start()\n",
        "from concurrent.futures import ThreadPoolExecutor\ndef handler(event, context):\n    return 1\n",
    ] {
        unsupported(&backend, Language::Python, source).await;
    }
    let reason = unsupported(
        &backend,
        Language::JavaScript,
        "import 'node:fs';\nexport default () => 1;\n",
    )
    .await;
    assert!(reason.contains("node:fs"), "{reason}");
    let source = "const fs = require('fs');\nexport default () => 1;\n";
    unsupported(&backend, Language::JavaScript, source).await;
}

#[tokio::test]
async fn commonjs_packages_are_found_by_name() {
    let Some(backend) = backend() else { return };
    let files = [
        (
            "main.mjs",
            "import thing, { one } from 'thing';\nimport data from './data.json';\nexport default () => [one, thing.two(), data];\n",
        ),
        ("data.json", "[3]"),
        (
            "node_modules/thing/package.json",
            r#"{"name":"thing","main":"lib/index.js"}"#,
        ),
        (
            "node_modules/thing/lib/index.js",
            "const double = require('./double');\nexports.one = 1;\nexports.two = () => double(1);\n",
        ),
        ("node_modules/thing/lib/double.js", "module.exports = (n) => 2 * n;\n"),
    ];
    let finished = run(&backend, Language::JavaScript, &files, "null").await;
    assert_eq!(returned(&finished), serde_json::json!([1, 2, [3]]));
}

#[tokio::test]
async fn timers_wait_without_using_the_processor() {
    let Some(backend) = backend() else { return };
    let javascript = "export default (event) => new Promise((done) => setTimeout(() => done(event), 100));\n";
    let python = "import asyncio\nasync def handler(event, context):\n    await asyncio.sleep(0.1)\n    return event\n";
    for (language, source) in [(Language::JavaScript, javascript), (Language::Python, python)] {
        let finished = run(&backend, language, &[(language.entry_file(), source)], "7").await;
        assert_eq!(returned(&finished), 7);
        assert!(finished.duration >= Duration::from_millis(100), "{finished:?}");
        assert!(finished.counters.cpu_us < 60_000, "{finished:?}");
    }
}

#[tokio::test]
async fn a_promise_that_never_settles_is_told_at_once() {
    let Some(backend) = backend() else { return };
    let files = [("main.mjs", "export default () => new Promise(() => {});\n")];
    let finished = run(&backend, Language::JavaScript, &files, "null").await;
    assert!(matches!(finished.outcome, Outcome::Raised(_)), "{finished:?}");
    assert!(finished.duration < Duration::from_secs(4), "{finished:?}");
}

#[tokio::test]
async fn instances_draw_different_random_numbers() {
    let Some(backend) = backend() else { return };
    let python = "import random, uuid\ndef handler(event, context):\n    return [random.random(), str(uuid.uuid4())]\n";
    let javascript = "export default () => [Math.random(), crypto.randomUUID()];\n";
    for (language, source) in [(Language::JavaScript, javascript), (Language::Python, python)] {
        let files = [(language.entry_file(), source)];
        let one = returned(&run(&backend, language, &files, "null").await);
        let other = returned(&run(&backend, language, &files, "null").await);
        assert!(one[0] != other[0] && one[1] != other[1], "{one} {other}");
    }
}

#[tokio::test]
async fn endless_recursion_ends_only_its_own_call() {
    let Some(backend) = backend() else { return };
    let python = "def handler(event, context):\n    return handler(event, context)\n";
    let javascript = "const f = (n) => f(n + 1) + 1;\nexport default () => f(0);\n";
    for (language, source) in [(Language::JavaScript, javascript), (Language::Python, python)] {
        let finished = run(&backend, language, &[(language.entry_file(), source)], "null").await;
        let ended = matches!(finished.outcome, Outcome::Raised(_) | Outcome::Crashed(_));
        assert!(ended, "{finished:?}");
    }
}

#[tokio::test]
async fn a_full_pool_refuses_and_a_freed_slot_serves_again() {
    let Some(backend) = backend() else { return };
    let bundle = Bundle::new(&[("main.mjs", "export default (event) => event;\n")]);
    let loaded = bundle.load(&backend, Language::JavaScript).await.expect("it loads");
    let mut live = Vec::new();
    let refusal = loop {
        match loaded.start().await {
            Ok(instance) => live.push(instance),
            Err(error) => break error,
        }
        assert!(live.len() <= INSTANCES_MAX as usize, "more than the pool holds");
    };
    assert!(matches!(refusal, LoadError::Failed(_)), "{refusal:?}");
    live.pop();
    let mut instance = loaded.start().await.expect("a freed slot");
    assert_eq!(returned(&instance.call(call("5")).await), 5);
}
