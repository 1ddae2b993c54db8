//! Who resolves next: one resolution at a time for each account, a few in all.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use piecework_model::AccountId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Two tools at once leave a small machine room to serve.
const AT_ONCE: usize = 2;

/// An account that declares slow packages waits for itself; everybody else waits for at most one resolution of each
/// account before them.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    by_account: Arc<Mutex<HashMap<AccountId, Arc<Semaphore>>>>,
}

/// The right to resolve now, until dropped.
pub(crate) struct Turn {
    account: AccountId,
    by_account: Arc<Mutex<HashMap<AccountId, Arc<Semaphore>>>>,
    own: Option<OwnedSemaphorePermit>,
    _one_of_all: OwnedSemaphorePermit,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(AT_ONCE)),
            by_account: Arc::default(),
        }
    }

    /// First the account's own turn, then one of all. Cancel safe.
    pub(crate) async fn take(&self, account: AccountId) -> Turn {
        let line = self
            .by_account
            .lock()
            .entry(account)
            .or_insert_with(|| Arc::new(Semaphore::new(1)))
            .clone();
        let own = Some(acquire(line).await);
        Turn {
            account,
            by_account: self.by_account.clone(),
            own,
            _one_of_all: acquire(self.all.clone()).await,
        }
    }
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
        let mut by_account = self.by_account.lock();
        self.own = None;
        // One reference is the table's own: nobody holds or awaits the line.
        if by_account
            .get(&self.account)
            .is_some_and(|line| Arc::strong_count(line) == 1)
        {
            by_account.remove(&self.account);
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
    async fn one_account_with_many_resolutions_leaves_a_turn_to_another() {
        let turns = Turns::new();
        let first = turns.take(account(1)).await;
        let mut second = Box::pin(turns.take(account(1)));
        assert!(futures::poll!(&mut second).is_pending());
        let neighbour = turns.take(account(2)).await;
        drop(first);
        let second = second.await;
        drop((neighbour, second));
        assert!(turns.by_account.lock().is_empty(), "accounts at rest are forgotten");
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_while_it_waits_holds_nothing() {
        let turns = Turns::new();
        let (one, two) = (turns.take(account(1)).await, turns.take(account(2)).await);
        let mut third = Box::pin(turns.take(account(3)));
        assert!(futures::poll!(&mut third).is_pending());
        drop(third);
        drop(one);
        drop(turns.take(account(3)).await);
        drop(two);
        assert_eq!(turns.all.available_permits(), AT_ONCE);
    }
}
