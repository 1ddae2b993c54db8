//! Splits failures into what the caller may see and what only the log gets.

use std::fmt::Display;

use piecework_blobs::BlobsError;
use piecework_chain::{ChainFailure, SubmitError};
use piecework_model::{Code, Rejection};
use piecework_store::StoreFailure;

use crate::quotas;

/// The outcome of an operation of the controller: the error is ready for the caller; failures of the world are in the
/// log.
pub type Answer<T> = Result<T, Box<Refusal>>;

pub(crate) use piecework_api::{
    errors::Refusal,
    server::{refusal, refuse},
};

/// For `map_err`: turns a rejection from below into the caller's.
pub(crate) fn rejected(rejection: Rejection) -> Box<Refusal> {
    Box::new(rejection.into())
}

/// A failure of ours: logged here, once; the caller learns that it is not to blame.
pub(crate) fn failed(operation: &'static str, cause: &dyn Display) -> Box<Refusal> {
    tracing::error!(operation, %cause, "operation failed");
    Refusal::new(Code::ServerFailed, "something failed on the server; its log says what")
        .hint("retry later")
        .into()
}

fn disk_full() -> Box<Refusal> {
    Refusal::new(Code::ServerDiskFull, "the server's disk is full; nothing was stored")
        .hint("retry when the operator has freed some space")
        .into()
}

pub(crate) fn store(failure: StoreFailure) -> Box<Refusal> {
    match failure {
        full @ (StoreFailure::DiskFull | StoreFailure::JournalStalled) => {
            tracing::error!(cause = %full, "the disk of the data directory takes nothing");
            disk_full()
        }
        StoreFailure::OverQuota { kept, used, most } => quotas::refused((kept, used, most)),
        StoreFailure::Overloaded { .. } => Refusal::new(Code::ServerBusy, "the server is overloaded")
            .hint("retry in a second")
            .into(),
        StoreFailure::TooLarge { .. } => refusal(Code::BodyTooLarge, "the job's record is larger than the limit"),
        other => failed("store", &other),
    }
}

pub(crate) fn chain(failure: ChainFailure) -> Box<Refusal> {
    tracing::error!(cause = %failure, "the ledger does not answer");
    if let ChainFailure::DiskFull { .. } = failure {
        return disk_full();
    }
    Refusal::new(Code::LedgerUnavailable, "the ledger does not answer; nothing is lost")
        .hint("retry in a moment")
        .into()
}

pub(crate) fn submit(error: SubmitError) -> Box<Refusal> {
    match error {
        SubmitError::Rejected(rejection) => rejected(rejection),
        SubmitError::Failed(failure) => chain(failure),
    }
}

pub(crate) fn blobs(error: BlobsError) -> Box<Refusal> {
    match error {
        BlobsError::Rejected(rejection) => rejected(rejection),
        full if full.is_full() => {
            tracing::error!(cause = %full, "no room for bundles");
            disk_full()
        }
        other => failed("blobs", &other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_the_world_show_a_code_and_a_hint_and_nothing_of_their_cause() {
        const INSIDE: &str = "/srv/secret/place";
        let io = || std::io::Error::new(std::io::ErrorKind::PermissionDenied, INSIDE);
        let stopped = ChainFailure::Stopped { detail: INSIDE.into() };
        let full = ChainFailure::DiskFull { detail: INSIDE.into() };
        let bundles = BlobsError::Io {
            operation: "write a bundle",
            source: io(),
        };
        for (refusal, code) in [
            (submit(SubmitError::Failed(stopped)), Code::LedgerUnavailable),
            (chain(full), Code::ServerDiskFull),
            (store(StoreFailure::DiskFull), Code::ServerDiskFull),
            (store(StoreFailure::JournalStalled), Code::ServerDiskFull),
            (store(StoreFailure::Overloaded { jobs: 1, bytes: 1 }), Code::ServerBusy),
            (failed("read", &io()), Code::ServerFailed),
            (blobs(bundles), Code::ServerFailed),
        ] {
            let shown = serde_json::to_string(&refusal).expect("plain data");
            assert_eq!(refusal.code, code);
            assert!(refusal.hint.is_some() && !shown.contains(INSIDE), "{shown}");
        }
    }
}
