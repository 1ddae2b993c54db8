//! What deploys cost: they are free, so how much computing an account gets with them is bounded.
//!
//! ```text
//! deploy -> the account's line (two at once) -> free time left? -> packages resolved -> a slot, of its share -> loaded
//!                                                                  time is charged       time is charged       |
//!                                                            kept warm, with few others of the account's <-----'
//! ```

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use piecework_api::errors::Refusal;
use piecework_model::{AccountId, Code, FunctionId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Answer, failure::refuse};

/// Deploys of one account that compute at once: a script that deploys a project is not slowed much, and other accounts'
/// calls keep most of the slots.
const AT_ONCE: usize = 2;
/// Deploys of one account that wait for these.
const WAITING_MAX: usize = 8;
/// Code that deploys hold in memory while they are in line or at work, as it came: two of the largest of one account, four of
/// all. Each becomes up to twice as much for a moment when its turn has come.
const CODE_BYTES_EACH: usize = 96 << 20;
const CODE_BYTES_ALL: usize = 2 * CODE_BYTES_EACH;
const WAITS_AT_MOST: Duration = Duration::from_secs(60);
/// What an account's deploys may compute in a day: most of them load in less than half a second, and packages are resolved in
/// some seconds.
const FREE_PER_DAY: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(86_400);
/// Each deploy counts for this much besides: keeping, fetching and unpacking its code cost something, too.
const CHARGED_EACH: Duration = Duration::from_millis(50);
/// Versions of one account that are loaded and perhaps not called yet; beyond, the oldest is no longer kept warm.
const FRESH_MAX: usize = 4;
/// Beyond this many accounts those are forgotten about which there is nothing to remember.
const ACCOUNTS_KEPT: usize = 4_096;

type Version = (FunctionId, u32);

#[derive(Default)]
pub(crate) struct Checks(Mutex<HashMap<AccountId, Account>>);

struct Account {
    line: Arc<Semaphore>,
    /// Of those, the one whose TypeScript is translated: a few are at a time, of all accounts, and each may take a minute.
    translating: Arc<Semaphore>,
    /// In line or at work.
    here: usize,
    /// Of those, what they brought along.
    code_bytes: usize,
    spent: Spent,
    fresh: VecDeque<Version>,
}

/// Computing time that an account's deploys have used of late. It is forgiven steadily, in a day as much as is free in a day.
pub(super) struct Spent {
    used: Duration,
    at: Instant,
}

impl Spent {
    pub(super) fn none(now: Instant) -> Self {
        Self {
            used: Duration::ZERO,
            at: now,
        }
    }

    pub(super) fn add(&mut self, took: Duration, now: Instant) {
        self.settle(now);
        self.used += took;
    }

    pub(super) fn is_none(&mut self, now: Instant) -> bool {
        self.settle(now);
        self.used.is_zero()
    }

    fn settle(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        let forgiven = passed.mul_f64(FREE_PER_DAY.as_secs_f64() / DAY.as_secs_f64());
        self.used = self.used.saturating_sub(forgiven);
        self.at = now;
    }

    /// How long until another is free again; `None` where it is now.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.settle(now);
        let over = (self.used + CHARGED_EACH).checked_sub(FREE_PER_DAY)?;
        (!over.is_zero()).then(|| over.mul_f64(DAY.as_secs_f64() / FREE_PER_DAY.as_secs_f64()))
    }
}

impl Account {
    fn new(now: Instant) -> Self {
        Self {
            line: Arc::new(Semaphore::new(AT_ONCE)),
            translating: Arc::new(Semaphore::new(1)),
            here: 0,
            code_bytes: 0,
            spent: Spent::none(now),
            fresh: VecDeque::new(),
        }
    }

    fn is_idle(&mut self, now: Instant) -> bool {
        self.spent.is_none(now) && self.here == 0
    }
}

/// The right to compute now, for one deploy; given back when dropped.
pub(crate) struct Turn<'a> {
    checks: &'a Checks,
    account: AccountId,
    code_bytes: usize,
    /// Whether nothing of it is counted: the operator deploys on its own machine.
    is_free: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Checks {
    /// Waits in the account's line. Refuses with `deploy.busy` where too many wait or it takes too long, and with
    /// `deploy.allowance` where the account's free time is used up. Cancel safe.
    ///
    /// `code_bytes`: what the deploy holds in memory until its turn ends.
    pub(crate) async fn turn(&self, account: AccountId, code_bytes: usize, is_free: bool) -> Answer<Turn<'_>> {
        if is_free {
            return Ok(Turn {
                checks: self,
                account,
                code_bytes: 0,
                is_free,
                permit: None,
            });
        }
        let (mut turn, line) = self.enter(account, code_bytes)?;
        let permit = tokio::time::timeout(WAITS_AT_MOST, line.acquire_owned()).await;
        let Ok(permit) = permit else { return busy() };
        turn.permit = Some(permit.expect("these semaphores are never closed"));
        // Those before it in line may have used up the rest.
        self.check(account)?;
        turn.charge(CHARGED_EACH);
        Ok(turn)
    }

    fn enter(&self, account: AccountId, code_bytes: usize) -> Answer<(Turn<'_>, Arc<Semaphore>)> {
        self.check(account)?;
        let mut accounts = self.0.lock();
        let of_all: usize = accounts.values().map(|account| account.code_bytes).sum();
        let entry = accounts.entry(account).or_insert_with(|| Account::new(Instant::now()));
        if entry.here >= AT_ONCE + WAITING_MAX || entry.code_bytes + code_bytes > CODE_BYTES_EACH {
            return busy();
        }
        if of_all + code_bytes > CODE_BYTES_ALL {
            return refuse(
                Code::ServerBusy,
                "too many large deploys are under way; retry in a few seconds",
            );
        }
        entry.here += 1;
        entry.code_bytes += code_bytes;
        let turn = Turn {
            checks: self,
            account,
            code_bytes,
            is_free: false,
            permit: None,
        };
        Ok((turn, entry.line.clone()))
    }

    /// Refuses with `deploy.allowance`.
    fn check(&self, account: AccountId) -> Answer<()> {
        let now = Instant::now();
        let mut accounts = self.0.lock();
        if accounts.len() > ACCOUNTS_KEPT {
            accounts.retain(|_, account| !account.is_idle(now));
        }
        let wait = accounts.get_mut(&account).and_then(|account| account.spent.wait(now));
        match wait {
            Some(wait) => Err(Refusal::new(
                Code::DeployAllowance,
                format!(
                    "this account's deploys have used the {} s of computing that are free in a day",
                    FREE_PER_DAY.as_secs()
                ),
            )
            .hint(format!("deploy again in {} s", wait.as_secs() + 1))
            .into()),
            None => Ok(()),
        }
    }

    fn charge(&self, account: AccountId, took: Duration) {
        let now = Instant::now();
        if let Some(account) = self.0.lock().get_mut(&account) {
            account.spent.add(took, now);
        }
    }
}

impl Turn<'_> {
    pub(crate) fn account(&self) -> AccountId {
        self.account
    }

    fn charge(&self, took: Duration) {
        if !self.is_free {
            self.checks.charge(self.account, took);
        }
    }

    /// The right to be the account's only deploy that waits for one of the few translators: whoever else waits for one waits for at
    /// most one translation of each account. Refuses with `deploy.busy`. Cancel safe.
    pub(crate) async fn translates(&self) -> Answer<Option<OwnedSemaphorePermit>> {
        let line = {
            let accounts = self.checks.0.lock();
            accounts.get(&self.account).map(|account| account.translating.clone())
        };
        let Some(line) = line.filter(|_| !self.is_free) else {
            return Ok(None);
        };
        match tokio::time::timeout(WAITS_AT_MOST, line.acquire_owned()).await {
            Ok(permit) => Ok(Some(permit.expect("these semaphores are never closed"))),
            Err(_) => busy(),
        }
    }

    /// Charges the time that it takes, also when it is given up.
    pub(crate) async fn charged<T>(&self, computes: impl Future<Output = T>) -> T {
        struct Charge<'a>(&'a Turn<'a>, Instant);
        impl Drop for Charge<'_> {
            fn drop(&mut self) {
                self.0.charge(self.1.elapsed());
            }
        }
        let _charge = Charge(self, Instant::now());
        computes.await
    }

    /// This version is loaded. The versions that have to go for it, so that few of the account's are kept warm that
    /// nobody calls.
    pub(crate) fn loaded(&self, version: Version) -> Vec<Version> {
        let mut accounts = self.checks.0.lock();
        let Some(account) = accounts.get_mut(&self.account) else {
            return Vec::new();
        };
        account.fresh.retain(|fresh| *fresh != version);
        account.fresh.push_back(version);
        let surplus = account.fresh.len().saturating_sub(FRESH_MAX);
        account.fresh.drain(..surplus).collect()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.permit = None;
        if self.is_free {
            return;
        }
        if let Some(account) = self.checks.0.lock().get_mut(&self.account) {
            account.here -= 1;
            account.code_bytes -= self.code_bytes;
        }
    }
}

fn busy<T>() -> Answer<T> {
    refuse(
        Code::DeployBusy,
        "too many deploys of this account are under way; deploy again when some have ended",
    )
}

#[cfg(test)]
mod tests {
    use piecework_model::AnyCode;

    use super::*;

    const ONE: AccountId = AccountId([1; 20]);
    const OTHER: AccountId = AccountId([2; 20]);

    fn code<T>(refused: Answer<T>) -> Option<AnyCode> {
        refused.err().map(|refusal| refusal.code)
    }

    #[tokio::test]
    async fn one_account_loads_two_at_once_and_a_few_wait() {
        let checks = Checks::default();
        let held = (checks.turn(ONE, 0, false).await, checks.turn(ONE, 0, false).await);
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(checks.turn(ONE, 0, false))).collect();
        for turn in &mut waiting {
            assert!(futures::poll!(turn).is_pending());
        }
        assert_eq!(code(checks.turn(ONE, 0, false).await), Some(Code::DeployBusy.into()));
        assert!(
            checks.turn(OTHER, 0, false).await.is_ok(),
            "another account has its own line"
        );
        drop(held);
        assert!(futures::poll!(&mut waiting[0]).is_ready());
        drop(waiting);
        assert!(checks.turn(ONE, 0, false).await.is_ok());
        assert!(checks.0.lock().values().all(|account| account.here == 0));
    }

    #[tokio::test]
    async fn one_account_has_one_translation_at_a_time_and_others_have_theirs() {
        let checks = Checks::default();
        let turn = async |account| checks.turn(account, 0, false).await.expect("free");
        let (first, second, others) = (turn(ONE).await, turn(ONE).await, turn(OTHER).await);
        let held = first.translates().await.expect("free");
        assert!(held.is_some());
        let mut waits = Box::pin(second.translates());
        assert!(futures::poll!(&mut waits).is_pending());
        assert!(others.translates().await.is_ok());
        drop(held);
        assert!(waits.await.is_ok());
    }

    #[tokio::test]
    async fn what_deploys_hold_in_memory_is_bounded_for_one_account_and_in_all() {
        let checks = Checks::default();
        let large = CODE_BYTES_EACH / 2;
        let mut held = Vec::new();
        for account in [1, 2] {
            let account = AccountId([account; 20]);
            held.push(checks.turn(account, large, false).await.expect("room"));
            held.push(checks.turn(account, large, false).await.expect("room"));
            let more = code(checks.turn(account, 1, false).await);
            assert_eq!(more, Some(Code::DeployBusy.into()), "of one account");
        }
        let third = AccountId([3; 20]);
        assert_eq!(
            code(checks.turn(third, 1, false).await),
            Some(Code::ServerBusy.into()),
            "of all"
        );
        assert!(checks.turn(third, large, true).await.is_ok(), "the operator's own");
        held.pop();
        assert!(checks.turn(third, large, false).await.is_ok());
        drop(held);
        assert!(checks.0.lock().values().all(|account| account.code_bytes == 0));
    }

    #[tokio::test]
    async fn an_account_that_has_used_its_free_time_is_told_when_to_come_back() {
        let checks = Checks::default();
        let turn = checks.turn(ONE, 0, false).await.expect("free");
        checks.charge(ONE, FREE_PER_DAY);
        drop(turn);
        let refused = checks.turn(ONE, 0, false).await.err().expect("used up");
        assert_eq!(refused.code, Code::DeployAllowance);
        let hint = refused.hint.expect("when");
        assert!(hint.starts_with("deploy again in "), "{hint}");
        assert!(checks.turn(ONE, 0, true).await.is_ok(), "the operator's own");
        assert!(checks.turn(OTHER, 0, false).await.is_ok());
    }

    #[tokio::test]
    async fn each_deploy_is_charged_and_the_time_of_what_is_given_up_too() {
        let checks = Checks::default();
        let used = || checks.0.lock()[&ONE].spent.used;
        let turn = checks.turn(ONE, 0, false).await.expect("free");
        let begun = used();
        assert!(begun > CHARGED_EACH.mul_f64(0.9), "{begun:?}");
        let mut given_up = Box::pin(turn.charged(std::future::pending::<()>()));
        assert!(futures::poll!(&mut given_up).is_pending());
        std::thread::sleep(Duration::from_millis(20));
        drop(given_up);
        assert!(used() > begun + Duration::from_millis(15), "{:?}", used());
    }

    #[test]
    fn time_is_forgiven_steadily() {
        let now = Instant::now();
        let mut spent = Spent {
            used: FREE_PER_DAY * 2,
            at: now,
        };
        let wait = spent.wait(now).expect("used up");
        assert!(wait > DAY && wait < DAY.mul_f64(1.01), "{wait:?}");
        assert!(spent.wait(now + DAY).is_some());
        assert!(spent.wait(now + DAY.mul_f64(1.01)).is_none());
        spent.settle(now + 3 * DAY);
        assert!(spent.used.is_zero());
    }

    #[tokio::test]
    async fn few_versions_that_nobody_calls_are_kept_warm() {
        let checks = Checks::default();
        let turn = checks.turn(ONE, 0, false).await.expect("free");
        let version = |number: u8| (FunctionId([number; 12]), 1);
        for number in 0..4 {
            assert_eq!(turn.loaded(version(number)), []);
        }
        assert_eq!(turn.loaded(version(0)), [], "it is the newest again");
        assert_eq!(turn.loaded(version(9)), [version(1)]);
    }
}
