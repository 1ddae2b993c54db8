//! What is told at deploy time: code that does not load, and code of several files and packages.

use std::time::Instant;

use piecework_model::{Code, Language, Rejection};

use crate::bench::{Bench, Check, ensure, output};
use piecework_sandbox::{LoadError, Program};

/// Loads the program and returns why its code was refused.
async fn refusal(bench: &Bench, program: Program) -> Result<Rejection, String> {
    match bench.load(program).await {
        Err(LoadError::Code(rejection)) => Ok(rejection),
        Err(other) => Err(format!("expected a refusal of the code, got {other:?}")),
        Ok(_) => Err("it loaded".to_owned()),
    }
}

pub(super) async fn a_syntax_error_is_told_with_its_line(bench: Bench) -> Check {
    let program = bench.program(
        "x = 1\n\ndef handler(event, context)\n    return 1\n",
        "const x = 1;\n\nexport default (event => { return 1 ];\n",
    );
    let rejection = refusal(&bench, program).await?;
    ensure!(rejection.code == Code::FunctionSyntaxError, "refused as {rejection}");
    ensure!(
        rejection.message.contains("line 3"),
        "the line is missing: {}",
        rejection.message
    );
    Ok(())
}

pub(super) async fn a_missing_handler_is_told(bench: Bench) -> Check {
    let rejection = refusal(&bench, bench.program("x = 1\n", "export const x = 1;\n")).await?;
    ensure!(
        rejection.code == Code::FunctionNoHandler,
        "no function: refused as {rejection}"
    );
    let rejection = refusal(&bench, bench.program("handler = 1\n", "export default 1;\n")).await?;
    ensure!(
        rejection.code == Code::FunctionNoHandler,
        "not a function: refused as {rejection}"
    );
    let mut program = bench.program("def handler(e, c):\n    return 1\n", "export default () => 1;\n");
    program.handler = Some(format!("{}:other", bench.language.entry_file()));
    let rejection = refusal(&bench, program).await?;
    ensure!(
        rejection.code == Code::FunctionNoHandler,
        "another name: refused as {rejection}"
    );
    let rejection = refusal(&bench, bench.bundle(&[("readme.txt", "no code")])).await?;
    ensure!(
        rejection.code == Code::FunctionNoHandler,
        "no file: refused as {rejection}"
    );
    Ok(())
}

pub(super) async fn a_missing_package_is_told(bench: Bench) -> Check {
    let program = bench.program(
        "import package_that_is_nowhere\ndef handler(event, context):\n    return 1\n",
        "import nowhere from 'package-that-is-nowhere';\nexport default () => nowhere;\n",
    );
    let told = match bench.load(program).await {
        Err(LoadError::Code(rejection)) if rejection.code == Code::FunctionLoadFailed => rejection.message,
        Err(LoadError::Unsupported { reason }) => reason,
        Err(other) => return Err(format!("told {other:?}")),
        Ok(_) => return Err("it loaded".to_owned()),
    };
    let told = told.replace('-', "_");
    ensure!(
        told.contains("package_that_is_nowhere"),
        "the package is not named: {told}"
    );
    Ok(())
}

pub(super) async fn a_failing_module_is_told(bench: Bench) -> Check {
    let program = bench.program(
        "raise KeyError('at import')\n",
        "throw new TypeError('at import');\nexport default () => 1;\n",
    );
    let rejection = refusal(&bench, program).await?;
    ensure!(rejection.code == Code::FunctionLoadFailed, "refused as {rejection}");
    ensure!(
        rejection.message.contains("at import"),
        "the message is missing: {}",
        rejection.message
    );
    let program = bench.program(
        "import os\nos._exit(7)\n",
        "if (globalThis.process?.exit) process.exit(7); else throw new Error('absent');\nexport default () => 1;\n",
    );
    let rejection = refusal(&bench, program).await?;
    ensure!(
        rejection.code == Code::FunctionLoadFailed,
        "an exit was refused as {rejection}"
    );
    bench.still_serves().await
}

pub(super) async fn an_endless_module_is_told(bench: Bench) -> Check {
    let mut program = bench.program("while True:\n    pass\n", "for (;;);\nexport default () => 1;\n");
    program.limits.timeout_ms = 500;
    let begun = Instant::now();
    let rejection = refusal(&bench, program).await?;
    ensure!(rejection.code == Code::FunctionLoadFailed, "refused as {rejection}");
    ensure!(begun.elapsed().as_secs() < 10, "it took {:?}", begun.elapsed());
    bench.still_serves().await
}

pub(super) async fn a_named_handler_is_found(bench: Bench) -> Check {
    let (file, source) = match bench.language {
        Language::Image => unreachable!("images have tests of their own"),
        Language::Python => ("app.py", "def run(event, context):\n    return 'named'\n"),
        Language::JavaScript => ("app.mjs", "export const run = () => 'named';\n"),
    };
    let mut program = bench.bundle(&[(file, source)]);
    program.handler = Some(format!("{file}:run"));
    let said = bench.output(program, "null").await?;
    ensure!(said == "named", "got {said}");
    Ok(())
}

pub(super) async fn several_files_are_one_program(bench: Bench) -> Check {
    let files: &[(&str, &str)] = match bench.language {
        Language::Image => unreachable!("images have tests of their own"),
        Language::Python => &[
            (
                "main.py",
                "import tools\nfrom inner import deep\ndef handler(event, context):\n    return [tools.double(event), deep.NAME, open(__file__.replace('main.py', 'note.txt')).read()]\n",
            ),
            ("tools.py", "def double(x):\n    return 2 * x\n"),
            ("inner/__init__.py", ""),
            ("inner/deep.py", "NAME = 'deep'\n"),
            ("note.txt", "a note"),
        ],
        Language::JavaScript => &[
            (
                "main.mjs",
                "import { double } from './tools.mjs';\nimport { name } from './inner/deep.mjs';\nexport default (event) => [double(event), name, 'a note'];\n",
            ),
            ("tools.mjs", "export const double = (x) => 2 * x;\n"),
            ("inner/deep.mjs", "export const name = 'deep';\n"),
            ("note.txt", "a note"),
        ],
    };
    let said = bench.output(bench.bundle(files), "21").await?;
    ensure!(said == serde_json::json!([42, "deep", "a note"]), "got {said}");
    Ok(())
}

pub(super) async fn packages_beside_the_code_are_found(bench: Bench) -> Check {
    let files: &[(&str, &str)] = match bench.language {
        Language::Image => unreachable!("images have tests of their own"),
        Language::Python => &[
            (
                "main.py",
                "import leftpad\ndef handler(event, context):\n    return leftpad.pad(event)\n",
            ),
            (
                "packages/leftpad/__init__.py",
                "def pad(text):\n    return text.rjust(5)\n",
            ),
        ],
        Language::JavaScript => &[
            (
                "main.mjs",
                "import pad from 'leftpad';\nexport default (event) => pad(event);\n",
            ),
            (
                "node_modules/leftpad/package.json",
                r#"{"name":"leftpad","version":"1.0.0","type":"module","main":"index.js"}"#,
            ),
            (
                "node_modules/leftpad/index.js",
                "export default (text) => text.padStart(5);\n",
            ),
        ],
    };
    let mut running = bench.start(bench.bundle(files)).await?;
    let said = output(&running.call("\"abc\"").await)?;
    ensure!(said == "  abc", "got {said}");
    Ok(())
}
