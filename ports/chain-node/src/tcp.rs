//! The network between peers on threads: one TCP port, authenticated and encrypted.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use commonware_cryptography::{ChaCha20Poly1305, ed25519::PrivateKey};
use commonware_p2p::authenticated::lookup;
use commonware_runtime::{Supervisor as _, tokio::Context};
use commonware_stream::{
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::NZUsize;
use piecework_chain_simplex::{CHANNELS, MAILBOX, Setup, Wires, message_bytes_max};

use crate::{
    machine::Machine,
    room::Room,
    wires::{Air, Incoming, Oracle, Outgoing},
};

type Handshake = Cups<Sake<PrivateKey>, ChaCha20Poly1305>;

/// Peers that there is room for without a restart, each with its queues.
const PEERS_MIN: usize = 16;
/// Those of this epoch and of the one before it, who still have to fetch its last block.
const SETS_TRACKED: NonZeroUsize = NZUsize!(2);
/// Whoever has not proven who they are by then is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that is back is dialled again after at most this long; all peers dial one another.
const DIAL_PERIOD: Duration = Duration::from_millis(250);
/// A peer that sent something invalid; the engine cannot tell a bug of its own from malice.
const BLOCKED_FOR: Duration = Duration::from_secs(60);

fn config(setup: &Setup) -> lookup::Config<Handshake> {
    let identity = setup.identity();
    let handshake = Cups::new(
        Sake {
            signer: identity.key.clone(),
            synchrony_bound: Duration::from_secs(10),
            max_handshake_age: Duration::from_secs(10),
            version: sake::Version::V1,
        },
        cups::Version::V1,
    );
    let peers_max = NonZeroUsize::new(setup.peers_known().max(PEERS_MIN)).expect("sixteen is not zero");
    let mut config = lookup::Config::local(
        handshake,
        &identity.namespace,
        setup.listen(),
        peers_max,
        message_bytes_max(),
        MAILBOX,
    );
    config.tracked_peer_sets = SETS_TRACKED;
    // Peers stand behind address translation as often as not; the handshake proves who they are.
    config.bypass_ip_check = true;
    config.handshake_timeout = HANDSHAKE_TIMEOUT;
    config.dial_frequency = DIAL_PERIOD;
    config.block_duration = BLOCKED_FOR;
    config
}

/// Opens the port's network.
pub(crate) fn open(context: &Context, room: &Arc<Room>, setup: &Setup) -> Wires<Air> {
    let (mut network, oracle) = lookup::Network::new(context.child("network"), config(setup));
    let mut channel = 0;
    let channels = CHANNELS.map(|quota| {
        channel += 1;
        let (sender, receiver) = network.register(channel - 1, quota);
        (Outgoing::Tcp(sender), Incoming::Tcp(receiver))
    });
    let start = Box::new(|| drop(network.start()));
    Wires::new(
        &Machine::Threads(context.child("wires"), room.clone()),
        Oracle::Tcp(oracle),
        channels,
        start,
    )
}
