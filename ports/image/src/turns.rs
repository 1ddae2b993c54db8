//! Who unpacks next: one layer at a time for each account, a few in all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use piecework_model::AccountId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Layers that are unpacked at one time: each may hold a decoder's window, and write as fast as the disk takes it.
const AT_ONCE: usize = 2;

type Lines = Mutex<HashMap<AccountId, Line>>;

/// An account with slow layers waits for itself; everybody else waits for at most one layer of each account before them.
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    lines: Arc<Lines>,
}

/// Of one account; forgotten when nobody is in it. Jobs are bounded before they come here, so a line is as well.
struct Line {
    here: usize,
    turn: Arc<Semaphore>,
}

/// A place in an account's line, until dropped.
struct Place {
    account: AccountId,
    lines: Arc<Lines>,
}

/// The account's own turn.
pub(crate) struct OwnTurn {
    all: Arc<Semaphore>,
    // The permit goes before the place.
    permit: OwnedSemaphorePermit,
    place: Place,
}

/// The right to unpack now, until dropped.
pub(crate) struct Turn {
    _permits: [OwnedSemaphorePermit; 2],
    _place: Place,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(AT_ONCE)),
            lines: Arc::default(),
        }
    }
}

fn locked(lines: &Lines) -> MutexGuard<'_, HashMap<AccountId, Line>> {
    lines.lock().expect("no code under this lock panics")
}

async fn acquire(semaphore: Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore.acquire_owned().await.expect("nobody closes it")
}

impl Turns {
    /// Waits for the layers of the same account that came before. Cancel safe.
    pub(crate) async fn of(&self, account: AccountId) -> OwnTurn {
        let turn = {
            let mut lines = locked(&self.lines);
            let line = lines.entry(account).or_insert_with(|| Line {
                here: 0,
                turn: Arc::new(Semaphore::new(1)),
            });
            line.here += 1;
            line.turn.clone()
        };
        let place = Place {
            account,
            lines: self.lines.clone(),
        };
        OwnTurn {
            all: self.all.clone(),
            permit: acquire(turn).await,
            place,
        }
    }
}

impl OwnTurn {
    /// Waits for one of the turns of all. Cancel safe.
    pub(crate) async fn now(self) -> Turn {
        let all = acquire(self.all).await;
        Turn {
            _permits: [self.permit, all],
            _place: self.place,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = locked(&self.lines);
        if let Some(line) = lines.get_mut(&self.account) {
            line.here -= 1;
            if line.here == 0 {
                lines.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(number: u8) -> AccountId {
        AccountId([number; 20])
    }

    #[tokio::test]
    async fn an_account_with_many_layers_leaves_a_turn_to_another() {
        let turns = Turns::default();
        let first = turns.of(account(1)).await.now().await;
        let mut second = Box::pin(turns.of(account(1)));
        assert!(futures::poll!(&mut second).is_pending());
        let neighbour = turns.of(account(2)).await.now().await;
        drop(first);
        let second = second.await.now().await;
        let mut third = Box::pin(turns.of(account(3)).await.now());
        assert!(futures::poll!(&mut third).is_pending(), "two in all");
        drop(neighbour);
        drop((second, third.await));
        assert!(locked(&turns.lines).is_empty(), "accounts at rest are forgotten");
    }

    #[tokio::test]
    async fn who_goes_away_while_it_waits_holds_nothing() {
        let turns = Turns::default();
        let first = turns.of(account(1)).await;
        let mut second = Box::pin(turns.of(account(1)));
        assert!(futures::poll!(&mut second).is_pending());
        drop(second);
        assert_eq!(locked(&turns.lines).values().map(|line| line.here).sum::<usize>(), 1);
        drop(first.now().await);
        assert_eq!(turns.all.available_permits(), AT_ONCE);
        assert!(locked(&turns.lines).is_empty());
    }
}
