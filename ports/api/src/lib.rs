//! The HTTP contract: routes, one module of bodies per resource, the catalogue of error codes, and the typed client.
//!
//! Both sides import this crate, so that a handler and the client cannot disagree. Requests refuse unknown fields; answers
//! may gain fields. Status codes of refusals are given here and nowhere else: see [`errors::status_of`].

pub mod accounts;
pub mod alerts;
pub mod audit;
pub mod bookings;
pub mod build_logs;
pub mod client;
pub mod cors;
pub mod errors;
pub mod execute;
mod few;
pub mod functions;
pub mod held;
pub mod jobs;
pub mod ledger;
pub mod metrics;
pub mod page;
pub mod portal;
pub mod results;
pub mod routes;
pub mod routing;
pub mod schemas;
#[cfg(feature = "server")]
pub mod server;
pub mod triggers;
pub mod units;

pub use client::{Client, ClientError, Execution};
pub use errors::{ErrorBody, Refusal, parse_body, status_of};
pub use page::{List, PageQuery};

/// Milliseconds with microseconds behind the point, as durations are shown: a warm call takes less than one.
pub fn ms_of_us(us: u64) -> f64 {
    us as f64 / 1_000.0
}
