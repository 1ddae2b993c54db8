//! The peer-to-peer network: one TCP port, authenticated and encrypted, a bounded channel for each kind of message.

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use commonware_consensus::{
    BoundedBlock as _,
    marshal::{self, standard::Standard},
    simplex::{self, scheme::ed25519::Scheme},
    types::Epoch,
};
use commonware_cryptography::{
    ChaCha20Poly1305,
    blake3::Digest,
    ed25519::{PrivateKey, PublicKey},
};
use commonware_p2p::{
    AddressableManager as _,
    authenticated::lookup,
    max_message_size,
    utils::mux::{MuxHandle, Muxer, prefixed},
};
use commonware_runtime::{Quota, Supervisor as _, tokio::Context};
use commonware_stream::{
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::{NZU32, NZUsize};

use crate::{
    block::Block,
    committee::{Member, addresses},
    epochs::Epochs,
    gossip, heads,
};

type Handshake = Cups<Sake<PrivateKey>, ChaCha20Poly1305>;
pub(crate) type Oracle = lookup::Oracle<PublicKey>;
pub(crate) type Sender = lookup::Sender<PublicKey, Context>;
pub(crate) type Receiver = lookup::Receiver<PublicKey>;
type Channel = (Sender, Receiver);

/// Messages a peer may send per channel and second. Inbound queues are allocated for it, times the peers and the tracked
/// sets; 512 was enough for 139 blocks/s.
const QUOTA: Quota = Quota::per_second(NZU32!(512));
/// One batch of transactions each few milliseconds.
const GOSSIP_QUOTA: Quota = Quota::per_second(NZU32!(400));
const HEADS_QUOTA: Quota = Quota::per_second(NZU32!(16));
/// Peers that there is room for without a restart, each with its queues.
const PEERS_MIN: usize = 16;
/// Those of this epoch and of the one before it, who still have to fetch its last block.
const SETS_TRACKED: NonZeroUsize = NZUsize!(2);
/// More peers than the ledger allows: sizes of messages must not depend on who is in at the moment.
const MEMBERS_MAX: u32 = 1_000;
/// Whoever has not proven who they are by then is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that is back is dialled again after at most this long; all peers dial one another.
const DIAL_PERIOD: Duration = Duration::from_millis(250);
/// A peer that sent something invalid; the engine cannot tell a bug of its own from malice.
const BLOCKED_FOR: Duration = Duration::from_secs(60);
pub(crate) const MAILBOX: NonZeroUsize = NZUsize!(1024);

/// The network before it runs, and its channels.
pub(crate) struct Wires {
    pub(crate) network: lookup::Network<Context, Handshake>,
    pub(crate) oracle: Oracle,
    pub(crate) consensus: ConsensusWires,
    pub(crate) backfill: Channel,
    pub(crate) blocks: Channel,
    pub(crate) transactions: Channel,
    pub(crate) heads: Channel,
}

/// Each epoch's instance of consensus has a subchannel of its own in each.
pub(crate) struct ConsensusWires {
    pub(crate) votes: MuxHandle<Sender>,
    pub(crate) certificates: MuxHandle<Sender>,
    pub(crate) fetches: MuxHandle<Sender>,
}

fn message_bytes_max() -> u32 {
    max_message_size(&[
        prefixed(simplex::max_payload_size::<Scheme, Digest>(MEMBERS_MAX)),
        marshal::max_payload_size::<Standard<Block>, Scheme>(MEMBERS_MAX, &()),
        Block::max_encode_size(&()),
        gossip::MESSAGE_BYTES_MAX,
    ])
}

fn config(epochs: &Epochs, listen: SocketAddr, peers: usize) -> lookup::Config<Handshake> {
    let handshake = Cups::new(
        Sake {
            signer: epochs.identity().key.clone(),
            synchrony_bound: Duration::from_secs(10),
            max_handshake_age: Duration::from_secs(10),
            version: sake::Version::V1,
        },
        cups::Version::V1,
    );
    let peers_max = NonZeroUsize::new(peers.max(PEERS_MIN)).expect("sixteen is not zero");
    let mut config = lookup::Config::local(
        handshake,
        &epochs.identity().namespace,
        listen,
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

/// Opens the network; nothing is sent or accepted until `network` is started.
pub(crate) fn open(context: &Context, epochs: &Epochs, listen: SocketAddr, peers: usize) -> Wires {
    let (mut network, oracle) = lookup::Network::new(context.child("network"), config(epochs, listen, peers));
    let split = |name, channel: Channel| {
        let (muxer, handle) = Muxer::new(context.child(name), channel.0, channel.1);
        muxer.start();
        handle
    };
    let consensus = ConsensusWires {
        votes: split("votes", network.register(0, QUOTA)),
        certificates: split("certificates", network.register(1, QUOTA)),
        fetches: split("fetches", network.register(2, QUOTA)),
    };
    let backfill = network.register(3, QUOTA);
    let blocks = network.register(4, QUOTA);
    let transactions = network.register(5, GOSSIP_QUOTA);
    let heads = network.register(6, HEADS_QUOTA);
    debug_assert!(heads::MESSAGE_BYTES_MAX < message_bytes_max() as usize);
    Wires {
        network,
        oracle,
        consensus,
        backfill,
        blocks,
        transactions,
        heads,
    }
}

/// Whom this peer lets in and dials.
pub(crate) struct Neighbours {
    pub(crate) oracle: Oracle,
    pub(crate) own: PublicKey,
    pub(crate) listen: SocketAddr,
    /// Whom the operator named, for a peer that knows only a genesis that is long past.
    pub(crate) contacts: Vec<Member>,
}

impl Neighbours {
    /// The peers of the epoch and those that come next, so that a new one can catch up before it votes. Those of the epoch
    /// before stay connected for one more, to fetch its last block.
    pub(crate) fn track(&mut self, epoch: Epoch, members: &[Member], next: &[Member]) {
        let all = self.contacts.iter().chain(members).chain(next);
        let peers = addresses(all, &self.own, self.listen);
        let _ = self.oracle.track(epoch.get(), peers);
    }
}
