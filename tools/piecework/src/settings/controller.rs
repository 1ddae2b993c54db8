//! `controller.toml`: how a controller without a ledger peer of its own runs.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use piecework_controller::Tuning;
use piecework_model::{Network, OwnerName};
use piecework_scheduler::Policy;
use serde::{Deserialize, Serialize};

use super::{
    AcmeSettings, AlertSettings, Settings, TlsSettings, check_url,
    peer::{HEARTBEAT_MS, heartbeat_ms},
    within,
};
use crate::failure::Failure;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControllerSettings {
    /// Its account on the ledger; registered at the first start if nobody has the name.
    pub name: OwnerName,
    /// The operator's account.
    pub operator: OwnerName,
    pub listen: SocketAddr,
    /// Base of links in responses; if empty, `http://` and the listen address.
    #[serde(default)]
    pub url: String,
    /// HTTP APIs of ledger peers, preferred one first. Use several of different owners: if one fails, the next is used.
    pub peers: Vec<String>,
    /// The peers' `heartbeat_ms`: the ledger has stalled when it is silent for much longer.
    #[serde(default = "heartbeat_ms")]
    pub heartbeat_ms: u64,
    /// Default policy for choosing a provider: random, least-loaded, warm-first or cheapest.
    #[serde(default)]
    pub policy: Policy,
    /// Private networks, like 10.0.0.0/8, that results may be sent to.
    #[serde(default)]
    pub results_to: Vec<Network>,
    /// Addresses of reverse proxies in front of this controller. Limits per address then apply to the addresses that they
    /// name in `X-Forwarded-For`.
    #[serde(default)]
    pub proxies: Vec<IpAddr>,
    #[serde(default)]
    pub tuning: Tuned,
    /// Tell the operator of spent budgets, a stalled ledger, a low disk and quarantined functions.
    #[serde(default)]
    pub alerts: AlertSettings,
    /// Serve HTTPS with this certificate; HTTP if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
    /// Obtain the certificate from an ACME authority instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme: Option<AcmeSettings>,
}

/// An operator's tuning settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tuned {
    /// Whether anyone can register without an invite.
    pub open_registration: bool,
    /// How long receipts wait for others before they are settled: longer means fewer bytes on the ledger, shorter means
    /// sooner paid.
    pub settle_every_ms: u64,
    /// After how long job records, outputs and logs are deleted.
    pub retention_days: u64,
    /// How often a known provider gets a reference job, paid by the operator; 0 for never.
    pub reference_every_s: u64,
    /// A held receipt is paid after this long unless an operator refuses it.
    pub held_for_s: u64,
    /// Sustained requests per second of one account; 0 for no limit.
    pub requests_per_s: u32,
}

impl Default for Tuned {
    fn default() -> Self {
        let tuning = Tuning::default();
        Self {
            open_registration: tuning.open_registration,
            settle_every_ms: u64::try_from(tuning.settle_every.as_millis()).unwrap_or(u64::MAX),
            retention_days: tuning.retention.as_secs() / DAY_S,
            reference_every_s: tuning.reference_every.as_secs(),
            held_for_s: tuning.held_for.as_secs(),
            requests_per_s: tuning.requests_per_s.unwrap_or(0),
        }
    }
}

const DAY_S: u64 = 86_400;
const PEERS_MAX: u64 = 64;

impl From<Tuned> for Tuning {
    fn from(tuned: Tuned) -> Self {
        Self {
            open_registration: tuned.open_registration,
            settle_every: Duration::from_millis(tuned.settle_every_ms),
            retention: Duration::from_secs(tuned.retention_days * DAY_S),
            reference_every: Duration::from_secs(tuned.reference_every_s),
            held_for: Duration::from_secs(tuned.held_for_s),
            requests_per_s: (tuned.requests_per_s > 0).then_some(tuned.requests_per_s),
            ..Self::default()
        }
    }
}

impl ControllerSettings {
    pub fn new(name: OwnerName, operator: OwnerName, listen: SocketAddr, peers: Vec<String>) -> Self {
        Self {
            name,
            operator,
            listen,
            url: String::new(),
            peers,
            heartbeat_ms: heartbeat_ms(),
            policy: Policy::default(),
            results_to: Vec::new(),
            proxies: Vec::new(),
            tuning: Tuned::default(),
            alerts: AlertSettings::default(),
            tls: None,
            acme: None,
        }
    }
}

impl Settings for ControllerSettings {
    const FILE: &'static str = "controller.toml";
    const WITHOUT_A_FILE: &'static str = "create it with `piecework controller init`";

    fn check(&self) -> Result<(), Failure> {
        within("heartbeat_ms", self.heartbeat_ms, HEARTBEAT_MS.0, HEARTBEAT_MS.1)?;
        within("peers", self.peers.len() as u64, 1, PEERS_MAX)?;
        within("tuning.settle_every_ms", self.tuning.settle_every_ms, 1, 3_600_000)?;
        within("tuning.held_for_s", self.tuning.held_for_s, 1, 365 * DAY_S)?;
        within(
            "tuning.reference_every_s",
            self.tuning.reference_every_s,
            0,
            365 * DAY_S,
        )?;
        within("tuning.retention_days", self.tuning.retention_days, 1, 36_500)?;
        if !self.url.is_empty() {
            check_url("url", &self.url)?;
        }
        if let Some(acme) = &self.acme {
            acme.check()?;
            if self.tls.is_some() {
                return Err(Failure::usage("there are both [tls] and [acme]; keep one of them"));
            }
        }
        self.alerts.channels().map_err(Failure::Local)?;
        self.peers.iter().try_for_each(|url| check_url("peers", url))
    }
}
