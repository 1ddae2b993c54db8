//! Changes that hold only for the function as its owner saw it: `ETag` and `If-Match`.

use axum::http::{HeaderMap, HeaderValue, header};
use piecework_model::{Code, Digest};

use crate::{Answer, failure::Refusal, functions::Live};

/// What `If-Match` asks for; nothing without it.
#[derive(Debug, Default)]
pub(crate) struct Condition(Option<String>);

impl Condition {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let named = headers
            .get(header::IF_MATCH)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Self(named.filter(|tags| tags.trim() != "*"))
    }

    /// Refuses with `function.changed`.
    pub(crate) fn check(&self, live: &Live) -> Answer<()> {
        let Some(tags) = &self.0 else { return Ok(()) };
        let now = tag(live);
        if tags.split(',').any(|tag| tag.trim() == now) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::FunctionChanged,
            format!("`{}` was changed since you read it", live.function.name),
        )
        .hint("read it again, and repeat the request with the `ETag` of that response as `If-Match`")
        .into())
    }
}

/// Whether `If-None-Match` names the function as it is.
pub(crate) fn is_known(headers: &HeaderMap, live: &Live) -> bool {
    let now = tag(live);
    let named = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    named.is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == now))
}

/// Another one after every change of the function, its version or its policy; not where its calls made it move to another sandbox.
pub(crate) fn tag(live: &Live) -> String {
    let mut function = live.function.clone();
    function.policy.chosen.clear();
    let of = serde_json::to_vec(&(&function, live.version.version)).expect("a record is JSON");
    format!("\"{}\"", &Digest::of(&of).to_string()[..TAG_LENGTH])
}

/// 64 bits: nobody looks for two that are alike.
const TAG_LENGTH: usize = 16;

pub(crate) fn header(live: &Live) -> HeaderValue {
    HeaderValue::try_from(tag(live)).expect("hex digits in quotes")
}
