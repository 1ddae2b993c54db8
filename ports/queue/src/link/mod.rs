//! The link between a provider anywhere and its controller: one connection that the provider opens.
//!
//! ```text
//! provider                                   controller
//!   | -- Knock (versions, network, Noise) -----> |
//!   | <- Noise answer (version), or a refusal -- |   from here on everything is encrypted and in order
//!   | <---------------- its key, signed -------- |   both sign the handshake's hash: nobody stands between them
//!   | -- account, key signed, profile ---------> |
//!   | <----------------------------- Welcome --- |   the controller's time
//!   | <== streams: control, jobs, bundles =====> |   versions 3 to 5, see `messages`; version 2 has one stream of frames
//! ```
//!
//! Noise NN (ephemeral keys; ChaCha20-Poly1305) gives secrecy, order and integrity even over plain HTTP and through
//! whatever relays; the signatures over its hash say who is at each end. An altered, repeated or missing packet ends the
//! session, and a session that ends is taken up again: the provider repeats deliveries that nobody confirmed, the
//! controller repeats orders that nobody answered, and both know by the order's id what they have seen.
//!
//! Inside it yamux carries streams, each with a window of its own: a large event, answer or bundle holds up no other job, and
//! a reader that is slow stops the function that writes to it, since each seam between them holds a bounded part. Parts of
//! an answer that have passed are not repeated: a session that ends with them ends the run, whose receipt is delivered in
//! the next one and says by [`crate::Delivery::is_cut`] that the answer is not whole.

mod agent;
mod clock;
mod dial;
mod ending;
mod fetch;
mod frames;
#[cfg(test)]
mod fuzz;
mod gate;
#[cfg(test)]
mod golden;
mod handshake;
#[cfg(test)]
mod hostile;
mod messages;
mod mux;
mod parts;
mod pipe;
mod porch;
mod remote;
mod secure;
mod socket;
mod wire;

pub use agent::Agent;
pub use clock::Clock;
pub use dial::{Event, dial, keep_linked};
pub use fetch::Fetcher;
pub use frames::OrderId;
pub use handshake::{Arrival, Introduction, Versions, receive};
pub use porch::{HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX, Porch, Turn};
pub use remote::{Bundles, RemoteProvider};
pub use socket::{accept_key, accepted};
pub use wire::Wire;

use std::time::Duration;

use piecework_model::{Code, Rejection};

/// The highest version of the link that is spoken here. Raised with every change that an older end would not understand.
pub const PROTOCOL: u16 = 6;
/// Controllers of earlier versions know of no container images, and could not read that a provider runs them.
const IMAGES_SINCE: u16 = 6;
/// The lowest: a volunteer who has not updated yet goes on earning.
pub const PROTOCOL_LOWEST: u16 = 2;
/// A provider says something at least this often, and a controller says something back: a thousand idle links are a thousand
/// of both.
pub const BEAT: Duration = Duration::from_millis(2_500);
/// Silence for longer than this ends a session.
pub const DEAD_AFTER: Duration = Duration::from_secs(6);
/// A provider that is gone for longer than this has lost its jobs: they are dispatched again.
pub const GRACE: Duration = Duration::from_secs(2);
/// How long a provider waits for a controller's welcome.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a controller waits for a stranger's proof of a key: two ways there and back over a bad line.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);
/// What waits to be said on a control stream: a cancel and a confirmation for each of a provider's 10,000 slots at the most.
const CONTROL_WAITING_MAX: usize = 16_384;
/// One packet, the most that Noise seals at a time; each is one message of whatever carries the link. Those who have proved no key
/// may send no packet that is near as large: see `gate`.
pub const PACKET_BYTES_MAX: usize = 65_535;

/// What a WebSocket reads at once. Its buffer is zeroed before each read and kept for each link: the library's 128 KiB cost a
/// controller with 1,000 idle links 117 MiB, and a quarter of the processor time that the links take.
const READ_BYTES: usize = 8 << 10;

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
    /// Something that does not decrypt or decode, or breaks the rules: altered, repeated, too much, or of something else.
    #[error("the other end does not keep to the protocol: {0}")]
    Protocol(&'static str),
}

impl LinkFailure {
    /// Whether trying again as it is cannot help.
    pub fn is_final(&self) -> bool {
        const FINAL: [Code; 5] = [
            Code::LinkVersion,
            Code::LinkOtherNetwork,
            Code::LinkUnknownProvider,
            Code::LinkOtherKey,
            Code::LinkUntrustedController,
        ];
        matches!(self, Self::Refused(rejection) if rejection.code.is_one_of(&FINAL))
    }
}
