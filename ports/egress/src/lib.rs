//! Carries a sandboxed function's connections to the hosts on its allow list, and nowhere else.
//!
//! The function sits in a network namespace where every address leads to listening sockets that were passed out to this
//! side. Nothing in the namespace leads anywhere else, so whatever the function does, it talks to a [`Relay`] or to
//! nobody.
//!
//! ```text
//! function: asks for a name ---> names socket: on the list? resolves to a permitted address?
//!                                    `-> an address of 198.18.0.0/15 that stands for the name in this instance
//! function: connects there ----> door of that port: which name was it? allowed with this port? a call is running?
//!                                    `-> resolved and checked here, connected, bytes counted both ways
//! call ends -------------------> every connection is cut; what was moved and asked for is told
//! ```
//! TLS is not terminated here: the function checks certificates, end to end.

#[cfg(test)]
mod fuzz;
mod log;
mod names;
mod places;
mod relay;
mod resolve;

use std::{
    fmt,
    net::{IpAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

use piecework_model::EgressPolicy;
use places::{Places, Turns};
pub use relay::Relay;
pub use resolve::{Resolver, System};

/// Connections of all functions of a provider at one time: two descriptors and 32 KiB each.
const CONNECTIONS_MAX: u32 = 1_024;
/// Of these, connections of one payer's functions: four full instances.
const CONNECTIONS_EACH_MAX: u32 = CONNECTIONS_MAX / 4;
/// Lookups of all functions at one time: each may hold a thread for seconds.
const LOOKUPS_MAX: usize = 32;
/// Of these, lookups of one payer's functions.
const LOOKUPS_EACH_MAX: usize = LOOKUPS_MAX / 4;
/// A name's addresses are asked for again after this long.
const NAMES_KEPT: Duration = Duration::from_secs(30);

/// What all instances of one provider share: where it lets functions go, and how much at once.
pub struct Egress {
    policy: EgressPolicy,
    resolver: Arc<dyn Resolver>,
    connections: Arc<Places>,
    lookups: Turns,
    names_kept: Duration,
}

impl Egress {
    pub fn new(policy: EgressPolicy) -> Arc<Self> {
        Self::with_resolver(policy, Arc::new(System), NAMES_KEPT)
    }

    /// Names are resolved by `resolver` and again after `names_kept`.
    pub fn with_resolver(policy: EgressPolicy, resolver: Arc<dyn Resolver>, names_kept: Duration) -> Arc<Self> {
        Arc::new(Self {
            policy,
            resolver,
            connections: Places::new(CONNECTIONS_MAX, CONNECTIONS_EACH_MAX),
            lookups: Turns::new(LOOKUPS_MAX, LOOKUPS_EACH_MAX),
            names_kept,
        })
    }

    pub fn policy(&self) -> &EgressPolicy {
        &self.policy
    }

    /// Whether a function may be connected to this address: a public one that is not this machine's own, or one in a
    /// network that the provider names. Services of this machine often trust what comes from itself.
    fn permits(&self, address: IpAddr) -> bool {
        self.policy.permits(address) && (self.policy.names(address) || !is_own(address))
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Only an address of this machine can be bound.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// The sockets of one instance's network namespace, listening there and held here.
#[derive(Debug)]
pub struct Doors {
    /// Where the function asks for names: port 53 of every address.
    pub names: UdpSocket,
    /// One for each port on the allow list, of every address.
    pub ports: Vec<TcpListener>,
}
