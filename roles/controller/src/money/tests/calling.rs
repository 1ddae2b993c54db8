//! A run that was billed is answered and paid, whatever becomes of the books.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use piecework_api::held::Decision;
use piecework_ledger::Key;
use piecework_model::{Code, Digest, FunctionId, Language, Limits};
use piecework_queue::Work;
use piecework_sandbox::BackendName;
use piecework_scheduler::{self as scheduler, Placement, Request, Trust};
use piecework_store::{BackendReason, Function, Version};

use super::{CONTROLLER, Clock as _, DEVELOPER, PRICES, World, account};
use crate::{
    calls::{
        invoke::{self, Done, Invocation, Purpose},
        streams::Streams,
    },
    clock::{now_ms, within},
    functions::Live,
    money::withheld::{self, Payable},
};

const FUNCTION: FunctionId = FunctionId([1; 12]);

fn function() -> Function {
    Function {
        id: FUNCTION,
        owner: account(DEVELOPER),
        owner_name: "developer".parse().expect("a name"),
        name: "f".parse().expect("a name"),
        live_version: 1,
        public: false,
        concurrency: 1,
        created_at_ms: 0,
        updated_at_ms: 0,
        // So small that one call uses it up: then an alert is to be written.
        policy: piecework_store::Policy {
            budget_ucr: Some(1),
            ..Default::default()
        },
    }
}

fn live() -> Live {
    let work = Work {
        owner: None,
        function: FUNCTION,
        version: 1,
        name: "f".to_owned(),
        language: Language::JavaScript,
        code: Digest::of(b"code"),
        handler: None,
        env: Default::default(),
        limits: Limits::DEFAULT,
        egress: Default::default(),
        backend: BackendName::Wasm,
    };
    Live {
        budget_of: None,
        function: function(),
        version: Version {
            function: FUNCTION,
            version: 1,
            language: work.language,
            code: work.code,
            handler: None,
            limits: work.limits,
            backend: work.backend,
            backend_reason: BackendReason::AskedFor,
            env: Default::default(),
            sealed_secrets: Vec::new(),
            secret_names: Vec::new(),
            packages: Vec::new(),
            strict: false,
            egress: Default::default(),
            placement: Placement::default(),
            rerun_percent: 0,
            stream_bytes: 0,
            site: piecework_store::Site::None,
            bundle_bytes: 0,
            image: None,
            created_at_ms: 0,
        },
        request: Request {
            backend: work.backend,
            language: work.language,
            memory_bytes: work.limits.memory_bytes,
            egress: false,
            price_caps: PRICES,
            region: None,
            labels: Default::default(),
            trust: Trust::Suspended,
            confided_to: None,
            pinned: None,
        },
        work: Arc::new(work),
        policy: scheduler::Policy::Random,
        secrets: Vec::new(),
        split: None,
        weight: 1,
        limits: Default::default(),
    }
}

fn invocation(created_at_ms: u64) -> Invocation {
    Invocation {
        id: invoke::new_job_id(created_at_ms),
        live: Arc::new(live()),
        event: Bytes::from_static(b"null"),
        parameters: Bytes::from_static(b"null"),
        idempotency: None,
        deadline_ms: created_at_ms + 30_000,
        created_at_ms,
        accepted: false,
        purpose: Purpose::Call,
        caller: None,
        moved: None,
        wall: None,
        streams: Streams::default(),
    }
}

async fn call(world: &World) -> Done {
    match invoke::run(world.controller.calls.clone(), invocation(now_ms())).await {
        Ok(done) => done,
        Err(refusal) => panic!("a call that ran was refused: {refusal}"),
    }
}

/// Owed to receipts, and kept for running jobs.
fn owed(world: &World) -> (i128, i128) {
    world.controller.money.leases.book(world.lease).expect("known").owed()
}

#[tokio::test]
async fn a_call_that_ran_is_answered_and_paid_where_the_disk_fills_up_meanwhile() {
    let world = World::start(1).await;
    world.store.put_function(function());
    let store = world.store.clone();
    world.providers[0].when_running(move || store.set_full(true));
    let done = call(&world).await;
    assert_eq!((done.output.as_deref(), done.error), (Some(&b"1"[..]), None));
    assert_eq!(owed(&world), (1, 0), "it is owed, and nothing is reserved any more");
    let lane = world.lane(0);
    let settled = async {
        while world.ledger.value(&Key::Lane(lane.0, lane.1)).is_none() {
            world.ledger.grown().await;
        }
    };
    let settled = within(&*world.clock, Duration::from_secs(1), settled).await;
    settled.expect("paid on the ledger while the disk is full still");
    world.store.set_full(false);
    world.paid_after(done.id).await;
}

/// Of a version whose jobs all used as much.
fn payable(world: &mut World, cpu_us: u64) -> Payable {
    let mut outgoing = world.outgoing(0);
    outgoing.receipt.counters.cpu_us = cpu_us;
    Payable {
        outgoing,
        developer: account(DEVELOPER),
        function: (FUNCTION, 1),
        function_name: "f".parse().expect("a name"),
        streamed_bytes: 0,
        lane: None,
    }
}

async fn with_usual_jobs() -> World {
    let mut world = World::start(1).await;
    world.store.put_function(function());
    for _ in 0..100 {
        let usual = payable(&mut world, 1_000);
        withheld::pay_if_usual(&world.controller.money, usual).await;
    }
    world
}

const UNUSUAL_US: u64 = 60_000_000;

#[tokio::test]
async fn a_receipt_that_cannot_be_held_is_paid() {
    let mut world = with_usual_jobs().await;
    let unusual = payable(&mut world, UNUSUAL_US);
    let job = unusual.outgoing.receipt.job;
    world.store.set_full(true);
    withheld::pay_if_usual(&world.controller.money, unusual).await;
    world.store.set_full(false);
    world.paid_after(job).await;
}

#[tokio::test]
async fn a_decision_that_cannot_be_written_is_not_made() {
    let mut world = with_usual_jobs().await;
    let unusual = payable(&mut world, UNUSUAL_US);
    let job = unusual.outgoing.receipt.job;
    withheld::pay_if_usual(&world.controller.money, unusual).await;
    world.store.set_full(true);
    for decision in [Decision::Release, Decision::Refuse] {
        let refusal = withheld::decide(&world.controller.money, account(CONTROLLER), job, decision).await;
        assert_eq!(refusal.expect_err("not written").code, Code::ServerDiskFull);
    }
    world.store.set_full(false);
    world.clock.sleep(Duration::from_secs(10)).await;
    assert!(!world.is_paid(job).await, "it is held as before");
    let released = withheld::decide(&world.controller.money, account(CONTROLLER), job, Decision::Release).await;
    released.expect("released");
    world.paid_after(job).await;
}

#[tokio::test]
async fn what_a_controller_saw_itself_does_not_stand_out() {
    let mut world = with_usual_jobs().await;
    let gib = 1 << 30;
    let mut streamed = payable(&mut world, 1_000);
    streamed.outgoing.receipt.counters.egress_bytes = gib;
    streamed.streamed_bytes = gib;
    // It waited for five minutes, once.
    streamed.outgoing.receipt.duration_us = 300_000_000;
    streamed.outgoing.receipt.counters.memory_byte_ms = 300_000 * Limits::SLOT_BYTES;
    let job = streamed.outgoing.receipt.job;
    withheld::pay_if_usual(&world.controller.money, streamed).await;
    let held = withheld::of(&world.controller.money, job).await.expect("read");
    assert!(held.is_none(), "{held:?}");
    let mut claimed = payable(&mut world, 1_000);
    claimed.outgoing.receipt.counters.egress_bytes = gib;
    let job = claimed.outgoing.receipt.job;
    withheld::pay_if_usual(&world.controller.money, claimed).await;
    let held = withheld::of(&world.controller.money, job).await.expect("read");
    assert!(held.is_some(), "a gibibyte that nobody else saw");
}

#[tokio::test]
async fn a_run_that_cannot_be_written_down_leaves_nothing_at_stake() {
    let world = World::start(1).await;
    world.store.put_function(function());
    world.store.set_broken(true);
    let created_at_ms = now_ms();
    let refused = invoke::run(world.controller.calls.clone(), invocation(created_at_ms)).await;
    assert_eq!(
        refused.err().map(|refusal| refusal.code),
        Some(Code::ServerDiskFull.into())
    );
    assert_eq!(owed(&world), (0, 0), "nothing is owed or reserved");
    let book = world.controller.money.leases.book(world.lease).expect("known");
    let lane = book
        .lane(&world.controller.money, world.lane(0).1)
        .await
        .expect("a lane");
    let exposure_ucr = book.exposure_ucr;
    assert!(
        lane.stake(u64::MAX, Digest::of(b"next"), exposure_ucr, exposure_ucr),
        "all of it is free"
    );
}
