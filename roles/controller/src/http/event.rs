//! From a request at a plain URL to the function's event.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::percent_decode_str;
use piecework_api::execute::HttpEvent;
use serde_json::Value;

/// Which function a URL names, and what is left of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) owner: String,
    pub(super) name: String,
    /// As it was sent; `/` at least.
    pub(super) raw_path: &'a str,
}

/// Of the path of a plain URL: `/fn/{owner}/{name}` and whatever follows.
pub(super) fn target(path: &str) -> Option<Target<'_>> {
    let (owner, rest) = path.strip_prefix("/fn/")?.split_once('/')?;
    let (name, raw_path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    Some(Target {
        owner: decoded(owner),
        name: decoded(name),
        raw_path,
    })
}

/// What the request's body is to the event.
pub(super) enum EventBody<'a> {
    Whole(&'a [u8]),
    /// Too large for it: the function reads it as a stream.
    Streamed,
}

pub(super) fn event(raw_path: &str, parts: &Parts, body: EventBody<'_>) -> HttpEvent {
    let raw_query = parts.uri.query().unwrap_or_default();
    let query_list: Vec<(String, String)> = form_urlencoded::parse(raw_query.as_bytes()).into_owned().collect();
    let body_stream = matches!(body, EventBody::Streamed);
    let (body, body_base64) = match body {
        EventBody::Whole(bytes) => body_of(&parts.headers, bytes),
        EventBody::Streamed => (None, None),
    };
    HttpEvent {
        method: parts.method.to_string(),
        path: decoded(raw_path),
        raw_path: raw_path.to_owned(),
        query: query_list.iter().cloned().collect(),
        query_list,
        raw_query: raw_query.to_owned(),
        headers: last_of_each(&parts.headers),
        header_list: functions_own(&parts.headers)
            .map(|(name, value)| (name.to_string(), text_of(value)))
            .collect(),
        body,
        body_base64,
        body_stream,
    }
}

/// What is not UTF-8 is shown as well as may be: the raw path has it as it was.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// What is meant for the platform stays here. Cookies are the function's where its origin is.
fn functions_own(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    headers.iter().filter(|(name, _)| **name != header::AUTHORIZATION)
}

fn last_of_each(headers: &HeaderMap) -> BTreeMap<String, String> {
    functions_own(headers)
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}

/// Each byte is one character: nothing is lost.
fn text_of(value: &HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}

fn body_of(headers: &HeaderMap, bytes: &[u8]) -> (Option<Value>, Option<String>) {
    if bytes.is_empty() {
        return (None, None);
    }
    let json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.starts_with("application/json") || kind.contains("+json"));
    if json && let Ok(value) = serde_json::from_slice(bytes) {
        return (Some(value), None);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(Value::String(text.to_owned())), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn a_url_names_a_function_and_keeps_its_rest() {
        let table = [
            ("/fn/ada/hello", Some(("ada", "hello", "/"))),
            ("/fn/ada/hello/", Some(("ada", "hello", "/"))),
            ("/fn/ada/hello//", Some(("ada", "hello", "//"))),
            ("/fn/ada/hello/a%2Fb/%ff/", Some(("ada", "hello", "/a%2Fb/%ff/"))),
            ("/fn/%61da/hell%6F/x", Some(("ada", "hello", "/x"))),
            ("/fn/ada", None),
            ("/other/ada/hello", None),
        ];
        for (path, due) in table {
            let found = target(path);
            let found = found
                .as_ref()
                .map(|target| (target.owner.as_str(), target.name.as_str(), target.raw_path));
            assert_eq!(found, due, "{path}");
        }
    }

    fn parts(uri: &str, headers: &[(&str, &[u8])]) -> Parts {
        let mut request = Request::builder().method("POST").uri(uri);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value).expect("a value"));
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn a_query_is_carried_whole() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let table = [
            ("/x", "", vec![]),
            ("/x?", "", vec![]),
            (
                "/x?b=2&a=1&b=%C3%A9+1",
                "b=2&a=1&b=%C3%A9+1",
                vec![pair("b", "2"), pair("a", "1"), pair("b", "é 1")],
            ),
            ("/x?flag&=v", "flag&=v", vec![pair("flag", ""), pair("", "v")]),
            ("/x?a=%ff", "a=%ff", vec![pair("a", "\u{fffd}")]),
        ];
        for (uri, raw, list) in table {
            let event = event("/x", &parts(uri, &[]), EventBody::Whole(b""));
            assert_eq!(event.raw_query, raw, "{uri}");
            for (name, value) in &event.query {
                let last = list.iter().rev().find(|(other, _)| other == name);
                assert_eq!(last.map(|(_, value)| value), Some(value), "the last one counts: {uri}");
            }
            assert_eq!(event.query_list, list, "{uri}");
        }
    }

    #[test]
    fn headers_are_carried_whole_but_for_the_platforms() {
        let sent: [(&str, &[u8]); 5] = [
            ("X-A", b"1"),
            ("x-b", b"2"),
            ("x-a", b"3"),
            ("x-latin", b"caf\xe9"),
            ("authorization", b"Bearer secret"),
        ];
        let event = event("/", &parts("/", &sent), EventBody::Whole(b""));
        let mut list: Vec<(&str, &str)> = event.header_list.iter().map(|(n, v)| (&**n, &**v)).collect();
        list.sort_unstable();
        assert_eq!(list, [("x-a", "1"), ("x-a", "3"), ("x-b", "2"), ("x-latin", "café")]);
        let of_a: Vec<&str> = event
            .header_list
            .iter()
            .filter(|(name, _)| name == "x-a")
            .map(|(_, value)| &**value)
            .collect();
        assert_eq!(of_a, ["1", "3"], "in their order");
        let last: Vec<(&str, &str)> = event.headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(last, [("x-a", "3"), ("x-b", "2")]);
    }

    #[test]
    fn a_body_is_json_text_or_bytes() {
        let json = Some(("content-type", &b"application/json; charset=utf-8"[..]));
        let table: [(_, &[u8], Option<Value>, Option<&str>); 5] = [
            (json, b"[1]", Some(serde_json::json!([1])), None),
            (json, b"[1", Some("[1".into()), None),
            (None, b"[1]", Some("[1]".into()), None),
            (None, b"\xff\x00", None, Some("/wA=")),
            (None, b"", None, None),
        ];
        for (header, sent, body, base64) in table {
            let event = event("/", &parts("/", header.as_slice()), EventBody::Whole(sent));
            assert_eq!((event.body, event.body_base64.as_deref()), (body, base64), "{sent:?}");
            assert!(!event.body_stream);
        }
        let streamed = event("/", &parts("/", &[]), EventBody::Streamed);
        assert!(streamed.body_stream && streamed.body.is_none());
    }
}
