//! Delivers a job's result to its developer's sink: an HTTP endpoint, an S3 bucket or a webhook; and [`notice`]s to the operator.
//!
//! The developer names the address and the controller's machine connects there, so an address is judged when it is set
//! and again at each connection: see [`courier`]. Delivery is at least once; the job's id tells a repetition.

mod courier;
pub mod notice;
mod place;
mod sign;

use async_trait::async_trait;
use bytes::Bytes;
use piecework_model::{Digest, JobId};

pub use courier::{Courier, CourierError};
pub use place::{Sink, SinkKind};

/// One result on its way.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub job: JobId,
    /// Of the output, as the ledger has it.
    pub digest: Digest,
    /// JSON text of what the function returned; none where it returned nothing, which only a webhook hears of.
    pub output: Option<Bytes>,
    /// JSON text with the job's outcome, including output or error: the body of a webhook.
    pub report: Bytes,
}

/// Why a result did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    #[error("the name resolves to no address that results may be sent to")]
    Forbidden,
    #[error("the credential has expired")]
    CredentialExpired,
    #[error("it answered {0}")]
    Answered(u16),
    #[error("{0}")]
    NoAnswer(&'static str),
}

impl Undelivered {
    /// Whether a retry is pointless: the address is not allowed, or the sink answered 410.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Forbidden | Self::Answered(410) => true,
            Self::CredentialExpired | Self::Answered(_) | Self::NoAnswer(_) => false,
        }
    }
}

/// Brings results to their sinks.
#[async_trait]
pub trait Deliver: Send + Sync {
    /// Rejects with `result.bad_sink` what can never be delivered to, and with `result.private_address` what must not
    /// be.
    fn check(&self, sink: &Sink) -> Result<(), piecework_model::Rejection>;

    /// `Ok` once the sink has said that it has the result. Takes half a minute at most.
    async fn deliver(&self, sink: &Sink, parcel: &Parcel) -> Result<(), Undelivered>;
}
