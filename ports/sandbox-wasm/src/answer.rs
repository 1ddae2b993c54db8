//! What a runner says about a load or a call; the runners hold the same list of codes.

use piecework_model::typescript;
use piecework_sandbox::Raised;
use serde::Deserialize;

#[derive(Debug)]
pub(crate) enum Answer {
    /// Output as JSON; empty after a load.
    Done(String),
    Raised(Raised),
    NoHandler(String),
    Syntax(Syntax),
    Unsupported(String),
    Exited(String),
    Invalid(String),
    NoMemory,
    /// The output went through the outlet.
    Streamed,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Syntax {
    pub(crate) message: String,
    pub(crate) file: String,
    pub(crate) line: u32,
}

impl Answer {
    /// An answer in another form was written by the function itself, past the runner.
    pub(crate) fn read(code: u8, text: String) -> Result<Self, String> {
        let text = match code {
            1..=4 => typescript::as_deployed(&text).into_owned(),
            _ => text,
        };
        let forged = |error: serde_json::Error| format!("the runner's answer is damaged: {error}");
        Ok(match code {
            0 => Self::Done(text),
            1 => Self::Raised(serde_json::from_str(&text).map_err(forged)?),
            2 => Self::NoHandler(text),
            3 => Self::Syntax(serde_json::from_str(&text).map_err(forged)?),
            4 => Self::Unsupported(text),
            5 => Self::Exited(text),
            6 => Self::Invalid(text),
            7 => Self::NoMemory,
            8 => Self::Streamed,
            _ => return Err(format!("the runner answered with the unknown code {code}")),
        })
    }
}
