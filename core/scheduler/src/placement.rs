//! What a developer can require of the providers of a function, and what is known about providers.

use std::collections::BTreeSet;

use piecework_model::{AccountId, Code, Prices, Rejection};
use serde::{Deserialize, Serialize};

/// How a provider is chosen among those that fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    Random,
    LeastLoaded,
    #[default]
    WarmFirst,
    Cheapest,
}

/// How far a provider is trusted, in ascending order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// A result of it was wrong, or its claims were too high: it gets reference jobs alone.
    Suspended,
    /// Too little of it was checked.
    #[default]
    New,
    Known,
    Trusted,
}

macro_rules! words {
    ($type:ty, $code:expr, $sentence:literal, $($variant:ident = $word:literal),+) => {
        impl $type {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = Rejection;

            fn from_str(text: &str) -> Result<Self, Rejection> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(Rejection::new($code, $sentence)),
                }
            }
        }
    };
}

words!(
    Policy,
    Code::PlacementBadPolicy,
    "the policy must be random, least-loaded, warm-first or cheapest",
    Random = "random",
    LeastLoaded = "least-loaded",
    WarmFirst = "warm-first",
    Cheapest = "cheapest"
);

impl Trust {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "suspended",
            Self::New => "new",
            Self::Known => "known",
            Self::Trusted => "trusted",
        }
    }
}

impl std::fmt::Display for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Trust {
    type Err = Rejection;

    /// The classes that a function can require; `suspended` is not one of them.
    fn from_str(text: &str) -> Result<Self, Rejection> {
        [Self::New, Self::Known, Self::Trusted]
            .into_iter()
            .find(|trust| trust.as_str() == text)
            .ok_or_else(|| Rejection::new(Code::PlacementBadTrust, "the trust class must be any, known or trusted"))
    }
}

/// Where a function's jobs may run. What is absent asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// A provider has all of them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<String>,
    /// The least.
    pub trust: Trust,
    /// Whether the developer said that any provider will do, also for a function with secrets or an allow list.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub any_trust: bool,
    pub price_caps: PriceCaps,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// The community's where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

/// The most that a provider may ask for; an absent part is the community's own cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PriceCaps {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ucr: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ucr_per_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_ucr_per_gib_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_ucr_per_mib: Option<u64>,
}

impl PriceCaps {
    /// These caps where they are below the community's.
    pub fn within(&self, community: &Prices) -> Prices {
        let least = |own: Option<u64>, community: u64| own.map_or(community, |own| own.min(community));
        Prices {
            start_ucr: least(self.start_ucr, community.start_ucr),
            cpu_ucr_per_s: least(self.cpu_ucr_per_s, community.cpu_ucr_per_s),
            memory_ucr_per_gib_s: least(self.memory_ucr_per_gib_s, community.memory_ucr_per_gib_s),
            egress_ucr_per_mib: least(self.egress_ucr_per_mib, community.egress_ucr_per_mib),
        }
    }
}

/// The only providers that may run a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pin {
    /// Whatever belongs to the developer.
    pub own: bool,
    pub providers: BTreeSet<AccountId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for policy in [Policy::Random, Policy::LeastLoaded, Policy::WarmFirst, Policy::Cheapest] {
            assert_eq!(policy.as_str().parse(), Ok(policy));
        }
        for trust in [Trust::New, Trust::Known, Trust::Trusted] {
            assert_eq!(trust.as_str().parse(), Ok(trust));
        }
        let code = |refused: Rejection| refused.code;
        assert_eq!(
            "fastest".parse::<Policy>().map_err(code),
            Err(Code::PlacementBadPolicy.into())
        );
        for bad in ["blind", "suspended"] {
            assert_eq!(bad.parse::<Trust>().map_err(code), Err(Code::PlacementBadTrust.into()));
        }
    }

    #[test]
    fn a_cap_only_ever_lowers_the_communitys() {
        let community = Prices {
            start_ucr: 10,
            cpu_ucr_per_s: 100,
            memory_ucr_per_gib_s: 50,
            egress_ucr_per_mib: 5,
        };
        assert_eq!(PriceCaps::default().within(&community), community);
        let caps = PriceCaps {
            cpu_ucr_per_s: Some(70),
            start_ucr: Some(11),
            ..PriceCaps::default()
        };
        let expected = Prices {
            cpu_ucr_per_s: 70,
            ..community
        };
        assert_eq!(caps.within(&community), expected);
    }
}
