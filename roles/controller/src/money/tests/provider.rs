//! A provider that answers as it is told to.

use std::{
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
    AccountId, Code, Counters, Digest, Domain, FunctionId, JobStatus, Language, LeaseId, NetworkId, Prices, Receipt,
    Rejection, Seal, SecretKey,
};
use piecework_queue::{Delivery, Load, Order, Profile, ProviderLink, Refusal, Unsealed, Work};
use piecework_sandbox::{BackendName, Finished, LoadError, Logs, Outcome, Probe};

use crate::Clock;

/// One ucr for each microsecond of CPU time.
pub(super) const PRICES: Prices = Prices {
    start_ucr: 0,
    cpu_ucr_per_s: 1_000_000,
    memory_ucr_per_gib_s: 0,
    egress_ucr_per_mib: 0,
};

/// Of a run: it costs 1 ucr.
pub(super) const COUNTERS: Counters = Counters {
    cpu_us: 1,
    memory_byte_ms: 0,
    egress_bytes: 0,
};

/// How it behaves when it is asked for a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    AtOnce,
    After(Duration),
    Never,
    WithRefusal,
}

pub(super) struct Double {
    profile: Profile,
    key: SecretKey,
    network: NetworkId,
    answers: Mutex<Answers>,
    is_here: AtomicBool,
    asked: AtomicUsize,
    clock: Arc<dyn Clock>,
    when_running: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Double {
    pub(super) fn new(name: &str, key: &SecretKey, network: NetworkId, clock: Arc<dyn Clock>) -> Arc<Self> {
        let probe = Probe {
            backend: BackendName::Wasm,
            works: true,
            languages: vec![Language::JavaScript],
            detail: String::new(),
            weaker: Vec::new(),
            cold_us: None,
            warm_us: None,
        };
        Arc::new(Self {
            profile: Profile {
                account: AccountId::of(&key.public()),
                name: name.to_owned(),
                prices: PRICES,
                cores: 1,
                memory_bytes: 1 << 30,
                slots: 4,
                region: "local".to_owned(),
                labels: Vec::new(),
                probes: vec![probe],
                egress: None,
                free_for: None,
            },
            key: key.clone(),
            network,
            answers: Mutex::new(Answers::AtOnce),
            is_here: AtomicBool::new(true),
            asked: AtomicUsize::new(0),
            clock,
            when_running: Mutex::new(None),
        })
    }

    pub(super) fn account(&self) -> AccountId {
        self.profile.account
    }

    pub(super) fn set_answers(&self, answers: Answers) {
        *self.answers.lock() = answers;
    }

    pub(super) fn set_here(&self, is_here: bool) {
        self.is_here.store(is_here, Ordering::Relaxed);
    }

    /// Done in each run.
    pub(super) fn when_running(&self, act: impl Fn() + Send + 'static) {
        *self.when_running.lock() = Some(Box::new(act));
    }

    /// How often it was asked for a seal.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    async fn answer(&self) -> Result<(), Refusal> {
        let answers = *self.answers.lock();
        match answers {
            Answers::AtOnce => Ok(()),
            Answers::After(delay) => {
                self.clock.sleep(delay).await;
                Ok(())
            }
            Answers::Never => std::future::pending().await,
            Answers::WithRefusal => Err(Rejection::new(Code::ProviderDiskFailed, "it cannot write")),
        }
    }
}

#[async_trait]
impl ProviderLink for Double {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn load(&self) -> Load {
        Load::default()
    }

    fn is_warm(&self, _function: FunctionId, _version: u32) -> bool {
        true
    }

    async fn check(&self, _work: Arc<Work>) -> Result<(), LoadError> {
        Ok(())
    }

    /// Returns 1 for nothing.
    async fn run(&self, order: Order) -> Result<Delivery, Refusal> {
        if let Some(act) = &*self.when_running.lock() {
            act();
        }
        let (ticket, output) = (order.ticket, Bytes::from_static(b"1"));
        Ok(Delivery {
            receipt: Receipt {
                lease: ticket.lease,
                provider: ticket.provider,
                sequence: ticket.sequence,
                job: ticket.job,
                code: ticket.code,
                input: ticket.input,
                output: Digest::of(&output).salted(order.salt.as_ref()),
                status: JobStatus::Ok,
                counters: COUNTERS,
                price_ucr: 1,
                duration_us: 1,
            },
            mark: [0; 32],
            finished: Finished {
                outcome: Outcome::Returned(output),
                logs: Logs::default(),
                counters: COUNTERS,
                memory_peak_bytes: 0,
                duration: Duration::from_micros(1),
                reusable: true,
            },
            cold: false,
            pull_us: 0,
            is_cut: false,
        })
    }

    async fn accept_seal(&self, _seal: Seal, _sequences: Vec<u64>) -> Result<(), Refusal> {
        self.answer().await
    }

    async fn seal_receipts(&self, lane: (LeaseId, AccountId), receipts: Vec<Unsealed>) -> Result<Seal, Refusal> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.answer().await?;
        let leaves: Vec<Digest> = receipts.iter().map(|unsealed| unsealed.receipt.leaf()).collect();
        Ok(Seal::sign(&self.key, Domain::Receipts, &self.network, lane, &leaves))
    }

    fn forget(&self, _function: FunctionId, _version: u32) {}

    fn is_linked(&self) -> bool {
        self.is_here.load(Ordering::Relaxed)
    }
}
