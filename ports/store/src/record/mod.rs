//! The records that are kept, as plain values.

mod account;
mod audit;
mod backend_text;
mod build_log;
mod function;
mod job;
mod metric;
mod quota;
mod result;

pub use account::{Token, User};
pub use audit::{AuditEntry, AuditFilter, Change};
pub use build_log::BuildLog;
pub use function::{
    BackendReason, Cors, Function, FunctionSettings, ImageName, Moved, Policy, Quarantine, ResultPolicy, Site, Traffic,
    Version,
};
pub use job::{Accepted, AcceptedJob, Idempotency, Job, JobFilter, JobStep, JournalLag, Page, Payment, Settlement};
pub use metric::{MetricScope, Point};
pub use quota::{Amounts, Kept, QUOTAS_DEFAULT};
pub use result::ResultNote;
