//! An answer as its caller sees it.

use axum::http::{HeaderMap, StatusCode};
use piecework_model::Code;
use serde_json::Value;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn code(&self) -> Option<Code> {
        Code::parse(self.body["error"]["code"].as_str()?)
    }

    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: Code) {
        assert_eq!(
            (self.status.as_u16(), self.code()),
            (status, Some(code)),
            "{}",
            self.body
        );
        assert!(
            self.body["error"]["message"]
                .as_str()
                .is_some_and(|sentence| sentence.len() > 10),
            "{}",
            self.body
        );
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.body);
        self.body
    }
}
