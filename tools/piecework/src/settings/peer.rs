//! `peer.toml`: how a ledger peer runs.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use piecework_model::{OwnerName, PublicKey};
use piecework_peer::caretaker;
use serde::{Deserialize, Serialize};

use super::{Settings, TlsSettings, within};
use crate::failure::Failure;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSettings {
    /// The account that votes for this peer and receives its share.
    pub owner: OwnerName,
    /// `host:port` at which the other peers reach it.
    pub address: String,
    /// Listen address for the other peers.
    pub listen: SocketAddr,
    /// Listen address of the HTTP API, for controllers and people.
    pub api: SocketAddr,
    /// The longest time between blocks when nothing happens. All peers of a network use the same: blocks are the
    /// ledger's clock, and each empty one costs some disk.
    #[serde(default = "heartbeat_ms")]
    pub heartbeat_ms: u64,
    /// Serve HTTPS with this certificate; HTTP if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
    #[serde(default)]
    pub payout: PayoutSettings,
    #[serde(default)]
    pub limits: PeerLimits,
    /// Current peers, in case those in the genesis file are gone.
    #[serde(default)]
    pub contacts: Vec<ContactSettings>,
}

/// When the peers' share of the commissions is paid out, if the owner's key is in the peer's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PayoutSettings {
    /// Seconds between checks; 0 for never. A payout costs a transaction.
    pub every_s: u32,
    /// In ucr: minimum payout per peer, so that it is worth a transaction.
    pub least_ucr: u64,
}

impl Default for PayoutSettings {
    fn default() -> Self {
        Self {
            every_s: u32::try_from(caretaker::EVERY.as_secs()).unwrap_or(u32::MAX),
            least_ucr: u64::try_from(caretaker::LEAST.0).unwrap_or(u64::MAX),
        }
    }
}

/// Limits for strangers at the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerLimits {
    /// Per address and second, with bursts of ten seconds' worth. Each costs a signature check.
    pub transactions_per_s: u32,
    /// New accounts among them, which cost their sender nothing. 0 accepts none.
    pub registrations_per_s: u32,
    /// Open connections; each holds some 20 KiB.
    pub connections_max: usize,
    /// Per address.
    pub connections_per_caller_max: usize,
    /// Addresses whose transactions are not counted, for the owner's own controllers.
    pub trusted: Vec<IpAddr>,
    /// Addresses of reverse proxies in front of the API. Limits then apply to the addresses that they name in
    /// `X-Forwarded-For`.
    pub proxies: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContactSettings {
    pub key: PublicKey,
    /// `host:port`
    pub address: String,
}

/// What peers and controllers take for the longest time between blocks unless they are told.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

pub(super) fn heartbeat_ms() -> u64 {
    u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX)
}

impl Default for PeerLimits {
    fn default() -> Self {
        let (rates, limits) = (
            piecework_peer::http::Rates::default(),
            piecework_serve::Limits::default(),
        );
        Self {
            transactions_per_s: rates.transactions_per_s,
            registrations_per_s: rates.registrations_per_s,
            connections_max: limits.connections_max,
            connections_per_caller_max: limits.connections_per_caller_max,
            trusted: Vec::new(),
            proxies: Vec::new(),
        }
    }
}

impl PeerSettings {
    pub fn new(owner: OwnerName, address: String, listen: SocketAddr, api: SocketAddr) -> Self {
        Self {
            owner,
            address,
            listen,
            api,
            heartbeat_ms: heartbeat_ms(),
            tls: None,
            payout: PayoutSettings::default(),
            limits: PeerLimits::default(),
            contacts: Vec::new(),
        }
    }
}

/// Above the engine's least; a slower clock than an hour is none.
pub(super) const HEARTBEAT_MS: (u64, u64) = (20, 3_600_000);
const CONNECTIONS_MAX: u64 = 65_536;

impl Settings for PeerSettings {
    const FILE: &'static str = "peer.toml";
    const WITHOUT_A_FILE: &'static str = "create it with `piecework peer init`";

    fn check(&self) -> Result<(), Failure> {
        within("heartbeat_ms", self.heartbeat_ms, HEARTBEAT_MS.0, HEARTBEAT_MS.1)?;
        let connections = [
            ("limits.connections_max", self.limits.connections_max),
            (
                "limits.connections_per_caller_max",
                self.limits.connections_per_caller_max,
            ),
        ];
        for (key, value) in connections {
            within(key, u64::try_from(value).unwrap_or(u64::MAX), 1, CONNECTIONS_MAX)?;
        }
        check_address("address", &self.address)?;
        self.contacts
            .iter()
            .try_for_each(|contact| check_address("contacts.address", &contact.address))
    }
}

fn check_address(key: &str, address: &str) -> Result<(), Failure> {
    let parts = address.rsplit_once(':');
    match parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        true => Ok(()),
        false => Err(Failure::usage(format!(
            "`{key}` is `{address}`; expected a host and a port, like peer.example.org:7440"
        ))),
    }
}
