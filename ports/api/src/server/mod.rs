//! What all HTTP servers of the platform share: responses, refusals, bodies, extractors.

mod answer;
mod body;
mod extract;
mod views;

pub use answer::{Created, HttpError, HttpResult, page, refusal, refuse};
pub use body::{aside, read_as, read_body, read_bytes};
pub use extract::{Path, Query};
