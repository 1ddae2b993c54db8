//! The reference job: small, paid by the operator, with a known result. A new provider earns its first credits with it
//! and proves that it computes; the CPU time measures the machine. Repeated rarely and unannounced.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dashmap::DashMap;
use piecework_blobs::{Bundle, BundleLimits};
use piecework_model::{AccountId, Digest, FunctionId, JobStatus, Language, Limits};
use piecework_queue::Work;
use piecework_sandbox::BackendName;
use piecework_scheduler::{self as scheduler, Finding, Pinned, Placement, Request, Standing, Trust};
use piecework_store::{BackendReason, Function, Version};
use rand::RngExt as _;
use tokio::sync::Semaphore;

use crate::{
    Answer,
    calls::{
        Calls,
        invoke::{self, Invocation, Purpose},
        streams::Streams,
    },
    clock::now_ms,
    failure::{blobs, rejected},
    functions::Live,
    money::withheld::{self, Payable},
    providers::{seen::Seen, standings},
};

/// How it is called in its jobs' records.
const NAME: &str = "piecework-reference";

/// Steps of the generator: some tens of milliseconds in an interpreter in wasm, less than a millisecond here.
const ROUNDS: u32 = 200_000;
/// Of these rounds is the unit that machines are measured by, so that the machine that prices are compared by does a
/// unit in about [`scheduler::REFERENCE_CPU_US_PER_UNIT`].
const ROUNDS_PER_UNIT: u32 = 10_000;

const JAVASCRIPT: &str = "export default ({ seed, rounds }) => {
  let x = seed;
  for (let i = 0; i < rounds; i++) x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
  return x;
};
";
const PYTHON: &str = "def handler(event, context):
    x = event['seed']
    for _ in range(event['rounds']):
        x = (x * 1664525 + 1013904223) & 0xffffffff
    return x
";

/// What the reference program answers: the generator of Knuth and Lewis (Numerical Recipes, 2nd ed., 7.1).
fn known_answer(seed: u32, rounds: u32) -> u32 {
    (0..rounds).fold(seed, |x, _| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
}

/// Where it runs, the preferred first. Machines are measured in the first of them alone: others are not comparable.
const KINDS: [(BackendName, Language); 4] = [
    (BackendName::Wasm, Language::JavaScript),
    (BackendName::Jail, Language::JavaScript),
    (BackendName::Wasm, Language::Python),
    (BackendName::Jail, Language::Python),
];

/// At once: a thousand providers that come back together are not all tested in one second.
const AT_ONCE_MAX: usize = 8;
/// Interval between checks for due providers.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A provider that could not take it, or an operator who could not pay it, is asked again after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(20);

pub(crate) struct References {
    under_way: DashMap<AccountId, ()>,
    turns: Arc<Semaphore>,
}

impl Default for References {
    fn default() -> Self {
        Self {
            under_way: DashMap::new(),
            turns: Arc::new(Semaphore::new(AT_ONCE_MAX)),
        }
    }
}

/// How long after one reference job the next is due: who is suspended may soon show that it was a mistake, who was
/// right for long is asked least.
fn interval(every: Duration, trust: Trust) -> Duration {
    match trust {
        Trust::Suspended => every / 36,
        Trust::New => every / 6,
        Trust::Known => every,
        Trust::Trusted => every * 4,
    }
}

fn is_due(standing: &Standing, every: Duration, now_ms: u64) -> bool {
    let interval_ms = u64::try_from(interval(every, standing.trust()).as_millis()).unwrap_or(u64::MAX);
    standing.reference_at_ms == 0 || now_ms.saturating_sub(standing.reference_at_ms) >= interval_ms
}

/// Sends due reference jobs, until shutdown.
pub(crate) async fn run(calls: Arc<Calls>) {
    let every = calls.ground.tuning.reference_every;
    if every.is_zero() {
        return;
    }
    loop {
        tokio::select! {
            () = calls.ground.shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        tokio::select! {
            () = calls.ground.shutdown.cancelled() => return,
            () = calls.ground.disk.taking() => {}
        }
        for seen in calls.providers.all().iter() {
            let account = seen.link.profile().account;
            let due = !seen.is_own && seen.link.is_linked() && is_due(&seen.standing.lock(), every, now_ms());
            if !due || calls.references.under_way.insert(account, ()).is_some() {
                continue;
            }
            let (calls, seen) = (calls.clone(), seen.clone());
            let tasks = calls.ground.tasks.clone();
            tasks.spawn(async move {
                check(&calls, &seen).await;
                calls.references.under_way.remove(&account);
            });
        }
    }
}

/// One reference job at one provider.
async fn check(calls: &Arc<Calls>, seen: &Arc<Seen>) {
    let done = async {
        let _turn = calls.references.turns.acquire().await;
        try_check(calls, seen).await
    };
    let refusal = tokio::select! {
        done = done => match done {
            Ok(()) => return,
            Err(refusal) => refusal,
        },
        () = calls.ground.shutdown.cancelled() => return,
    };
    let provider = seen.link.profile().account;
    tracing::warn!(%provider, code = %refusal.code, message = refusal.message, "a reference job failed");
    tokio::select! {
        () = calls.ground.shutdown.cancelled() => {}
        () = tokio::time::sleep(AGAIN_AFTER) => {}
    }
}

async fn try_check(calls: &Arc<Calls>, seen: &Arc<Seen>) -> Answer<()> {
    let provider = seen.link.profile().account;
    let Some((backend, language)) = KINDS
        .into_iter()
        .find(|(backend, language)| seen.runs(*backend, *language))
    else {
        // Nothing is known of it then, and nothing is held against it.
        standings::note_reference(&calls.providers, provider, now_ms()).await;
        return Ok(());
    };
    let seed = rand::rng().random();
    let created_at_ms = now_ms();
    let invocation = Invocation {
        id: invoke::new_job_id(created_at_ms),
        live: Arc::new(live(calls, seen, (backend, language)).await?),
        event: Bytes::from(format!("{{\"seed\":{seed},\"rounds\":{ROUNDS}}}")),
        parameters: Bytes::from_static(b"null"),
        idempotency: None,
        deadline_ms: created_at_ms + 30_000,
        created_at_ms,
        accepted: false,
        purpose: Purpose::Reference,
        caller: None,
        moved: None,
        wall: None,
        streams: Streams::default(),
    };
    let (done, payable) = invoke::aside(calls, invocation).await?;
    standings::note_reference(&calls.providers, provider, created_at_ms).await;
    let Some(payable) = payable else {
        return Ok(()); // its receipt was refused, which was noted there
    };
    let answer = done
        .output
        .as_deref()
        .and_then(|output| serde_json::from_slice(output).ok());
    if answer == Some(known_answer(seed, ROUNDS)) {
        let is_measured = (backend, language) == KINDS[0];
        let cpu_us_per_unit = is_measured.then(|| per_unit(payable.outgoing.receipt.counters.cpu_us));
        standings::note(&calls.providers, provider, Finding::ReferenceRight { cpu_us_per_unit }).await;
        withheld::pay_if_usual(&calls.money, payable).await;
        return Ok(());
    }
    wrong(calls, &payable).await
}

fn per_unit(cpu_us: u64) -> u32 {
    let units = u64::from(ROUNDS / ROUNDS_PER_UNIT);
    u32::try_from((cpu_us / units).max(1)).unwrap_or(u32::MAX)
}

/// A wrong result costs the trust; a run that did not end well is just not paid.
async fn wrong(calls: &Calls, payable: &Payable) -> Answer<()> {
    let receipt = &payable.outgoing.receipt;
    if receipt.status == JobStatus::Ok {
        standings::note(&calls.providers, receipt.provider, Finding::Wrong).await;
    }
    withheld::refuse_payment(
        &calls.money,
        payable,
        "the result of the reference job is not the known one",
    )
    .await
}

/// The reference function as one provider gets it. No table has it: whoever deletes functions cannot delete it.
async fn live(calls: &Calls, seen: &Seen, (backend, language): (BackendName, Language)) -> Answer<Live> {
    let source = match language {
        Language::JavaScript => JAVASCRIPT,
        Language::Python => PYTHON,
        Language::Image => unreachable!("no kind of reference job is an image"),
    };
    let files = [(language.entry_file().to_owned(), Bytes::from_static(source.as_bytes()))];
    let bundle = Bundle::new(files, &BundleLimits::UPLOAD).map_err(rejected)?;
    let packed = bundle.pack();
    calls.functions.bundles.hold_for_good(packed.digest).await;
    let code = calls.ground.blobs.put(packed.tar).await.map_err(blobs)?;
    let id = function_id(language);
    let limits = Limits {
        timeout_ms: 10_000,
        ..Limits::DEFAULT
    };
    let work = Work {
        owner: None,
        function: id,
        version: 1,
        name: NAME.to_owned(),
        language,
        code,
        handler: None,
        env: Default::default(),
        limits,
        egress: Default::default(),
        backend,
    };
    let request = Request {
        backend,
        language,
        memory_bytes: limits.memory_bytes,
        egress: false,
        price_caps: calls.ground.tuning.price_caps,
        region: None,
        labels: Default::default(),
        trust: Trust::Suspended,
        confided_to: None,
        pinned: Some(Pinned {
            providers: [seen.link.profile().account].into(),
            owners: Default::default(),
        }),
    };
    Ok(Live {
        function: function(calls, id).await?,
        budget_of: None,
        version: version(&work),
        work: Arc::new(work),
        request,
        policy: scheduler::Policy::Random,
        secrets: Vec::new(),
        split: None,
        weight: 1,
        limits: Default::default(),
    })
}

fn function_id(language: Language) -> FunctionId {
    let digest = Digest::of_value("piecework 2026 reference function", &language);
    let mut id = [0; 12];
    id.copy_from_slice(&digest.0[..12]);
    FunctionId(id)
}

async fn function(calls: &Calls, id: FunctionId) -> Answer<Function> {
    Ok(Function {
        id,
        owner: calls.ground.operator,
        owner_name: calls
            .ground
            .account_name(calls.ground.operator)
            .await
            .parse()
            .map_err(rejected)?,
        name: NAME.parse().map_err(rejected)?,
        live_version: 1,
        public: false,
        concurrency: 1,
        created_at_ms: 0,
        updated_at_ms: 0,
        policy: Default::default(),
    })
}

const REASON: &str = "the first that the provider has of those that the reference job runs in";

fn version(work: &Work) -> Version {
    Version {
        function: work.function,
        version: 1,
        language: work.language,
        code: work.code,
        handler: None,
        limits: work.limits,
        backend: work.backend,
        backend_reason: BackendReason::Chosen(REASON.to_owned()),
        env: Default::default(),
        sealed_secrets: Vec::new(),
        secret_names: Vec::new(),
        packages: Vec::new(),
        strict: false,
        egress: Default::default(),
        placement: Placement::default(),
        rerun_percent: 0,
        // Its answer is a number.
        stream_bytes: 0,
        site: piecework_store::Site::None,
        bundle_bytes: 0,
        image: None,
        created_at_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_answer_is_that_of_the_generator() {
        // Numerical Recipes, 2nd ed., p. 284: the first values from 0.
        let values: Vec<u32> = (1..=3).map(|rounds| known_answer(0, rounds)).collect();
        assert_eq!(values, [0x3c6e_f35f, 0x4750_2932, 0xd1cc_f6e9]);
    }

    #[test]
    fn newcomers_are_due_at_once_and_the_trusted_rarely() {
        let every = Duration::from_secs(3_600);
        let mut standing = Standing::default();
        assert!(is_due(&standing, every, 5_000));
        standing.reference_at_ms = 5_000;
        assert!(!is_due(&standing, every, 5_000 + 599_999));
        assert!(is_due(&standing, every, 5_000 + 600_000));
        standing.score = scheduler::SCORE_MAX;
        assert!(!is_due(&standing, every, 5_000 + 3_600_000));
        standing.suspended = true;
        assert!(is_due(&standing, every, 5_000 + 100_000));
    }
}
