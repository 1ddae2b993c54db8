//! The link between a provider anywhere and its controller: one connection that the provider opens.
//!
//! ```text
//! provider                                   controller
//!   | -- Knock (protocol, network, Noise) -----> |
//!   | <---- Noise answer, or a plain refusal --- |   from here on everything is encrypted and in order
//!   | <---------------- its key, signed -------- |   both sign the handshake's hash: nobody stands between them
//!   | -- account, key signed, profile ---------> |
//!   | <----------------------------- Welcome --- |   the controller's time
//!   | <== orders, cancels, asks, chunks, beats = |
//!   | ==== deliveries, answers, fetches, beats=> |
//! ```
//!
//! Noise NN (ephemeral keys; ChaCha20-Poly1305) gives secrecy, order and integrity even over plain HTTP and through
//! whatever relays; the signatures over its hash say who is at each end. An altered, repeated or missing frame ends the
//! session, and a session that ends is taken up again: the provider repeats deliveries that nobody confirmed, the
//! controller repeats orders that nobody answered, and both know by the order's id what they have seen.

mod agent;
mod dial;
mod frames;
mod handshake;
mod remote;
mod secure;
mod wire;

pub use agent::{Agent, Fetcher};
pub use dial::{Event, dial, keep_linked};
pub use frames::OrderId;
pub use handshake::{Arrival, Introduction, receive};
pub use remote::{Bundles, RemoteProvider};
pub use wire::Wire;

use std::time::Duration;

use piecework_model::Rejection;

/// Raised with every change that an older peer would not understand.
pub const PROTOCOL: u16 = 2;
/// A provider says something at least this often, and a controller says something back: a thousand idle links are a thousand
/// of both.
pub const BEAT: Duration = Duration::from_millis(2_500);
/// Silence for longer than this ends a session.
pub const DEAD_AFTER: Duration = Duration::from_secs(6);
/// A provider that is gone for longer than this has lost its jobs: they are dispatched again.
pub const GRACE: Duration = Duration::from_secs(2);
/// Handshake and refusal together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// One frame: an event or an output at its largest, and some.
pub const FRAME_BYTES_MAX: usize = 32 << 20;
/// One packet, the most that Noise seals at a time; each is one message of whatever carries the link.
pub const PACKET_BYTES_MAX: usize = 65_535;

/// What a WebSocket reads at once. Its buffer is zeroed before each read and kept for each link: the library's 128 KiB cost a
/// controller with 1,000 idle links 117 MiB, and a quarter of the processor time that the links take.
pub const READ_BYTES: usize = 8 << 10;

/// Why a session ended or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum LinkFailure {
    /// The other end says no, with a reason for a person.
    #[error(transparent)]
    Refused(#[from] Rejection),
    #[error("the connection ended: {0}")]
    Broken(String),
    #[error("nothing was heard for {} ms", DEAD_AFTER.as_millis())]
    Silent,
    /// A frame that does not decrypt or decode: altered, repeated, or of something else.
    #[error("the other end does not keep to the protocol: {0}")]
    Protocol(&'static str),
}

impl LinkFailure {
    /// Whether trying again as it is cannot help.
    pub fn is_final(&self) -> bool {
        const FINAL: [&str; 5] = [
            "link.version",
            "link.other_network",
            "link.unknown_provider",
            "link.other_key",
            "link.untrusted_controller",
        ];
        matches!(self, Self::Refused(rejection) if FINAL.contains(&&*rejection.code))
    }
}
