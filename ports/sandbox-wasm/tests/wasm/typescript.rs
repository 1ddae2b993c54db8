//! The translator of TypeScript, in this sandbox: what becomes of a bundle's files, and of sources that are made to break it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use piecework_model::{AccountId, AnyCode, Code, Language};
use piecework_sandbox::Backend;
use piecework_typescript::{TranslateError, TypeScript};

use crate::subject;

/// `None` where it is not built.
fn translator() -> Option<TypeScript> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtimes/build/typescript.mjs");
    let wasm = subject::backend(false);
    let is_built = wasm.languages().contains(&Language::JavaScript) && program.is_file();
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        is_built || !in_ci,
        "in CI the translator must be built: run runtimes/build.sh"
    );
    if !is_built {
        eprintln!("SKIPPED: runtimes/build.sh has not built the translator");
        return None;
    }
    let program = std::fs::read(program).expect("it is there");
    Some(TypeScript::new(
        Some(program.into()),
        Arc::new(move || Some(wasm.clone() as Arc<dyn Backend>)),
    ))
}

type Files = BTreeMap<String, Bytes>;

fn files(all: &[(&str, &str)]) -> Files {
    let pair = |(path, text): &(&str, &str)| ((*path).to_owned(), Bytes::copy_from_slice(text.as_bytes()));
    all.iter().map(pair).collect()
}

async fn translate(translator: &TypeScript, all: &Files) -> Result<BTreeMap<String, String>, TranslateError> {
    let made = translator.translate(AccountId([7; 20]), all, "main.ts").await?;
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
    Ok(made
        .expect("TypeScript")
        .into_iter()
        .map(|(path, code)| (path, text(code)))
        .collect())
}

async fn refused(translator: &TypeScript, source: &str) -> (AnyCode, String) {
    match translate(translator, &files(&[("main.ts", source)])).await {
        Err(TranslateError::Rejected(rejection)) => (rejection.code, rejection.message),
        other => panic!("{source:.80}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn types_go_and_lines_stay() {
    let Some(translator) = translator() else { return };
    let all = files(&[
        (
            "main.ts",
            "import type { A } from './lib/a';\nimport { B, one } from './lib/a';\nimport * as all from './lib';\nimport './side.js';\n\
            enum E { X = 1 }\nclass P<T> { constructor(private x: T) {} declare y: string }\n\
            export default async (event: A, n?: number): Promise<unknown> => {\n  const m = await import('./lib/a.ts');\n  throw one(event as any, all, m, E.X, P)!;\n};\n",
        ),
        (
            "lib/a.ts",
            "export interface A {}\nexport type B = { a: string };\nexport const one = <T,>(...of: T[]): T => of[0] satisfies unknown;\n",
        ),
        ("lib/index.ts", "export { one } from './a.js';\n"),
        ("side.ts", "console.log(1 as const);\n"),
        ("old.test.ts", "@broken class X {}\n"),
    ]);
    let made = translate(&translator, &all).await.expect("translated");
    let main: Vec<&str> = made["main.ts.mjs"].lines().collect();
    assert_eq!(
        main[1].replace(" ", ""),
        r#"import{one}from"./lib/a.ts.mjs";"#,
        "{main:?}"
    );
    assert_eq!(main[2], r#"import * as all from "./lib/index.ts.mjs";"#);
    assert_eq!(main[3], r#"import "./side.ts.mjs";"#);
    assert!(main[5].contains("this.x = x"), "{main:?}");
    assert!(main[7].contains(r#"await import("./lib/a.ts.mjs")"#));
    assert!(main[8].contains("throw one("), "the ninth line is the ninth");
    assert_eq!(
        made["lib/index.ts.mjs"].lines().next(),
        Some(r#"export { one } from "./a.ts.mjs";"#)
    );
    assert!(!made.contains_key("old.test.ts.mjs"), "nobody imports it");
}

#[tokio::test(flavor = "multi_thread")]
async fn common_js_is_loaded_as_such() {
    let Some(translator) = translator() else { return };
    let all = files(&[
        (
            "main.ts",
            "const { twice } = require('./twice');\nmodule.exports.handler = async (event: { n: number }) => twice(event.n);\n",
        ),
        ("twice.cts", "export = { twice: (n: number): number => 2 * n };\n"),
    ]);
    let made = translate(&translator, &all).await.expect("translated");
    assert!(
        made["main.ts.cjs"].starts_with(r#"const { twice } = require("./twice.cts.cjs");"#),
        "{made:?}"
    );
    assert!(made["twice.cts.cjs"].starts_with("module.exports = {"), "{made:?}");
    assert!(made["main.ts.mjs"].contains(r#"export { default } from "./main.ts.cjs""#));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_more_than_types_is_refused_by_its_line() {
    let Some(translator) = translator() else { return };
    for (source, line, what) in [
        ("let a;\n@sealed class A {}\n", 2, "decorators"),
        ("class A {\n\n  @log m() {}\n}\n", 3, "decorators"),
        ("\nnamespace N { export const a = 1 }\n", 2, "namespace"),
        ("export namespace N {\n  log(1);\n}\n", 1, "namespace"),
        (
            "import * as N from './n';\nexport import A = N.A;\n",
            2,
            "export import",
        ),
    ] {
        let (code, message) = refused(&translator, source).await;
        assert_eq!(code, Code::TypescriptUnsupported, "{message}");
        assert!(
            message.contains(&format!("main.ts line {line}: ")) && message.contains(what),
            "{message}"
        );
    }
    for (source, line) in [("let x: = 1;\n", 1), ("\n\nconst a = 'open\n", 3), ("f(;\n", 1)] {
        let (code, message) = refused(&translator, source).await;
        assert_eq!(code, Code::FunctionSyntaxError, "{message}");
        assert!(message.contains(&format!("main.ts line {line}: ")), "{message}");
    }
    for types in [
        "declare namespace N { const a: number }",
        "namespace N { export interface A {}\n export type B = 1 }",
        "declare module 'x' { export const y: 1 }",
        "declare global { var x: 1 }",
    ] {
        let made = translate(&translator, &files(&[("main.ts", types)]))
            .await
            .expect("only types");
        assert!(!made["main.ts.mjs"].contains('1'), "{made:?}");
    }
}

/// A parser recurses, and a stranger may write what makes it. It ends the sandbox at the worst.
#[tokio::test(flavor = "multi_thread")]
async fn sources_that_are_made_to_break_a_parser_end_by_a_code() {
    let Some(translator) = translator() else { return };
    for deep in [
        "(",
        "[",
        "{a:",
        "<T>(",
        "a?",
        "`${",
        "!",
        "async (x: ",
        "type A<T> = A<",
        "if (1) ",
        "new ",
    ] {
        let source = deep.repeat(100_000);
        let begun = Instant::now();
        let (code, message) = refused(&translator, &source).await;
        assert!(
            code.is_one_of(&[Code::TypescriptTooComplex, Code::FunctionSyntaxError]),
            "{deep}: {message}"
        );
        assert!(begun.elapsed() < Duration::from_secs(60), "{deep}: {message}");
    }
    let ordinary = files(&[("main.ts", "export default (event: number) => event;")]);
    translate(&translator, &ordinary)
        .await
        .expect("the next one is not concerned");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_application_is_translated_in_time() {
    let Some(translator) = translator() else { return };
    let line = "export const fXX = async <T extends object>(a: T, b?: Map<string, T[]>): Promise<T | undefined> => b?.get(String(a))?.[0];\n";
    let all: Vec<_> = (0..20)
        .map(|file| {
            let name = if file == 0 {
                "main.ts".to_owned()
            } else {
                format!("f{file}.ts")
            };
            let text: String = (0..400).map(|nth| line.replace("XX", &nth.to_string())).collect();
            (name, text)
        })
        .collect();
    let all: Vec<_> = all.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let all = files(&all);
    let bytes: usize = all.values().map(Bytes::len).sum();
    let begun = Instant::now();
    let made = translate(&translator, &all).await.expect("translated");
    eprintln!("{bytes} bytes in {:?}", begun.elapsed());
    assert_eq!(made.len(), 20);
}
