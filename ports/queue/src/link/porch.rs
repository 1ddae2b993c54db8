//! Where strangers wait until they have proved a key: few of them, and nobody waits behind one that says nothing.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Handshakes under way in all. Each may hold what a stranger may say before it proves a key, and the WebSocket's buffers: 32 KiB
/// at the most, 8 MiB together.
pub const HANDSHAKES_MAX: usize = 256;
/// Of one address (IPv6: of one /64): more than the computers behind one NAT that come back in the same second.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = 32;

/// The handshakes under way. One that comes on top takes the place of the oldest that has proved nothing, of its own address
/// first: an honest handshake ends long before it is the oldest.
#[derive(Default)]
pub struct Porch(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    next: u64,
    /// By age.
    handshakes: BTreeMap<u64, Handshake>,
}

struct Handshake {
    from: Option<IpAddr>,
    has_proved: bool,
    evicted: CancellationToken,
}

/// A place; given back when dropped.
pub struct Turn<'a> {
    porch: &'a Porch,
    id: u64,
    evicted: CancellationToken,
}

impl Porch {
    /// `None` where every place is taken by a handshake that has proved its key. Those whose address is not known count as of
    /// one.
    pub fn enter(&self, address: Option<IpAddr>) -> Option<Turn<'_>> {
        let from = address.map(network_of);
        let mut waiting = self.0.lock();
        let of_address = waiting.handshakes.values().filter(|other| other.from == from).count();
        if of_address >= HANDSHAKES_PER_ADDRESS_MAX {
            waiting.evict(|other| other.from == from)?;
        } else if waiting.handshakes.len() >= HANDSHAKES_MAX {
            waiting.evict(|_| true)?;
        }
        waiting.next += 1;
        let id = waiting.next;
        let evicted = CancellationToken::new();
        let handshake = Handshake {
            from,
            has_proved: false,
            evicted: evicted.clone(),
        };
        waiting.handshakes.insert(id, handshake);
        Some(Turn {
            porch: self,
            id,
            evicted,
        })
    }
}

impl Waiting {
    /// The oldest of these that has proved nothing gives up its place.
    fn evict(&mut self, which: impl Fn(&Handshake) -> bool) -> Option<()> {
        let oldest = self
            .handshakes
            .iter()
            .find(|(_, handshake)| !handshake.has_proved && which(handshake));
        let id = *oldest?.0;
        let handshake = self.handshakes.remove(&id)?;
        handshake.evicted.cancel();
        Some(())
    }
}

impl Turn<'_> {
    /// Resolves when the place went to somebody else.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Whoever has proved a key keeps the place.
    pub fn proved(&self) {
        if let Some(handshake) = self.porch.0.lock().handshakes.get_mut(&self.id) {
            handshake.has_proved = true;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.porch.0.lock().handshakes.remove(&self.id);
    }
}

/// Whoever has an IPv6 address has 2^64 of them.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn the_oldest_silent_handshake_of_an_address_makes_room_for_the_next() {
        let porch = Porch::default();
        let other = porch.enter(address("10.0.0.9")).expect("room");
        let turns: Vec<_> = (0..HANDSHAKES_PER_ADDRESS_MAX)
            .map(|_| porch.enter(address("10.0.0.1")).expect("room"))
            .collect();
        assert!(turns.iter().all(|turn| !turn.evicted.is_cancelled()));
        turns[0].proved();
        let _next = porch.enter(address("::ffff:10.0.0.1")).expect("another goes");
        assert!(!turns[0].evicted.is_cancelled(), "it has proved its key");
        assert!(turns[1].evicted.is_cancelled());
        assert!(!turns[2].evicted.is_cancelled() && !other.evicted.is_cancelled());
    }

    #[test]
    fn many_addresses_take_no_more_than_there_is() {
        let porch = Porch::default();
        let from = |at: usize| address(&format!("2001:db8:0:{at:x}::1"));
        let turns: Vec<_> = (0..HANDSHAKES_MAX).filter_map(|at| porch.enter(from(at))).collect();
        assert_eq!(turns.len(), HANDSHAKES_MAX);
        let _next = porch.enter(from(HANDSHAKES_MAX)).expect("the oldest goes");
        assert!(turns[0].evicted.is_cancelled());
        turns.iter().for_each(Turn::proved);
        drop(_next);
        let last = porch.enter(from(HANDSHAKES_MAX)).expect("one place is free");
        last.proved();
        assert!(porch.enter(from(1_000)).is_none(), "all have proved a key");
        drop(turns);
        assert!(porch.enter(from(1_000)).is_some(), "places are given back");
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        assert_eq!(
            address("2001:db8::1").map(network_of),
            address("2001:db8::ffff:1").map(network_of)
        );
        assert_ne!(
            address("2001:db8::1").map(network_of),
            address("2001:db8:0:1::1").map(network_of)
        );
    }
}
