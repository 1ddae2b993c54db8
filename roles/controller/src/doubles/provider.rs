//! A provider that answers as it is told to: its functions are words of its own, and it lies where it is told to.
//!
//! ```text
//! echo            answers the event           raise             raises an exception
//! return JSON     answers that                crash             dies of events that begin so, answers `"fine"` to others
//! wait            runs until it is released   raise every N     raises at each event that N divides
//! count           answers its runs so far     pause             is given back: the owner needs the computer
//! burn W J        answers 1, after W us of CPU time in wasm, and J in the jail
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use piecework_blobs::{Blobs, Bundle, BundleLimits};
use piecework_model::{
    AccountId, Code, Counters, Digest, Domain, FunctionId, JobId, JobStatus, Language, LeaseId, NetworkId, Prices,
    Receipt, Rejection, Salt, Seal, SecretKey, Ticket,
};
use piecework_queue::{Delivery, Load, Order, Profile, ProviderLink, Refusal, Unsealed, Work};
use piecework_sandbox::{BackendName, FELL_SHORT, Finished, LoadError, LogLevel, Logs, Outcome, Probe, Raised};
use serde_json::Value;
use tokio::sync::watch;

use crate::Clock;

/// One ucr for each microsecond of CPU time.
pub(crate) const PRICES: Prices = Prices {
    start_ucr: 0,
    cpu_ucr_per_s: 1_000_000,
    memory_ucr_per_gib_s: 0,
    egress_ucr_per_mib: 0,
};

/// Of a run: it costs 1 ucr.
pub(crate) const COUNTERS: Counters = Counters {
    cpu_us: 1,
    memory_byte_ms: 0,
    egress_bytes: 0,
};

/// How it behaves when it is asked for a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    AtOnce,
    After(Duration),
    Never,
    WithRefusal,
}

/// What it does with a developer's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    Honest,
    /// Another output than the function's, consistently signed.
    Garbage,
    /// An output over the limit.
    TooMuch,
    /// A receipt for another job.
    ForAnotherJob,
    /// A receipt of a ticket that it was not given.
    OfAnotherTicket,
    /// A receipt in somebody else's name.
    ForSomeoneElse,
    /// A receipt over another output than the one that it sends.
    OtherDigest,
    /// The delivery of the job before, once more.
    Replayed,
    /// More CPU time than there was.
    TooMuchTime,
    /// A price above that of its own counters.
    TooDear,
    /// Megabytes of logs beside an honest output.
    TooManyLogs,
    /// An exception that says megabytes of itself.
    LongError,
    /// It takes its time, and claims all of it: nothing that was seen contradicts it.
    Slow,
}

/// As long as a slow run takes.
const SLOW: Duration = Duration::from_millis(300);

pub(crate) struct Double {
    profile: Profile,
    key: SecretKey,
    network: NetworkId,
    clock: Arc<dyn Clock>,
    /// Where its functions' words are; without, each answers 1.
    blobs: Option<Arc<dyn Blobs>>,
    answers: Mutex<Answers>,
    lie: Mutex<Lie>,
    /// Whether it answers the reference job rightly.
    computes: AtomicBool,
    is_here: AtomicBool,
    silent_ms: AtomicU64,
    asked: AtomicUsize,
    jobs: AtomicUsize,
    last: Mutex<Option<Delivery>>,
    /// Whether runs that wait may end.
    released: watch::Sender<bool>,
    when_running: Mutex<Option<Box<dyn Fn() + Send>>>,
}

/// What a provider says of itself in these tests.
pub(crate) fn profile(name: &str, key: &SecretKey) -> Profile {
    let probe = Probe {
        backend: BackendName::Wasm,
        works: true,
        languages: vec![Language::JavaScript],
        detail: String::new(),
        weaker: Vec::new(),
        cold_us: None,
        warm_us: None,
    };
    Profile {
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
    }
}

impl Double {
    /// Whatever it is asked to run, it answers 1.
    pub(crate) fn new(name: &str, key: &SecretKey, network: NetworkId, clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::with(profile(name, key), key, network, clock, None)
    }

    /// It runs functions that are written in its words.
    pub(crate) fn with(
        profile: Profile,
        key: &SecretKey,
        network: NetworkId,
        clock: Arc<dyn Clock>,
        blobs: Option<Arc<dyn Blobs>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            profile,
            key: key.clone(),
            network,
            clock,
            blobs,
            answers: Mutex::new(Answers::AtOnce),
            lie: Mutex::new(Lie::Honest),
            computes: AtomicBool::new(true),
            is_here: AtomicBool::new(true),
            silent_ms: AtomicU64::new(0),
            asked: AtomicUsize::new(0),
            jobs: AtomicUsize::new(0),
            last: Mutex::new(None),
            released: watch::Sender::new(false),
            when_running: Mutex::new(None),
        })
    }

    pub(crate) fn account(&self) -> AccountId {
        self.profile.account
    }

    pub(crate) fn set_answers(&self, answers: Answers) {
        *self.answers.lock() = answers;
    }

    pub(crate) fn set_here(&self, is_here: bool) {
        self.is_here.store(is_here, Ordering::Relaxed);
    }

    /// It was last heard of so long ago.
    pub(crate) fn set_silent(&self, ms: u64) {
        self.silent_ms.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn set_computes(&self, computes: bool) {
        self.computes.store(computes, Ordering::Relaxed);
    }

    pub(crate) fn lies(&self, lie: Lie) {
        *self.lie.lock() = lie;
    }

    /// Done in each run.
    pub(crate) fn when_running(&self, act: impl Fn() + Send + 'static) {
        *self.when_running.lock() = Some(Box::new(act));
    }

    /// Lets runs that wait end, those to come too.
    pub(crate) fn release(&self) {
        self.released.send_replace(true);
    }

    /// How often it was asked for a seal.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Developers' jobs that it ran.
    pub(crate) fn jobs(&self) -> usize {
        self.jobs.load(Ordering::Relaxed)
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

    /// What an honest provider's run comes to.
    async fn honest(&self, order: &Order) -> Outcome {
        if self.blobs.is_none() {
            return returned("1");
        }
        let event: Value = serde_json::from_slice(&order.event).expect("JSON");
        if order.work.name == REFERENCE {
            return returned(&self.reference(&event));
        }
        let words = self.words(&order.work).await.expect("its file");
        self.say(&words, &event, order).await
    }

    async fn burns(&self, work: &Work) -> Option<u64> {
        let words = self.words(work).await?;
        let (wasm, jail) = words.strip_prefix("burn ")?.split_once(' ')?;
        let cpu_us = match work.backend == BackendName::Wasm {
            true => wasm,
            false => jail,
        };
        Some(cpu_us.parse().expect("a number"))
    }

    async fn words(&self, work: &Work) -> Option<String> {
        let tar = self.blobs.as_ref()?.get(&work.code).await.expect("kept");
        let bundle = Bundle::read(&tar, &BundleLimits::UPLOAD).expect("a bundle");
        let entry = bundle.get(work.language.entry_file())?;
        Some(std::str::from_utf8(entry).expect("text").trim().to_owned())
    }

    async fn say(&self, words: &str, event: &Value, order: &Order) -> Outcome {
        if let Some(value) = words.strip_prefix("return ") {
            return returned(value);
        }
        if let Some(every) = words.strip_prefix("raise every ") {
            let divisor: u64 = every.parse().expect("a number");
            return match event.as_u64().is_some_and(|number| number.is_multiple_of(divisor)) {
                true => raised("no"),
                false => returned(&event.to_string()),
            };
        }
        if words.starts_with("burn ") {
            return returned("1");
        }
        match words {
            "pause" => Outcome::Lost,
            "echo" => returned(&event.to_string()),
            "raise" => raised("no"),
            "crash" if event.as_str().is_some_and(|event| event.starts_with("crash")) => {
                Outcome::Crashed("it exited".to_owned())
            }
            "crash" => returned("\"fine\""),
            "touch" if order.work.backend == BackendName::Wasm => Outcome::FellShort("`Intl`".to_owned()),
            "touch" => returned("\"in the jail\""),
            "trap in wasm" if order.work.backend != BackendName::Wasm => returned("\"in the jail\""),
            "trap in wasm" | "trap" => Outcome::Crashed("wasm trap".to_owned()),
            "count" => returned(&(self.jobs() + 1).to_string()),
            "wait" => {
                let mut released = self.released.subscribe();
                tokio::select! {
                    _ = released.wait_for(|released| *released) => returned("\"released\""),
                    () = order.cancel.cancelled() => Outcome::Stopped,
                }
            }
            unknown => panic!("no such words: {unknown}"),
        }
    }

    fn reference(&self, asked: &Value) -> String {
        let number = |field: &str| u32::try_from(asked[field].as_u64().expect("a number")).expect("32 bits");
        let step = |x: u32, _| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let answer = (0..number("rounds")).fold(number("seed"), step);
        let computes = self.computes.load(Ordering::Relaxed);
        if computes { answer } else { answer ^ 1 }.to_string()
    }
}

const REFERENCE: &str = "piecework-reference";

fn returned(json: &str) -> Outcome {
    Outcome::Returned(Bytes::copy_from_slice(json.as_bytes()))
}

fn raised(message: &str) -> Outcome {
    Outcome::Raised(Raised {
        kind: "Error".to_owned(),
        message: message.to_owned(),
        stack: String::new(),
    })
}

/// As an honest provider writes it.
fn delivered((ticket, salt): (&Ticket, Option<&Salt>), outcome: Outcome, counters: Counters) -> Delivery {
    let (output, status) = match &outcome {
        Outcome::Returned(output) => (Digest::of(output), JobStatus::Ok),
        Outcome::Stopped => (Digest::of(b""), JobStatus::Cancelled),
        Outcome::Streamed | Outcome::Lost | Outcome::FellShort(_) => panic!("it neither streams nor loses its process"),
        Outcome::TimedOut => (Digest::of(b""), JobStatus::TimedOut),
        Outcome::OutOfMemory => (Digest::of(b""), JobStatus::OutOfMemory),
        Outcome::Raised(_) | Outcome::Crashed(_) | Outcome::OutputTooLarge | Outcome::OutputInvalid(_) => {
            (Digest::of(b""), JobStatus::Failed)
        }
    };
    let receipt = Receipt {
        lease: ticket.lease,
        provider: ticket.provider,
        sequence: ticket.sequence,
        job: ticket.job,
        code: ticket.code,
        input: ticket.input,
        output: output.salted(salt),
        status,
        counters,
        price_ucr: ticket.prices.price(&counters).expect("in range"),
        duration_us: counters.cpu_us,
    };
    Delivery {
        receipt,
        mark: [0; 32],
        finished: Finished {
            outcome,
            logs: Logs::default(),
            counters,
            memory_peak_bytes: 0,
            duration: Duration::from_micros(counters.cpu_us),
            reusable: true,
        },
        cold: false,
        pull_us: 0,
        is_cut: false,
    }
}

fn cpu(cpu_us: u64) -> Counters {
    Counters { cpu_us, ..COUNTERS }
}

fn lied(lie: Lie, of: (&Ticket, Option<&Salt>), outcome: Outcome, before: Option<Delivery>) -> Delivery {
    let honest = delivered(of, outcome.clone(), COUNTERS);
    let receipt = honest.receipt.clone();
    let with = |receipt| Delivery {
        receipt,
        ..honest.clone()
    };
    match lie {
        Lie::Honest => honest,
        Lie::Garbage => delivered(of, returned("\"garbage\""), COUNTERS),
        Lie::TooMuch => delivered(of, Outcome::Returned(vec![b'1'; 7 << 20].into()), COUNTERS),
        Lie::ForAnotherJob => with(Receipt {
            job: JobId([7; 16]),
            ..receipt
        }),
        Lie::OfAnotherTicket => with(Receipt {
            sequence: receipt.sequence + 1,
            ..receipt
        }),
        Lie::ForSomeoneElse => with(Receipt {
            provider: AccountId([7; 20]),
            ..receipt
        }),
        Lie::OtherDigest => with(Receipt {
            output: Digest::of(b"another"),
            ..receipt
        }),
        Lie::Replayed => before.unwrap_or(honest),
        Lie::TooMuchTime => delivered(of, outcome, cpu(3_600_000_000)),
        Lie::TooDear => with(Receipt {
            price_ucr: receipt.price_ucr + 1,
            ..receipt
        }),
        Lie::TooManyLogs => {
            let mut flooded = honest;
            flooded.finished.logs.add(LogLevel::Info, &"flood\n".repeat(1 << 20));
            flooded
        }
        Lie::LongError => {
            let raised = Raised {
                kind: "k".repeat(1 << 20),
                message: "m".repeat(1 << 20),
                stack: "s".repeat(1 << 20),
            };
            delivered(of, Outcome::Raised(raised), COUNTERS)
        }
        Lie::Slow => {
            let most = u64::try_from(SLOW.as_micros()).expect("fits");
            delivered(of, outcome, cpu(most - 10_000))
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

    async fn check(&self, work: Arc<Work>) -> Result<(), LoadError> {
        match self.words(&work).await.as_deref() {
            // As an exception at its top level does, it quotes its variables.
            Some("broken") => {
                let message = format!("Error: broken with {:?}", work.env);
                Err(LoadError::Code(Rejection::new(Code::FunctionLoadFailed, message)))
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn run(&self, order: Order) -> Result<Delivery, Refusal> {
        if let Some(act) = &*self.when_running.lock() {
            act();
        }
        let outcome = self.honest(&order).await;
        if outcome == Outcome::Lost {
            self.set_here(false);
            return Err(Rejection::new(Code::ProviderPaused, "the owner needs it"));
        }
        let of = (&order.ticket, order.salt.as_ref());
        if order.work.name == REFERENCE {
            return Ok(delivered(of, outcome, COUNTERS));
        }
        let outcome = match outcome {
            Outcome::FellShort(what) if order.is_tentative => {
                return Err(Rejection::new(
                    Code::SandboxFellShort,
                    format!("it does not have {what}"),
                ));
            }
            Outcome::Crashed(how) if order.is_tentative => return Err(Rejection::new(Code::FunctionCrashed, how)),
            Outcome::FellShort(what) => Outcome::Raised(Raised {
                kind: FELL_SHORT.to_owned(),
                message: what,
                stack: String::new(),
            }),
            other => other,
        };
        let lie = *self.lie.lock();
        if lie == Lie::Slow {
            tokio::time::sleep(SLOW).await;
        }
        let before = self.last.lock().clone();
        let delivery = match self.burns(&order.work).await {
            Some(cpu_us) => {
                let mut burnt = delivered(of, outcome, cpu(cpu_us));
                burnt.receipt.duration_us = 1;
                burnt
            }
            None => lied(lie, of, outcome, before),
        };
        self.jobs.fetch_add(1, Ordering::Relaxed);
        *self.last.lock() = Some(delivery.clone());
        Ok(delivery)
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

    fn silent_ms(&self) -> u64 {
        self.silent_ms.load(Ordering::Relaxed)
    }
}
