//! Limits that an operator sets for an account: requests per second with a burst, and its weight against others.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _};
use moka::sync::Cache;
use piecework_api::{audit::AccountLimits, errors::Refusal};
use piecework_model::{AccountId, Code};
use piecework_serve::Caller as Address;

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
const CHANGES: Limit = (1, 1_000);
/// Accounts whose requests are counted; one that was idle longer than its burst takes to come back loses nothing by going.
const COUNTED_MAX: u64 = 100_000;
const COUNTED_IDLE: Duration = Duration::from_secs(600);

/// Whose requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Counted {
    /// With a token of this account.
    Account(AccountId),
    /// Changes by this account: each leaves a line in the audit record for ever.
    Changes(AccountId),
    /// Without a token, to public functions of this account: strangers do not use up its own.
    Public(AccountId),
    /// Without a token, from this address.
    Stranger(Address),
}

/// Each with its rate and burst: limits that are set anew begin anew.
pub(crate) struct Rates(Cache<(Counted, Limit), Arc<DefaultDirectRateLimiter>>);

/// Requests a second, and at once.
type Limit = (u32, u32);

impl Default for Rates {
    fn default() -> Self {
        Self(
            Cache::builder()
                .max_capacity(COUNTED_MAX)
                .time_to_idle(COUNTED_IDLE)
                .build(),
        )
    }
}

/// A limit of nothing is one of one: an account that may do nothing has no token.
fn quota((rate, burst): Limit) -> Quota {
    let positive = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(positive(rate)).allow_burst(positive(burst))
}

impl Rates {
    /// Refuses with `rate.limited`.
    fn take(&self, counted: Counted, limit: Limit) -> Answer<()> {
        let new = || Arc::new(RateLimiter::direct(quota(limit)));
        let limiter = self.0.get_with((counted, limit), new);
        limiter.check().map_err(|refused| {
            let (rate, burst) = limit;
            let wait = refused.wait_time_from(limiter.clock().now());
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

/// Requests without a token that one address may send: what a page of the portal asks for many times over. Each costs
/// little; what costs more has bounds of its own.
const STRANGERS_RATE: (u32, u32) = (1_000, 4_000);

/// Counts one request of somebody without a token. Refuses with `rate.limited`.
pub(crate) fn count_stranger(accounts: &Accounts, from: Address) -> Answer<()> {
    accounts.rates.take(Counted::Stranger(from), STRANGERS_RATE)
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
    accounts.auth.forget_account(account);
    (accounts.on_limits)();
    Ok(())
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

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
        let clock = FakeRelativeClock::default();
        let limiter = RateLimiter::direct_with_clock(quota((10, 3)), clock.clone());
        let step = |ms| clock.advance(Duration::from_millis(ms));
        for _ in 0..3 {
            assert!(limiter.check().is_ok());
        }
        let wait = limiter.check().expect_err("used up").wait_time_from(clock.now());
        assert!(
            wait > Duration::from_millis(90) && wait < Duration::from_millis(110),
            "{wait:?}"
        );
        step(50);
        assert!(limiter.check().is_err());
        step(100);
        assert!(limiter.check().is_ok());
        step(60_000);
        for _ in 0..3 {
            assert!(limiter.check().is_ok(), "never more than the burst");
        }
        assert!(limiter.check().is_err());
    }

    #[test]
    fn a_limit_of_nothing_divides_by_nothing() {
        let rates = Rates::default();
        let counted = Counted::Public(AccountId([1; 20]));
        rates.take(counted, (0, 0)).expect("one");
        assert_eq!(
            rates.take(counted, (0, 0)).expect_err("no more").code,
            Code::RateLimited
        );
    }
}
