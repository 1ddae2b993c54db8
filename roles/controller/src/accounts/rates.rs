//! Limits that an operator sets for an account: requests per second with a burst, and its weight against others.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moka::sync::Cache;
use parking_lot::Mutex;
use piecework_api::{audit::AccountLimits, errors::Refusal};
use piecework_model::{AccountId, Code};

use crate::{
    Answer,
    accounts::Accounts,
    codecs,
    failure::{refuse, store},
    quotas,
};

const LIMITS: &str = "limits";
const RATE_MAX: u32 = 100_000;
const WEIGHT_MAX: u32 = 100;
/// Changes a second of one account on the long run, and at once: some 30 MB a day of audit record, and more than anybody's
/// scripts deploy.
const CHANGES: (u32, u32) = (1, 1_000);
/// Accounts whose requests are counted; one that was idle longer than its bucket takes to fill loses nothing by going.
const BUCKETS_MAX: u64 = 100_000;
const BUCKET_IDLE: Duration = Duration::from_secs(600);

/// Whose requests a bucket counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Counted {
    /// With a token of this account.
    Account(AccountId),
    /// Changes by this account: each leaves a line in the audit record for ever.
    Changes(AccountId),
    /// Without a token, to public functions of this account: strangers do not use up its own.
    Public(AccountId),
}

pub(crate) struct Rates(Cache<Counted, Arc<Mutex<Bucket>>>);

impl Default for Rates {
    fn default() -> Self {
        Self(
            Cache::builder()
                .max_capacity(BUCKETS_MAX)
                .time_to_idle(BUCKET_IDLE)
                .build(),
        )
    }
}

/// A token bucket.
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// Whether one more is let through at `now`; else how long until one is.
    fn take(&mut self, (rate, burst): (u32, u32), now: Instant) -> Result<(), Duration> {
        let filled = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(rate);
        self.left = (self.left + filled).min(f64::from(burst));
        self.at = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.left) / f64::from(rate)))
    }
}

impl Rates {
    /// Refuses with `rate.limited`.
    fn take(&self, counted: Counted, (rate, burst): (u32, u32)) -> Answer<()> {
        let now = Instant::now();
        let full = || {
            Arc::new(Mutex::new(Bucket {
                left: f64::from(burst),
                at: now,
            }))
        };
        let bucket = self.0.get_with(counted, full);
        let taken = bucket.lock().take((rate, burst), now);
        taken.map_err(|wait| {
            let message = format!("too many requests: the limit is {rate} per second with bursts of {burst}");
            let hint = format!("retry in {} ms", wait.as_millis().max(1));
            Box::new(Refusal::new(Code::RateLimited, message).hint(hint))
        })
    }
}

/// Counts one request. Refuses with `rate.limited` where the account, or else every account, has a limit.
pub(crate) fn count(accounts: &Accounts, counted: Counted, limits: &AccountLimits) -> Answer<()> {
    let Some(rate) = limits.requests_per_s.or(accounts.ground.tuning.requests_per_s) else {
        return Ok(());
    };
    let by_default = if limits.requests_per_s.is_some() {
        None
    } else {
        accounts.ground.tuning.burst
    };
    let burst = limits.burst.or(by_default).unwrap_or_else(|| rate.saturating_mul(2));
    accounts.rates.take(counted, (rate, burst))
}

/// Counts one change. Refuses with `rate.limited`.
pub(crate) fn count_change(accounts: &Accounts, account: AccountId) -> Answer<()> {
    accounts.rates.take(Counted::Changes(account), CHANGES)
}

/// What is set for an account; all absent where nothing was.
pub(crate) async fn limits(accounts: &Accounts, account: AccountId) -> Answer<AccountLimits> {
    let bytes = accounts
        .ground
        .store
        .value(LIMITS, &account.to_string())
        .await
        .map_err(store)?;
    bytes.map_or(Ok(AccountLimits::default()), |bytes| codecs::from_json(&bytes))
}

/// Sets them; in force for the next request. Refuses with `rate.bad_limits`.
pub(crate) async fn set(accounts: &Accounts, account: AccountId, limits: AccountLimits) -> Answer<()> {
    let within = |value: Option<u32>, max| value.is_none_or(|value| (1..=max).contains(&value));
    if !within(limits.requests_per_s, RATE_MAX) || !within(limits.burst, RATE_MAX) {
        return refuse(Code::RateBadLimits, "the rate and the burst must be 1 to 100000");
    }
    if !within(limits.weight, WEIGHT_MAX) {
        return refuse(Code::RateBadLimits, "the weight must be 1 to 100");
    }
    codecs::put_json(&accounts.ground, LIMITS, &account.to_string(), &limits).await?;
    let quotas = quotas::of_limits(&limits);
    let set = accounts.ground.store.set_quotas(account, &quotas).await;
    set.map_err(store)?;
    for counted in [Counted::Account(account), Counted::Public(account)] {
        accounts.rates.0.invalidate(&counted);
    }
    accounts.auth.forget_account(account);
    (accounts.on_limits)();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accounts_changes_have_a_rate_of_their_own() {
        let (rates, account) = (Rates::default(), AccountId([7; 20]));
        for _ in 0..CHANGES.1 {
            rates.take(Counted::Changes(account), CHANGES).expect("a burst");
        }
        let refused = rates.take(Counted::Changes(account), CHANGES).expect_err("too many");
        assert_eq!(refused.code, Code::RateLimited);
        let other = AccountId([8; 20]);
        rates.take(Counted::Changes(other), CHANGES).expect("another account");
        rates
            .take(Counted::Account(account), (1, 1))
            .expect("its calls are counted apart");
    }

    #[test]
    fn a_burst_is_let_through_then_the_rate() {
        let begun = Instant::now();
        let mut bucket = Bucket { left: 3.0, at: begun };
        let at = |ms| begun + Duration::from_millis(ms);
        for _ in 0..3 {
            assert_eq!(bucket.take((10, 3), at(0)), Ok(()));
        }
        let wait = bucket.take((10, 3), at(0)).expect_err("used up");
        assert!(
            wait > Duration::from_millis(90) && wait < Duration::from_millis(110),
            "{wait:?}"
        );
        assert!(bucket.take((10, 3), at(50)).is_err());
        assert_eq!(bucket.take((10, 3), at(150)), Ok(()));
        for _ in 0..3 {
            assert_eq!(bucket.take((10, 3), at(60_000)), Ok(()), "never more than the burst");
        }
        assert!(bucket.take((10, 3), at(60_000)).is_err());
    }
}
