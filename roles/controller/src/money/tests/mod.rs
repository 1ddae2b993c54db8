//! The room in one process: the ledger's own rules, a store in memory, providers that do as they are told, a clock that is
//! moved on when nothing else happens.

mod calling;
mod following;
mod leasing;
mod settling;

use std::{sync::Arc, time::Duration};

use piecework_ledger::{Action, OpenLease, Subject};
use piecework_model::{Credits, Digest, JobId, JobStatus, LeaseId, Receipt};
use piecework_packages::Packages;
use piecework_queue::ProviderLink;
use piecework_scheduler::Policy;
use piecework_store::{Job, Jobs as _, Settlement};
use tokio_util::sync::CancellationToken;

use crate::{
    Clock, Controller, Options, Tuning,
    clock::within,
    codecs,
    doubles::{
        ledger::Ledger,
        memory::Memory,
        nothing::Nothing,
        provider::{COUNTERS, Double, PRICES},
        turned::Turned,
        world::{CONTROLLER, DEVELOPER, PROVIDER, account, genesis, key, signed},
    },
    money::outbox::{LaneKey, Outgoing},
};

const SETTLE_EVERY: Duration = Duration::from_millis(500);

struct World {
    controller: Arc<Controller>,
    ledger: Arc<Ledger>,
    store: Arc<Memory>,
    providers: Vec<Arc<Double>>,
    shutdown: CancellationToken,
    clock: Arc<Turned>,
    lease: LeaseId,
    jobs: u64,
}

fn named(of: u8) -> (u8, String) {
    (of, format!("account-{of}"))
}

fn open_lease(ledger: &Ledger) -> LeaseId {
    let terms = OpenLease {
        subject: Subject::AnyFunction,
        provider: None,
        controller: account(CONTROLLER),
        price_caps: PRICES,
        budget: Credits(1 << 50),
        payer_keys: vec![key(CONTROLLER).public()],
        mailboxes: vec![key(CONTROLLER).public()],
        exposure_ucr: 1 << 40,
    };
    let opening = signed(ledger, DEVELOPER, 0, Action::OpenLease(terms));
    let lease = LeaseId::of(account(DEVELOPER), opening.transaction.nonce);
    let block = ledger.block(vec![opening]);
    assert!(block.outcomes[0].result.is_ok(), "{:?}", block.outcomes);
    lease
}

impl World {
    /// A controller that runs, one developer with an open lease, and so many providers, who answer at once.
    async fn start(providers: u8) -> Self {
        let mut everybody = vec![named(CONTROLLER), named(DEVELOPER)];
        everybody.extend((PROVIDER..PROVIDER + providers).map(named));
        let ledger = Ledger::of(&genesis(&everybody));
        let lease = open_lease(&ledger);
        let store = Memory::new();
        let (shutdown, clock) = (CancellationToken::new(), Turned::start());
        let double = |of| Double::new(&format!("account-{of}"), &key(of), ledger.network_id(), clock.clone());
        let providers: Vec<Arc<Double>> = (PROVIDER..PROVIDER + providers).map(double).collect();
        let links = providers.iter().map(|double| double.clone() as Arc<dyn ProviderLink>);
        let options = Options {
            key: key(CONTROLLER),
            account: account(CONTROLLER),
            operator: account(CONTROLLER),
            chain: ledger.clone(),
            store: store.clone(),
            blobs: Arc::new(Nothing),
            disk: Arc::new(piecework_disk::Unlimited),
            packages: Arc::new(Packages::new(Default::default(), Arc::new(|| None))),
            typescript: Arc::new(piecework_typescript::TypeScript::new(None, Arc::new(|| None))),
            portal: &[],
            sinks: Arc::new(Nothing),
            alerts: Vec::new(),
            certificate: None,
            providers: links.collect(),
            policy: Policy::Random,
            base_url: String::new(),
            tuning: Tuning {
                settle_every: SETTLE_EVERY,
                price_caps: PRICES,
                reference_every: Duration::ZERO,
                ..Tuning::default()
            },
            background: tokio::runtime::Handle::current(),
            clock: clock.clone(),
        };
        let controller = Controller::start(options, shutdown.clone()).await.expect("started");
        let remembered = codecs::lease_of(account(DEVELOPER), lease).expect("encodes");
        codecs::keep(&controller.ground, &remembered).await.expect("kept");
        Self {
            controller,
            ledger,
            store,
            providers,
            shutdown,
            clock,
            lease,
            jobs: 0,
        }
    }

    fn lane(&self, provider: usize) -> LaneKey {
        (self.lease, self.providers[provider].account())
    }

    /// A job that ran there, in the store and in the outbox.
    fn owe(&mut self, provider: usize) -> JobId {
        let outgoing = self.outgoing(provider);
        let job = outgoing.receipt.job;
        self.controller.money.outbox.push(outgoing);
        job
    }

    fn outgoing(&mut self, provider: usize) -> Outgoing {
        self.jobs += 1;
        let (lease, provider) = self.lane(provider);
        let outgoing = Outgoing {
            receipt: Receipt {
                lease,
                provider,
                sequence: self.jobs,
                job: JobId::new(self.jobs, [7; 10]),
                code: Digest::of(b"code"),
                input: Digest::of(b"input"),
                output: Digest::of(b"1"),
                status: JobStatus::Ok,
                counters: COUNTERS,
                price_ucr: 1,
                duration_us: 1,
            },
            mark: [0; 32],
            price_max_ucr: 1,
            received_at_ms: 1,
        };
        self.store.finish(record(&outgoing)).expect("kept");
        outgoing
    }

    async fn is_paid(&self, job: JobId) -> bool {
        self.store.job(job).await.expect("read").is_some_and(|job| job.paid)
    }

    /// Waits until the job is marked paid, and says how long that took.
    async fn paid_after(&self, job: JobId) -> Duration {
        let began = self.clock.now();
        let paid = async {
            while !self.is_paid(job).await {
                self.store.written().await;
            }
        };
        let paid = within(&*self.clock, Duration::from_secs(3_600), paid).await;
        assert!(paid.is_some(), "{job} is not paid within an hour");
        self.clock.now() - began
    }

    /// Tells all tasks to stop, and says how long they took.
    async fn stop(&self) -> Duration {
        let began = self.clock.now();
        self.shutdown.cancel();
        self.controller.ground.tasks.close();
        self.controller.ground.tasks.wait().await;
        self.clock.now() - began
    }
}

fn record(outgoing: &Outgoing) -> Job {
    let receipt = &outgoing.receipt;
    let queued = Job::queued(
        receipt.job,
        (piecework_model::FunctionId([1; 12]), 1),
        "f".parse().expect("a name"),
        account(DEVELOPER),
        1,
    );
    Job {
        state: piecework_store::JobState::Succeeded,
        provider: Some(receipt.provider),
        counters: receipt.counters,
        price_ucr: receipt.price_ucr,
        duration_us: receipt.duration_us,
        received: true,
        settlement: Some(Settlement {
            lease: receipt.lease,
            sequence: receipt.sequence,
            code: receipt.code,
            input: receipt.input,
            output: receipt.output,
            status: receipt.status,
            price_max_ucr: outgoing.price_max_ucr,
            received_at_ms: Some(outgoing.received_at_ms),
            mark: outgoing.mark,
        }),
        ..queued
    }
}
