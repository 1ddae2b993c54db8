//! What carries messages between peers: TCP, or the air of a simulated machine.

use std::{num::NonZeroUsize, time::SystemTime};

use commonware_actor::{Feedback, Unreliable};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{
    Address, AddressableManager, AddressableTrackedPeers, BlockedSubscription, Blocker, CheckedSender, LimitedSender,
    Message, PeerSetSubscription, Provider, Receiver, Recipients, TrackedPeers, authenticated::lookup, simulated,
};
use commonware_runtime::{IoBufs, tokio::Context};
use commonware_utils::ordered::Map;
use piecework_chain_simplex::Transport;

use crate::simulated::{Gate, Line};

pub(crate) struct Air;

impl Transport for Air {
    type Sender = Outgoing;
    type Receiver = Incoming;
    type Oracle = Oracle;
}

type TcpSender = lookup::Sender<PublicKey, Context>;

#[derive(Clone)]
pub(crate) enum Outgoing {
    Tcp(TcpSender),
    Simulated(Box<Line>),
}

/// A message that the quota has let through.
pub(crate) enum Checked<'a> {
    Tcp(<TcpSender as LimitedSender>::Checked<'a>),
    Simulated(<Line as LimitedSender>::Checked<'a>),
}

impl LimitedSender for Outgoing {
    type PublicKey = PublicKey;
    type Checked<'a> = Checked<'a>;

    fn check(&mut self, recipients: Recipients<PublicKey>) -> Result<Checked<'_>, SystemTime> {
        match self {
            Self::Tcp(sender) => sender.check(recipients).map(Checked::Tcp),
            Self::Simulated(line) => line.check(recipients).map(Checked::Simulated),
        }
    }
}

impl CheckedSender for Checked<'_> {
    type PublicKey = PublicKey;

    fn recipients(&self) -> Vec<PublicKey> {
        match self {
            Self::Tcp(checked) => checked.recipients(),
            Self::Simulated(checked) => checked.recipients(),
        }
    }

    fn send(self, message: impl Into<IoBufs> + Send, priority: bool) -> Unreliable<Feedback> {
        let message: IoBufs = message.into();
        match self {
            Self::Tcp(checked) => checked.send(message, priority),
            Self::Simulated(checked) => checked.send(message, priority),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Incoming {
    Tcp(lookup::Receiver<PublicKey>),
    Simulated(simulated::Receiver<PublicKey>),
}

/// The network has stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    #[error(transparent)]
    Tcp(lookup::Error),
    #[error(transparent)]
    Simulated(simulated::Error),
}

impl Receiver for Incoming {
    type Error = Stopped;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> Result<Message<PublicKey>, Stopped> {
        match self {
            Self::Tcp(receiver) => receiver.recv().await.map_err(Stopped::Tcp),
            Self::Simulated(receiver) => receiver.recv().await.map_err(Stopped::Simulated),
        }
    }

    fn capacity(&self) -> NonZeroUsize {
        match self {
            Self::Tcp(receiver) => receiver.capacity(),
            Self::Simulated(receiver) => receiver.capacity(),
        }
    }
}

/// Who may talk to a peer.
#[derive(Clone, Debug)]
pub(crate) enum Oracle {
    Tcp(lookup::Oracle<PublicKey>),
    Simulated(Gate),
}

impl Provider for Oracle {
    type PublicKey = PublicKey;

    async fn peer_set(&mut self, id: u64) -> Option<TrackedPeers<PublicKey>> {
        match self {
            Self::Tcp(oracle) => oracle.peer_set(id).await,
            Self::Simulated(gate) => gate.peer_set(id).await,
        }
    }

    async fn subscribe(&mut self) -> PeerSetSubscription<PublicKey> {
        match self {
            Self::Tcp(oracle) => oracle.subscribe().await,
            Self::Simulated(gate) => gate.subscribe().await,
        }
    }
}

impl AddressableManager for Oracle {
    fn track<R>(&mut self, id: u64, peers: R) -> Feedback
    where
        R: Into<AddressableTrackedPeers<PublicKey>> + Send,
    {
        match self {
            Self::Tcp(oracle) => oracle.track(id, peers),
            Self::Simulated(gate) => gate.track(id, peers),
        }
    }

    fn overwrite(&mut self, peers: Map<PublicKey, Address>) -> Feedback {
        match self {
            Self::Tcp(oracle) => oracle.overwrite(peers),
            Self::Simulated(gate) => gate.overwrite(peers),
        }
    }
}

impl Blocker for Oracle {
    type PublicKey = PublicKey;

    fn block(&mut self, peer: PublicKey) -> Feedback {
        match self {
            Self::Tcp(oracle) => oracle.block(peer),
            Self::Simulated(gate) => gate.block(peer),
        }
    }

    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        match self {
            Self::Tcp(oracle) => oracle.blocked(),
            Self::Simulated(gate) => gate.blocked(),
        }
    }
}
