//! `provider.toml`: what this computer gives, and when; each option of `piecework provide` goes before it.

use std::path::PathBuf;

use piecework_model::Network;
use piecework_provider::owner::Hours;
use serde::{Deserialize, Serialize};

use super::{Settings, check_url, within};
use crate::failure::Failure;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderSettings {
    /// Where controllers answer; the first that does is used.
    pub controllers: Vec<String>,
    /// Taken when it first joins; the host's name if absent.
    pub name: Option<String>,
    /// Where it stands, in the community's words.
    pub region: Option<String>,
    pub labels: Vec<String>,
    /// All if absent.
    pub cores: Option<u32>,
    /// What it offers, and what jobs, sandboxes and the program may hold before no job begins; all if absent.
    pub memory_mib: Option<u32>,
    /// Disk for the code of functions; the longest unused goes first. 8192 if absent.
    pub disk_mib: Option<u32>,
    /// Jobs at once; 64 for each core if absent.
    pub slots: Option<u32>,
    pub owner: OwnerSettings,
    pub egress: EgressSettings,
    pub prices: PriceSettings,
}

/// When jobs may run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnerSettings {
    /// Give way while other programs work.
    pub when_idle: bool,
    /// Give way while the computer runs on its battery.
    pub on_mains: bool,
    /// Begin jobs only then, in local time; at any hour if absent.
    pub hours: Option<Hours>,
    /// With `when_idle`: only the load of this control group counts.
    pub group: Option<PathBuf>,
    /// Jobs of the account that the computer belongs to cost nothing.
    pub free: bool,
}

/// Where functions that list what they reach may go from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressSettings {
    pub allowed: bool,
    /// Private networks beside the public one.
    pub to: Vec<Network>,
}

/// In ucr; the usual price where absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PriceSettings {
    pub cpu_per_s: Option<u64>,
    pub memory_per_gib_s: Option<u64>,
    pub start: Option<u64>,
}

const CORES_MAX: u64 = 4_096;
const SLOTS_MAX: u64 = 10_000;

impl Settings for ProviderSettings {
    const FILE: &'static str = "provider.toml";

    fn check(&self) -> Result<(), Failure> {
        let least_one =
            |key: &str, value: Option<u32>, most| value.map_or(Ok(()), |value| within(key, value.into(), 1, most));
        least_one("cores", self.cores, CORES_MAX)?;
        least_one("slots", self.slots, SLOTS_MAX)?;
        least_one("memory_mib", self.memory_mib, u64::from(u32::MAX))?;
        least_one("disk_mib", self.disk_mib, u64::from(u32::MAX))?;
        if !self.egress.allowed && !self.egress.to.is_empty() {
            return Err(Failure::usage("`egress.to` needs `egress.allowed = true`"));
        }
        if let Some(group) = self
            .owner
            .group
            .as_ref()
            .filter(|group| !piecework_provider::can_watch(group))
        {
            let group = group.display();
            return Err(Failure::usage(format!(
                "`owner.group`: cannot read the load of control group {group}"
            )));
        }
        if self.owner.group.is_some() && !self.owner.when_idle {
            return Err(Failure::usage("`owner.group` needs `owner.when_idle = true`"));
        }
        self.controllers
            .iter()
            .try_for_each(|url| check_url("controllers", url))
    }
}
