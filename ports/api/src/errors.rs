//! Refusals on the wire, and the catalogue of all stable codes with their statuses.

use piecework_model::{AnyCode, Code, JobId, Rejection};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use utoipa::ToSchema;

mod catalogue;

pub use catalogue::{Entry, catalogue};

/// Body of every response that is not 2xx (except functions' own responses at `/fn/`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    pub error: Refusal,
}

/// Why a request was refused, or how a job failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// Stable: programs can rely on it. docs/errors.md lists all codes.
    #[schema(value_type = String, example = "function.not_found")]
    pub code: AnyCode,
    /// Sentence for people; may change.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Path of the invalid field, like `env.KEY` or `items[2].name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Present if several fields are invalid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldFault>,
    /// The job concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub job_id: Option<JobId>,
    /// Depends on the code: `function.raised` has `type`, `message`, `stack`; `provider.none` has `reasons`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub details: Option<Value>,
}

/// One invalid field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldFault {
    pub path: String,
    pub message: String,
}

impl Refusal {
    pub fn new(code: impl Into<AnyCode>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            hint: None,
            field: None,
            fields: Vec::new(),
            job_id: None,
            details: None,
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn field(mut self, path: impl Into<String>) -> Self {
        self.field = Some(path.into());
        self
    }

    pub fn job(mut self, job: JobId) -> Self {
        self.job_id = Some(job);
        self
    }

    pub fn details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    pub fn status(&self) -> u16 {
        status_of(&self.code)
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self {
            hint: rejection.hint,
            field: rejection.field,
            ..Self::new(rejection.code, rejection.message)
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// The HTTP status of a code. One that only a newer program knows is some rejection: 422.
pub fn status_of(code: &AnyCode) -> u16 {
    code.known()
        .map_or(Some(422), |code| catalogue::entry(code).status)
        .unwrap_or(500)
}

/// A request's body, or `body.malformed` with the path of the field that does not fit.
///
/// Unknown fields, wrong types, text after the value and invalid UTF-8 all fail here. Sizes are the caller's to check.
#[expect(
    clippy::result_large_err,
    reason = "met once per refused request; whoever keeps it boxes it"
)]
pub fn parse_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    // Serde would take an array for a struct.
    if body.trim_ascii_start().first().is_some_and(|byte| *byte != b'{') {
        return Err(Refusal::new(Code::BodyMalformed, "the body is not a JSON object")
            .hint("send JSON as described by /openapi.json"));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(placed)?;
    reader.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn placed(error: serde_path_to_error::Error<serde_json::Error>) -> Refusal {
    let path = error.path().to_string();
    let refusal = malformed(error.inner());
    if path == "." { refusal } else { refusal.field(path) }
}

fn malformed(error: &serde_json::Error) -> Refusal {
    Refusal::new(Code::BodyMalformed, error.to_string()).hint("send JSON as described by /openapi.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{execute::Execute, functions::CreateFunction};

    #[test]
    fn a_wrong_type_is_told_with_its_path() {
        let body = br#"{"name": "a", "language": "python", "env": {"A": 1}}"#;
        let refusal = parse_body::<CreateFunction>(body).expect_err("env holds strings");
        assert_eq!(
            (refusal.code.known(), refusal.field.as_deref()),
            (Some(Code::BodyMalformed), Some("env.A"))
        );
    }

    #[test]
    fn an_unknown_field_is_refused_and_named() {
        let refusal = parse_body::<Execute>(br#"{"inptu": 1}"#).expect_err("a misspelt field");
        assert_eq!(refusal.field.as_deref(), Some("inptu"));
        assert!(refusal.message.contains("inptu"), "{}", refusal.message);
    }

    #[test]
    fn text_after_the_value_is_refused() {
        assert!(parse_body::<Execute>(br#"{"input": 1} 2"#).is_err());
    }

    #[test]
    fn an_input_arrives_as_it_was_written() {
        let body: Execute = parse_body(br#"{"input": { "n": 1.10,  "a":[ ] }}"#).expect("a fine body");
        assert_eq!(body.input.get(), r#"{ "n": 1.10,  "a":[ ] }"#);
        let empty: Execute = parse_body(b"{}").expect("input may be left out");
        assert_eq!(empty.input.get(), "null");
    }

    #[test]
    fn a_body_that_is_not_utf8_is_refused() {
        assert!(parse_body::<Execute>(b"{\"input\": \"\xff\"}").is_err());
    }
}
