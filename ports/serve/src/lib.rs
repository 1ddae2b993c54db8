//! Serves HTTP/1.1, in the clear or by TLS, to strangers, whom it gives few connections, little memory and little time.
//!
//! ```text
//! accept -> Fresh --first byte--> Head --whole head--> Busy --answered--> Idle --first byte--> Head
//!                                                      |  ^  `-upgraded-> Upgraded --Guest::keep--> Kept
//!                                                      v  |
//!                               Body (its next part is awaited), Deaf (the answer is not read)
//! ```
//!
//! Where an address (or the whole server) has all the connections it may have, the oldest one that waits for its client makes
//! room for the next: a stranger who opens many and says nothing only pushes out its own. One whose request runs is never
//! pushed out.
//!
//! Behind a proxy that is named as such, the limits are for those whom it asks for: see [`Proxies`].

mod arriving;
mod caller;
mod connection;
mod crowd;
mod head;
mod leaving;
mod listen;
pub mod metrics;
mod patient;
mod proxies;
pub mod requests;
mod seats;
mod tls;
mod upgrade;

pub use caller::Caller;
pub use crowd::{Crowd, Member};
pub use listen::{Limits, serve};
pub use proxies::Proxies;
pub use seats::Guest;
pub use tls::{Door, Tls, TlsError};
pub use upgrade::Upgrade;
