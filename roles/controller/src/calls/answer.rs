//! From what a function answers to status, headers and body: pure. A function decides about its answer, not about the
//! connection or the platform's headers.

mod shape;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use bytes::Bytes;
use piecework_api::{errors::Refusal, routes};
use piecework_model::Code;
use piecework_sandbox::Head;

use shape::Text;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AnswerHead {
    /// 200 to 599.
    pub(crate) status: u16,
    /// Without a length.
    pub(crate) headers: HeaderMap,
    /// What the function says that the body comes to: only a stream, or a HEAD, is sent with it.
    pub(crate) length: Option<u64>,
}

/// An answer in one piece.
#[derive(Debug)]
pub(crate) struct WholeAnswer {
    pub(crate) head: AnswerHead,
    pub(crate) body: Bytes,
}

impl AnswerHead {
    fn ok(kind: HeaderValue) -> Self {
        Self {
            status: 200,
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]),
            length: None,
        }
    }

    /// Refuses with `function.output_invalid`.
    fn new<'a>(status: u16, headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Self, Box<Refusal>> {
        // 1xx is the connection's, and what is beyond 599 is nobody's.
        if !(200..600).contains(&status) {
            return Err(invalid(&format!("its status is {status}, and a status is 200 to 599")));
        }
        let mut head = Self {
            status,
            headers: HeaderMap::new(),
            length: None,
        };
        for (name, value) in headers {
            let wrong = |what: &str| invalid(&format!("`{}` {what}", name.escape_debug()));
            let value = HeaderValue::from_bytes(value)
                .map_err(|_| wrong("is a header whose value has a line break or another control character"))?;
            let name = HeaderName::try_from(name).map_err(|_| wrong("is not the name of a header"))?;
            if name == header::CONTENT_LENGTH {
                head.length = value.to_str().ok().and_then(|text| text.parse().ok());
            } else if !is_the_connections(&name) {
                head.headers.append(name, value);
            }
        }
        Ok(head)
    }

    /// Of a stream. Status 0 is 200. Refuses with `function.output_invalid`.
    pub(crate) fn of_stream(head: &Head) -> Result<Self, Box<Refusal>> {
        let status = if head.status == 0 { 200 } else { head.status };
        Self::new(status, head.headers.iter().map(|(name, value)| (&**name, &**value)))
    }

    /// Whether an answer with this status never has a body.
    pub(crate) fn is_bodyless(&self) -> bool {
        // No content, reset content, not modified.
        matches!(self.status, 204 | 205 | 304)
    }

    /// A stream that does not say what it is is what its first chunk looks like.
    pub(crate) fn guess_kind(&mut self, chunk: &[u8]) {
        let kind = match std::str::from_utf8(chunk) {
            Ok(_) => TEXT,
            // Cut in the middle of a character.
            Err(error) if error.error_len().is_none() => TEXT,
            Err(_) => BYTES,
        };
        self.headers.entry(header::CONTENT_TYPE).or_insert(kind);
    }
}

/// Puts an output into an HTTP answer by its shape. Refuses with `function.output_invalid`.
pub(crate) fn of_output(output: &Bytes) -> Result<WholeAnswer, Box<Refusal>> {
    let typed = |kind, body| WholeAnswer {
        head: AnswerHead::ok(kind),
        body,
    };
    let plain = || Ok(typed(JSON, output.clone()));
    match output.first() {
        Some(b'"') => match serde_json::from_slice::<Text>(output) {
            Ok(Text(text)) => Ok(typed(TEXT, text.into())),
            Err(_) => plain(),
        },
        Some(b'{') => {
            if let Some(bytes) = shape::bytes(output) {
                return Ok(typed(BYTES, bytes));
            }
            match shape::explicit(output)? {
                Some(said) => said.answer(),
                None => plain(),
            }
        }
        _ => plain(),
    }
}

fn invalid(why: &str) -> Box<Refusal> {
    Box::new(Refusal::new(
        Code::FunctionOutputInvalid,
        format!("the function's HTTP answer: {why}"),
    ))
}

/// The length is counted, and trailers are not sent.
fn is_the_connections(name: &HeaderName) -> bool {
    [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TRAILER,
        header::TE,
    ]
    .contains(name)
        || name.as_str() == routes::JOB_ID_HEADER
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(output: &str) -> WholeAnswer {
        of_output(&Bytes::copy_from_slice(output.as_bytes())).expect("an answer")
    }

    fn values<'a>(head: &'a AnswerHead, name: &str) -> Vec<&'a str> {
        let all = head.headers.get_all(name).iter();
        all.map(|value| value.to_str().expect("ASCII")).collect()
    }

    #[test]
    fn an_output_answers_by_its_shape() {
        let table = [
            ("[1]", 200, "application/json", "[1]"),
            ("\"hi\"", 200, "text/plain; charset=utf-8", "hi"),
            (r#"{"$bytes":"AAE="}"#, 200, "application/octet-stream", "\0\u{1}"),
            (r#"{"status":201,"body":"x"}"#, 201, "text/plain; charset=utf-8", "x"),
            (
                r#"{"status":201,"body":{"a":1}}"#,
                201,
                "application/json",
                r#"{"a":1}"#,
            ),
            (
                r#"{"status":200,"body_base64":"AAE="}"#,
                200,
                "application/octet-stream",
                "\0\u{1}",
            ),
            (r#"{"status":"done"}"#, 200, "application/json", r#"{"status":"done"}"#),
            (
                r#"{"status":"ok","body":"b"}"#,
                200,
                "application/json",
                r#"{"status":"ok","body":"b"}"#,
            ),
            (
                r#"{"status":0,"body":{}}"#,
                200,
                "application/json",
                r#"{"status":0,"body":{}}"#,
            ),
            (r#"{"status":100}"#, 200, "application/json", r#"{"status":100}"#),
            (r#"{"status":1}"#, 200, "application/json", r#"{"status":1}"#),
            (r#"{"status":-1}"#, 200, "application/json", r#"{"status":-1}"#),
            (r#"{"status":204,"headers":null,"body":null}"#, 204, "", ""),
            (
                r#"{"status":200,"body":{"id":12345678901234567890123}}"#,
                200,
                "application/json",
                r#"{"id":12345678901234567890123}"#,
            ),
            (
                r#"{"status":200,"body":{"$bytes":"AAE="}}"#,
                200,
                "application/octet-stream",
                "\0\u{1}",
            ),
            (r#""x\ud83d""#, 200, "text/plain; charset=utf-8", "x\u{fffd}"),
            (
                r#"{"status":200,"body":"x\ud83d\ude00\ude00"}"#,
                200,
                "text/plain; charset=utf-8",
                "x\u{1f600}\u{fffd}",
            ),
            (
                r#"{"status":404,"other":1}"#,
                200,
                "application/json",
                r#"{"status":404,"other":1}"#,
            ),
            (
                r#"{"status":200,"headers":{"Content-Type":"text/html"},"body":"<p>"}"#,
                200,
                "text/html",
                "<p>",
            ),
        ];
        for (output, status, kind, body) in table {
            let answer = answer(output);
            assert_eq!(answer.head.status, status, "{output}");
            assert_eq!(values(&answer.head, "content-type").join(""), kind, "{output}");
            assert_eq!(answer.body, body.as_bytes(), "{output}");
        }
    }

    #[test]
    fn a_header_may_be_sent_several_times() {
        let table = [
            r#"{"status":200,"headers":{"set-cookie":["a=1","b=2"]}}"#,
            r#"{"status":200,"headers":{"set-cookie":"a=1"},"header_list":[["Set-Cookie","b=2"]]}"#,
            r#"{"status":200,"header_list":[["set-cookie","a=1"],["set-cookie","b=2"]]}"#,
        ];
        for output in table {
            assert_eq!(values(&answer(output).head, "set-cookie"), ["a=1", "b=2"], "{output}");
        }
    }

    #[test]
    fn a_header_may_be_a_number_or_true() {
        let output = r#"{"status":201,"headers":{"x-count":3,"x-flag":true,"x-both":["a",1.5]}}"#;
        let head = answer(output).head;
        assert_eq!(values(&head, "x-count"), ["3"]);
        assert_eq!(values(&head, "x-flag"), ["true"]);
        assert_eq!(values(&head, "x-both"), ["a", "1.5"]);
    }

    #[test]
    fn a_function_cannot_speak_for_the_connection() {
        let output = r#"{"status":200,"headers":{"transfer-encoding":"chunked","x-job-id":"job_0","trailer":"x",
            "connection":"close","upgrade":"x","te":"x","content-length":"7","x-mine":"1"}}"#;
        let WholeAnswer { head, .. } = answer(output);
        let names: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!((names, head.length), (vec!["x-mine"], Some(7)));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let table = [
            r#"{"status":100,"body":"x"}"#,
            r#"{"status":101,"headers":{}}"#,
            r#"{"status":199,"body":null}"#,
            r#"{"status":600,"body":"x"}"#,
            r#"{"status":999,"header_list":[]}"#,
            r#"{"status":"404","body":"x"}"#,
            r#"{"status":404.0,"body":"x"}"#,
            r#"{"status":404,"header":{"a":"b"},"body":"x"}"#,
            r#"{"status":404,"headers":{},"cookies":[]}"#,
            r#"{"status":404,"headers":{"x-a":null},"body":"x"}"#,
            r#"{"status":404,"headers":{"x-a":{"b":1}}}"#,
            r#"{"status":404,"headers":"x-a: b"}"#,
            r#"{"status":404,"header_list":[["x-a"]]}"#,
            r#"{"status":200,"body_base64":7}"#,
            r#"{"status":200,"headers":{"a\nb":"c"}}"#,
            r#"{"status":200,"headers":{"a":"b\nc"}}"#,
            r#"{"status":200,"header_list":[["","c"]]}"#,
            r#"{"status":200,"body":"a","body_base64":"AAE="}"#,
            r#"{"status":200,"body_base64":"!"}"#,
        ];
        for output in table {
            let refused = of_output(&Bytes::from_static(output.as_bytes())).expect_err(output);
            assert_eq!(refused.code, Code::FunctionOutputInvalid, "{output}");
        }
        for status in [1, 100, 199, 600, 65_535] {
            let head = Head {
                status,
                headers: Vec::new(),
            };
            let refused = AnswerHead::of_stream(&head).expect_err("no status");
            assert_eq!(refused.code, Code::FunctionOutputInvalid, "{status}");
        }
    }

    #[test]
    fn some_answers_have_no_body() {
        for status in [204, 205, 304] {
            let answer = answer(&format!(r#"{{"status":{status},"body":"x","headers":{{"etag":"1"}}}}"#));
            assert!(answer.body.is_empty() && answer.head.is_bodyless(), "{status}");
            assert_eq!(values(&answer.head, "etag"), ["1"]);
            assert!(values(&answer.head, "content-type").is_empty());
        }
    }

    #[test]
    fn a_stream_without_a_type_is_what_it_begins_with() {
        let of = |headers: &[(&str, &str)], chunk: &[u8]| {
            let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes()));
            let headers = headers.iter().map(pair).collect();
            let mut head = AnswerHead::of_stream(&Head { status: 0, headers }).expect("a head");
            head.guess_kind(chunk);
            assert_eq!(head.status, 200);
            values(&head, "content-type").join(" ")
        };
        let text = "text/plain; charset=utf-8";
        assert_eq!(of(&[], b"abc"), text);
        assert_eq!(of(&[], b""), text);
        assert_eq!(of(&[], &"é".as_bytes()[..1]), text, "cut in the middle of a character");
        assert_eq!(of(&[], b"\xff\xfe"), "application/octet-stream");
        assert_eq!(
            of(&[("Content-Type", "text/event-stream")], b"\xff"),
            "text/event-stream"
        );
    }
}
