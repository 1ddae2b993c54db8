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
use commonware_runtime::{Quota, Spawner, Supervisor as _, tokio::Context};
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
    runtime::Transport,
};

type Handshake = Cups<Sake<PrivateKey>, ChaCha20Poly1305>;

/// TCP, authenticated and encrypted.
pub(crate) struct Tcp;

impl Transport for Tcp {
    type Sender = lookup::Sender<PublicKey, Context>;
    type Receiver = lookup::Receiver<PublicKey>;
    type Oracle = lookup::Oracle<PublicKey>;
}

pub(crate) type Channel<T> = (<T as Transport>::Sender, <T as Transport>::Receiver);

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

/// What may be sent through each channel, in the order of [`Wires::new`].
pub(crate) const CHANNELS: [Quota; 7] = [QUOTA, QUOTA, QUOTA, QUOTA, QUOTA, GOSSIP_QUOTA, HEADS_QUOTA];

/// The network before it runs, and its channels.
pub(crate) struct Wires<T: Transport> {
    pub(crate) oracle: T::Oracle,
    pub(crate) consensus: ConsensusWires<T>,
    pub(crate) backfill: Channel<T>,
    pub(crate) blocks: Channel<T>,
    pub(crate) transactions: Channel<T>,
    pub(crate) heads: Channel<T>,
    /// Nothing is sent or accepted before.
    pub(crate) start: Box<dyn FnOnce() + Send>,
}

/// Each epoch's instance of consensus has a subchannel of its own in each.
pub(crate) struct ConsensusWires<T: Transport> {
    pub(crate) votes: MuxHandle<T::Sender>,
    pub(crate) certificates: MuxHandle<T::Sender>,
    pub(crate) fetches: MuxHandle<T::Sender>,
}

impl<T: Transport> Wires<T> {
    pub(crate) fn new(
        runtime: &impl Spawner,
        oracle: T::Oracle,
        channels: [Channel<T>; CHANNELS.len()],
        start: Box<dyn FnOnce() + Send>,
    ) -> Self {
        let split = |name, (sender, receiver): Channel<T>| {
            let (muxer, handle) = Muxer::new(runtime.child(name), sender, receiver);
            muxer.start();
            handle
        };
        let [votes, certificates, fetches, backfill, blocks, transactions, heads] = channels;
        Self {
            oracle,
            consensus: ConsensusWires {
                votes: split("votes", votes),
                certificates: split("certificates", certificates),
                fetches: split("fetches", fetches),
            },
            backfill,
            blocks,
            transactions,
            heads,
            start,
        }
    }
}

pub(crate) fn message_bytes_max() -> u32 {
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

/// Opens the port's network.
pub(crate) fn open(context: &Context, epochs: &Epochs, listen: SocketAddr, peers: usize) -> Wires<Tcp> {
    debug_assert!(heads::MESSAGE_BYTES_MAX < message_bytes_max() as usize);
    let (mut network, oracle) = lookup::Network::new(context.child("network"), config(epochs, listen, peers));
    let mut channel = 0;
    let channels = CHANNELS.map(|quota| {
        channel += 1;
        network.register(channel - 1, quota)
    });
    let start = Box::new(|| drop(network.start()));
    Wires::new(context, oracle, channels, start)
}

/// Whom this peer lets in and dials.
pub(crate) struct Neighbours<T: Transport> {
    pub(crate) oracle: T::Oracle,
    pub(crate) own: PublicKey,
    pub(crate) listen: SocketAddr,
    /// Whom the operator named, for a peer that knows only a genesis that is long past.
    pub(crate) contacts: Vec<Member>,
}

impl<T: Transport> Neighbours<T> {
    /// The peers of the epoch and those that come next, so that a new one can catch up before it votes. Those of the epoch
    /// before stay connected for one more, to fetch its last block.
    pub(crate) fn track(&mut self, epoch: Epoch, members: &[Member], next: &[Member]) {
        let all = self.contacts.iter().chain(members).chain(next);
        let peers = addresses(all, &self.own, self.listen);
        let _ = self.oracle.track(epoch.get(), peers);
    }
}
