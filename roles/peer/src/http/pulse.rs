//! Whether blocks still become final, and which peers propose them.
//!
//! ```text
//! moving --no block for `stall_after`--> stalled (said once in the log) --a block--> moving (said once)
//! ```

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use parking_lot::Mutex;
use piecework_chain::{Chain, FinalBlock};
use piecework_model::PublicKey;
use tokio_util::sync::CancellationToken;

/// Proposers that are remembered: more than a ledger has peers. The one that is silent for the longest goes first.
const PROPOSERS_MAX: usize = 256;

/// A block that a peer proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proposed {
    pub(super) height: u64,
    /// The proposer's clock.
    pub(super) at_ms: u64,
}

pub(super) struct Pulse {
    state: Mutex<State>,
    stall_after: Duration,
}

struct State {
    /// When the last block became final here, or this began.
    moved: Instant,
    height: u64,
    stalled: bool,
    stalls: u64,
    proposed: BTreeMap<PublicKey, Proposed>,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    None,
    Stalled,
    Moves,
}

impl Pulse {
    pub(super) fn new(stall_after: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                moved: Instant::now(),
                height: 0,
                stalled: false,
                stalls: 0,
                proposed: BTreeMap::new(),
            }),
            stall_after,
        }
    }

    /// How long no block has become final, if that is too long.
    pub(super) fn stalled_for(&self, now: Instant) -> Option<Duration> {
        let silent = now.saturating_duration_since(self.state.lock().moved);
        (silent > self.stall_after).then_some(silent)
    }

    /// How long ago the last block became final here.
    pub(super) fn silent_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.state.lock().moved)
    }

    /// How often the ledger has stalled since this process began.
    pub(super) fn stalls(&self) -> u64 {
        self.state.lock().stalls
    }

    /// The last block of this peer's that was seen here.
    pub(super) fn last_of(&self, peer: PublicKey) -> Option<Proposed> {
        self.state.lock().proposed.get(&peer).copied()
    }

    fn note(&self, height: u64, leader: PublicKey, at_ms: u64, now: Instant) -> Turn {
        let mut state = self.state.lock();
        state.moved = now;
        state.height = height;
        state.proposed.insert(leader, Proposed { height, at_ms });
        if state.proposed.len() > PROPOSERS_MAX {
            let oldest = state
                .proposed
                .iter()
                .min_by_key(|(_, last)| last.height)
                .map(|(key, _)| *key);
            oldest.map(|key| state.proposed.remove(&key));
        }
        match std::mem::take(&mut state.stalled) {
            true => Turn::Moves,
            false => Turn::None,
        }
    }

    fn look(&self, now: Instant) -> Turn {
        let mut state = self.state.lock();
        let silent = now.saturating_duration_since(state.moved);
        if state.stalled || silent <= self.stall_after {
            return Turn::None;
        }
        state.stalled = true;
        state.stalls += 1;
        Turn::Stalled
    }
}

/// Follows the ledger until `shutdown`, and says in the log when it stalls and when it moves again.
pub(super) async fn run(pulse: Arc<Pulse>, chain: Arc<dyn Chain>, shutdown: CancellationToken) {
    const LOOK_EVERY: Duration = Duration::from_secs(1);
    let mut blocks = chain.blocks_from(chain.status().height + 1);
    loop {
        let next = tokio::select! {
            () = shutdown.cancelled() => return,
            next = tokio::time::timeout(LOOK_EVERY, blocks.next()) => next,
        };
        match next {
            Ok(Some(block)) => tell(&pulse, heard(&pulse, &block)),
            Ok(None) => return,
            Err(_) => tell(&pulse, pulse.look(Instant::now())),
        }
    }
}

fn heard(pulse: &Pulse, block: &FinalBlock) -> Turn {
    let leader = block.header.details.leader;
    pulse.note(block.height, leader, block.timestamp_ms, Instant::now())
}

fn tell(pulse: &Pulse, turn: Turn) {
    let height = pulse.state.lock().height;
    match turn {
        Turn::None => {}
        Turn::Stalled => tracing::warn!(
            height,
            silent_s = pulse.stall_after.as_secs(),
            "the ledger has stalled: no block becomes final, because too few peers answer or this one is cut off"
        ),
        Turn::Moves => tracing::warn!(height, "the ledger moves again"),
    }
}

#[cfg(test)]
mod tests {
    use piecework_model::SecretKey;

    use super::*;

    const STALL: Duration = Duration::from_secs(13);

    fn peer(seed: u8) -> PublicKey {
        SecretKey::from_seed([seed; 32]).public()
    }

    #[test]
    fn a_stall_is_told_once_and_ends_with_a_block() {
        let pulse = Pulse::new(STALL);
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        assert_eq!(pulse.note(1, peer(1), 5, at(0)), Turn::None);
        assert_eq!(pulse.look(at(13)), Turn::None);
        assert_eq!(pulse.stalled_for(at(13)), None);
        assert_eq!(pulse.look(at(14)), Turn::Stalled);
        assert_eq!(pulse.look(at(15)), Turn::None);
        assert_eq!(pulse.stalled_for(at(20)), Some(Duration::from_secs(20)));
        assert_eq!(pulse.note(2, peer(2), 6, at(21)), Turn::Moves);
        assert_eq!(pulse.stalled_for(at(22)), None);
        assert_eq!(pulse.stalls(), 1);
    }

    #[test]
    fn each_peer_has_its_last_block() {
        let pulse = Pulse::new(STALL);
        let now = Instant::now();
        for (height, seed) in [(1, 1), (2, 2), (3, 1)] {
            pulse.note(height, peer(seed), height * 10, now);
        }
        assert_eq!(pulse.last_of(peer(1)), Some(Proposed { height: 3, at_ms: 30 }));
        assert_eq!(pulse.last_of(peer(2)), Some(Proposed { height: 2, at_ms: 20 }));
        assert_eq!(pulse.last_of(peer(3)), None);
    }

    #[test]
    fn proposers_are_bounded() {
        let pulse = Pulse::new(STALL);
        let now = Instant::now();
        for height in 0..300_u64 {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&height.to_le_bytes());
            pulse.note(height, SecretKey::from_seed(seed).public(), height, now);
        }
        assert_eq!(pulse.state.lock().proposed.len(), PROPOSERS_MAX);
        assert!(
            pulse
                .state
                .lock()
                .proposed
                .values()
                .all(|last| last.height >= 300 - 256)
        );
    }
}
