//! A program as the runners need it: which file, which function, which variables.

use piecework_model::{Code, Language, Rejection, typescript};
use piecework_sandbox::{LoadError, Program};

use crate::words::Setup;

pub(crate) fn setup_of(program: &Program) -> Result<String, LoadError> {
    let (file, function) = handler_of(program);
    let entry = typescript::loaded(&file);
    let inside = !entry.is_empty() && entry.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !inside || !program.directory.join(&*entry).is_file() {
        return Err(no_handler(format!("the bundle has no file `{file}`")));
    }
    let setup = Setup {
        entry: &entry,
        function: &function,
        env: &program.env,
        function_name: &program.function_name,
        version: program.version,
    };
    serde_json::to_string(&setup).map_err(|error| LoadError::Failed(format!("cannot describe the program: {error}")))
}

/// `file:function`, `file` or nothing; the file's ending may be left out.
fn handler_of(program: &Program) -> (String, String) {
    let (default_function, ending) = match program.language {
        Language::Python => ("handler", ".py"),
        Language::JavaScript | Language::Image => ("", ".mjs"),
    };
    let Some(handler) = program.handler.as_deref() else {
        return (program.language.entry_file().to_owned(), default_function.to_owned());
    };
    let (file, function) = handler.split_once(':').unwrap_or((handler, default_function));
    let has_ending = file.rsplit('/').next().is_some_and(|name| name.contains('.'));
    let file = if has_ending {
        file.to_owned()
    } else {
        format!("{file}{ending}")
    };
    (file.trim_start_matches("./").to_owned(), function.to_owned())
}

pub(crate) fn no_handler(message: String) -> LoadError {
    LoadError::Code(
        Rejection::new(Code::FunctionNoHandler, message)
            .hint("define `def handler(event, context)` in main.py, or export a default function from main.mjs")
            .field("handler"),
    )
}

pub(crate) fn load_failed(message: String) -> LoadError {
    LoadError::Code(Rejection::new(Code::FunctionLoadFailed, message))
}
