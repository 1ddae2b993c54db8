//! A controller, a provider that does what a test says, and whatever line is between them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use piecework_model::{
    AccountId, Counters, Digest, Domain, EgressList, FunctionId, JobId, JobStatus, Language, LeaseId, Limits,
    NetworkId, Prices, Receipt, Rejection, Seal, SecretKey, Ticket,
};
use piecework_queue::{
    Delivery, Load, Order, Profile, ProviderLink, Refusal, Unsealed, Work,
    link::{Agent, Bundles, Fetcher, RemoteProvider, receive},
};
use piecework_sandbox::{BackendName, Finished, LoadError, Logs, Outcome};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::line::{Fault, Line};

pub fn network() -> NetworkId {
    NetworkId([3; 32])
}

pub fn controller_key() -> SecretKey {
    SecretKey::from_seed([1; 32])
}

fn provider_key() -> SecretKey {
    SecretKey::from_seed([2; 32])
}

pub fn provider_account() -> AccountId {
    AccountId::of(&provider_key().public())
}

const PRICES: Prices = Prices {
    start_ucr: 1,
    cpu_ucr_per_s: 1,
    memory_ucr_per_gib_s: 1,
    egress_ucr_per_mib: 1,
};

pub fn work(name: &str) -> Work {
    Work {
        function: FunctionId([5; 12]),
        version: 1,
        name: name.into(),
        language: Language::JavaScript,
        code: Digest::of(name.as_bytes()),
        handler: None,
        env: BTreeMap::new(),
        limits: Limits::DEFAULT,
        egress: EgressList::default(),
        backend: BackendName::Wasm,
    }
}

pub fn order(sequence: u64, event: &[u8]) -> Order {
    let work = Arc::new(work("good"));
    Order {
        ticket: Ticket {
            lease: LeaseId([1; 20]),
            provider: provider_account(),
            sequence,
            job: JobId::new(sequence, [0; 10]),
            code: work.code,
            input: Digest::of(event),
            limits: work.limits,
            prices: PRICES,
            price_max_ucr: 1_000,
            deadline_ms: u64::MAX,
            replaces: None,
        },
        payer: controller_key().public(),
        exposure_ucr: 1_000_000,
        seal: None,
        work,
        event: Bytes::copy_from_slice(event),
        parameters: Bytes::from_static(b"null"),
        cancel: CancellationToken::new(),
        body: None,
        outlet: piecework_sandbox::Outlet::nowhere(),
    }
}

pub fn seal() -> Seal {
    let lane = (LeaseId([1; 20]), provider_account());
    Seal::sign(&controller_key(), Domain::Link, &network(), lane, &[Digest([8; 32])])
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers each event with itself.
    Echo,
    /// The same, once the test says so.
    WaitForWord,
}

/// A provider that counts what is asked of it.
pub struct Scripted {
    profile: Profile,
    behaviour: Behaviour,
    seen: Mutex<HashMap<&'static str, usize>>,
    word: watch::Sender<bool>,
}

impl Scripted {
    fn note(&self, what: &'static str) {
        *self.seen.lock().entry(what).or_default() += 1;
    }

    pub fn seen(&self, what: &str) -> usize {
        self.seen.lock().get(what).copied().unwrap_or_default()
    }

    pub fn give_word(&self) {
        self.word.send_replace(true);
    }
}

#[async_trait]
impl ProviderLink for Scripted {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn load(&self) -> Load {
        Load::default()
    }

    fn is_warm(&self, _function: FunctionId, _version: u32) -> bool {
        false
    }

    async fn check(&self, work: Arc<Work>) -> Result<(), LoadError> {
        match &*work.name {
            "bad" => Err(LoadError::Code(Rejection::new("function.syntax_error", "line 1"))),
            _ => Ok(()),
        }
    }

    async fn run(&self, order: Order) -> Result<Delivery, Refusal> {
        let ticket = order.ticket;
        if ticket.sequence == 666 {
            return Err(Rejection::new("ticket.expired", "too late").hint("a hint"));
        }
        self.note("run");
        if self.behaviour == Behaviour::WaitForWord {
            let mut word = self.word.subscribe();
            tokio::select! {
                _ = word.wait_for(|said| *said) => {}
                () = order.cancel.cancelled() => {
                    self.note("cancelled");
                    return Err(Rejection::new("job.cancelled", "nobody waits"));
                }
            }
        }
        Ok(Delivery {
            receipt: Receipt {
                lease: ticket.lease,
                provider: ticket.provider,
                sequence: ticket.sequence,
                job: ticket.job,
                code: ticket.code,
                input: ticket.input,
                output: Digest::of(&order.event),
                status: JobStatus::Ok,
                counters: Counters::default(),
                price_ucr: 1,
                duration_us: 10,
            },
            mark: [6; 32],
            finished: Finished {
                outcome: Outcome::Returned(order.event),
                logs: Logs::default(),
                counters: Counters::default(),
                memory_peak_bytes: 1,
                duration: Duration::from_micros(10),
                reusable: true,
            },
            cold: false,
            pull_us: 0,
            is_cut: false,
        })
    }

    async fn accept_seal(&self, _seal: Seal, sequences: Vec<u64>) -> Result<(), Refusal> {
        assert_eq!(sequences, [1, 2]);
        self.note("accept_seal");
        Ok(())
    }

    async fn seal_receipts(&self, _lane: (LeaseId, AccountId), _receipts: Vec<Unsealed>) -> Result<Seal, Refusal> {
        Ok(seal())
    }

    fn forget(&self, _function: FunctionId, _version: u32) {
        self.note("forget");
    }
}

/// The controller's bundles.
#[derive(Default)]
struct Kept {
    bundles: Mutex<HashMap<Digest, Bytes>>,
    read: AtomicUsize,
}

#[async_trait]
impl Bundles for Kept {
    async fn bundle(&self, digest: Digest) -> Option<Bytes> {
        let found = self.bundles.lock().get(&digest).cloned();
        self.read.fetch_add(usize::from(found.is_some()), Ordering::Relaxed);
        found
    }
}

pub struct World {
    pub provider: Arc<Scripted>,
    pub agent: Arc<Agent>,
    pub fetcher: Fetcher,
    kept: Arc<Kept>,
    remote: Arc<Mutex<Option<Arc<RemoteProvider>>>>,
    /// No session comes up while it says no.
    whole: watch::Sender<bool>,
    cut: Arc<Mutex<CancellationToken>>,
    met: Arc<AtomicBool>,
    sessions: Arc<AtomicUsize>,
    slow: Duration,
}

impl World {
    pub fn new(behaviour: Behaviour) -> Self {
        let provider = Arc::new(Scripted {
            profile: Profile {
                account: provider_account(),
                name: "scripted".into(),
                prices: PRICES,
                cores: 1,
                memory_bytes: 1,
                slots: 1,
                region: "here".into(),
                labels: Vec::new(),
                probes: Vec::new(),
                egress: None,
                free_for: None,
            },
            behaviour,
            seen: Mutex::default(),
            word: watch::Sender::new(false),
        });
        let fetcher = Fetcher::default();
        let agent = Agent::new(provider_key(), network(), [4; 16], provider.clone(), fetcher.clone());
        Self {
            provider,
            agent,
            fetcher,
            kept: Arc::default(),
            remote: Arc::default(),
            whole: watch::Sender::new(true),
            cut: Arc::new(Mutex::new(CancellationToken::new())),
            met: Arc::default(),
            sessions: Arc::default(),
            slow: Duration::ZERO,
        }
    }

    pub fn keep(&self, bundle: Bytes) -> Digest {
        let digest = Digest::of(&bundle);
        self.kept.bundles.lock().insert(digest, bundle);
        digest
    }

    pub fn read_bundles(&self) -> usize {
        self.kept.read.load(Ordering::Relaxed)
    }

    /// How long a large packet is on its way.
    pub fn slow_down(&mut self, slow: Duration) {
        self.slow = slow;
    }

    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    pub fn met_its_fault(&self) -> bool {
        self.met.load(Ordering::Relaxed)
    }

    /// Keeps the two linked; the first line has the fault. Returns the controller's end once they are linked.
    pub async fn link(&mut self, fault: Option<Fault>) -> Arc<RemoteProvider> {
        tokio::spawn(keep_linked(Ends {
            agent: self.agent.clone(),
            kept: self.kept.clone(),
            remote: self.remote.clone(),
            whole: self.whole.subscribe(),
            cut: self.cut.clone(),
            met: self.met.clone(),
            sessions: self.sessions.clone(),
            slow: self.slow,
            fault,
        }));
        loop {
            let remote = self.remote.lock().clone();
            if let Some(remote) = remote.filter(|remote| remote.is_linked()) {
                return remote;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lets everything happen that still happens by itself.
    pub async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(30)).await;
    }

    pub fn cut(&self) {
        self.whole.send_replace(false);
        self.cut.lock().cancel();
    }

    pub async fn mend(&self) {
        self.whole.send_replace(true);
        self.settle().await;
    }
}

struct Ends {
    agent: Arc<Agent>,
    kept: Arc<Kept>,
    remote: Arc<Mutex<Option<Arc<RemoteProvider>>>>,
    whole: watch::Receiver<bool>,
    cut: Arc<Mutex<CancellationToken>>,
    met: Arc<AtomicBool>,
    sessions: Arc<AtomicUsize>,
    slow: Duration,
    fault: Option<Fault>,
}

async fn keep_linked(mut ends: Ends) {
    while ends.whole.wait_for(|whole| *whole).await.is_ok() {
        let cut = CancellationToken::new();
        *ends.cut.lock() = cut.clone();
        let line = Line::new(ends.fault.take(), ends.slow, &ends.met, &cut);
        ends.sessions.fetch_add(1, Ordering::Relaxed);
        let far = tokio::spawn(serve(line.controller, ends.kept.clone(), ends.remote.clone()));
        ends.agent.session(line.provider, &|_| Ok(()), || 0).await;
        far.await.expect("no panic");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn serve(wire: piecework_queue::link::Wire, kept: Arc<Kept>, remotes: Arc<Mutex<Option<Arc<RemoteProvider>>>>) {
    let Ok(arrival) = receive(wire, &controller_key(), network()).await else {
        return;
    };
    let remote = remotes
        .lock()
        .get_or_insert_with(|| RemoteProvider::new(&arrival))
        .clone();
    assert!(remote.is_same_run(&arrival));
    remote.serve(arrival, &*kept, 0, &CancellationToken::new()).await;
}
