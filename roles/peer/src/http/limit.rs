//! Rate limit on transactions from one address.
//!
//! A transaction of a known account costs its sender nothing until it is executed, and a registration nothing at all:
//! so the flood is bounded where it enters. One address gets so many a second, registrations far fewer; beyond that
//! stand the mempool's own bounds (by sender, by number, by bytes). Whoever commands thousands of addresses can still
//! fill the mempool with registrations: against that a community takes them from its controllers alone, by a rate of
//! none for all others. Addresses that the operator trusts are not counted.

use std::{collections::HashSet, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use piecework_api::{
    errors::Refusal,
    server::{Caller, HttpError, HttpResult},
};
use piecework_model::Code;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Explorer;

/// Of one address, a second. A burst of as many as in [`BURST_S`] seconds is taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// All transactions, good or bad: each costs a signature's check.
    pub transactions_per_s: u32,
    /// Registrations among them; 0 takes none from outside the genesis.
    pub registrations_per_s: u32,
}

impl Default for Rates {
    /// A controller's settlements of a thousand leases; a class that registers within a minute.
    fn default() -> Self {
        Self {
            transactions_per_s: 2_000,
            registrations_per_s: 5,
        }
    }
}

const BURST_S: u32 = 10;
/// Addresses that have come to rest are forgotten so often.
const FORGET_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Limiter {
    transactions: Option<DefaultKeyedRateLimiter<Caller>>,
    registrations: Option<DefaultKeyedRateLimiter<Caller>>,
    trusted: HashSet<Caller>,
}

impl Limiter {
    pub(super) fn new(rates: Rates, trusted: &[IpAddr]) -> Self {
        let limiter = |per_s: u32| {
            let burst = NonZeroU32::new(per_s.saturating_mul(BURST_S))?;
            Some(RateLimiter::keyed(
                Quota::per_second(NonZeroU32::new(per_s)?).allow_burst(burst),
            ))
        };
        Self {
            transactions: limiter(rates.transactions_per_s),
            registrations: limiter(rates.registrations_per_s),
            trusted: trusted.iter().copied().map(Caller::from).collect(),
        }
    }

    pub(super) fn transaction(&self, caller: Caller) -> HttpResult<()> {
        self.admit(self.transactions.as_ref(), caller, "transactions")
    }

    pub(super) fn registration(&self, caller: Caller) -> HttpResult<()> {
        self.admit(self.registrations.as_ref(), caller, "registrations")
    }

    fn admit(&self, limiter: Option<&DefaultKeyedRateLimiter<Caller>>, caller: Caller, what: &str) -> HttpResult<()> {
        let within = |limiter: &DefaultKeyedRateLimiter<Caller>| limiter.check_key(&caller).is_ok();
        if self.trusted.contains(&caller) || limiter.is_some_and(within) {
            return Ok(());
        }
        let refusal = Refusal::new(Code::RateLimited, format!("too many {what} from this address"));
        Err(HttpError(Box::new(refusal.hint("retry in a second"))))
    }
}

pub(super) async fn forget_the_idle(explorer: Arc<Explorer>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(FORGET_EVERY) => {}
        }
        let limiters = [&explorer.limiter.transactions, &explorer.limiter.registrations];
        for limiter in limiters.into_iter().flatten() {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_limited_and_another_is_not() {
        let rates = Rates {
            transactions_per_s: 1,
            registrations_per_s: 0,
        };
        let own = IpAddr::from([10, 0, 0, 3]);
        let limiter = Limiter::new(rates, &[own]);
        let (one, two) = (IpAddr::from([10, 0, 0, 1]).into(), IpAddr::from([10, 0, 0, 2]).into());
        for _ in 0..BURST_S {
            limiter.transaction(one).expect("within the burst");
        }
        let refused = limiter.transaction(one).expect_err("above it");
        assert_eq!(refused.0.code, Code::RateLimited);
        limiter.transaction(two).expect("another address");
        limiter.registration(two).expect_err("a rate of none takes none");
        for _ in 0..2 * BURST_S {
            limiter.registration(own.into()).expect("a trusted one is not counted");
        }
    }
}
