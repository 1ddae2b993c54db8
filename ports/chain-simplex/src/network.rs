//! What a peer needs of the network between peers: a bounded channel for each kind of message, and a list of who may talk.

use std::{net::SocketAddr, num::NonZeroUsize};

use commonware_consensus::{
    BoundedBlock as _,
    marshal::{self, standard::Standard},
    simplex::{self, scheme::ed25519::Scheme},
    types::Epoch,
};
use commonware_cryptography::{blake3::Digest, ed25519::PublicKey};
use commonware_p2p::{
    AddressableManager as _, max_message_size,
    utils::mux::{MuxHandle, Muxer, prefixed},
};
use commonware_runtime::{Quota, Spawner};
use commonware_utils::{NZU32, NZUsize};

use crate::{
    block::Block,
    committee::{Member, addresses},
    gossip, heads,
    runtime::Transport,
};

pub type Channel<T> = (<T as Transport>::Sender, <T as Transport>::Receiver);

/// Messages a peer may send per channel and second. Inbound queues are allocated for it, times the peers and the tracked
/// sets; 512 was enough for 139 blocks/s.
const QUOTA: Quota = Quota::per_second(NZU32!(512));
/// One batch of transactions each few milliseconds.
const GOSSIP_QUOTA: Quota = Quota::per_second(NZU32!(400));
const HEADS_QUOTA: Quota = Quota::per_second(NZU32!(16));
/// More peers than the ledger allows: sizes of messages must not depend on who is in at the moment.
const MEMBERS_MAX: u32 = 1_000;
pub const MAILBOX: NonZeroUsize = NZUsize!(1024);

/// What may be sent through each channel, in the order of [`Wires::new`].
pub const CHANNELS: [Quota; 7] = [QUOTA, QUOTA, QUOTA, QUOTA, QUOTA, GOSSIP_QUOTA, HEADS_QUOTA];

/// The network before it runs, and its channels.
pub struct Wires<T: Transport> {
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
    pub fn new(
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

pub fn message_bytes_max() -> u32 {
    let most = max_message_size(&[
        prefixed(simplex::max_payload_size::<Scheme, Digest>(MEMBERS_MAX)),
        marshal::max_payload_size::<Standard<Block>, Scheme>(MEMBERS_MAX, &()),
        Block::max_encode_size(&()),
        gossip::MESSAGE_BYTES_MAX,
    ]);
    debug_assert!(heads::MESSAGE_BYTES_MAX < most as usize);
    most
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
