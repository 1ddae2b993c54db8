//! What all HTTP servers of the platform share: responses, refusals, bodies, extractors, and a listener that strangers
//! cannot exhaust.

mod answer;
mod extract;
mod listen;
mod slow;
mod views;

pub use answer::{Created, HttpError, HttpResult, page, read_body, read_bytes, refusal, refuse};
pub use extract::{Caller, Path, Query};
pub use listen::{Limits, serve};
