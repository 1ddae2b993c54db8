//! The wires between simulated peers, and which of a peer's two faces a message concerns.

use std::{fmt, sync::Arc, time::SystemTime};

use commonware_actor::Feedback;
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{
    Address, AddressableManager, AddressableTrackedPeers, BlockedSubscription, Blocker, LimitedSender,
    PeerSetSubscription, Provider, Recipients, TrackedPeers,
    simulated::{Control, Oracle, Sender, SocketManager, SplitTarget},
};
use commonware_runtime::Supervisor as _;
use commonware_utils::ordered::Map;

use piecework_chain_simplex::{CHANNELS, Channel};

use super::Machine;
use crate::wires::{Air, Incoming, Outgoing};

/// Sends to those who see this face; to everybody where there is one.
#[derive(Clone)]
pub(crate) struct Line {
    inner: Sender<PublicKey, Machine>,
    seers: Option<Arc<[PublicKey]>>,
}

impl LimitedSender for Line {
    type PublicKey = PublicKey;
    type Checked<'a> = <Sender<PublicKey, Machine> as LimitedSender>::Checked<'a>;

    fn check(&mut self, recipients: Recipients<PublicKey>) -> Result<Self::Checked<'_>, SystemTime> {
        let recipients = match &self.seers {
            None => recipients,
            Some(seers) => Recipients::Some(match recipients {
                Recipients::All => seers.to_vec(),
                Recipients::Some(keys) => keys.into_iter().filter(|key| seers.contains(key)).collect(),
                Recipients::One(key) => Some(key).filter(|key| seers.contains(key)).into_iter().collect(),
            }),
        };
        self.inner.check(recipients)
    }
}

/// Registers a peer, once for each of its faces.
///
/// # Panics
/// When the simulated network has stopped.
pub(crate) async fn register(
    machine: &Machine,
    oracle: &Oracle<PublicKey, Machine>,
    own: &PublicKey,
    faces: Option<[Vec<PublicKey>; 2]>,
) -> Vec<[Channel<Air>; CHANNELS.len()]> {
    let control = oracle.control(own.clone());
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let faces = faces.map(|faces| faces.map(Arc::<[PublicKey]>::from));
    for (number, quota) in (0..).zip(CHANNELS) {
        let registered = control.register(number, quota).await;
        let (inner, receiver) = registered.expect("the simulated network runs as long as the machine");
        let Some([one, other]) = faces.clone() else {
            let line = Line { inner, seers: None };
            first.push((Outgoing::Simulated(Box::new(line)), Incoming::Simulated(receiver)));
            continue;
        };
        let seers = other.clone();
        let route = move |(from, _): &(PublicKey, _)| match seers.contains(from) {
            true => SplitTarget::Secondary,
            false => SplitTarget::Primary,
        };
        let (to_one, to_other) = receiver.split_with(machine.child("faces"), route);
        let line = |seers| {
            Outgoing::Simulated(Box::new(Line {
                inner: inner.clone(),
                seers: Some(seers),
            }))
        };
        first.push((line(one), Incoming::Simulated(to_one)));
        second.push((line(other), Incoming::Simulated(to_other)));
    }
    let all = [first, second]
        .into_iter()
        .map(<[Channel<Air>; CHANNELS.len()]>::try_from);
    all.flatten().collect()
}

/// Whom a peer talks to. Peers of one epoch are the same for all here: the simulated network keeps one list.
#[derive(Clone)]
pub(crate) struct Gate {
    control: Control<PublicKey, Machine>,
    manager: SocketManager<PublicKey, Machine>,
}

impl Gate {
    pub(crate) fn new(oracle: &Oracle<PublicKey, Machine>, own: &PublicKey) -> Self {
        Self {
            control: oracle.control(own.clone()),
            manager: oracle.socket_manager(),
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.manager.fmt(f)
    }
}

impl Provider for Gate {
    type PublicKey = PublicKey;

    async fn peer_set(&mut self, id: u64) -> Option<TrackedPeers<PublicKey>> {
        self.manager.peer_set(id).await
    }

    async fn subscribe(&mut self) -> PeerSetSubscription<PublicKey> {
        self.manager.subscribe().await
    }
}

impl AddressableManager for Gate {
    fn track<R>(&mut self, id: u64, peers: R) -> Feedback
    where
        R: Into<AddressableTrackedPeers<PublicKey>> + Send,
    {
        self.manager.track(id, peers)
    }

    fn overwrite(&mut self, peers: Map<PublicKey, Address>) -> Feedback {
        self.manager.overwrite(peers)
    }
}

impl Blocker for Gate {
    type PublicKey = PublicKey;

    fn block(&mut self, peer: PublicKey) -> Feedback {
        self.control.block(peer)
    }

    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        self.control.blocked()
    }
}
