//! Peers tell one another which epoch they are in, so that one that was away learns that its own is over.
//!
//! Within an epoch consensus itself shows who is behind. A peer that missed the end of its epoch hears nothing of it any
//! more: knowing that others are further, it fetches the epoch's last block with its certificate, and finds the next peers
//! in the state after it. What it is told needs no trust: who is not further has no such block.

use std::{sync::Arc, time::Duration};

use commonware_codec::{DecodeExt as _, Encode as _};
use commonware_consensus::types::Epoch;
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{Message, Receiver, Recipients, Sender};
use commonware_runtime::{Clock, Spawner};
use parking_lot::Mutex;
use tokio::sync::Notify;

const PERIOD: Duration = Duration::from_secs(1);
/// An epoch's number.
pub(crate) const MESSAGE_BYTES_MAX: usize = 10;
/// Peers that are remembered to be further; any of them has what is missing.
const AHEAD_MAX: usize = 8;

/// The epoch this peer is in, and who is further.
#[derive(Default)]
pub(crate) struct Heads {
    place: Mutex<Place>,
    behind: Notify,
    entered: Notify,
}

#[derive(Default)]
struct Place {
    epoch: Epoch,
    ahead: Vec<(PublicKey, Epoch)>,
    /// Another peer is, or was a moment ago, in the same epoch.
    level: bool,
}

impl Heads {
    pub(crate) fn enter(&self, epoch: Epoch) {
        let mut place = self.place.lock();
        place.epoch = epoch;
        place.level = place.ahead.iter().any(|(_, theirs)| *theirs == epoch);
        place.ahead.retain(|(_, theirs)| *theirs > epoch);
        drop(place);
        self.entered.notify_one();
    }

    /// Resolves with those who are further as soon as there is one, and again whenever one says so. Cancel safe.
    pub(crate) async fn ahead(&self) -> Vec<PublicKey> {
        loop {
            self.behind.notified().await;
            let place = self.place.lock();
            if !place.ahead.is_empty() {
                return place.ahead.iter().map(|(peer, _)| peer.clone()).collect();
            }
        }
    }

    /// Those who are known to be further now.
    pub(crate) fn known_ahead(&self) -> Vec<PublicKey> {
        let place = self.place.lock();
        place.ahead.iter().map(|(peer, _)| peer.clone()).collect()
    }

    /// Whether this epoch is, or was, that of another peer while this one was in it: not one of which all others know
    /// the end already.
    pub(crate) fn is_level(&self) -> bool {
        self.place.lock().level
    }

    fn hear(&self, from: PublicKey, theirs: Epoch) {
        let mut place = self.place.lock();
        place.ahead.retain(|(peer, _)| *peer != from);
        place.level |= theirs == place.epoch;
        if theirs <= place.epoch {
            return;
        }
        place.ahead.push((from, theirs));
        if place.ahead.len() > AHEAD_MAX {
            place.ahead.remove(0);
        }
        drop(place);
        self.behind.notify_one();
    }
}

/// Starts both directions.
pub(crate) fn start<E, S, R>(runtime: &E, (sender, receiver): (S, R), heads: Arc<Heads>)
where
    E: Spawner + Clock,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
{
    let announced = heads.clone();
    runtime
        .child("heads_out")
        .spawn(move |clock| announce(clock, sender, announced));
    runtime.child("heads_in").spawn(move |_| listen(receiver, heads));
}

async fn announce<E: Clock, S: Sender>(clock: E, mut sender: S, heads: Arc<Heads>) {
    loop {
        let epoch = heads.place.lock().epoch;
        // Whoever is away is told again in a second.
        let _ = sender.send(Recipients::All, epoch.encode(), false);
        tokio::select! {
            biased;
            () = clock.sleep(PERIOD) => {}
            () = heads.entered.notified() => {}
        }
    }
}

async fn listen<R: Receiver<PublicKey = PublicKey>>(mut receiver: R, heads: Arc<Heads>) {
    while let Ok((from, message)) = receiver.recv().await as Result<Message<PublicKey>, R::Error> {
        if let Ok(theirs) = Epoch::decode(message) {
            heads.hear(from, theirs);
        }
    }
}

#[cfg(test)]
mod tests {
    use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn only_those_in_a_later_epoch_are_ahead() {
        let heads = Heads::default();
        let (near, far) = (1, 2);
        let peer = |seed| PrivateKey::from_seed(seed).public_key();
        heads.enter(Epoch::new(4));
        heads.hear(peer(near), Epoch::new(4));
        assert!(heads.ahead().now_or_never().is_none());
        heads.hear(peer(far), Epoch::new(6));
        assert_eq!(heads.ahead().now_or_never(), Some(vec![peer(far)]));
        heads.enter(Epoch::new(6));
        assert!(heads.known_ahead().is_empty());
    }

    #[test]
    fn a_peer_is_level_where_another_is_or_was_on_its_way() {
        let heads = Heads::default();
        let peer = PrivateKey::from_seed(1).public_key();
        heads.enter(Epoch::new(4));
        heads.hear(peer.clone(), Epoch::new(6));
        assert!(!heads.is_level());
        heads.enter(Epoch::new(5));
        assert!(!heads.is_level());
        heads.enter(Epoch::new(6));
        assert!(heads.is_level());
        heads.enter(Epoch::new(7));
        assert!(!heads.is_level());
        heads.hear(peer, Epoch::new(7));
        assert!(heads.is_level());
    }
}
