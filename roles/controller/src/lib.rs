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
mod calls;
mod clock;
mod codecs;
mod failure;
mod functions;
mod http;
mod money;
mod providers;
mod shown;
mod telemetry;

// Decisions without a world: the simulator makes them with the same code.
pub use calls::outcome::{Observed, ReceiptFault, check_receipt};
pub use money::lane::LaneState;
pub use money::outbox::{LaneKey, Outgoing};
pub use money::settle::settlement;

use std::{sync::Arc, time::Duration};

use piecework_blobs::Blobs;
use piecework_chain::{Chain, PeerChanges};
use piecework_model::{AccountId, Code, NetworkId, OwnerName, Prices, PublicKey, SecretKey};
use piecework_queue::ProviderLink;
use piecework_scheduler::Policy;
use piecework_serve::Limits;
use piecework_store::Store;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa_axum::router::OpenApiRouter;

pub use clock::{Clock, Machine as MachineClock};
pub use failure::Answer;
pub use http::openapi_document;

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
    pub packages: Arc<piecework_packages::Packages>,
    /// Brings results to where their developers want them.
    pub sinks: Arc<dyn piecework_sink::Deliver>,
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
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            open_registration: false,
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
        }
    }
}

/// A running controller. Shared by every handler and task.
pub struct Controller {
    key: SecretKey,
    payer: PublicKey,
    account: AccountId,
    network: NetworkId,
    chain: Arc<dyn Chain>,
    peer_changes: PeerChanges,
    store: Arc<dyn Store>,
    blobs: Arc<dyn Blobs>,
    packages: Arc<piecework_packages::Packages>,
    sinks: Arc<dyn piecework_sink::Deliver>,
    deliveries: calls::results::Deliveries,
    providers: providers::seen::Providers,
    standings: providers::standings::Standings,
    withheld: money::withheld::Withheld,
    references: calls::reference::References,
    operator: AccountId,
    hub: providers::hub::Hub,
    policy: Policy,
    base_url: String,
    tuning: Tuning,
    auth: accounts::auth::Auth,
    functions: functions::Cache,
    turns: accounts::Turns,
    leases: money::leases::Leases,
    aside: money::aside::Aside,
    inflight: calls::inflight::Inflight,
    queue: calls::queue::Queue,
    fair: calls::fair::Fair,
    watch: functions::watch::Watch,
    budgets: functions::budget::Budgets,
    rates: accounts::rates::Rates,
    outbox: money::outbox::Outbox,
    places: money::pace::Places,
    clock: Arc<dyn Clock>,
    telemetry: telemetry::Telemetry,
    events: tokio::sync::broadcast::Sender<Arc<Announced>>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// An event and its audience: everybody, or one developer (and operators).
pub(crate) struct Announced {
    pub(crate) audience: Option<AccountId>,
    pub(crate) event: piecework_api::metrics::StreamEvent,
}

/// Events that a slow reader of `/events` may be behind before it loses some.
const EVENTS_BEHIND_MAX: usize = 1_024;

impl Controller {
    /// Catches up with the ledger, takes up what an earlier run left (unsettled receipts, accepted jobs), starts the
    /// background tasks. They end with `shutdown`.
    pub async fn start(options: Options, shutdown: CancellationToken) -> Answer<Arc<Self>> {
        let controller = Arc::new(Self {
            payer: options.key.public(),
            key: options.key,
            account: options.account,
            network: options.chain.network(),
            chain: options.chain,
            peer_changes: PeerChanges::default(),
            store: options.store,
            blobs: options.blobs,
            packages: options.packages,
            sinks: options.sinks,
            deliveries: calls::results::Deliveries::default(),
            providers: providers::seen::Providers::default(),
            standings: providers::standings::Standings::default(),
            withheld: money::withheld::Withheld::default(),
            references: calls::reference::References::default(),
            operator: options.operator,
            hub: providers::hub::Hub::default(),
            policy: options.policy,
            base_url: options.base_url,
            tuning: options.tuning,
            auth: accounts::auth::Auth::new(options.background.clone()),
            functions: functions::Cache::default(),
            turns: accounts::Turns::default(),
            leases: money::leases::Leases::default(),
            aside: money::aside::Aside::default(),
            inflight: calls::inflight::Inflight::default(),
            queue: calls::queue::Queue::default(),
            fair: calls::fair::Fair::default(),
            watch: functions::watch::Watch::default(),
            budgets: functions::budget::Budgets::default(),
            rates: accounts::rates::Rates::default(),
            outbox: money::outbox::Outbox::default(),
            places: money::pace::Places::default(),
            clock: options.clock,
            telemetry: telemetry::Telemetry::default(),
            events: tokio::sync::broadcast::channel(EVENTS_BEHIND_MAX).0,
            shutdown,
            tasks: TaskTracker::new(),
        });
        codecs::check_network(&controller).await?;
        for link in options.providers {
            let owner = functions::placement::owner_of(&controller, link.profile().account).await?;
            let is_its_own = owner == link.profile().account;
            let membership = providers::seen::Membership {
                owner: if is_its_own { options.operator } else { owner },
                standing: providers::standings::own(&controller, link.profile().account),
                is_own: true,
            };
            controller.providers.join(link, membership);
        }
        money::follow::catch_up(&controller).await?;
        money::settle::take_up(&controller).await?;
        let (tasks, background) = (&controller.tasks, &options.background);
        tasks.spawn_on(money::follow::run(controller.clone()), background);
        tasks.spawn_on(money::settle::run(controller.clone()), background);
        tasks.spawn_on(money::disputes::run(controller.clone()), background);
        tasks.spawn_on(money::closing::run(controller.clone()), background);
        tasks.spawn_on(money::aside::run(controller.clone()), background);
        controller.tasks.spawn(functions::prune(controller.clone()));
        controller.tasks.spawn(calls::results::run(controller.clone()));
        controller.tasks.spawn(calls::fair::keep_watch(controller.clone()));
        controller.tasks.spawn(providers::seen::tell(controller.clone()));
        tasks.spawn_on(money::withheld::run(controller.clone()), background);
        controller.tasks.spawn(calls::reference::run(controller.clone()));
        calls::queue::take_up(&controller).await?;
        Ok(controller)
    }

    /// Serves the HTTP API, and `beside` on the same address, until shutdown; then lets running jobs end, for
    /// [`RUNNING_WITHIN`], and settles what waits. Accepted jobs that have not ended by then run again after the next
    /// start.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, beside: OpenApiRouter) -> std::io::Result<()> {
        let controller = self.clone();
        let mut patience = tokio::spawn(async move {
            controller.shutdown.cancelled().await;
            tokio::time::sleep(RUNNING_WITHIN).await;
            controller.inflight.halt();
            tokio::time::sleep(REST_WITHIN).await;
        });
        let app = http::router(self.clone(), beside);
        piecework_serve::serve(listener, app, LIMITS, self.shutdown.cancelled()).await?;
        self.tasks.close();
        tokio::select! {
            biased;
            () = self.tasks.wait() => patience.abort(),
            _ = &mut patience => {
                let tasks = self.tasks.len();
                tracing::warn!(tasks, "stopped although something still ran; it is taken up at the next start");
            }
        }
        Ok(())
    }

    /// The connection to a provider. Refuses with `provider.none` if it is not connected.
    pub(crate) fn link(&self, provider: AccountId) -> Answer<Arc<dyn ProviderLink>> {
        let seen = self.providers.by_account(provider);
        match seen.filter(|seen| seen.link.is_linked()) {
            Some(seen) => Ok(seen.link.clone()),
            None => failure::refuse(Code::ProviderNone, "the provider is not connected"),
        }
    }

    /// The account's name on the ledger, or its id if it has none.
    pub(crate) async fn account_name(&self, account: AccountId) -> String {
        match self.store.user_by_account(account).await {
            Ok(Some(user)) => user.name.to_string(),
            Ok(None) | Err(_) => match self.chain.get(&piecework_ledger::Key::Account(account)).await {
                Ok(Some(piecework_ledger::Value::Account(found))) => found.name.to_string(),
                Ok(_) | Err(_) => account.to_string(),
            },
        }
    }

    pub(crate) async fn name_of(&self, account: Option<AccountId>) -> Option<String> {
        match account {
            Some(account) => Some(self.account_name(account).await),
            None => None,
        }
    }

    /// Creates a person or an organisation that this machine's `up` owns; the account is in the genesis already.
    pub async fn adopt(&self, name: OwnerName, key: &SecretKey, roles: piecework_store::Roles) -> Answer<AccountId> {
        accounts::adopt(self, name, key, roles).await
    }

    /// A token of an adopted account, shown once.
    pub async fn issue_token(&self, account: AccountId, label: &str) -> Answer<String> {
        accounts::auth::issue(
            self,
            account,
            label,
            piecework_api::accounts::Scope::ALL.into(),
            (None, None),
        )
        .await
        .map(|(text, _)| text)
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
    // Jobs first: their callers are told what became of them.
    drain_within: Duration::from_secs(5),
};
