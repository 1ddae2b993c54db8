//! What frames say: settings and calls as JSON, and the answers to them.

use std::collections::BTreeMap;

use bytes::Bytes;
use piecework_model::{Code, Language, Rejection, typescript};
use serde::{Deserialize, Serialize};

use super::PROTOCOL;
use crate::{Call, Head, Outcome, Program, Raised};

/// What a runner needs to know of its program.
#[derive(Serialize)]
struct Settings<'a> {
    file: &'a str,
    function: &'a str,
    env: BTreeMap<&'a str, &'a str>,
    name: &'a str,
    version: u32,
    output_bytes: u64,
    memory_mb: u64,
    /// Whether there is a network while a call runs.
    network: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<ImageSettings<'a>>,
}

/// What is started of an image, and how it is asked.
#[derive(Serialize)]
struct ImageSettings<'a> {
    arguments: &'a [String],
    directory: &'a str,
    /// None: it is run once for each call.
    port: Option<u16>,
}

/// The payload of a load. `base` are variables of the sandbox itself, which the program's own replace.
pub(super) fn settings(program: &Program, base: &[(&'static str, &'static str)]) -> Vec<u8> {
    let (file, function) = entry(program);
    let file = &typescript::loaded(file);
    let mut env: BTreeMap<&str, &str> = base.iter().copied().collect();
    env.extend(program.env.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let settings = Settings {
        file,
        function,
        env,
        name: &program.function_name,
        version: program.version,
        output_bytes: program.limits.output_bytes,
        memory_mb: program.limits.memory_bytes >> 20,
        network: !program.egress.is_empty(),
        image: program.image.as_ref().map(|image| ImageSettings {
            arguments: &image.arguments,
            directory: &image.directory,
            port: image.port,
        }),
    };
    serde_json::to_vec(&settings).expect("texts and numbers are JSON")
}

/// `file` or `file:function`, with the language's defaults.
fn entry(program: &Program) -> (&str, &str) {
    let by_default = match program.language {
        Language::Python => "handler",
        Language::JavaScript | Language::Image => "default",
    };
    match program.handler.as_deref() {
        None => (program.language.entry_file(), by_default),
        Some(handler) => handler.rsplit_once(':').unwrap_or((handler, by_default)),
    }
}

/// The payload of a call, in parts; event and parameters are JSON already.
pub(super) fn before_parameters(call: &Call) -> String {
    let body = if call.body.is_some() { r#""body":true,"# } else { "" };
    format!(
        r#"{{"job_id":"{}","deadline_ms":{},{body}"parameters":"#,
        call.job, call.deadline_ms
    )
}

#[derive(Deserialize)]
struct Greeting {
    protocol: u32,
}

/// Why a greeting is refused.
pub(super) fn greeting_fault(payload: &[u8]) -> Option<String> {
    match serde_json::from_slice::<Greeting>(payload) {
        Ok(greeting) if greeting.protocol == PROTOCOL => None,
        Ok(greeting) => Some(format!(
            "the runner speaks version {} of the protocol, and this build {PROTOCOL}",
            greeting.protocol
        )),
        Err(_) => Some("the runner names no version of the protocol".to_owned()),
    }
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    message: String,
    /// The handler to load in place of the one that is missing, with its contract.
    #[serde(default)]
    contract: Option<String>,
}

/// How the field of a `function.no_handler` begins that names what to load instead: `contract:app.py:app@asgi`.
pub const CONTRACT_FIELD: &str = "contract:";

pub(super) fn rejection(bytes: &[u8]) -> Rejection {
    let Ok(mut refusal) = serde_json::from_slice::<Refusal>(bytes) else {
        return load_failed("the module forged its own refusal".to_owned());
    };
    refusal.message = typescript::as_deployed(&refusal.message).into_owned();
    refusal.contract = refusal.contract.map(|name| typescript::as_deployed(&name).into_owned());
    match Code::parse(&refusal.code) {
        Some(Code::FunctionSyntaxError) => {
            Rejection::new(Code::FunctionSyntaxError, refusal.message).hint("correct that line and deploy again")
        }
        Some(Code::FunctionNoHandler) => {
            let rejection = Rejection::new(Code::FunctionNoHandler, refusal.message);
            match refusal.contract {
                Some(handler) => rejection
                    .hint(format!("deploy it with --handler {handler}"))
                    .field(format!("{CONTRACT_FIELD}{handler}")),
                None => rejection
                    .hint("Python: `def handler(event, context)` in main.py; JavaScript: `export default` in main.mjs"),
            }
        }
        Some(_) | None => load_failed(refusal.message),
    }
}

/// `function.load_failed` with this sentence.
pub fn load_failed(message: String) -> Rejection {
    Rejection::new(Code::FunctionLoadFailed, message)
        .hint("the code outside the handler runs once, under the function's limits")
}

#[derive(Deserialize)]
struct HeadSaid {
    status: u16,
    headers: Vec<(String, String)>,
}

pub(super) fn head(payload: &[u8]) -> Result<Head, String> {
    let said: HeadSaid = serde_json::from_slice(payload).map_err(|_| "the function forged a head".to_owned())?;
    let bytes = |(name, value): (String, String)| (name, Bytes::from(value));
    Head::checked(said.status, said.headers.into_iter().map(bytes).collect())
}

/// What an answer to a call says, and whether the runner may be asked again.
pub(super) fn outcome(kind: u8, payload: Bytes, output_bytes_max: u64) -> (Outcome, bool) {
    match kind {
        b'O' if payload.len() as u64 > output_bytes_max => (Outcome::OutputTooLarge, false),
        b'O' => match serde_json::from_slice::<serde::de::IgnoredAny>(&payload) {
            Ok(_) => (Outcome::Returned(payload), true),
            Err(error) => (
                Outcome::OutputInvalid(format!("the output is not JSON: {error}")),
                false,
            ),
        },
        b'S' => (Outcome::Streamed, true),
        b'R' => match serde_json::from_slice::<Raised>(&payload) {
            Ok(raised) => (Outcome::Raised(raised.as_deployed()), true),
            Err(_) => (Outcome::OutputInvalid("the function forged an error".to_owned()), false),
        },
        b'I' => (
            Outcome::OutputInvalid(String::from_utf8_lossy(&payload).into_owned()),
            true,
        ),
        b'T' => (Outcome::OutputTooLarge, true),
        b'M' => (Outcome::OutOfMemory, false),
        _ => (
            Outcome::OutputInvalid("the function wrote to its output channel by hand".to_owned()),
            false,
        ),
    }
}
