//! `piecework peer run`: a ledger peer in a process of its own, with its API.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use piecework_chain::Chain;
use piecework_chain_node::Contact;
use piecework_disk::Watched;
use piecework_model::Credits;
use piecework_peer::{
    Member, caretaker,
    http::{Explorer, Rates},
};
use piecework_serve::{Door, Limits, Proxies};
use tokio_util::sync::CancellationToken;

use super::{
    disk, formats,
    listen::{door, listen},
};
use crate::{places, settings::PeerSettings};

/// A peer that runs, and its API that does not serve yet.
pub struct Peer {
    peer: piecework_peer::Handle,
    explorer: Arc<Explorer>,
    door: Door,
    limits: Limits,
    proxies: Proxies,
    /// Warns, and holds a reserve for the ledger's writes.
    _disk: Arc<Watched>,
    shutdown: CancellationToken,
    pub url: String,
}

/// The peer of `directory`, which has its genesis file. `say` is told what takes time.
pub async fn peer(directory: &Path, settings: &PeerSettings, say: &dyn Fn(&str)) -> Result<Peer> {
    formats::check(directory)?;
    let member = piecework_peer::member(directory)
        .context("cannot use the peer's directory; `piecework peer join` puts a genesis file there")?;
    let listener = listen(settings.api, "`api`").await?;
    let (door, url) = door(listener, settings.tls.as_ref())?;
    if !member.is_founder() {
        say("this peer is not in the genesis file; it takes part once the others have voted it in");
    }
    let (genesis, key) = (member.genesis.clone(), member.key.clone());
    let node = piecework_chain_node::start(engine_options(member, settings))
        .await
        .context("cannot start the ledger")?;
    let shutdown = CancellationToken::new();
    let peer = piecework_peer::Service::run(node, genesis.clone(), shutdown.clone());
    let explorer = Explorer::start(
        piecework_peer::http::Options {
            chain: peer.chain(),
            genesis,
            here: Some(key.public()),
            heartbeat: Duration::from_millis(settings.heartbeat_ms),
            rates: Rates {
                transactions_per_s: settings.limits.transactions_per_s,
                registrations_per_s: settings.limits.registrations_per_s,
            },
            trusted: settings.limits.trusted.clone(),
        },
        shutdown.clone(),
    );
    explorer.expire_leases(key);
    if let Some(payout) = payout(directory, settings)? {
        tokio::spawn(caretaker::pay_out(peer.chain(), payout, shutdown.clone()));
    }
    let limits = Limits {
        connections_max: settings.limits.connections_max,
        connections_per_caller_max: settings.limits.connections_per_caller_max,
        ..Limits::default()
    };
    Ok(Peer {
        peer,
        explorer,
        door,
        limits,
        proxies: settings.limits.proxies.iter().copied().collect(),
        _disk: disk::watch(directory)?,
        shutdown,
        url,
    })
}

/// Where the owner's key lies beside the peer's, its share is paid out by itself; else the owner asks for it.
fn payout(directory: &Path, settings: &PeerSettings) -> Result<Option<caretaker::Payout>> {
    let key = crate::keyfile::read(&directory.join("owner.key")).map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let payout = key
        .filter(|_| settings.payout.every_s > 0)
        .map(|key| caretaker::Payout {
            owner: settings.owner.clone(),
            key,
            least: Credits::from(settings.payout.least_ucr),
            every: Duration::from_secs(settings.payout.every_s.into()),
        });
    Ok(payout)
}

fn engine_options(member: Member, settings: &PeerSettings) -> piecework_chain_node::Options {
    let joins = !member.is_founder();
    let contacts = settings.contacts.iter().map(|contact| Contact {
        key: contact.key,
        address: contact.address.clone(),
    });
    piecework_chain_node::Options {
        heartbeat: Duration::from_millis(settings.heartbeat_ms),
        joins,
        contacts: contacts.collect(),
        rules_known: places::rules_known(),
        ..piecework_chain_node::Options::new(member.ledger, member.genesis, member.key, settings.listen)
    }
}

impl Peer {
    /// Serves until `stop` resolves or the ledger fails; tells `ready` once questions are answered.
    pub async fn serve(self, ready: impl FnOnce(&str), stop: impl Future<Output = ()>) -> Result<()> {
        let Self {
            peer,
            explorer,
            door,
            limits,
            proxies,
            shutdown,
            url,
            _disk,
        } = self;
        let chain: Arc<dyn Chain> = peer.chain();
        let mut serving = tokio::spawn(piecework_peer::http::serve(door, explorer.clone(), (limits, proxies)));
        let mut ledger = tokio::spawn(peer.stopped());
        let told = async {
            explorer.ready().await;
            ready(&url);
            std::future::pending::<()>().await;
        };
        let failed = tokio::select! {
            () = stop => None,
            () = told => None,
            ended = &mut ledger => Some(ended),
            ended = &mut serving => {
                ended.context("the server panicked")??;
                bail!("the server ended by itself");
            }
        };
        tracing::info!(height = chain.status().height, "ledger peer stops");
        drop((chain, explorer));
        shutdown.cancel();
        serving.await.context("the server panicked")??;
        match failed {
            Some(ended) => ended.context("the ledger panicked")?.context("the ledger failed"),
            None => ledger
                .await
                .context("the ledger panicked")?
                .context("the ledger did not stop cleanly"),
        }
    }
}
