//! What a job costs: integer counters times a price vector, rounded up once.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// What a job used, in integers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
pub struct Counters {
    /// CPU time of the sandbox, microseconds.
    pub cpu_us: u64,
    /// Memory held times time: bytes x milliseconds.
    pub memory_byte_ms: u64,
    /// Bytes sent to and received from the network; zero if it is off.
    pub egress_bytes: u64,
}

/// Prices in whole ucr per unit.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
pub struct Prices {
    /// Per job, whatever it uses.
    pub start_ucr: u64,
    pub cpu_ucr_per_s: u64,
    pub memory_ucr_per_gib_s: u64,
    pub egress_ucr_per_mib: u64,
}

/// Prices times counters left 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the price of these counters is out of range")]
pub struct PriceOverflow;

impl Prices {
    /// The common denominator of the three units: lcm(10^6 us/s, 2^30 B/GiB x 10^3 ms/s, 2^20 B/MiB) = 2^33 x 5^6.
    const DENOMINATOR: u128 = (1 << 33) * 15_625;
    const PER_CPU_US: u128 = Self::DENOMINATOR / 1_000_000;
    const PER_BYTE_MS: u128 = Self::DENOMINATOR / ((1 << 30) * 1_000);
    const PER_EGRESS_BYTE: u128 = Self::DENOMINATOR / (1 << 20);

    /// The price in ucr, rounded up once at the end.
    pub fn price(&self, used: &Counters) -> Result<u64, PriceOverflow> {
        let term = |amount: u64, price: u64, scale: u128| (u128::from(amount) * u128::from(price)).checked_mul(scale);
        let sum = [
            term(1, self.start_ucr, Self::DENOMINATOR),
            term(used.cpu_us, self.cpu_ucr_per_s, Self::PER_CPU_US),
            term(used.memory_byte_ms, self.memory_ucr_per_gib_s, Self::PER_BYTE_MS),
            term(used.egress_bytes, self.egress_ucr_per_mib, Self::PER_EGRESS_BYTE),
        ]
        .into_iter()
        .try_fold(0u128, |sum, term| sum.checked_add(term?))
        .ok_or(PriceOverflow)?;
        u64::try_from(sum.div_ceil(Self::DENOMINATOR)).map_err(|_| PriceOverflow)
    }

    /// Whether no price of `self` is above that of `caps`.
    pub fn within(&self, caps: &Prices) -> bool {
        self.start_ucr <= caps.start_ucr
            && self.cpu_ucr_per_s <= caps.cpu_ucr_per_s
            && self.memory_ucr_per_gib_s <= caps.memory_ucr_per_gib_s
            && self.egress_ucr_per_mib <= caps.egress_ucr_per_mib
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICES: Prices = Prices {
        start_ucr: 2,
        cpu_ucr_per_s: 278,
        memory_ucr_per_gib_s: 35,
        egress_ucr_per_mib: 5,
    };

    #[test]
    fn a_job_that_uses_nothing_costs_the_start() {
        assert_eq!(PRICES.price(&Counters::default()), Ok(2));
    }

    #[test]
    fn fractions_are_rounded_up_once_over_the_sum() {
        let used = Counters {
            cpu_us: 1,
            memory_byte_ms: 1,
            egress_bytes: 1,
        };
        assert_eq!(PRICES.price(&used), Ok(3));
        let second_and_gib = Counters {
            cpu_us: 1_000_000,
            memory_byte_ms: (1 << 30) * 1_000,
            egress_bytes: 1 << 20,
        };
        assert_eq!(PRICES.price(&second_and_gib), Ok(2 + 278 + 35 + 5));
    }

    #[test]
    fn an_overflow_is_refused() {
        let prices = Prices {
            cpu_ucr_per_s: u64::MAX,
            ..PRICES
        };
        assert_eq!(
            prices.price(&Counters {
                cpu_us: u64::MAX,
                ..Counters::default()
            }),
            Err(PriceOverflow)
        );
    }
}
