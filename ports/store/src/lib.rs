//! Keeps functions, accounts, jobs, logs and metrics durably; the only crate with SQL.
//!
//! ```text
//! finish, accept, ... -> journal (write, sync) -> pending (in memory) -> projector -> tables + journal position
//!                                                      |                                   |
//!                                                      +------------- reads ---------------+
//! ```
//! A job is safe once it is in the journal: from the death of the process when the call returns, from a power cut when
//! the journal is synced ([`Jobs::accept`] waits for that, [`Jobs::finish`] does not). The projector moves entries into the
//! tables in batches, each with the journal position in one transaction, so that each is filed exactly once.

/// Counts what the tests of hostile bytes take.
#[cfg(test)]
#[global_allocator]
static PEAK: piecework_fuzz::PeakAlloc = piecework_fuzz::PeakAlloc;

/// As the samples name this crate, which the tests in `tests/` use too.
#[cfg(test)]
extern crate self as piecework_store;

mod claims;
mod directory;
mod failure;
mod journal;
mod password;
mod pending;
mod port;
mod projected;
mod record;
mod rollup;
#[cfg(test)]
#[path = "../tests/store/conformance/samples.rs"]
#[allow(dead_code)]
mod samples;
mod seal;
mod sqlite;

pub use directory::check as check_format;
pub use failure::StoreFailure;
pub use password::{hash_password, verify_password};
pub use piecework_model::{JobState, ResultState, Roles, Scope};
pub use port::{
    Audit, BuildLogs, FAILED_BUILDS_MAX, FAILED_BUILDS_OF_NAME_MAX, Functions, HOURS_KEPT_MS, Jobs, Keeping,
    MINUTES_KEPT_MS, Metrics, Results, Sealing, Sequences, Store, Tokens, Users, VERSIONS_OF_ONE_MAX, Values,
};
pub use projected::{Projected, Put, Take};
pub use record::{
    Accepted, AcceptedJob, Amounts, AuditEntry, AuditFilter, BackendReason, BuildLog, Change, Cors, Function,
    FunctionSettings, Idempotency, ImageName, Job, JobFilter, JobStep, JournalLag, Kept, MetricScope, Moved, Page,
    Payment, Point, Policy, QUOTAS_DEFAULT, Quarantine, ResultNote, ResultPolicy, Settlement, Site, Token, Traffic,
    User, Version,
};
pub use sqlite::{Options, Relief, Sqlite, copy as copy_store, take_over};

/// Points of one answer: more is no chart.
pub const POINTS_MAX: usize = 10_000;
