//! Providers that connect over a link: authentication, admission, and the jobs of those that leave.

use std::{net::IpAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use dashmap::DashMap;
use piecework_blobs::Blobs;
use piecework_ledger::{Key, Value};
use piecework_model::{AccountId, Code, Digest, PublicKey, Rejection};
use piecework_queue::{
    Profile, ProviderLink as _,
    link::{Arrival, Bundles, LinkFailure, Porch, RemoteProvider, Wire, receive},
};
use piecework_serve::Guest;

use crate::{
    clock::now_ms,
    providers::{Providers, seen::Membership, standings},
};

const SLOTS_MAX: u32 = 10_000;
const WORDS_MAX: usize = 32;
const WORD_LENGTH_MAX: usize = 64;
const PROBE_DETAIL_MAX: usize = 1_000;

/// Each provider's present run, and those who have not said yet who they are.
#[derive(Default)]
pub(crate) struct Hub {
    remotes: DashMap<AccountId, Arc<RemoteProvider>>,
    porch: Porch,
}

impl Hub {
    /// The same run comes back to its jobs; another run of the same provider waits until the one before is gone.
    fn enter(
        &self,
        providers: &Providers,
        arrival: &Arrival,
        membership: Membership,
    ) -> Result<Arc<RemoteProvider>, Rejection> {
        let account = arrival.account();
        let entry = self.remotes.entry(account);
        if let dashmap::Entry::Occupied(present) = &entry {
            let present = present.get();
            if present.is_same_run(arrival) {
                return Ok(present.clone());
            }
            if present.is_connected() {
                return Err(Rejection::new(
                    Code::LinkAlreadyConnected,
                    "another program with this provider's key is connected",
                )
                .hint("stop it, or give each computer a key and an account of its own"));
            }
            present.abandon();
        }
        let remote = RemoteProvider::new(arrival);
        entry.insert(remote.clone());
        providers.join(remote.clone(), membership);
        Ok(remote)
    }
}

struct Kept<'a>(&'a dyn Blobs);

#[async_trait]
impl Bundles for Kept<'_> {
    async fn bundle(&self, digest: Digest) -> Option<Bytes> {
        self.0.get(&digest).await.ok()
    }

    async fn named_by(&self, image: Digest) -> Vec<Digest> {
        let bundle = self.0.get(&image).await;
        bundle.map_or_else(|_| Vec::new(), |tar| piecework_image::parts_of_bundle(&tar))
    }
}

/// A connection before it has proved anything.
pub(crate) struct Visitor {
    /// Where it comes from, as far as that is known.
    pub(crate) address: Option<IpAddr>,
    /// Its place among the server's connections, where it has one.
    pub(crate) guest: Option<Guest>,
}

impl Visitor {
    /// Resolves when the connection has to make room for another one.
    async fn evicted(&self) {
        match &self.guest {
            Some(guest) => guest.evicted().await,
            None => std::future::pending().await,
        }
    }
}

/// Serves one connection, from its first byte to its end.
pub(crate) async fn serve(providers: Arc<Providers>, wire: Wire, visitor: Visitor) {
    let Some((arrival, remote)) = let_in(&providers, wire, &visitor).await else {
        return;
    };
    let account = arrival.account();
    tracing::info!(provider = %account, name = remote.profile().name, "a provider is linked");
    let kept = Kept(&*providers.ground.blobs);
    let failure = remote.serve(arrival, &kept, now_ms(), &providers.ground.shutdown).await;
    tracing::info!(provider = %account, %failure, "a provider's link ended");
}

/// Those who prove a key and may come in; everybody else is told why not.
async fn let_in(providers: &Arc<Providers>, wire: Wire, visitor: &Visitor) -> Option<(Arrival, Arc<RemoteProvider>)> {
    let Some(turn) = providers.hub.porch.enter(visitor.address) else {
        tracing::warn!("refused a link: too many links are being opened");
        return None;
    };
    let received = tokio::select! {
        received = receive(wire, &providers.ground.key, providers.ground.network) => received,
        () = turn.evicted() => Err(LinkFailure::Silent),
        () = visitor.evicted() => Err(LinkFailure::Silent),
    };
    let arrival = match received {
        Ok(arrival) => arrival,
        Err(failure) => {
            tracing::debug!(%failure, "a link did not begin");
            return None;
        }
    };
    turn.proved();
    let account = arrival.account();
    let entered = match admit(providers, &arrival.introduction.profile.clone(), arrival.key).await {
        Ok(membership) => providers.hub.enter(providers, &arrival, membership),
        Err(rejection) => Err(rejection),
    };
    match entered {
        Ok(remote) => {
            if let Some(guest) = &visitor.guest {
                guest.keep();
            }
            Some((arrival, remote))
        }
        Err(rejection) => {
            tracing::info!(provider = %account, code = %rejection.code, "refused a provider's connection");
            arrival.refuse(rejection).await;
            None
        }
    }
}

/// What is known of the provider, if this key is that provider's, and what it says is what its offer on the ledger says.
async fn admit(providers: &Providers, profile: &Profile, key: PublicKey) -> Result<Membership, Rejection> {
    well_formed(profile)?;
    let read = async |key| {
        let unavailable = |_| Rejection::new(Code::LedgerUnavailable, "the ledger does not answer now");
        providers.ground.chain.get(&key).await.map_err(unavailable)
    };
    let Some(Value::Account(account)) = read(Key::Account(profile.account)).await? else {
        return Err(
            Rejection::new(Code::LinkUnknownProvider, "the ledger has no such account")
                .hint("register it with an invite"),
        );
    };
    if account.key != key {
        return Err(Rejection::new(Code::LinkOtherKey, "the account has a different key"));
    }
    let Some(Value::Offer(offer)) = read(Key::Offer(profile.account)).await? else {
        return Err(Rejection::new(
            Code::LinkNoOffer,
            "the provider has no offer on the ledger",
        ));
    };
    if offer.prices != profile.prices {
        return Err(Rejection::new(
            Code::LinkOtherPrices,
            "the provider's prices differ from its offer on the ledger",
        ));
    }
    let standing = standings::of(providers, profile.account).await;
    Ok(Membership {
        owner: account.owner.unwrap_or(profile.account),
        standing: standing
            .map_err(|_| Rejection::new(Code::ServerFailed, "the controller's store does not answer now"))?,
        is_own: false,
    })
}

fn well_formed(profile: &Profile) -> Result<(), Rejection> {
    let short = |word: &str| !word.is_empty() && word.len() <= WORD_LENGTH_MAX;
    let fits = short(&profile.name)
        && short(&profile.region)
        && (1..=SLOTS_MAX).contains(&profile.slots)
        && profile.cores > 0
        && profile.labels.len() <= WORDS_MAX
        && profile.labels.iter().all(|label| short(label))
        && profile.probes.len() <= WORDS_MAX
        && profile
            .probes
            .iter()
            .all(|probe| probe.detail.len() <= PROBE_DETAIL_MAX);
    match fits {
        true => Ok(()),
        false => Err(Rejection::new(
            Code::LinkBadProfile,
            "the provider's profile is out of bounds",
        )),
    }
}
