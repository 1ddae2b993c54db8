//! A program within a worker: makes its instances, and keeps what makes the next one quick.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use piecework_model::{Code, Language, Limits, Rejection};
use piecework_sandbox::{LoadError, Raised};

use crate::{
    answer::{Answer, Syntax},
    host::Files,
    instance::{Broken, WasmInstance},
    logs::Logs,
    modules::Modules,
    program::{load_failed, no_handler},
    runtime::Runtime,
    words::{Start, place},
};

/// Compiled code beyond this is not kept: more than the code of a large application, and what tells it is the program itself.
const COMPILED_BYTES_MAX: usize = 16 << 20;

pub(super) struct Template {
    runtime: Arc<Runtime>,
    setup: String,
    limits: Limits,
    sources: Sources,
}

/// What instances are loaded from.
enum Sources {
    Python {
        directory: PathBuf,
        /// The compiled modules of the first instance; empty where they are too much to keep.
        code: OnceLock<Vec<u8>>,
    },
    JavaScript(Arc<Modules>),
}

impl Template {
    pub(super) fn new(runtime: Arc<Runtime>, start: Start) -> Result<Self, LoadError> {
        let directory = PathBuf::from(place(start.place));
        let sources = match runtime.language() {
            Language::Python => Sources::Python {
                directory,
                code: OnceLock::new(),
            },
            Language::Image => unreachable!("no image is loaded here"),
            Language::JavaScript => {
                Sources::JavaScript(Arc::new(Modules::new(&directory).map_err(|error| failed(&error))?))
            }
        };
        Ok(Self {
            runtime,
            setup: start.setup,
            limits: start.limits,
            sources,
        })
    }

    /// A loaded instance. The first one tells what its program compiled to.
    pub(super) async fn instance(&self) -> Result<WasmInstance, LoadError> {
        let logs = Logs::new(self.limits.log_bytes);
        let (files, known) = match &self.sources {
            Sources::Python { directory, code } => (Files::Directory(directory), code.get().cloned()),
            Sources::JavaScript(modules) => (Files::Modules(Arc::clone(modules)), None),
        };
        let store = self.runtime.store(logs, files).map_err(|error| failed(&error))?;
        let guest = self.runtime.guest(store).await.map_err(|error| failed(&error))?;
        let mut instance = WasmInstance::new(guest, Arc::clone(&self.runtime), self.limits);
        let is_first = known.is_none();
        let answer = instance
            .load(self.setup.clone(), known.unwrap_or_default())
            .await
            .map_err(|broken| self.refused(broken))?;
        loaded(answer, instance.missing())?;
        if let (true, Sources::Python { code, .. }) = (is_first, &self.sources) {
            let compiled = instance.compiled().await.map_err(|broken| self.refused(broken))?;
            let kept = if compiled.len() <= COMPILED_BYTES_MAX {
                compiled
            } else {
                Vec::new()
            };
            // Another may have been quicker: theirs is as good.
            let _ = code.set(kept);
        }
        Ok(instance)
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        match &self.sources {
            Sources::Python { code, .. } => code.get().map_or(0, |code| code.len() as u64),
            Sources::JavaScript(modules) => modules.memory_bytes(),
        }
    }

    fn refused(&self, broken: Broken) -> LoadError {
        let limits = self.limits;
        load_failed(match broken {
            Broken::Touched(what) => {
                let reason = format!("it does not have {what}");
                return LoadError::Unsupported { reason };
            }
            // Nothing stops a load.
            Broken::OutOfTime | Broken::Stopped => {
                format!("the module's own code took longer than {} ms", limits.timeout_ms)
            }
            Broken::OutOfMemory => format!(
                "the module's own code needs more than {} MiB",
                limits.memory_bytes >> 20
            ),
            Broken::Died(reason) | Broken::Invalid(reason) => {
                format!("the module's own code ended the instance: {reason}")
            }
            Broken::TooMuchStreamed => "the module's own code streamed".to_owned(),
        })
    }
}

fn failed(error: &dyn std::fmt::Display) -> LoadError {
    LoadError::Failed(format!("{error:#}"))
}

fn loaded(answer: Answer, missing: Option<&str>) -> Result<(), LoadError> {
    match answer {
        Answer::Done(_) => Ok(()),
        Answer::Raised(raised) => Err(match unsupported(&raised, missing) {
            Some(reason) => LoadError::Unsupported { reason },
            None => load_failed(format!("{}: {}\n{}", raised.kind, raised.message, raised.stack)),
        }),
        Answer::Syntax(Syntax { message, file, line }) => Err(LoadError::Code(Rejection::new(
            Code::FunctionSyntaxError,
            format!("{file}, line {line}: {}", without_place(&message, &file, line)),
        ))),
        Answer::NoHandler(message) => Err(no_handler(message)),
        Answer::Unsupported(reason) => Err(LoadError::Unsupported { reason }),
        Answer::Exited(code) => Err(load_failed(format!("the module exited with code {code}"))),
        Answer::Invalid(reason) => Err(LoadError::Failed(reason)),
        Answer::Streamed => Err(load_failed("the module's own code streamed".to_owned())),
        Answer::NoMemory => Err(load_failed("the module's own code ran out of memory".to_owned())),
    }
}

/// Python says a syntax error's place at its end as well.
fn without_place<'a>(message: &'a str, file: &str, line: u32) -> &'a str {
    let name = file.rsplit('/').next().unwrap_or(file);
    message
        .strip_suffix(&format!(" ({name}, line {line})"))
        .unwrap_or(message)
}

/// Globals of Node and browsers that code for another sandbox may count on.
const FOREIGN_GLOBALS: [&str; 11] = [
    "fetch",
    "require",
    "module",
    "exports",
    "__dirname",
    "__filename",
    "Worker",
    "WebSocket",
    "Blob",
    "AbortController",
    "WebAssembly",
];

/// Why a module that failed at load may well load in another sandbox.
fn unsupported(raised: &Raised, missing: Option<&str>) -> Option<String> {
    if raised.kind != "ReferenceError" {
        return None;
    }
    if let Some(missing) = missing.filter(|name| raised.message.contains(*name)) {
        return Some(format!(
            "the module `{missing}` is not in the bundle and does not exist in WebAssembly"
        ));
    }
    let name = FOREIGN_GLOBALS
        .iter()
        .find(|name| raised.message == format!("{name} is not defined"))?;
    Some(format!("`{name}` does not exist in WebAssembly"))
}
