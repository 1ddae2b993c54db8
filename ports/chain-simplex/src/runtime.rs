//! What a peer needs of the machine it runs on, which may be simulated.

use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{AddressableManager, Blocker, Receiver, Sender};
use commonware_runtime::{Clock, Metrics, Spawner, Storage};
use rand::CryptoRng;

/// Tasks, time, chance and disks.
pub trait Runtime: Spawner + Clock + Metrics + Storage + CryptoRng {}

impl<T: Spawner + Clock + Metrics + Storage + CryptoRng> Runtime for T {}

/// How peers reach one another.
pub trait Transport: 'static {
    type Sender: Sender<PublicKey = PublicKey>;
    type Receiver: Receiver<PublicKey = PublicKey>;
    /// Who may talk to this peer.
    type Oracle: AddressableManager<PublicKey = PublicKey> + Blocker<PublicKey = PublicKey> + Sync;
}
