//! Authenticates, admits, routes, schedules, meters and settles; serves the HTTP API.
//!
//! ```text
//! HTTP -> auth -> plan, slot -> lease -> ticket -> provider -> receipt checked -> journal -> answer
//!                                                                          `-> outbox -> Settle -> ledger -> paid
//! ```
//!
//! The ledger is not on the path of a call: the lease was opened before, the settlement follows within a second. A
//! result is in the store's journal before the caller gets it.

mod accounts;
mod again;
mod alerts;
mod calls;
mod clock;
mod codecs;
#[cfg(test)]
mod doubles;
mod events;
mod failure;
mod functions;
mod ground;
mod http;
mod money;
mod providers;
mod quotas;
mod shown;
mod telemetry;
mod triggers;

// Decisions without a world: the simulator makes them with the same code.
pub use calls::outcome::{Observed, ReceiptFault, check_receipt};
pub use money::lane::LaneState;
pub use money::outbox::{LaneKey, Outgoing};
pub use money::settle::settlement;

use std::{net::IpAddr, sync::Arc, time::Duration};

use piecework_blobs::Blobs;
use piecework_chain::Chain;
use piecework_disk::Room;
use piecework_model::{AccountId, OwnerName, Prices, Roles, SecretKey};
use piecework_queue::ProviderLink;
use piecework_scheduler::Policy;
use piecework_serve::{Door, Limits, Proxies};
use piecework_store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa_axum::router::OpenApiRouter;

pub use clock::{Clock, Machine as MachineClock};
pub use failure::Answer;
pub use http::{openapi_document, portal::files::PortalFile};

use crate::{
    accounts::Accounts, alerts::Alerts, calls::Calls, functions::Functions, ground::Ground, money::Money,
    providers::Providers, triggers::Triggers,
};

/// What a controller is made of.
pub struct Options {
    /// Signs tickets, acks and settlements: the payer key and mailbox of its leases.
    pub key: SecretKey,
    /// The controller's account, which gets its share of the commission.
    pub account: AccountId,
    /// The operator's account: owns the providers in this process, and pays reference jobs.
    pub operator: AccountId,
    pub chain: Arc<dyn Chain>,
    pub store: Arc<dyn Store>,
    pub blobs: Arc<dyn Blobs>,
    /// Of the disks with the store, the bundles and the ledger.
    pub disk: Arc<dyn Room>,
    pub packages: Arc<piecework_packages::Packages>,
    pub typescript: Arc<piecework_typescript::TypeScript>,
    /// The pages that people look at; none where the program was built without.
    pub portal: &'static [PortalFile],
    /// Brings results to where their developers want them.
    pub sinks: Arc<dyn piecework_sink::Deliver>,
    /// How operators are told what is wrong.
    pub alerts: Vec<Arc<dyn piecework_sink::notice::Notify>>,
    /// What is wrong with the certificate that the server obtains by itself, if it does: a sentence.
    pub certificate: Option<tokio::sync::watch::Receiver<Option<String>>>,
    pub providers: Vec<Arc<dyn ProviderLink>>,
    /// How a provider is chosen for functions that do not say.
    pub policy: Policy,
    /// What links in answers begin with, say `http://127.0.0.1:8080`.
    pub base_url: String,
    pub tuning: Tuning,
    /// Where settlement and what follows the ledger run: threads on which no call waits, best of lower priority.
    pub background: tokio::runtime::Handle,
    /// What that waits by.
    pub clock: Arc<dyn Clock>,
}

/// An operator's tuning settings.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Registration without an invite.
    pub open_registration: bool,
    /// Proxies in front of the HTTP API: limits for each address are for those that they name in `X-Forwarded-For`.
    pub proxies: Vec<IpAddr>,
    /// How long receipts wait for others before they are settled.
    pub settle_every: Duration,
    /// What a lease is opened and topped up with, as far as the account covers it.
    pub budget_step_ucr: u64,
    /// What may be owed to one provider without a signature.
    pub exposure_ucr: u64,
    /// The dearest prices a lease allows.
    pub price_caps: Prices,
    /// A synchronous call gets 503 once no provider that could take it has been connected for this long. Well below the
    /// second within which callers are told, with room for a loaded machine.
    pub provider_wait: Duration,
    /// Maximum number of waiting asynchronous jobs; more get 503.
    pub queued_jobs_max: usize,
    /// A job that no provider has started after this long expires.
    pub queue_timeout: Duration,
    /// Crashes of one version in a row, no other end between them, after which it is quarantined. Few enough that a
    /// broken version costs little, enough that a bad input or two does not stop a good one.
    pub quarantine_after: u32,
    /// They must come within this time.
    pub quarantine_window: Duration,
    /// Requests a second that one account may send on the long run, where nothing else is set for it; no limit if
    /// absent.
    pub requests_per_s: Option<u32>,
    /// Requests that one account may send at once; twice the rate if absent.
    pub burst: Option<u32>,
    /// How often a known provider gets a reference job; new ones more often, trusted ones less often. Zero: never.
    pub reference_every: Duration,
    /// A held receipt is paid after this long unless an operator refuses it.
    pub held_for: Duration,
    /// A deleted function can be restored for this long.
    pub restore_window: Duration,
    /// Job records, outputs and logs older than this are deleted.
    pub retention: Duration,
    /// A result that its sink has not accepted this long after the job began stays with the job.
    pub delivery_window: Duration,
    /// The caller of a transfer with a key is told that it is queued after this long.
    pub transfer_within: Duration,
    /// Operators are told that the ledger has stalled after a silence of this long.
    pub stall_after: Duration,
    /// How often the conditions that operators are told of are looked for.
    pub alerts_every: Duration,
    /// A channel that did not take an alert is tried again after this long, and then after twice as long each time.
    pub alerts_pause: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            open_registration: false,
            proxies: Vec::new(),
            settle_every: Duration::from_millis(500),
            budget_step_ucr: 5_000_000,
            exposure_ucr: 1_000_000,
            price_caps: Prices {
                start_ucr: 100,
                cpu_ucr_per_s: 2_000,
                memory_ucr_per_gib_s: 1_000,
                egress_ucr_per_mib: 1_000,
            },
            provider_wait: Duration::from_millis(600),
            queued_jobs_max: 20_000,
            queue_timeout: Duration::from_secs(600),
            quarantine_after: 10,
            quarantine_window: Duration::from_secs(60),
            requests_per_s: None,
            burst: None,
            reference_every: Duration::from_secs(6 * 3_600),
            held_for: Duration::from_secs(86_400),
            restore_window: Duration::from_secs(7 * 86_400),
            retention: Duration::from_secs(7 * 86_400),
            delivery_window: Duration::from_secs(86_400),
            transfer_within: Duration::from_secs(10),
            stall_after: Duration::from_secs(13),
            alerts_every: Duration::from_secs(5),
            alerts_pause: Duration::from_secs(1),
        }
    }
}

/// A running controller: composes the rooms, and knows what no room does on its own.
pub struct Controller {
    ground: Arc<Ground>,
    accounts: Arc<Accounts>,
    providers: Arc<Providers>,
    money: Arc<Money>,
    functions: Arc<Functions>,
    calls: Arc<Calls>,
    triggers: Arc<Triggers>,
    alerts: Arc<Alerts>,
    portal: &'static [PortalFile],
}

impl Controller {
    /// Catches up with the ledger, takes up what an earlier run left (unsettled receipts, accepted jobs), starts the
    /// background tasks. They end with `shutdown`.
    pub async fn start(options: Options, shutdown: CancellationToken) -> Answer<Arc<Self>> {
        let (links, background) = (options.providers.clone(), options.background.clone());
        let controller = Arc::new(Self::of(options, shutdown));
        codecs::check_network(&controller.ground).await?;
        for link in links {
            controller.join(link).await?;
        }
        controller.money.start(&background).await?;
        accounts::bookings::take_up(&controller.accounts).await?;
        controller.functions.start().await?;
        controller
            .ground
            .tasks
            .spawn(http::tell_of_providers(controller.clone()));
        controller.ground.tasks.spawn(http::beat(controller.clone()));
        controller.calls.start().await?;
        controller.triggers.start().await?;
        controller.alerts.start().await?;
        Ok(controller)
    }

    fn of(options: Options, shutdown: CancellationToken) -> Self {
        let portal = options.portal;
        let ground = Arc::new(Ground {
            payer: options.key.public(),
            key: options.key,
            account: options.account,
            operator: options.operator,
            network: options.chain.network(),
            chain: options.chain,
            store: options.store,
            blobs: options.blobs,
            disk: options.disk,
            base_url: options.base_url,
            tuning: options.tuning,
            clock: options.clock,
            telemetry: telemetry::Telemetry::default(),
            events: events::Events::default(),
            shutdown,
            tasks: TaskTracker::new(),
        });
        let cache = Arc::new(functions::Cache::default());
        let remembered = cache.clone();
        let on_limits = Box::new(move || remembered.forget_all());
        let accounts = Accounts::new(ground.clone(), options.background, on_limits);
        let providers = Providers::new(ground.clone());
        let money = Money::new(ground.clone(), accounts.clone(), providers.clone());
        let means = functions::Means {
            cache,
            packages: options.packages,
            typescript: options.typescript,
            sinks: options.sinks,
            policy: options.policy,
        };
        let functions = Functions::new(ground.clone(), accounts.clone(), providers.clone(), means);
        let below = calls::Below {
            accounts: accounts.clone(),
            providers: providers.clone(),
            money: money.clone(),
            functions: functions.clone(),
        };
        let calls = Calls::new(ground.clone(), below);
        let triggers = Triggers::new(ground.clone(), accounts.clone(), functions.clone(), calls.clone());
        let alerts = Alerts::new(ground.clone(), functions.clone(), (options.alerts, options.certificate));
        Self {
            ground,
            accounts,
            providers,
            money,
            functions,
            calls,
            triggers,
            alerts,
            portal,
        }
    }

    /// A provider in this process.
    async fn join(&self, link: Arc<dyn ProviderLink>) -> Answer<()> {
        let account = link.profile().account;
        let owner = functions::placement::owner_of(&self.functions, account).await?;
        let membership = providers::seen::Membership {
            owner: if owner == account { self.ground.operator } else { owner },
            standing: providers::standings::own(&self.providers, account),
            is_own: true,
        };
        self.providers.join(link, membership);
        Ok(())
    }

    /// Serves the HTTP API, and `beside` on the same address, until shutdown; then lets running jobs end, for
    /// [`RUNNING_WITHIN`], and settles what waits. Accepted jobs that have not ended by then run again after the next
    /// start.
    pub async fn serve(self: Arc<Self>, door: impl Into<Door>, beside: OpenApiRouter) -> std::io::Result<()> {
        let (ground, calls) = (self.ground.clone(), self.calls.clone());
        let mut patience = tokio::spawn(async move {
            calls.ground.shutdown.cancelled().await;
            tokio::time::sleep(RUNNING_WITHIN).await;
            calls.inflight.halt();
            tokio::time::sleep(REST_WITHIN).await;
        });
        let app = http::router(self, beside);
        let proxies: Proxies = ground.tuning.proxies.iter().copied().collect();
        piecework_serve::serve(door, app, (LIMITS, proxies), ground.shutdown.cancelled()).await?;
        ground.tasks.close();
        tokio::select! {
            biased;
            () = ground.tasks.wait() => patience.abort(),
            _ = &mut patience => {
                let tasks = ground.tasks.len();
                tracing::warn!(tasks, "stopped although something still ran; it is taken up at the next start");
            }
        }
        Ok(())
    }

    /// Creates a person or an organisation that this machine's `up` owns, with its roles and whether it is an operator; the
    /// account is in the genesis already.
    pub async fn adopt(&self, name: OwnerName, key: &SecretKey, roles: (Roles, bool)) -> Answer<AccountId> {
        accounts::adopt(&self.accounts, name, key, roles).await
    }

    /// A token of an adopted account, shown once.
    pub async fn issue_token(&self, account: AccountId, label: &str) -> Answer<String> {
        let scopes = piecework_api::accounts::Scope::ALL.into();
        let issued = accounts::auth::issue(&self.accounts, account, label, scopes, (None, None));
        issued.await.map(|(text, _)| text)
    }
}

/// How long jobs that run at a shutdown have to end.
pub const RUNNING_WITHIN: Duration = Duration::from_secs(4);
/// What is left then, the last settlements among it, has this long.
const REST_WITHIN: Duration = Duration::from_secs(2);

/// 8,192 connections, each of at most some 20 KiB; 1,024 of one address, for what a proxy or a whole campus opens. Links of
/// providers that have proved their keys do not count against their address.
const LIMITS: Limits = Limits {
    connections_max: 8_192,
    connections_per_caller_max: 1_024,
    head_within: Duration::from_secs(15),
    idle_within: Duration::from_secs(60),
    body_within: Duration::from_secs(30),
    write_within: Duration::from_secs(30),
    answers_bytes_max: 256 << 20,
    // Jobs first: their callers are told what became of them.
    drain_within: Duration::from_secs(5),
};
