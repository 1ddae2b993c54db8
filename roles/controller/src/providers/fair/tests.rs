//! The room with its lock and its tasks: who is woken, and what a caller that goes away leaves behind.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use piecework_model::{Code, Digest, FunctionId, Language, LeaseId, Limits, Seal};
use piecework_queue::{Delivery, Load, Order, Profile, ProviderLink, Refusal, Unsealed, Work};
use piecework_sandbox::{BackendName, LoadError, Probe};
use piecework_scheduler::{Finding, Policy, Request, Standing};
use piecework_store::{BackendReason, Function, Version};

use super::*;
use crate::{
    functions::Live,
    providers::seen::{Membership, Present},
};

/// A provider that is there or not; it runs nothing here.
struct Fake {
    profile: Profile,
    linked: AtomicBool,
    paused: AtomicBool,
}

#[async_trait]
impl ProviderLink for Fake {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn load(&self) -> Load {
        Load {
            paused: self.paused.load(Ordering::Relaxed),
            // As told some seconds ago.
            running: self.profile.slots,
            ..Load::default()
        }
    }

    fn is_linked(&self) -> bool {
        self.linked.load(Ordering::Relaxed)
    }

    fn is_warm(&self, _: FunctionId, _: u32) -> bool {
        false
    }

    async fn check(&self, _: Arc<Work>) -> Result<(), LoadError> {
        unreachable!("nothing is loaded here")
    }

    async fn run(&self, _: Order) -> Result<Delivery, Refusal> {
        unreachable!("nothing is run here")
    }

    async fn accept_seal(&self, _: Seal, _: Vec<u64>) -> Result<(), Refusal> {
        unreachable!("nothing is sealed here")
    }

    async fn seal_receipts(&self, _: (LeaseId, AccountId), _: Vec<Unsealed>) -> Result<Seal, Refusal> {
        unreachable!("nothing is sealed here")
    }

    fn forget(&self, _: FunctionId, _: u32) {}
}

fn fake(account: u8, slots: u32) -> Arc<Fake> {
    let probe = Probe {
        backend: BackendName::Wasm,
        works: true,
        languages: vec![Language::Python],
        detail: String::new(),
        weaker: Vec::new(),
        cold_us: None,
        warm_us: None,
    };
    Arc::new(Fake {
        profile: Profile {
            account: AccountId([account; 20]),
            name: format!("provider-{account}"),
            prices: Default::default(),
            cores: 1,
            memory_bytes: 1 << 30,
            slots,
            region: "here".into(),
            labels: Vec::new(),
            probes: vec![probe],
            egress: None,
            free_for: None,
        },
        linked: AtomicBool::new(true),
        paused: AtomicBool::new(false),
    })
}

/// A function of which `concurrency` calls run at once.
fn live(number: u8, concurrency: u32) -> Arc<Live> {
    let id = FunctionId([number; 12]);
    let work = Work {
        owner: None,
        function: id,
        version: 1,
        name: "f".into(),
        language: Language::Python,
        code: Digest([0; 32]),
        handler: None,
        env: Default::default(),
        limits: Limits::DEFAULT,
        egress: Default::default(),
        backend: BackendName::Wasm,
    };
    let version = Version {
        function: id,
        version: 1,
        language: work.language,
        code: work.code,
        handler: None,
        limits: work.limits,
        backend: BackendName::Wasm,
        backend_reason: BackendReason::AskedFor,
        env: Default::default(),
        sealed_secrets: Vec::new(),
        secret_names: Vec::new(),
        packages: Vec::new(),
        strict: false,
        egress: Default::default(),
        placement: Default::default(),
        rerun_percent: 0,
        stream_bytes: 0,
        site: piecework_store::Site::None,
        bundle_bytes: 0,
        image: None,
        created_at_ms: 0,
    };
    let request = Request {
        backend: BackendName::Wasm,
        language: Language::Python,
        memory_bytes: 1 << 20,
        egress: false,
        price_caps: Default::default(),
        region: None,
        labels: Default::default(),
        trust: Trust::New,
        confided_to: None,
        pinned: None,
    };
    Arc::new(Live {
        budget_of: None,
        function: Function {
            id,
            owner: AccountId([100; 20]),
            owner_name: "owner".parse().expect("a name"),
            name: "f".parse().expect("a name"),
            live_version: 1,
            public: false,
            concurrency,
            created_at_ms: 0,
            updated_at_ms: 0,
            policy: Default::default(),
        },
        version,
        work: Arc::new(work),
        request,
        policy: Policy::default(),
        secrets: Vec::new(),
        split: None,
        weight: 1,
        limits: Default::default(),
    })
}

struct World {
    fair: Fair,
    providers: Present,
    live: Arc<Live>,
}

impl World {
    /// Ten seconds after its controller has started.
    fn of(fakes: &[&Arc<Fake>], concurrency: u32) -> Self {
        let mut fair = Fair::default();
        let shared = Arc::get_mut(&mut fair.0).expect("nobody else has it");
        shared.began = shared.began.checked_sub(Duration::from_secs(10)).expect("a clock");
        let world = Self {
            fair,
            providers: Present::default(),
            live: live(1, concurrency),
        };
        for fake in fakes {
            let membership = Membership {
                owner: fake.profile.account,
                standing: Arc::new(Mutex::new(Standing::default())),
                is_own: false,
            };
            world
                .providers
                .join(Arc::clone(fake) as Arc<dyn ProviderLink>, membership);
        }
        world.look();
        world
    }

    fn look(&self) {
        self.fair.look(&self.providers.all());
    }

    fn claim(&self) -> Claim {
        Claim {
            developer: self.live.function.owner,
            weight: 1,
            function: Some((self.live.function.id, self.live.function.concurrency)),
            memory_bytes: self.live.request.footprint_bytes(),
        }
    }

    fn slot(&self) -> Result<Slot, Admission> {
        self.fair.admit(&self.providers.all()[0], &self.claim())
    }

    fn wait(&self, patient: bool) -> Answer<Waiting> {
        let label = Label {
            wants: self.live.clone(),
            refused: Vec::new(),
            has_run: Vec::new(),
        };
        self.fair.wait(self.claim(), label, patient, None)
    }

    fn taken(&self) -> u32 {
        self.fair.0.state.lock().room.taken(0)
    }
}

fn told(waiting: &mut Waiting) -> Option<Word> {
    waiting.receiver.try_recv().ok()
}

fn is_nobody(word: Option<Word>) -> bool {
    matches!(word, Some(Word::Nobody))
}

#[tokio::test]
async fn a_slot_that_comes_free_wakes_the_first_call_and_no_other() {
    let world = World::of(&[&fake(1, 1)], 10);
    let slot = world
        .slot()
        .expect("it is free, whatever the provider said of itself seconds ago");
    assert!(matches!(world.slot(), Err(Admission::Full)));
    let (mut first, mut second) = (world.wait(false).expect("room"), world.wait(true).expect("room"));
    assert!(told(&mut first).is_none());
    drop(slot);
    let Word::Slot(slot) = first.word().await else {
        panic!("it gets the slot")
    };
    assert!(told(&mut second).is_none());
    assert_eq!((world.taken(), world.fair.waiting()), (1, 1));
    drop(slot);
    assert!(matches!(second.word().await, Word::Slot(_)));
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_behind() {
    let world = World::of(&[&fake(1, 1)], 10);
    let slot = world.slot().expect("free");
    for _ in 0..100 {
        drop(world.wait(false).expect("room"));
    }
    let (late, mut next) = (world.wait(false).expect("room"), world.wait(false).expect("room"));
    drop(slot);
    // The first has been given the slot, and goes without having looked.
    drop(late);
    let Word::Slot(slot) = next.word().await else {
        panic!("it gets the slot")
    };
    assert_eq!((world.taken(), world.fair.waiting()), (1, 0));
    drop(slot);
    assert_eq!((world.taken(), world.fair.waiting()), (0, 0));
}

#[tokio::test]
async fn beyond_the_queue_callers_are_refused_and_jobs_that_were_accepted_are_not() {
    let world = World::of(&[&fake(1, 8)], 1);
    let _inside = world.slot().expect("free");
    assert!(matches!(world.slot(), Err(Admission::AtLimit)));
    let held: Vec<_> = (0..10).map(|_| world.wait(false).expect("room")).collect();
    let refused = world.wait(false).err().expect("the queue is full");
    assert_eq!(refused.code, Code::FunctionTooMany);
    let _patient = world.wait(true).expect("it was accepted before");
    assert_eq!((world.fair.waiting(), world.taken()), (held.len() + 1, 1));
}

#[tokio::test]
async fn one_developers_calls_do_not_fill_the_room() {
    let world = World::of(&[&fake(1, 1)], 1_000);
    let _inside = world.slot().expect("free");
    let _held: Vec<_> = (0..BOUNDS.developer)
        .map(|_| world.wait(false).expect("room"))
        .collect();
    assert_eq!(world.wait(false).err().expect("too many").code, Code::ServerBusy);
}

#[tokio::test]
async fn callers_of_a_provider_that_is_paused_or_gone_hear_so_and_accepted_jobs_wait_for_it() {
    let fake = fake(1, 1);
    let world = World::of(&[&fake], 10);
    fake.paused.store(true, Ordering::Relaxed);
    world.look();
    let (mut caller, mut job) = (world.wait(false).expect("room"), world.wait(true).expect("room"));
    world.fair.sweep(Duration::from_secs(60));
    assert!(told(&mut caller).is_none(), "not yet");
    world.fair.sweep(Duration::ZERO);
    assert!(is_nobody(told(&mut caller)) && told(&mut job).is_none());
    // A link that is cut may come back in a moment.
    fake.paused.store(false, Ordering::Relaxed);
    fake.linked.store(false, Ordering::Relaxed);
    world.look();
    let mut caller = world.wait(false).expect("room");
    world.fair.sweep(Duration::ZERO);
    assert!(told(&mut caller).is_none());
    fake.linked.store(true, Ordering::Relaxed);
    world.look();
    assert!(matches!(job.word().await, Word::Slot(_)), "it came first");
    assert!(matches!(caller.word().await, Word::Slot(_)));
}

#[tokio::test]
async fn a_provider_that_joins_or_is_trusted_again_takes_what_waits() {
    let world = World::of(&[], 10);
    let mut job = world.wait(true).expect("room");
    let fake = fake(1, 1);
    let standing = Arc::new(Mutex::new(Standing::default()));
    standing.lock().note(Finding::Wrong);
    let membership = Membership {
        owner: fake.profile.account,
        standing: standing.clone(),
        is_own: false,
    };
    world.providers.join(fake, membership);
    world.providers.joined().await;
    world.look();
    assert!(told(&mut job).is_none(), "it is suspended");
    *standing.lock() = Standing::default();
    world.look();
    assert!(matches!(job.word().await, Word::Slot(_)));
}

#[tokio::test]
async fn a_slot_is_swapped_for_a_better_one_and_a_refusal_lowers_what_is_asked() {
    let (one, two) = (fake(1, 1), fake(2, 2));
    let world = World::of(&[&one, &two], 10);
    let all = world.providers.all();
    let mut slot = world.slot().expect("free");
    assert!(slot.swap(&all[1]));
    assert_eq!((world.taken(), slot.seen().link.profile().slots), (0, 2));
    let other = world.fair.admit(&all[1], &world.claim()).expect("it has two");
    other.was_refused(true);
    drop(other);
    assert!(matches!(
        world.fair.admit(&all[1], &world.claim()),
        Err(Admission::Full)
    ));
    world.fair.sweep(Duration::from_secs(60));
    assert!(world.fair.admit(&all[1], &world.claim()).is_ok());
}
