//! The wires between simulated peers, and which of a peer's two faces a message concerns.

use std::{fmt, marker::PhantomData, sync::Arc, time::SystemTime};

use commonware_actor::Feedback;
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{
    Address, AddressableManager, AddressableTrackedPeers, BlockedSubscription, Blocker, LimitedSender,
    PeerSetSubscription, Provider, Recipients, TrackedPeers,
    simulated::{Control, Oracle, Receiver, Sender, SocketManager, SplitTarget},
};
use commonware_runtime::Clock;
use commonware_utils::ordered::Map;

use crate::{
    network::{CHANNELS, Channel},
    runtime::{Runtime, Transport},
};

/// Nothing but the machine between the peers.
pub(crate) struct Air<E>(PhantomData<E>);

impl<E: Runtime> Transport for Air<E> {
    type Sender = Line<E>;
    type Receiver = Receiver<PublicKey>;
    type Oracle = Gate<E>;
}

/// Sends to those who see this face; to everybody where there is one.
pub(crate) struct Line<E: Clock> {
    inner: Sender<PublicKey, E>,
    seers: Option<Arc<[PublicKey]>>,
}

impl<E: Clock> Clone for Line<E> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            seers: self.seers.clone(),
        }
    }
}

impl<E: Clock> LimitedSender for Line<E> {
    type PublicKey = PublicKey;
    type Checked<'a> = <Sender<PublicKey, E> as LimitedSender>::Checked<'a>;

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
pub(crate) async fn register<E: Runtime>(
    machine: &E,
    oracle: &Oracle<PublicKey, E>,
    own: &PublicKey,
    faces: Option<[Vec<PublicKey>; 2]>,
) -> Vec<[Channel<Air<E>>; CHANNELS.len()]> {
    let control = oracle.control(own.clone());
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let faces = faces.map(|faces| faces.map(Arc::<[PublicKey]>::from));
    for (number, quota) in (0..).zip(CHANNELS) {
        let registered = control.register(number, quota).await;
        let (inner, receiver) = registered.expect("the simulated network runs as long as the machine");
        let Some([one, other]) = faces.clone() else {
            first.push((Line { inner, seers: None }, receiver));
            continue;
        };
        let seers = other.clone();
        let route = move |(from, _): &(PublicKey, _)| match seers.contains(from) {
            true => SplitTarget::Secondary,
            false => SplitTarget::Primary,
        };
        let (to_one, to_other) = receiver.split_with(machine.child("faces"), route);
        let line = |seers| Line {
            inner: inner.clone(),
            seers: Some(seers),
        };
        first.push((line(one), to_one));
        second.push((line(other), to_other));
    }
    let all = [first, second]
        .into_iter()
        .map(<[Channel<Air<E>>; CHANNELS.len()]>::try_from);
    all.flatten().collect()
}

/// Whom a peer talks to. Peers of one epoch are the same for all here: the simulated network keeps one list.
pub(crate) struct Gate<E: Clock> {
    control: Control<PublicKey, E>,
    manager: SocketManager<PublicKey, E>,
}

impl<E: Clock> Gate<E> {
    pub(crate) fn new(oracle: &Oracle<PublicKey, E>, own: &PublicKey) -> Self {
        Self {
            control: oracle.control(own.clone()),
            manager: oracle.socket_manager(),
        }
    }
}

impl<E: Clock> Clone for Gate<E> {
    fn clone(&self) -> Self {
        Self {
            control: self.control.clone(),
            manager: self.manager.clone(),
        }
    }
}

impl<E: Clock> fmt::Debug for Gate<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.manager.fmt(f)
    }
}

impl<E: Clock> Provider for Gate<E> {
    type PublicKey = PublicKey;

    async fn peer_set(&mut self, id: u64) -> Option<TrackedPeers<PublicKey>> {
        self.manager.peer_set(id).await
    }

    async fn subscribe(&mut self) -> PeerSetSubscription<PublicKey> {
        self.manager.subscribe().await
    }
}

impl<E: Clock> AddressableManager for Gate<E> {
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

impl<E: Clock> Blocker for Gate<E> {
    type PublicKey = PublicKey;

    fn block(&mut self, peer: PublicKey) -> Feedback {
        self.control.block(peer)
    }

    fn blocked(&mut self) -> BlockedSubscription<PublicKey> {
        self.control.blocked()
    }
}
