//! This machine's ledger peer, and the network created at the first start.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use piecework_ledger::{Grant, Params, Roles};
use piecework_model::{Credits, OwnerName, SecretKey};
use piecework_peer::{NewNetwork, http::Explorer};
use tokio_util::sync::CancellationToken;

use super::{
    background::Background,
    files::{Keys, make_private},
};
use crate::places;

/// About a hundred thousand hours of one core: enough to try it out, and to invite thousands of providers, who each
/// need a deposit.
pub(super) const OPERATOR_GRANT: Credits = Credits(100_000 * Credits::ONE.0);

/// Covers the deposit of the provider's offer.
const PROVIDER_GRANT: Credits = Credits(10 * Credits::ONE.0);

/// The rules that a network begins with, unless its founders say otherwise.
pub const PARAMS: Params = Params {
    commission_ppm: 30_000,
    offer_deposit: Credits::ONE,
    window_blocks: 3_600,
    jobs_per_settlement_max: 1_000,
    transactions_per_block_max: 2_000,
    lane_intervals_max: 4_096,
    epoch_blocks: 240,
};

/// Blocks without transactions: rare, so that an idle machine is left alone.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The ledger's only peer, with a network of its own made at the first start. Its threads come after those that answer
/// calls, as those of `background` do.
pub(super) async fn start_peer(
    directory: &Path,
    keys: &Keys,
    background: &Background,
    shutdown: CancellationToken,
) -> Result<piecework_peer::Handle> {
    make_private(directory)?;
    if !directory.join("genesis.json").exists() {
        piecework_peer::create_genesis(directory, new_network(keys)?).context("cannot create the network")?;
    }
    let member = piecework_peer::member(directory).context("cannot use the ledger's directory")?;
    let listen = "127.0.0.1:0".parse().context("a loopback address")?;
    let mut options = piecework_chain_node::Options::new(member.ledger, member.genesis.clone(), member.key, listen);
    options.heartbeat = HEARTBEAT;
    options.rules_known = places::rules_known();
    let node = background
        .run(piecework_chain_node::start(options))
        .await?
        .context("cannot start the ledger")?;
    Ok(piecework_peer::Service::run(node, member.genesis, shutdown))
}

/// What others may see of this peer's ledger.
pub(super) fn explorer(peer: &piecework_peer::Handle, shutdown: &CancellationToken) -> Arc<Explorer> {
    let options = piecework_peer::http::Options {
        chain: peer.chain(),
        genesis: peer.genesis().clone(),
        here: peer.genesis().peers.first().map(|peer| peer.key),
        heartbeat: crate::settings::HEARTBEAT,
        rates: Default::default(),
        trusted: Vec::new(),
    };
    Explorer::start(options, shutdown.clone())
}

/// What the clock says, for a genesis file.
pub fn now_ms() -> Result<u64> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    u64::try_from(now.as_millis()).context("a date")
}

fn new_network(keys: &Keys) -> Result<NewNetwork> {
    let grant = |name: &str, key: &SecretKey, amount, roles| -> Result<Grant> {
        Ok(Grant {
            name: name.parse::<OwnerName>()?,
            key: key.public(),
            roles,
            amount,
        })
    };
    let none = Roles::default();
    let operator = Roles {
        developer: true,
        peer: true,
        ..none
    };
    Ok(NewNetwork {
        name: "one machine".into(),
        created_at_ms: now_ms()?,
        params: PARAMS,
        grants: vec![
            grant("operator", &keys.operator, OPERATOR_GRANT, operator)?,
            grant(
                "controller",
                &keys.controller,
                Credits::ZERO,
                Roles {
                    controller: true,
                    ..none
                },
            )?,
            grant(
                "provider",
                &keys.provider,
                PROVIDER_GRANT,
                Roles { provider: true, ..none },
            )?,
        ],
        owner: "operator".parse()?,
        address: "127.0.0.1:0".into(),
    })
}
