//! The records that are kept, as plain values.

mod account;
mod audit;
mod function;
mod job;
mod metric;

pub use account::{Roles, Scope, Token, User};
pub use audit::{AuditEntry, AuditFilter, Change};
pub use function::{Function, FunctionSettings, Policy, Quarantine, Traffic, Version};
pub use job::{
    Accepted, AcceptedJob, Idempotency, Job, JobFilter, JobState, JobStep, JournalLag, Page, Payment, Settlement,
};
pub use metric::{MetricScope, Point};
