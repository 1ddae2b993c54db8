//! What every HTTP server of the platform does alike: answers, refusals, bodies, extractors, and a listener that patient
//! and impatient strangers cannot wear out.

mod answer;
mod extract;
mod listen;
mod slow;
mod views;

pub use answer::{Created, HttpError, HttpResult, page, read_body, read_bytes, refusal, refuse};
pub use extract::{Caller, Path, Query};
pub use listen::{Limits, serve};
