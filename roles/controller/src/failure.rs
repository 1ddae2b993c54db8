//! What a caller may see of what went wrong, and what only the log does.

use std::fmt::Display;

use piecework_api::errors::Refusal;
use piecework_blobs::BlobsError;
use piecework_chain::{ChainFailure, SubmitError};
use piecework_model::Rejection;
use piecework_store::StoreFailure;

/// The outcome of an operation of the controller: the error is ready for the caller; failures of the world are in the log.
pub type Answer<T> = Result<T, Box<Refusal>>;

pub(crate) use piecework_api::server::{refusal, refuse};

/// For `map_err`: a rejection of somebody's becomes the caller's.
pub(crate) fn rejected(rejection: Rejection) -> Box<Refusal> {
    Box::new(rejection.into())
}

/// A failure of ours: logged here, once; the caller learns that it is not to blame.
pub(crate) fn failed(operation: &'static str, cause: &dyn Display) -> Box<Refusal> {
    tracing::error!(operation, %cause, "operation failed");
    refusal(
        "server.failed",
        "something broke on the server's side; its log says what",
    )
    .into_hint("try again")
}

trait IntoHint {
    fn into_hint(self, hint: &str) -> Self;
}

impl IntoHint for Box<Refusal> {
    fn into_hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

pub(crate) fn store(failure: StoreFailure) -> Box<Refusal> {
    match failure {
        StoreFailure::DiskFull => {
            tracing::error!("the disk of the data directory is full");
            refusal("server.disk_full", "the server's disk is full; nothing was stored")
                .into_hint("try again when the operator has made room")
        }
        StoreFailure::Overloaded { .. } => {
            refusal("server.busy", "the server has as much to do as it takes").into_hint("try again in a second")
        }
        StoreFailure::TooLarge { .. } => refusal("body.too_large", "the job's record is over the limit"),
        other => failed("store", &other),
    }
}

pub(crate) fn chain(failure: ChainFailure) -> Box<Refusal> {
    tracing::error!(cause = %failure, "the ledger does not answer");
    refusal("ledger.unavailable", "the ledger does not answer now; nothing was lost").into_hint("try again in a moment")
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
            refusal("server.disk_full", "the server's disk is full; nothing was stored")
        }
        other => failed("blobs", &other),
    }
}
