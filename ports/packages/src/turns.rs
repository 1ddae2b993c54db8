//! Who resolves next: one resolution at a time for each account, a few in all.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use piecework_model::{AccountId, Code, Rejection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Two tools at once leave a small machine room to serve.
const AT_ONCE: usize = 2;
/// Resolutions at work or waiting, each with its bundle in memory; of one account, and in all.
const EACH_MAX: usize = 4;
const ALL_MAX: usize = 64;

/// An account that declares slow packages waits for itself; everybody else waits for at most one resolution of each
/// account before them.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    lines: Arc<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    here: AtomicUsize,
    by_account: Mutex<HashMap<AccountId, Line>>,
}

#[derive(Debug)]
struct Line {
    here: usize,
    turn: Arc<Semaphore>,
}

/// A place in the account's line, and then the right to resolve now, until dropped.
pub(crate) struct Turn {
    account: AccountId,
    lines: Arc<Lines>,
    permits: Option<[OwnedSemaphorePermit; 2]>,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(AT_ONCE)),
            lines: Arc::default(),
        }
    }

    /// First the account's own turn, then one of all. Rejects with `packages.busy`. Cancel safe.
    pub(crate) async fn take(&self, account: AccountId) -> Result<Turn, Rejection> {
        let (mut turn, line) = self.enter(account)?;
        let own = acquire(line).await;
        turn.permits = Some([own, acquire(self.all.clone()).await]);
        Ok(turn)
    }

    fn enter(&self, account: AccountId) -> Result<(Turn, Arc<Semaphore>), Rejection> {
        let mut by_account = self.lines.by_account.lock();
        let own = by_account.get(&account).map_or(0, |line| line.here);
        if own >= EACH_MAX || self.lines.here.load(Ordering::Relaxed) >= ALL_MAX {
            return Err(busy());
        }
        let line = by_account.entry(account).or_insert_with(|| Line {
            here: 0,
            turn: Arc::new(Semaphore::new(1)),
        });
        line.here += 1;
        self.lines.here.fetch_add(1, Ordering::Relaxed);
        let turn = Turn {
            account,
            lines: self.lines.clone(),
            permits: None,
        };
        Ok((turn, line.turn.clone()))
    }
}

fn busy() -> Rejection {
    Rejection::new(
        Code::PackagesBusy,
        "too many deploys wait for their packages to be resolved",
    )
    .hint("deploy again when some have ended")
}

async fn acquire(semaphore: Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore
        .acquire_owned()
        .await
        .expect("these semaphores are never closed")
}

impl Drop for Turn {
    /// An account that nobody waits for is forgotten: the table holds those at work.
    fn drop(&mut self) {
        let mut by_account = self.lines.by_account.lock();
        self.permits = None;
        self.lines.here.fetch_sub(1, Ordering::Relaxed);
        if let Some(line) = by_account.get_mut(&self.account) {
            line.here -= 1;
            if line.here == 0 {
                by_account.remove(&self.account);
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

    async fn taken(turns: &Turns, number: u8) -> Turn {
        turns.take(account(number)).await.expect("there is room")
    }

    #[tokio::test]
    async fn one_account_with_many_resolutions_leaves_a_turn_to_another() {
        let turns = Turns::new();
        let first = taken(&turns, 1).await;
        let mut second = Box::pin(taken(&turns, 1));
        assert!(futures::poll!(&mut second).is_pending());
        let neighbour = taken(&turns, 2).await;
        drop(first);
        let second = second.await;
        drop((neighbour, second));
        assert!(
            turns.lines.by_account.lock().is_empty(),
            "accounts at rest are forgotten"
        );
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_while_it_waits_holds_nothing() {
        let turns = Turns::new();
        let (one, two) = (taken(&turns, 1).await, taken(&turns, 2).await);
        let mut third = Box::pin(taken(&turns, 3));
        assert!(futures::poll!(&mut third).is_pending());
        drop(third);
        drop(one);
        drop(taken(&turns, 3).await);
        drop(two);
        assert_eq!(turns.all.available_permits(), AT_ONCE);
    }

    #[tokio::test]
    async fn the_lines_are_bounded_for_one_account_and_in_all() {
        let turns = Turns::new();
        let held = (taken(&turns, 1).await, taken(&turns, 2).await);
        let mut waiting = Vec::new();
        for number in (1..EACH_MAX)
            .map(|_| 1)
            .chain(3..u8::try_from(3 + ALL_MAX - 1 - EACH_MAX).expect("few"))
        {
            waiting.push(Box::pin(taken(&turns, number)));
        }
        for turn in &mut waiting {
            assert!(futures::poll!(turn).is_pending());
        }
        for number in [1, 200] {
            let refused = turns.take(account(number)).await.err().expect("full");
            assert_eq!(refused.code, Code::PackagesBusy);
        }
        drop((held, waiting));
        assert_eq!(turns.lines.here.load(Ordering::Relaxed), 0);
        drop(taken(&turns, 200).await);
    }
}
