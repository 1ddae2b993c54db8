//! When a lane is settled, and how many at once.
//!
//! Providers are strangers: one that takes long, or never answers, may hold what it waits with and nothing that others
//! wait for. So a lane asks for a seal from a *quick* place, which it keeps for a second at the most; past that its provider
//! is slow, and its lanes ask from *slow* places until a seal comes in time again.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use piecework_api::errors::Refusal;
use piecework_model::AccountId;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    Answer,
    clock::{Clock, within},
    money::outbox::LaneKey,
};

/// Lanes that ask for a seal at once: a batch is some 200 KB, all of them together 50 MB.
const QUICK_MAX: usize = 256;
/// Of one provider: a sixteenth, so that one with many developers leaves places to others.
const QUICK_OF_ONE_MAX: usize = 16;
/// A seal over a full batch takes milliseconds, and a way around the world some hundred.
const QUICK_WITHIN: Duration = Duration::from_secs(1);
/// Lanes that wait for slow providers at once.
const SLOW_MAX: usize = 128;
/// Enough to notice that a provider has become quick again.
const SLOW_OF_ONE_MAX: usize = 2;
/// A computer that sleeps or swaps may take half a minute; past this the attempt is given up, and made again.
const SEAL_WITHIN: Duration = Duration::from_secs(60);
/// Settlements that wait for their block at once.
const LEDGER_MAX: usize = 512;
/// A block takes a fraction of a second, and one of a network in trouble some seconds.
const LEDGER_WITHIN: Duration = Duration::from_secs(30);
/// After the first failure of a lane; doubled with each.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
/// So long after its provider or the ledger is well again a lane may still wait.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// Moments within an interval at which lanes are settled. A settlement costs the ledger a block, however few jobs are in
/// it: few enough that lanes share blocks, enough that they do not all come at once.
const PHASES: u32 = 4;

/// What stops one attempt. The next one is made after [`back_off`].
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsettled {
    #[error("{0}")]
    Refused(Box<Refusal>),
    #[error("the provider did not seal within {} s", SEAL_WITHIN.as_secs())]
    SealOverdue,
    #[error("the provider is slow, and as many lanes as may wait for slow ones already do")]
    NoPlace,
    #[error("the ledger did not take it within {} s", LEDGER_WITHIN.as_secs())]
    LedgerOverdue,
}

/// How long a lane waits after so many failures in a row.
pub(super) fn back_off(failures: u32) -> Duration {
    let doubled = 1 << failures.saturating_sub(1).min(16);
    BACK_OFF_MIN.saturating_mul(doubled).min(BACK_OFF_MAX)
}

/// How long a lane waits for its turn, at most `every`.
pub(super) fn until_turn(lane: LaneKey, every: Duration, since_start: Duration) -> Duration {
    let every = every.max(Duration::from_millis(1));
    // Both are parts of digests.
    let phase = every / PHASES * (u32::from(lane.0.0[0] ^ lane.1.0[0]) % PHASES);
    let now = Duration::from_nanos((since_start.as_nanos() % every.as_nanos()) as u64);
    // At its very moment it has had this turn.
    if phase > now { phase - now } else { phase + every - now }
}

/// Room for lanes that are being settled.
pub(crate) struct Places {
    quick: Semaphore,
    slow: Semaphore,
    ledger: Semaphore,
    /// Those that are asked for seals, or were.
    providers: DashMap<AccountId, Arc<Pace>>,
}

/// One provider's share.
struct Pace {
    quick: Semaphore,
    slow: Semaphore,
    is_slow: AtomicBool,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            quick: Semaphore::new(QUICK_MAX),
            slow: Semaphore::new(SLOW_MAX),
            ledger: Semaphore::new(LEDGER_MAX),
            providers: DashMap::new(),
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            quick: Semaphore::new(QUICK_OF_ONE_MAX),
            slow: Semaphore::new(SLOW_OF_ONE_MAX),
            is_slow: AtomicBool::new(false),
        }
    }
}

async fn place(semaphore: &Semaphore) -> SemaphorePermit<'_> {
    semaphore.acquire().await.expect("it is never closed")
}

impl Places {
    /// Lets `seal` ask the provider, when it has a place and for as long as it may. Cancel safe as far as `seal` is.
    pub(super) async fn sealing<T>(
        &self,
        clock: &dyn Clock,
        provider: AccountId,
        seal: impl Future<Output = Answer<T>>,
    ) -> Result<T, Unsettled> {
        let pace = self.providers.entry(provider).or_default().value().clone();
        let mut seal = pin!(seal);
        {
            let _of_one = place(&pace.quick).await;
            let _of_all = place(&self.quick).await;
            if !pace.is_slow.load(Ordering::Relaxed) {
                tokio::select! {
                    sealed = &mut seal => return sealed.map_err(Unsettled::Refused),
                    () = clock.sleep(QUICK_WITHIN) => pace.is_slow.store(true, Ordering::Relaxed),
                }
                let (Ok(_of_one), Ok(_of_all)) = (pace.slow.try_acquire(), self.slow.try_acquire()) else {
                    return Err(Unsettled::NoPlace);
                };
                return in_time(clock, SEAL_WITHIN - QUICK_WITHIN, seal).await;
            }
        }
        let _of_one = place(&pace.slow).await;
        let _of_all = place(&self.slow).await;
        let began = clock.now();
        let sealed = in_time(clock, SEAL_WITHIN, seal).await;
        if sealed.is_ok() && clock.now() - began <= QUICK_WITHIN {
            pace.is_slow.store(false, Ordering::Relaxed);
        }
        sealed
    }

    /// Lets `submit` wait for the ledger.
    pub(super) async fn submitting<T>(
        &self,
        clock: &dyn Clock,
        submit: impl Future<Output = Answer<T>>,
    ) -> Result<T, Unsettled> {
        let _place = place(&self.ledger).await;
        match within(clock, LEDGER_WITHIN, submit).await {
            Some(done) => done.map_err(Unsettled::Refused),
            None => Err(Unsettled::LedgerOverdue),
        }
    }
}

async fn in_time<T>(clock: &dyn Clock, span: Duration, seal: impl Future<Output = Answer<T>>) -> Result<T, Unsettled> {
    match within(clock, span, seal).await {
        Some(sealed) => sealed.map_err(Unsettled::Refused),
        None => Err(Unsettled::SealOverdue),
    }
}

#[cfg(test)]
mod tests {
    use futures::future::{join_all, pending};
    use piecework_model::LeaseId;

    use super::*;
    use crate::doubles::turned::Turned;

    #[test]
    fn a_lane_waits_longer_after_each_failure_and_a_minute_at_the_most() {
        let seconds: Vec<u64> = (1..=8).map(|failures| back_off(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(back_off(u32::MAX), BACK_OFF_MAX);
    }

    #[test]
    fn lanes_have_turns_of_their_own_once_an_interval() {
        const EVERY: Duration = Duration::from_millis(400);
        let lane = |byte| (LeaseId([byte; 20]), AccountId([0; 20]));
        let at = |byte, ms| until_turn(lane(byte), EVERY, Duration::from_millis(ms)).as_millis();
        assert_eq!(
            [at(0, 0), at(1, 0), at(2, 0), at(3, 0), at(4, 0)],
            [400, 100, 200, 300, 400]
        );
        assert_eq!([at(1, 100), at(1, 101), at(1, 499), at(1, 1_000)], [400, 399, 1, 300]);
        assert_eq!(
            until_turn(lane(1), Duration::ZERO, Duration::ZERO),
            Duration::from_micros(250)
        );
    }

    const HANGS: AccountId = AccountId([1; 20]);
    const ANSWERS: AccountId = AccountId([2; 20]);

    #[tokio::test]
    async fn strangers_who_never_answer_hold_each_place_for_a_second() {
        let (places, clock) = (Places::default(), Turned::start());
        // More than there are places of either kind.
        let strangers = (0..=255).map(|number| AccountId([number; 20]));
        let strangers = strangers.filter(|provider| *provider != ANSWERS);
        let lanes = strangers.flat_map(|provider| (0..20).map(move |_| provider));
        let (places, clock) = (&places, &*clock);
        let hang = join_all(lanes.map(async |provider| {
            let seal = places.sealing(clock, provider, pending::<Answer<()>>());
            within(clock, Duration::from_secs(3_600), seal).await
        }));
        let quick = async {
            for _ in 0..50 {
                clock.sleep(Duration::from_secs(60)).await;
                let asked = clock.now();
                places.sealing(clock, ANSWERS, async { Ok(()) }).await.expect("sealed");
                assert_eq!(clock.now(), asked);
            }
        };
        tokio::join!(hang, quick);
    }

    #[tokio::test]
    async fn a_slow_seal_is_taken_and_one_that_never_comes_is_given_up() {
        let (places, clock) = (Places::default(), Turned::start());
        let slow = async {
            clock.sleep(Duration::from_secs(30)).await;
            Ok(7)
        };
        assert_eq!(places.sealing(&*clock, HANGS, slow).await.expect("in time"), 7);
        let began = clock.now();
        let never = places.sealing(&*clock, HANGS, pending::<Answer<()>>()).await;
        assert!(matches!(never, Err(Unsettled::SealOverdue)), "{never:?}");
        assert_eq!(clock.now() - began, SEAL_WITHIN);
        let quick = places.sealing(&*clock, HANGS, async { Ok(()) });
        quick.await.expect("quick again");
        let pace = places.providers.get(&HANGS).expect("known");
        assert!(
            !pace.is_slow.load(Ordering::Relaxed),
            "it is asked from a quick place again"
        );
    }

    #[tokio::test]
    async fn a_ledger_that_does_not_answer_is_asked_again() {
        let (places, clock) = (Places::default(), Turned::start());
        let never = places.submitting(&*clock, pending::<Answer<()>>()).await;
        assert!(matches!(never, Err(Unsettled::LedgerOverdue)), "{never:?}");
    }
}
