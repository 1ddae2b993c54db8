//! `provider.toml`: what this computer provides, and when; options of `piecework provide` override it.

use std::path::PathBuf;

use piecework_model::Network;
use piecework_provider::owner::Hours;
use serde::{Deserialize, Serialize};

use super::{Settings, check_url, within};
use crate::failure::Failure;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderSettings {
    /// URLs of controllers; the first that answers is used.
    pub controllers: Vec<String>,
    /// Used when it first joins; the host name if absent.
    pub name: Option<String>,
    /// Region, as the community calls it.
    pub region: Option<String>,
    pub labels: Vec<String>,
    /// All if absent.
    pub cores: Option<u32>,
    /// Memory to offer and to use: no job starts while jobs, sandboxes and program use more; all if absent.
    pub memory_mib: Option<u32>,
    /// Disk space for functions' code; the least recently used goes first. 8192 if absent.
    pub disk_mib: Option<u32>,
    /// Concurrent jobs; 64 per core if absent.
    pub slots: Option<u32>,
    pub owner: OwnerSettings,
    pub egress: EgressSettings,
    pub prices: PriceSettings,
}

/// When jobs may run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnerSettings {
    /// Give way while other programs are busy.
    pub when_idle: bool,
    /// Give way while the computer runs on battery.
    pub on_mains: bool,
    /// Start jobs only during these hours, in local time; at any time if absent.
    pub hours: Option<Hours>,
    /// With `when_idle`: count only the load of this control group.
    pub group: Option<PathBuf>,
    /// Charge nothing for jobs of the account that this computer belongs to.
    pub free: bool,
}

/// Where functions with an allow list may connect from here.
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
    const WITHOUT_A_FILE: &'static str =
        "no file is needed; to begin one, save what `piecework provide config show` prints there";

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
