//! Makes JavaScript of the TypeScript files of a bundle, in the wasm sandbox.
//!
//! ```text
//! x.ts, y.ts, names of the others -> runtimes/typescript in a fresh instance -> x.ts.mjs, y.ts.mjs | file, line and what to do
//! ```
//! A stranger writes the files, and the program that reads them is a parser. So it runs where strangers' code runs: in a worker process,
//! within memory and time, and one that nests too deeply ends only itself.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use piecework_model::{AccountId, Code, Digest, EgressList, JobId, Language, Limits, Rejection, typescript};
use piecework_sandbox::{Backend, Call, CancellationToken, EgressMeter, LoadError, Outcome, Outlet, Program};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// All TypeScript of a bundle together: some 50,000 lines. The interpreter translates 70 KiB a second on a busy machine.
pub const SOURCE_BYTES_MAX: usize = 2 << 20;
/// What [`SOURCE_BYTES_MAX`] takes, twice.
const WITHIN: Duration = Duration::from_secs(60);
/// A parsed file takes some fifty times its own length.
const MEMORY_BYTES: u64 = 384 << 20;
/// Translations at the same time, of all accounts; the others wait. One keeps a core busy.
const AT_ONCE: usize = 2;
/// For so long.
const WAITS_AT_MOST: Duration = Duration::from_secs(60);
/// Settings of the compiler that the program looks at.
const SETTINGS: &str = "tsconfig.json";

/// Makes the sandbox of one translation; `None` where none works here. It blocks for some 50 ms and is called within a tokio runtime.
pub type Sandboxes = Arc<dyn Fn() -> Option<Arc<dyn Backend>> + Send + Sync>;

/// Translates with a program and a sandbox.
pub struct TypeScript {
    /// What `runtimes/build.sh` makes of `runtimes/typescript`.
    program: Option<Bytes>,
    sandboxes: Sandboxes,
    turns: Semaphore,
}

/// Why nothing was translated.
#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    /// `function.syntax_error`, `typescript.unsupported`, `typescript.too_complex`, `typescript.unavailable`, `bundle.bad_archive`,
    /// `deploy.busy`.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The sandbox failed, or what came out of it is not what the program writes.
    #[error("translate TypeScript in a sandbox: {0}")]
    Sandbox(String),
    #[error("{operation}: {source}")]
    Io {
        operation: &'static str,
        #[source]
        source: std::io::Error,
    },
}

#[derive(Serialize)]
struct Asked<'a> {
    files: BTreeMap<&'a str, &'a str>,
    others: Vec<&'a str>,
    entry: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    Outputs(BTreeMap<String, String>),
    Refused(Refused),
}

#[derive(Deserialize)]
struct Refused {
    kind: Kind,
    file: String,
    line: u32,
    message: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Syntax,
    Unsupported,
}

impl TypeScript {
    pub fn new(program: Option<Bytes>, sandboxes: Sandboxes) -> Self {
        Self {
            program,
            sandboxes,
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// The files to put beside the bundle's TypeScript, by path; `None` where `entry`, the file with the handler, is not TypeScript.
    /// An error counts only in files that the entry imports. Files below `node_modules` are left alone. Waits for its turn, then takes
    /// up to a minute. Cancel safe: dropping it ends the sandbox.
    pub async fn translate(
        &self,
        owner: AccountId,
        files: &BTreeMap<String, Bytes>,
        entry: &str,
    ) -> Result<Option<BTreeMap<String, Bytes>>, TranslateError> {
        if !typescript::is_source(entry) {
            return Ok(None);
        }
        let event = asked(files, entry)?;
        let Some(program) = self.program.clone() else {
            return Err(unavailable().into());
        };
        let turn = tokio::time::timeout(WAITS_AT_MOST, self.turns.acquire()).await;
        let Ok(turn) = turn else { return Err(busy().into()) };
        let _turn = turn.expect("this semaphore is never closed");
        let sandboxes = self.sandboxes.clone();
        let sandbox = tokio::task::spawn_blocking(move || sandboxes()).await;
        let sandbox = sandbox
            .map_err(|error| io("make a sandbox")(error.into()))?
            .ok_or_else(unavailable)?;
        run(&*sandbox, owner, program, event).await.map(Some)
    }
}

/// The event of the program, with what it reads; the names alone of the other files.
fn asked(files: &BTreeMap<String, Bytes>, entry: &str) -> Result<Bytes, TranslateError> {
    let mut asked = Asked {
        files: BTreeMap::new(),
        others: Vec::new(),
        entry,
    };
    let mut bytes = 0;
    for (path, content) in files {
        let is_theirs = path.split('/').any(|part| part == "node_modules");
        if is_theirs || typescript::made_of(path).is_some_and(|source| files.contains_key(source)) {
            continue;
        }
        if !typescript::is_source(path) && path != SETTINGS {
            asked.others.push(path);
            continue;
        }
        bytes += content.len();
        let text = std::str::from_utf8(content).map_err(|_| {
            Rejection::new(Code::FunctionSyntaxError, format!("{path} is not UTF-8 text"))
                .hint("save it as UTF-8 and deploy again")
        })?;
        asked.files.insert(path, text);
    }
    if bytes > SOURCE_BYTES_MAX {
        let message = format!("the TypeScript files have {bytes} bytes, and {SOURCE_BYTES_MAX} can be translated");
        return Err(too_complex(message).into());
    }
    let event = serde_json::to_vec(&asked).expect("texts are JSON");
    Ok(event.into())
}

async fn run(
    sandbox: &dyn Backend,
    owner: AccountId,
    program: Bytes,
    event: Bytes,
) -> Result<BTreeMap<String, Bytes>, TranslateError> {
    let directory = tempfile::Builder::new().prefix("piecework-typescript-").tempdir();
    let directory = directory.map_err(io("make a directory for the translator"))?;
    tokio::fs::write(directory.path().join(Language::JavaScript.entry_file()), &program)
        .await
        .map_err(io("write the translator"))?;
    let program = Arc::new(translator(directory.path(), owner, &program));
    let loaded = sandbox.load(program).await.map_err(not_loaded)?;
    let mut instance = loaded.start().await.map_err(not_loaded)?;
    let call = Call {
        job: JobId([0; 16]),
        event,
        parameters: "null".into(),
        deadline_ms: 0,
        time_left: WITHIN,
        stop: CancellationToken::new(),
        egress: EgressMeter::default(),
        body: None,
        outlet: Outlet::nowhere(),
    };
    ended(instance.call(call).await.outcome)
}

fn translator(directory: &Path, owner: AccountId, program: &[u8]) -> Program {
    Program {
        owner,
        language: Language::JavaScript,
        code: Digest::of(program),
        directory: directory.to_owned(),
        handler: None,
        image: None,
        env: BTreeMap::new(),
        limits: Limits {
            timeout_ms: u32::try_from(WITHIN.as_millis()).unwrap_or(u32::MAX),
            memory_bytes: MEMORY_BYTES,
            // Types are removed, and little is written in their place.
            output_bytes: 8 * SOURCE_BYTES_MAX as u64,
            ..Limits::DEFAULT
        },
        egress: EgressList::default(),
        function_name: "typescript".into(),
        version: 1,
    }
}

fn ended(outcome: Outcome) -> Result<BTreeMap<String, Bytes>, TranslateError> {
    match outcome {
        Outcome::Returned(said) => told(&said),
        Outcome::TimedOut => Err(too_complex(format!("translating the TypeScript took longer than {WITHIN:?}")).into()),
        Outcome::OutOfMemory => Err(too_complex("translating the TypeScript took too much memory".into()).into()),
        Outcome::OutputTooLarge => Err(too_complex("the translated TypeScript is too large".into()).into()),
        // The interpreter's stack has ended: it can recurse no deeper than the source is nested.
        Outcome::Crashed(_) => Err(too_complex("the TypeScript is nested too deeply".into()).into()),
        Outcome::Raised(raised) => Err(TranslateError::Sandbox(format!("{}: {}", raised.kind, raised.message))),
        Outcome::OutputInvalid(what) | Outcome::FellShort(what) => Err(TranslateError::Sandbox(what)),
        Outcome::Streamed => Err(TranslateError::Sandbox("it streamed".into())),
        Outcome::Stopped => Err(TranslateError::Sandbox("it was stopped".into())),
        Outcome::Lost => Err(TranslateError::Sandbox("its process was lost".into())),
    }
}

fn told(said: &[u8]) -> Result<BTreeMap<String, Bytes>, TranslateError> {
    let said: Said = serde_json::from_slice(said).map_err(|error| TranslateError::Sandbox(error.to_string()))?;
    let refused = match said {
        Said::Outputs(outputs) => {
            let is_made = |path: &String| typescript::made_of(path).is_some();
            let outputs = outputs.into_iter().filter(|(path, _)| is_made(path));
            return Ok(outputs.map(|(path, code)| (path, code.into())).collect());
        }
        Said::Refused(refused) => refused,
    };
    let place = format!("{} line {}: {}", refused.file, refused.line, refused.message);
    Err(match refused.kind {
        Kind::Syntax => Rejection::new(Code::FunctionSyntaxError, place).hint("correct that line and deploy again"),
        Kind::Unsupported => Rejection::new(Code::TypescriptUnsupported, place)
            .hint("types are removed, and enums and parameter properties translated"),
    }
    .into())
}

fn not_loaded(error: LoadError) -> TranslateError {
    match error {
        LoadError::Unsupported { reason } | LoadError::Failed(reason) => TranslateError::Sandbox(reason),
        LoadError::Code(rejection) => TranslateError::Sandbox(rejection.message),
    }
}

fn io(operation: &'static str) -> impl FnOnce(std::io::Error) -> TranslateError {
    move |source| TranslateError::Io { operation, source }
}

fn too_complex(message: String) -> Rejection {
    Rejection::new(Code::TypescriptTooComplex, message)
        .hint("leave out files that the function does not need, or deploy JavaScript")
}

fn unavailable() -> Rejection {
    Rejection::new(
        Code::TypescriptUnavailable,
        "this server cannot translate TypeScript: it has no working wasm interpreter",
    )
    .hint("deploy the JavaScript that your compiler makes, or ask the operator to run `piecework doctor` on the server")
}

fn busy() -> Rejection {
    Rejection::new(
        Code::DeployBusy,
        "too many deploys wait for their TypeScript to be translated",
    )
    .hint("deploy again in a moment")
}

#[cfg(test)]
mod tests {
    use piecework_model::AnyCode;

    use super::*;

    fn files(all: &[(&str, &str)]) -> BTreeMap<String, Bytes> {
        let pair = |(path, text): &(&str, &str)| ((*path).to_owned(), Bytes::copy_from_slice(text.as_bytes()));
        all.iter().map(pair).collect()
    }

    fn refused<T: std::fmt::Debug>(result: Result<T, TranslateError>) -> AnyCode {
        match result.expect_err("refused") {
            TranslateError::Rejected(rejection) => rejection.code,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_program_reads_what_is_typescript_of_the_developers_own() {
        let all = files(&[
            ("main.ts", "1"),
            ("main.ts.mjs", "old"),
            ("lib/a.tsx", "2"),
            ("types.d.ts", "3"),
            ("data.json", "4"),
            ("node_modules/x/index.ts", "5"),
        ]);
        let event = asked(&all, "main.ts").expect("small");
        let event: serde_json::Value = serde_json::from_slice(&event).expect("JSON");
        let due = serde_json::json!({"files": {"main.ts": "1", "lib/a.tsx": "2"}, "others": ["data.json", "types.d.ts"], "entry": "main.ts"});
        assert_eq!(event, due);
    }

    #[test]
    fn what_ends_the_sandbox_is_the_sources_fault() {
        for outcome in [
            Outcome::TimedOut,
            Outcome::OutOfMemory,
            Outcome::Crashed("a trap".into()),
        ] {
            assert_eq!(refused(ended(outcome)), Code::TypescriptTooComplex);
        }
        let large = "x".repeat(SOURCE_BYTES_MAX + 1);
        assert_eq!(
            refused(asked(&files(&[("main.ts", &large)]), "main.ts")),
            Code::TypescriptTooComplex
        );
        assert!(matches!(ended(Outcome::Lost), Err(TranslateError::Sandbox(_))));
    }

    #[test]
    fn a_refusal_names_file_and_line_and_nothing_else_is_written() {
        let said = r#"{"refused":{"kind":"unsupported","file":"a.ts","line":3,"message":"decorators"}}"#;
        let error = told(said.as_bytes()).expect_err("refused");
        assert!(error.to_string().contains("a.ts line 3: decorators"), "{error}");
        assert_eq!(refused(told(said.as_bytes())), Code::TypescriptUnsupported);
        let said = r#"{"outputs":{"a.ts.mjs":"1","package.json":"{}"}}"#;
        assert_eq!(
            told(said.as_bytes()).expect("outputs").into_keys().collect::<Vec<_>>(),
            ["a.ts.mjs"]
        );
        assert!(matches!(told(b"[]"), Err(TranslateError::Sandbox(_))));
    }

    #[tokio::test]
    async fn without_a_sandbox_typescript_is_refused_and_javascript_is_not() {
        let none: Sandboxes = Arc::new(|| None);
        let owner = AccountId([1; 20]);
        let all = files(&[("main.ts", "export default 1")]);
        for program in [None, Some(Bytes::from_static(b"x"))] {
            let translator = TypeScript::new(program, none.clone());
            let refusal = refused(translator.translate(owner, &all, "main.ts").await);
            assert_eq!(refusal, Code::TypescriptUnavailable);
            let other = translator.translate(owner, &all, "main.mjs").await;
            assert!(matches!(other, Ok(None)));
        }
    }
}
