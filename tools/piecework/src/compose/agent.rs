//! `piecework provide`: this computer as a provider of a controller elsewhere.

use std::{collections::HashSet, io, path::PathBuf, pin::pin, sync::Arc, time::SystemTime};

use anyhow::{Context as _, Result};
use piecework_blobs::Unpacked;
use piecework_ledger::Genesis;
use piecework_model::{Code, Rejection, unix_ms};
pub use piecework_provider::agent::OwnersWord;
use piecework_provider::{
    agent::{self, Home, Newcomer, Pulled},
    collect::Claiming,
};
use piecework_queue::link::{Agent, Event, Fetcher, LinkFailure, keep_linked};
use rand::RngExt as _;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    collecting::{Caution, Collecting, by_peers},
    control, cores, disk,
    files::{load_or_create_key, lock, make_private},
    first, formats, invite,
    provider::{LAYERS, Seat, Terms, start_provider, test_backends},
    sandboxes,
};

/// How a computer provides.
pub struct Provision {
    pub directory: PathBuf,
    /// The first that answers is used; all belong to one network.
    pub controllers: Vec<String>,
    /// The HTTP APIs of ledger peers, for what a controller leaves unpaid; those of the controllers come after them.
    pub ledger: Vec<String>,
    pub caution: Caution,
    /// Needed the first time.
    pub invite: Option<String>,
    pub terms: Terms,
    /// Signs for the computer's owner, if it has one.
    pub owner: Option<OwnersWord>,
    /// Whether its owner's jobs cost nothing.
    pub free_for_owner: bool,
    /// All settings in force, for whoever asks while it runs.
    pub settings: String,
    /// Told every second how it stands.
    pub board: Arc<control::Board>,
}

/// Joins, stays linked and runs jobs until `stop` resolves; then lets running jobs end. `say` is told what happens. A
/// full disk is said by its code.
pub async fn provide(provision: Provision, say: Arc<agent::Say>, stop: impl Future<Output = ()>) -> Result<()> {
    let directory = provision.directory.clone();
    Box::pin(join_and_run(provision, say, stop))
        .await
        .map_err(|error| match is_full(&error) {
            true => Rejection::new(
                Code::ProviderDiskFull,
                format!("the disk with {} is full", directory.display()),
            )
            .hint("free some space there and start again")
            .into(),
            false => error,
        })
}

async fn join_and_run(provision: Provision, say: Arc<agent::Say>, stop: impl Future<Output = ()>) -> Result<()> {
    let directory = &provision.directory;
    let home = Home(directory.clone());
    formats::check(directory)?;
    make_private(directory)?;
    first::come_first();
    cores::confine(provision.terms.cores).context("cannot limit the cores")?;
    let _lock = lock(directory)?;
    let key = load_or_create_key(&directory.join("provider.key"))?;
    let shutdown = CancellationToken::new();
    let collect = |genesis| Collecting::start(&key, claiming(&provision, genesis), &shutdown);
    // What earlier runs are owed is claimed also where no controller answers any more.
    let earlier = home.kept_genesis()?.map(collect).transpose()?;
    let mut stop = pin!(stop);
    let client = tokio::select! {
        client = agent::answering(&provision.controllers, earlier.is_some(), &*say) => client?,
        () = &mut stop => return finish(&shutdown, earlier).await,
    };
    let network = client.ledger_status().await?.network;
    home.keep_to_network(network)?;
    let collecting = match earlier {
        Some(collecting) => collecting,
        None => collect(home.first_genesis(&client, network).await?)?,
    };
    let newcomer = Newcomer {
        name: &provision.terms.name,
        invite: provision.invite.as_deref(),
        owner: provision.owner.as_ref(),
        home: &home,
    };
    let name = agent::enrol(&client, &key, network, &newcomer).await?;
    say(&format!("this computer is provider `{name}` at {}", client.base()));
    let ready = format!("ready {name}");

    let fetcher = Fetcher::default();
    let bundles = Arc::new(Pulled(fetcher.clone()));
    let unpacked = directory.join("unpacked");
    let terms = provision.terms.clone().with_room(directory, &unpacked)?;
    let disk_bytes = terms.disk_bytes;
    let disk = disk::watch(directory)?;
    let seat = Seat {
        key: &key,
        network,
        payers: HashSet::new(),
        journal: directory.join("begun"),
        earned: Some(directory.join("earned")),
        collector: collecting.collector.clone(),
        bundles: Unpacked::open(unpacked, bundles.clone(), disk_bytes / 2)?,
        layers: sandboxes::layers(directory.join(LAYERS), bundles, disk_bytes / 2)?,
        disk: disk.clone(),
    };
    say("testing the sandboxes (up to a minute the first time, while the interpreters are compiled)");
    let tested = test_backends(terms.egress.clone());
    let provider = start_provider(
        seat,
        Terms {
            name,
            free_for: provision.free_for_owner.then(|| home.owner()).transpose()?,
            ..terms
        },
        tested,
        &shutdown,
    )
    .await?;
    agent::publish(
        (&client, provision.invite.as_deref()),
        &key,
        network,
        (&provider, disk_bytes),
    )
    .await?;
    say("the offer is on the ledger");
    invite::forget(directory);
    if provision.terms.rules.when_idle {
        cores::come_later().context("cannot lower the priority")?;
    }

    let linker = Agent::new(key, network, rand::rng().random(), provider.clone(), fetcher);
    let running = Arc::new(control::Running {
        provider: provider.clone(),
        agent: linker.clone(),
        collector: collecting.collector.clone(),
        settings: provision.settings.clone(),
    });
    let control = control::serve(directory, running.clone(), shutdown.clone())?;
    let shown = AbortOnDropHandle::new(tokio::spawn(control::show(running, provision.board.clone())));
    let linked = tokio::spawn(agent::watch(linker.clone(), connected(ready, say.clone())));
    let full = AbortOnDropHandle::new(tokio::spawn(disk::tell(disk, say.clone())));
    let trusts = home.clone().trusts(provider.clone());
    let urls = provision.controllers.iter().map(|url| agent::link_url(url)).collect();
    let told = say.clone();
    let tell = move |event: Event<'_>| {
        if let Some(sentence) = agent::told(&event) {
            told(&sentence);
        }
    };
    // A task of its own runs where the network is polled: on this thread each packet would wake another one first.
    let linking = keep_linked(linker.clone(), urls, trusts, now_ms, tell, shutdown.clone());
    let linking = AbortOnDropHandle::new(tokio::spawn(linking));
    let ended = tokio::select! {
        ended = linking => ended.context("the link panicked")?.map_err(no_link),
        () = agent::drained(&provider, &linker, stop, &*say) => Ok(()),
    };
    linked.abort();
    drop(full);
    control.abort();
    drop(shown);
    provider.keep_earnings(true).await;
    finish(&shutdown, Some(collecting)).await?;
    ended
}

/// A refusal is shown by its code, with what to do.
fn no_link(failure: LinkFailure) -> anyhow::Error {
    let cause = match failure {
        LinkFailure::Refused(rejection) => anyhow::Error::new(rejection),
        other @ (LinkFailure::Broken(_) | LinkFailure::Silent | LinkFailure::Protocol(_)) => other.into(),
    };
    cause.context("provider and controller cannot work together")
}

async fn finish(shutdown: &CancellationToken, collecting: Option<Collecting>) -> Result<()> {
    shutdown.cancel();
    match collecting {
        Some(collecting) => collecting.ended().await,
        None => Ok(()),
    }
}

fn claiming(provision: &Provision, genesis: Genesis) -> Claiming {
    let urls = provision.ledger.iter().chain(&provision.controllers).cloned();
    let papers = provision.directory.join("papers");
    by_peers(urls.collect(), genesis, provision.caution, papers)
}

/// Says that a link is up; the first time also to whatever reads the standard output.
fn connected(ready: String, say: Arc<agent::Say>) -> impl FnMut() {
    let mut ready = Some(ready);
    move || {
        say("connected; jobs may come");
        if let Some(ready) = ready.take()
            && let Err(error) = crate::show::text(&format!("{ready}\n"))
        {
            tracing::debug!(%error, "nobody reads the standard output");
        }
    }
}

fn is_full(error: &anyhow::Error) -> bool {
    let kinds = error
        .chain()
        .filter_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
    kinds
        .into_iter()
        .any(|kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

fn now_ms() -> u64 {
    unix_ms(SystemTime::now())
}
