//! From a request at a plain URL to the function's event.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
};

use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::percent_decode_str;
use piecework_api::execute::{HttpClient, HttpEvent};
use piecework_sandbox::{LEVELS_MAX, is_deep};
use serde_json::value::RawValue;

use super::is_the_platforms;

/// Which function a URL names, and what is left of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) owner: String,
    pub(super) name: String,
    /// As it was sent; `/` at least.
    pub(super) raw_path: &'a str,
    /// What stood before it.
    pub(super) base_path: String,
}

/// Of the path of a plain URL: `/fn/{owner}/{name}` and whatever follows.
pub(super) fn target(path: &str) -> Option<Target<'_>> {
    let (owner, rest) = path.strip_prefix("/fn/")?.split_once('/')?;
    let (name, raw_path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let base_path = path.strip_suffix(raw_path).unwrap_or(path);
    Some(Target {
        owner: decoded(owner),
        name: decoded(name),
        raw_path,
        base_path: base_path.to_owned(),
    })
}

/// What the request's body is to the event.
pub(super) enum EventBody<'a> {
    Whole(&'a [u8]),
    /// Too large for it: the function reads it as a stream.
    Streamed,
}

/// Where a request came in.
#[derive(Default)]
pub(super) struct Door<'a> {
    /// Before the function's path.
    pub(super) base_path: &'a str,
    pub(super) scheme: &'a str,
    /// The function takes requests as they are, so that nothing is parsed for it.
    pub(super) is_raw: bool,
}

pub(super) fn event(door: &Door<'_>, raw_path: &str, parts: &Parts, body: EventBody<'_>) -> HttpEvent {
    let raw_query = parts.uri.query().unwrap_or_default();
    let query_list: Vec<(String, String)> = form_urlencoded::parse(raw_query.as_bytes()).into_owned().collect();
    let body_stream = matches!(body, EventBody::Streamed);
    let body = match body {
        EventBody::Whole(bytes) => body_of(&parts.headers, bytes, door.is_raw),
        EventBody::Streamed => Body::default(),
    };
    let client = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    HttpEvent {
        method: parts.method.to_string(),
        path: decoded(raw_path),
        raw_path: raw_path.to_owned(),
        base_path: door.base_path.to_owned(),
        query: query_list.iter().cloned().collect(),
        query_list,
        raw_query: raw_query.to_owned(),
        headers: joined(&parts.headers),
        header_list: functions_own(&parts.headers)
            .map(|(name, value)| (name.to_string(), text_of(value)))
            .collect(),
        scheme: door.scheme.to_owned(),
        client: client.map_or_else(HttpClient::default, |ConnectInfo(address)| HttpClient {
            address: address.ip().to_canonical().to_string(),
            port: address.port(),
        }),
        body: body.value,
        raw_body: body.raw,
        body_base64: body.base64,
        body_stream,
    }
}

/// What is not UTF-8 is shown as well as may be: the raw path has it as it was.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// What is meant for the platform stays here. Cookies are the function's where its origin is.
fn functions_own(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    headers
        .iter()
        .filter(|(name, value)| **name != header::AUTHORIZATION || !is_the_platforms(value))
}

/// All values of a name in one, as RFC 9110 (5.3) allows; cookies as RFC 9113 (8.2.3).
fn joined(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut joined = BTreeMap::new();
    for (name, value) in functions_own(headers) {
        let value = match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => text.to_owned(),
            Err(_) => text_of(value),
        };
        match joined.entry(name.to_string()) {
            Entry::Vacant(entry) => _ = entry.insert(value),
            Entry::Occupied(mut entry) => {
                let between = if *name == header::COOKIE { "; " } else { ", " };
                *entry.get_mut() += between;
                *entry.get_mut() += &value;
            }
        }
    }
    joined
}

/// Each byte is one character: nothing is lost.
fn text_of(value: &HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}

/// A body in an event.
#[derive(Default)]
struct Body {
    value: Option<Box<RawValue>>,
    raw: Option<String>,
    base64: Option<String>,
}

/// Beside these levels there are the event's own, within what an event may have.
const BODY_LEVELS_MAX: usize = LEVELS_MAX - 10;
const BYTE_ORDER_MARK: char = '\u{feff}';

fn body_of(headers: &HeaderMap, bytes: &[u8], is_raw: bool) -> Body {
    if bytes.is_empty() {
        return Body::default();
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Body {
            base64: Some(STANDARD.encode(bytes)),
            ..Body::default()
        };
    };
    let json = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    // Not taken apart: numbers of any length and half pairs of surrogates stay what they are.
    if !is_raw
        && is_json(headers)
        && !is_deep(json.as_bytes(), BODY_LEVELS_MAX)
        && let Ok(value) = serde_json::from_str::<&RawValue>(json)
    {
        return Body {
            value: Some(value.to_owned()),
            raw: Some(text.to_owned()),
            ..Body::default()
        };
    }
    Body {
        value: serde_json::value::to_raw_value(text).ok(),
        ..Body::default()
    }
}

/// `application/json` or `application/anything+json`, in any case and with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
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
            let base = found.as_ref().map(|target| target.base_path.as_str());
            assert!(
                base.is_none_or(|base| path.starts_with(base) && !base.ends_with('/')),
                "{path}"
            );
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
            let event = event(&Door::default(), "/x", &parts(uri, &[]), EventBody::Whole(b""));
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
        let sent: [(&str, &[u8]); 9] = [
            ("X-A", b"1"),
            ("x-b", b"2"),
            ("x-a", b"3"),
            ("x-latin", b"caf\xe9"),
            ("x-utf8", "café".as_bytes()),
            ("x-empty", b""),
            ("cookie", b"a=1"),
            ("cookie", b"b=2"),
            ("authorization", b"Bearer pw_00ff"),
        ];
        let event = event(&Door::default(), "/", &parts("/", &sent), EventBody::Whole(b""));
        let of = |wanted: &str| -> Vec<&str> {
            let pairs = event.header_list.iter().filter(|(name, _)| name == wanted);
            pairs.map(|(_, value)| &**value).collect()
        };
        assert_eq!(of("x-a"), ["1", "3"], "in their order");
        assert_eq!(
            (of("x-latin"), of("x-utf8")),
            (vec!["café"], vec!["cafÃ©"]),
            "byte by byte"
        );
        assert_eq!(event.header_list.len(), sent.len() - 1);
        let joined: Vec<(&str, &str)> = event.headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(
            joined,
            [
                ("cookie", "a=1; b=2"),
                ("x-a", "1, 3"),
                ("x-b", "2"),
                ("x-empty", ""),
                ("x-latin", "café"),
                ("x-utf8", "café"),
            ]
        );
    }

    #[test]
    fn an_authorization_is_the_functions_own_unless_it_is_a_token_of_the_platform() {
        let table: [(&[u8], bool); 7] = [
            (b"Bearer pw_00ff", false),
            (b"bearer  pw_00ff ", false),
            (b"Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln", true),
            (b"Basic cHdfOng=", true),
            (b"Token pw_00ff", true),
            (b"pw_00ff", true),
            (b"Bearer \xff", true),
        ];
        for (sent, due) in table {
            let parts = parts("/", &[("authorization", sent)]);
            let event = event(&Door::default(), "/", &parts, EventBody::Whole(b""));
            let shown = String::from_utf8_lossy(sent);
            assert_eq!(event.headers.contains_key("authorization"), due, "{shown}");
            assert_eq!(event.header_list.len(), usize::from(due), "{shown}");
        }
    }

    /// The body of an event, its text beside it, and its base64.
    fn body(kind: Option<&str>, sent: &[u8], is_raw: bool) -> [Option<String>; 3] {
        let header = kind.map(|kind| ("content-type", kind.as_bytes()));
        let door = Door {
            is_raw,
            ..Door::default()
        };
        let event = event(&door, "/", &parts("/", header.as_slice()), EventBody::Whole(sent));
        assert!(!event.body_stream);
        let body = event.body.map(|body| body.get().to_owned());
        [body, event.raw_body, event.body_base64]
    }

    #[test]
    fn a_body_is_json_text_or_bytes() {
        let json = Some("application/json; charset=utf-8");
        let some = |text: &str| Some(text.to_owned());
        let table: [(_, &[u8], _); 8] = [
            (json, b"[1]", [some("[1]"), some("[1]"), None]),
            (
                json,
                b" {\"a\" : 1}\n",
                [some("{\"a\" : 1}"), some(" {\"a\" : 1}\n"), None],
            ),
            (json, b"null", [some("null"), some("null"), None]),
            (json, b"[1", [some("\"[1\""), None, None]),
            (json, b"\"\xff\"", [None, None, some("Iv8i")]),
            (None, b"[1]", [some("\"[1]\""), None, None]),
            (None, b"\xff\x00", [None, None, some("/wA=")]),
            (json, b"", [None, None, None]),
        ];
        for (kind, sent, due) in table {
            assert_eq!(body(kind, sent, false), due, "{sent:?}");
        }
        assert_eq!(body(json, b"[1]", true), [some("\"[1]\""), None, None], "as it is");
        let streamed = event(&Door::default(), "/", &parts("/", &[]), EventBody::Streamed);
        assert!(streamed.body_stream && streamed.body.is_none());
    }

    #[test]
    fn json_is_not_changed_by_what_is_in_it() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let json = Some("application/json");
        for sent in [
            "12345678901234567890123",
            "-9223372036854775809",
            "1e400",
            r#"{"a":"\ud83d","a":1}"#,
            &nested(BODY_LEVELS_MAX),
        ] {
            let due = Some(sent.to_owned());
            assert_eq!(body(json, sent.as_bytes(), false), [due.clone(), due, None], "{sent}");
        }
        let deep = nested(BODY_LEVELS_MAX + 1);
        let [as_text, raw, _] = body(json, deep.as_bytes(), false);
        assert_eq!((as_text, raw), (Some(format!("\"{deep}\"")), None), "as text");
        let marked = body(json, b"\xef\xbb\xbf{\"a\":1}", false);
        assert_eq!(marked[0].as_deref(), Some("{\"a\":1}"));
        assert_eq!(marked[1].as_deref(), Some("\u{feff}{\"a\":1}"), "as it was sent");
    }

    #[test]
    fn a_media_type_is_the_same_in_any_case() {
        for (kind, due) in [
            ("application/json", true),
            ("Application/JSON", true),
            ("APPLICATION/VND.API+JSON", true),
            ("application/json ; charset=UTF-8", true),
            ("application/problem+json;a=b", true),
            ("application/jsonlines", false),
            ("text/plain; a=+json", false),
        ] {
            let [_, raw, _] = body(Some(kind), b"1", false);
            assert_eq!(raw.is_some(), due, "{kind}");
        }
    }

    #[test]
    fn a_request_says_where_it_came_in_and_who_sent_it() {
        let mut parts = parts("/fn/ada/hello/x", &[]);
        let from: SocketAddr = "[::ffff:203.0.113.7]:4711".parse().expect("an address");
        parts.extensions.insert(ConnectInfo(from));
        let door = Door {
            base_path: "/fn/ada/hello",
            scheme: "https",
            is_raw: false,
        };
        let event = event(&door, "/x", &parts, EventBody::Whole(b""));
        assert_eq!((&*event.base_path, &*event.scheme), ("/fn/ada/hello", "https"));
        assert_eq!((&*event.client.address, event.client.port), ("203.0.113.7", 4711));
    }
}
