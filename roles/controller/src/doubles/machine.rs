//! A whole controller behind its HTTP API, in this process: the real store and the real bundles in a directory of its own,
//! the ledger and the providers are doubles.

use std::{
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, header, request},
};
use piecework_blobs::{Blobs, Files};
use piecework_ledger::{Key, Value as Stored};
use piecework_model::{Prices, Role};
use piecework_packages::Packages;
use piecework_queue::{Profile, ProviderLink};
use piecework_scheduler::Policy;
use piecework_sink::notice::Notify;
use piecework_store::{Options as StoreOptions, Sqlite};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use utoipa_axum::router::OpenApiRouter;

use super::{
    answer::Answer,
    ledger::Ledger,
    provider::{Double, profile},
    sink::Place,
    world::{CONTROLLER, PROVIDER, account, genesis, key, offer},
};
use crate::{
    Controller, MachineClock, Options, PortalFile, Tuning,
    accounts::Accounts,
    http,
    providers::{seen::Membership, standings},
    triggers,
};

/// Longer than anything here takes on a busy machine.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// So cheap that nobody here has too little.
const CHEAP: Prices = Prices {
    start_ucr: 1,
    cpu_ucr_per_s: 200,
    memory_ucr_per_gib_s: 10,
    egress_ucr_per_mib: 1,
};

/// Of the portal: what is in them is the same packed and not, which nobody here unpacks.
const PAGES: &[PortalFile] = &[
    PortalFile {
        name: "index.html",
        content_type: "text/html; charset=utf-8",
        etag: "\"one\"",
        gzip: b"index in gzip",
        brotli: b"index in brotli",
    },
    PortalFile {
        name: "app-1.js",
        content_type: "text/javascript; charset=utf-8",
        etag: "\"two\"",
        gzip: b"app in gzip",
        brotli: b"app in brotli",
    },
    PortalFile {
        name: "proof.worker-1.js",
        content_type: "text/javascript; charset=utf-8",
        etag: "\"three\"",
        gzip: b"worker in gzip",
        brotli: b"worker in brotli",
    },
];

/// How it starts.
pub(crate) struct Setup {
    /// Of providers in the controller's own process; their names are on the ledger, and their offers.
    pub(crate) own: Vec<Profile>,
    /// Of providers elsewhere, as they are once their link is up.
    pub(crate) others: Vec<Profile>,
    pub(crate) tuning: Tuning,
    /// How operators are told what is wrong.
    pub(crate) alerts: Vec<Arc<dyn Notify>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            own: vec![named("provider", 0)],
            others: Vec::new(),
            tuning: Tuning {
                settle_every: Duration::from_millis(10),
                reference_every: Duration::ZERO,
                ..Tuning::default()
            },
            alerts: Vec::new(),
        }
    }
}

/// The profile of the provider with this number, counted over all of them.
pub(crate) fn named(name: &str, number: u8) -> Profile {
    Profile {
        prices: CHEAP,
        ..profile(name, &key(PROVIDER + number))
    }
}

pub(crate) struct Machine {
    parts: Parts,
    pub(crate) token: String,
    running: Running,
}

/// What outlives a controller.
pub(crate) struct Parts {
    directory: TempDir,
    tuning: Tuning,
    alerts: Vec<Arc<dyn Notify>>,
    own: usize,
    pub(crate) ledger: Arc<Ledger>,
    /// Its own first.
    pub(crate) providers: Vec<Arc<Double>>,
    pub(crate) place: Arc<Place>,
}

impl Deref for Machine {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// A controller with threads of its own, so that it can be killed: its tasks end where they are.
struct Running {
    runtime: Option<Runtime>,
    controller: Arc<Controller>,
    router: Router,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Running {
    async fn kill(mut self) {
        let runtime = self.runtime.take().expect("it runs");
        drop(self);
        let gone = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(WITHIN));
        gone.await.expect("it ends");
    }

    /// In its threads.
    async fn within<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let runtime = self.runtime.as_ref().expect("it runs");
        runtime.spawn(work).await.expect("no panic")
    }
}

impl Machine {
    pub(crate) async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    pub(crate) async fn start_with(setup: Setup) -> Self {
        let own = setup.own.len();
        let profiles: Vec<Profile> = setup.own.into_iter().chain(setup.others).collect();
        let numbers = PROVIDER..;
        let mut everybody = vec![(CONTROLLER, "operator".to_owned())];
        everybody.extend(numbers.zip(&profiles).map(|(who, profile)| (who, profile.name.clone())));
        let ledger = Ledger::of(&genesis(&everybody));
        for (who, profile) in (PROVIDER..).zip(&profiles) {
            offer(&ledger, who, profile);
        }
        let directory = tempfile::tempdir().expect("a directory");
        let blobs: Arc<dyn Blobs> = Arc::new(Files::open(directory.path().join("blobs")).expect("opened"));
        let doubles = (PROVIDER..).zip(profiles).map(|(who, profile)| {
            let network = ledger.network_id();
            Double::with(profile, &key(who), network, MachineClock::clock(), Some(blobs.clone()))
        });
        let parts = Parts {
            providers: doubles.collect(),
            place: Arc::new(Place::default()),
            tuning: setup.tuning,
            alerts: setup.alerts,
            directory,
            own,
            ledger,
        };
        let running = parts.run().await;
        let token = running.controller.issue_token(account(CONTROLLER), "test").await;
        Self {
            token: token.expect("a token"),
            running,
            parts,
        }
    }

    /// Kills it, and starts another on the same directory and ledger.
    pub(crate) async fn restart(self) -> Self {
        let Self { running, parts, token } = self;
        running.kill().await;
        Self {
            running: parts.run().await,
            parts,
            token,
        }
    }

    pub(crate) fn accounts(&self) -> &Accounts {
        &self.running.controller.accounts
    }

    pub(crate) fn provider(&self, name: &str) -> &Arc<Double> {
        let named = |double: &&Arc<Double>| double.profile().name == name;
        self.providers.iter().find(named).expect("a provider")
    }

    /// As the controller shows it.
    pub(crate) async fn shown(&self, provider: &str) -> Value {
        let list = self.get("/providers").await.ok();
        let items = list["items"].as_array().expect("a list");
        let found = items.iter().find(|item| item["name"] == provider);
        found.unwrap_or_else(|| panic!("no {provider} in {list}")).clone()
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.ask_as(Some(&self.token), method, path, body).await
    }

    pub(crate) async fn ask_as(&self, token: Option<&str>, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        self.send(request, body).await
    }

    /// For more headers; see [`Self::send`].
    pub(crate) fn request(&self, method: Method, path: &str) -> request::Builder {
        self.request_as(&self.token, method, path)
    }

    pub(crate) fn request_as(&self, token: &str, method: Method, path: &str) -> request::Builder {
        let bearer = format!("Bearer {token}");
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, bearer)
    }

    pub(crate) async fn send(&self, request: request::Builder, body: Option<Value>) -> Answer {
        let request = match body {
            Some(body) => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        let router = self.running.router.clone();
        let request = request.expect("a request");
        let (parts, bytes) = self
            .running
            .within(async move {
                let response = router.oneshot(request).await.expect("it answers");
                let (parts, body) = response.into_parts();
                (parts, to_bytes(body, usize::MAX).await.expect("a whole answer"))
            })
            .await;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    /// A function in the words of [`super::provider`].
    pub(crate) async fn deploy(&self, name: &str, words: &str) -> Value {
        self.deploy_with(name, words, json!({})).await.ok()
    }

    pub(crate) async fn deploy_with(&self, name: &str, words: &str, more: Value) -> Answer {
        self.deploy_as(&self.token, name, words, more).await
    }

    pub(crate) async fn deploy_as(&self, token: &str, name: &str, words: &str, more: Value) -> Answer {
        let mut body = json!({"name": name, "language": "javascript", "code": words});
        let fields = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(fields);
        self.ask_as(Some(token), Method::POST, "/functions", Some(body)).await
    }

    pub(crate) async fn call(&self, name: &str, input: Value) -> Answer {
        self.call_as(&self.token, name, input).await
    }

    pub(crate) async fn call_as(&self, token: &str, name: &str, input: Value) -> Answer {
        let body = json!({"input": input});
        self.ask_as(Some(token), Method::POST, &format!("/execute/{name}"), Some(body))
            .await
    }

    /// An asynchronous call, as it is answered.
    pub(crate) async fn queue(&self, name: &str, input: Value) -> Answer {
        let request = self
            .request(Method::POST, &format!("/execute/{name}"))
            .header("prefer", "respond-async");
        self.send(request, Some(json!({"input": input}))).await
    }

    /// The id of one that was accepted.
    pub(crate) async fn accepted(&self, name: &str, input: Value) -> String {
        let answer = self.queue(name, input).await.ok();
        answer["job_id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn job(&self, job: &str) -> Value {
        self.get(&format!("/jobs/{job}")).await.ok()
    }

    /// Its output, as a caller gets it.
    pub(crate) async fn output(&self, job: &str) -> Value {
        self.get(&format!("/jobs/{job}/result")).await.ok()
    }

    /// As at this moment: what triggers have to start starts.
    pub(crate) async fn tick(&self, now_ms: u64) {
        let triggers = self.running.controller.triggers.clone();
        let due = async move { triggers::run_due(&triggers, now_ms).await };
        self.running.within(due).await;
    }

    /// The job, once it is in this state.
    pub(crate) async fn job_in(&self, job: &str, state: &str) -> Value {
        until(&format!("the job is {state}"), async || {
            let view = self.job(job).await;
            (view["state"] == state).then_some(view)
        })
        .await
    }

    /// The job, once it is paid.
    pub(crate) async fn paid(&self, job: &str) -> Value {
        until("the job is paid", async || {
            let view = self.job(job).await;
            (view["paid"] == true).then_some(view)
        })
        .await
    }

    /// What a gauge of `/metrics` says.
    pub(crate) async fn gauge(&self, name: &str) -> u64 {
        let answer = self.get("/metrics").await;
        let text = answer.body.as_str().expect("text");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("piecework_{name} ")));
        let value = line.and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    pub(crate) async fn posted(&self, account: &str) -> i64 {
        self.get(&format!("/accounts/{account}")).await.ok()["posted_ucr"]
            .as_i64()
            .expect("a small number")
    }

    /// A second person, with some credits; the token may do everything.
    pub(crate) async fn person(&self, name: &str, grant_ucr: u64) -> String {
        let invite = self.ask(Method::POST, "/invites", Some(json!({"grant_ucr": grant_ucr})));
        let invite = invite.await.ok();
        let body = json!({"name": name, "password": "correct horse", "invite": invite["code"]});
        self.ask_as(None, Method::POST, "/accounts", Some(body)).await.ok();
        let login = json!({"name": name, "password": "correct horse"});
        let session = self.ask_as(None, Method::POST, "/sessions", Some(login)).await.ok();
        session["token"].as_str().expect("a token").to_owned()
    }

    /// Jobs of this provider that the ledger has paid.
    pub(crate) fn jobs_paid_to(&self, provider: &str) -> u64 {
        let account = self.provider(provider).account();
        let jobs = self.ledger.all().into_iter().map(|(key, value)| match (key, value) {
            (Key::Lane(_, to), Stored::Lane(lane)) if to == account => lane.jobs,
            _ => 0,
        });
        jobs.sum()
    }

    /// Contradictions that the ledger has of this provider.
    pub(crate) fn mismatches_of(&self, provider: &str) -> u32 {
        match self.ledger.value(&Key::Account(self.provider(provider).account())) {
            Some(Stored::Account(account)) => account.mismatches,
            _ => 0,
        }
    }
}

impl Parts {
    async fn run(&self) -> Running {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads");
        let store = StoreOptions::new(self.directory.path().join("store"));
        let blobs = Files::open(self.directory.path().join("blobs")).expect("opened");
        let (own, others) = self.providers.split_at(self.own);
        let links = own.iter().map(|double| double.clone() as Arc<dyn ProviderLink>);
        let options = |store| Options {
            key: key(CONTROLLER),
            account: account(CONTROLLER),
            operator: account(CONTROLLER),
            chain: self.ledger.clone(),
            store,
            blobs: Arc::new(blobs),
            packages: Arc::new(Packages::new(Default::default(), Arc::new(|| None))),
            typescript: Arc::new(piecework_typescript::TypeScript::new(None, Arc::new(|| None))),
            portal: PAGES,
            sinks: self.place.clone(),
            alerts: self.alerts.clone(),
            certificate: None,
            providers: links.collect(),
            policy: Policy::Random,
            disk: Arc::new(piecework_disk::Unlimited),
            base_url: "http://here".to_owned(),
            tuning: self.tuning.clone(),
            background: runtime.handle().clone(),
            clock: MachineClock::clock(),
        };
        let threads = runtime.handle().clone();
        let opened = tokio::task::spawn_blocking(move || threads.block_on(Sqlite::open(store)).expect("opened"));
        let options = options(opened.await.expect("no panic"));
        let others = others.to_vec();
        let started = runtime.spawn(async move {
            let controller = Controller::start(options, CancellationToken::new()).await;
            let controller = controller.expect("started");
            adopt_operator(&controller).await;
            for double in &others {
                link(&controller, double).await;
            }
            controller
        });
        let controller = started.await.expect("no panic");
        Running {
            router: http::router(controller.clone(), OpenApiRouter::new()),
            controller,
            runtime: Some(runtime),
        }
    }
}

async fn adopt_operator(controller: &Controller) {
    let roles = [Role::Developer].into_iter().collect();
    let name = "operator".parse().expect("a name");
    let adopted = controller.adopt(name, &key(CONTROLLER), (roles, true)).await;
    adopted.expect("adopted");
}

/// As over a link: what it says of itself is checked.
async fn link(controller: &Controller, double: &Arc<Double>) {
    let account = double.account();
    let standing = standings::of(&controller.providers, account).await.expect("read");
    let membership = Membership {
        owner: account,
        standing,
        is_own: false,
    };
    controller.providers.join(double.clone(), membership);
}

/// What `look` finds, once it does.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(POLL).await;
    }
}
