//! The records that are kept, as plain values.

mod account;
mod function;
mod job;
mod metric;

pub use account::{Roles, Scope, Token, User};
pub use function::{Function, FunctionSettings, Version};
pub use job::{Accepted, AcceptedJob, Idempotency, Job, JobFilter, JobState, JournalLag, Page, Payment, Settlement};
pub use metric::{MetricScope, Point};
