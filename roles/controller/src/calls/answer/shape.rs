//! The shapes of an output that mean something at a URL. What is almost an answer is an error and not data: nobody would see
//! that it was sent as JSON.
//!
//! Values stay text until they are needed: numbers of any size go through as they were written.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use piecework_api::errors::Refusal;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use serde_json::value::RawValue;

use super::{AnswerHead, BYTES, JSON, TEXT, WholeAnswer, invalid};

/// What an explicit answer may have beside its status.
const PARTS: [&str; 4] = ["headers", "header_list", "body", "body_base64"];

/// A text of JSON; half of a pair of surrogates becomes U+FFFD.
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            /// UTF-8 but for lone surrogates, which are there as if they had three bytes of it.
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Text, E> {
                let mut text = String::with_capacity(bytes.len());
                for chunk in bytes.utf8_chunks() {
                    text.push_str(chunk.valid());
                    if chunk.invalid().first() == Some(&0xed) {
                        text.push(char::REPLACEMENT_CHARACTER);
                    }
                }
                Ok(Text(text))
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

type Fields<'a> = BTreeMap<String, &'a RawValue>;

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str::<Text>(value.get()).ok().map(|Text(text)| text)
}

/// The bytes of `{"$bytes": "<base64>"}`.
pub(super) fn bytes(json: &[u8]) -> Option<Bytes> {
    // Most objects are not looked into.
    let begins = json.strip_prefix(b"{")?.trim_ascii_start();
    if !begins.starts_with(b"\"$bytes\"") {
        return None;
    }
    let fields: Fields<'_> = serde_json::from_slice(json).ok()?;
    match fields.len() {
        1 => Some(STANDARD.decode(text(fields["$bytes"])?).ok()?.into()),
        _ => None,
    }
}

/// An explicit answer.
pub(super) struct Said<'a> {
    status: u16,
    fields: Fields<'a>,
}

/// The explicit answer that an object is; none of one that is data. Refuses with `function.output_invalid` what is meant as
/// an answer and is none.
pub(super) fn explicit(json: &[u8]) -> Result<Option<Said<'_>>, Box<Refusal>> {
    let Ok(fields) = serde_json::from_slice::<Fields<'_>>(json) else {
        return Ok(None);
    };
    let Some(status) = fields.get("status") else {
        return Ok(None);
    };
    let has_parts = PARTS.iter().any(|part| fields.contains_key(*part));
    let status = match status.get().parse::<i64>() {
        // No status of HTTP, whatever it counts.
        Ok(number) if !(100..1_000).contains(&number) => return Ok(None),
        Ok(number) => u16::try_from(number).unwrap_or(u16::MAX),
        Err(_) if has_parts && is_almost_a_status(status) => {
            let why = format!("its status is {}; give it as a whole number", status.get());
            return Err(invalid(&why));
        }
        Err(_) => return Ok(None),
    };
    if !has_parts {
        let is_all = fields.len() == 1 && (200..600).contains(&status);
        return Ok(is_all.then_some(Said { status, fields }));
    }
    let other = fields
        .keys()
        .find(|key| *key != "status" && !PARTS.contains(&key.as_str()));
    match other {
        None => Ok(Some(Said { status, fields })),
        Some(other) => Err(invalid(&format!(
            "it has a status and `{}`; an answer has status, headers, header_list, body and body_base64. To send the whole \
             object as JSON, return it as the `body` of an answer",
            other.escape_debug()
        ))),
    }
}

/// `"404"` or `404.0`.
fn is_almost_a_status(value: &RawValue) -> bool {
    let number = value.get().trim_matches('"').parse::<f64>();
    number.is_ok_and(|number| (100.0..1_000.0).contains(&number))
}

impl Said<'_> {
    /// Refuses with `function.output_invalid`.
    pub(super) fn answer(self) -> Result<WholeAnswer, Box<Refusal>> {
        let pairs = self.headers()?;
        let pairs = pairs.iter().map(|(name, value)| (&**name, value.as_bytes()));
        let mut head = AnswerHead::new(self.status, pairs)?;
        let part = |name: &str| {
            let part = self.fields.get(name).copied();
            part.filter(|value| value.get() != "null")
        };
        let (kind, body) = match (part("body"), part("body_base64")) {
            (Some(_), Some(_)) => return Err(invalid("give body or body_base64, not both")),
            (None, None) => (None, Bytes::new()),
            (Some(value), None) => body_of(value),
            (None, Some(encoded)) => match text(encoded).map(|text| STANDARD.decode(text)) {
                Some(Ok(bytes)) => (Some(BYTES), bytes.into()),
                Some(Err(_)) | None => return Err(invalid("body_base64 does not decode")),
            },
        };
        if head.is_bodyless() {
            return Ok(WholeAnswer {
                head,
                body: Bytes::new(),
            });
        }
        if let Some(kind) = kind {
            head.headers.entry(axum::http::header::CONTENT_TYPE).or_insert(kind);
        }
        Ok(WholeAnswer { head, body })
    }

    fn headers(&self) -> Result<Vec<(String, String)>, Box<Refusal>> {
        let mut pairs = Vec::new();
        if let Some(headers) = self.fields.get("headers") {
            let headers = serde_json::from_str::<Option<Fields<'_>>>(headers.get());
            let headers = headers.map_err(|_| invalid("its headers are no object of names and values"))?;
            for (name, value) in headers.into_iter().flatten() {
                let values = serde_json::from_str::<Vec<&RawValue>>(value.get()).unwrap_or_else(|_| vec![value]);
                for value in values {
                    pairs.push((name.clone(), header(&name, value)?));
                }
            }
        }
        if let Some(list) = self.fields.get("header_list") {
            let list = serde_json::from_str::<Option<Vec<(String, &RawValue)>>>(list.get());
            let list = list.map_err(|_| invalid("its header_list is no list of pairs of a name and a value"))?;
            for (name, value) in list.into_iter().flatten() {
                let value = header(&name, value)?;
                pairs.push((name, value));
            }
        }
        Ok(pairs)
    }
}

/// A text, or what stands for one: a number, true or false.
fn header(name: &str, value: &RawValue) -> Result<String, Box<Refusal>> {
    match value.get().as_bytes().first() {
        Some(b'"') => text(value).ok_or_else(|| invalid("a header's value is no text")),
        Some(b'{' | b'[' | b'n') | None => Err(invalid(&format!(
            "the header `{}` is {}; its value has to be a text, a number, or a list of them",
            name.escape_debug(),
            match value.get() {
                "null" => "null",
                _ => "an object or a list in a list",
            }
        ))),
        Some(_) => Ok(value.get().to_owned()),
    }
}

fn body_of(value: &RawValue) -> (Option<axum::http::HeaderValue>, Bytes) {
    let json = value.get();
    match json.as_bytes().first() {
        Some(b'"') => match text(value) {
            Some(text) => (Some(TEXT), text.into()),
            None => (Some(JSON), json.to_owned().into()),
        },
        _ => match bytes(json.as_bytes()) {
            Some(bytes) => (Some(BYTES), bytes),
            None => (Some(JSON), json.to_owned().into()),
        },
    }
}
