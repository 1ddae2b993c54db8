//! The bytes of everything that travels over a link, one of each kind, as programs out there write and read them.
//!
//! `golden/v2.txt` and `golden/v3.txt` stay for ever: a change that alters a line is a change of the protocol, and needs a new
//! version beside this one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use piecework_model::{
    AccountId, Code, Counters, Digest, Domain, EgressList, EgressPolicy, FunctionId, JobId, JobStatus, Language,
    LeaseId, Limits, NetworkId, Prices, Receipt, Rejection, Seal, SecretKey, Ticket,
};
use piecework_sandbox::{BackendName, Finished, Head, LoadError, LogLevel, Logs, Outcome, Outlet, Probe, Raised};
use tokio_util::sync::CancellationToken;

use super::{
    frames::{Answer, Ask, DeliveryFrame, OrderFrame, OrderId, ToController, ToProvider},
    handshake::{Introduction, golden::handshake},
    messages::{Opening, Part, Say, Tell},
};
use crate::{Delivery, Load, Order, Profile, Unsealed, Work};

pub(super) const NETWORK: NetworkId = NetworkId([3; 32]);

pub(super) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

const PRICES: Prices = Prices {
    start_ucr: 1,
    cpu_ucr_per_s: 2,
    memory_ucr_per_gib_s: 3,
    egress_ucr_per_mib: 4,
};

fn provider() -> AccountId {
    AccountId::of(&key(2).public())
}

pub(super) fn profile() -> Profile {
    Profile {
        account: provider(),
        name: "laptop".into(),
        prices: PRICES,
        cores: 4,
        memory_bytes: 8 << 30,
        slots: 64,
        region: "home".into(),
        labels: vec!["gpu".into(), "quiet".into()],
        probes: vec![Probe {
            backend: BackendName::Jail,
            works: true,
            languages: vec![Language::Python, Language::JavaScript],
            detail: "namespaces and cgroups".into(),
            weaker: vec!["no cgroups".into()],
            cold_us: Some(4_700),
            warm_us: None,
        }],
        egress: Some(EgressPolicy::default()),
        free_for: Some(AccountId([9; 20])),
    }
}

pub(super) fn introduction() -> Introduction {
    Introduction {
        profile: profile(),
        instance: [4; 16],
    }
}

fn work() -> Work {
    Work {
        owner: None,
        function: FunctionId([5; 12]),
        version: 7,
        name: "thumbnail".into(),
        language: Language::Python,
        code: Digest([6; 32]),
        handler: Some("main.handler".into()),
        env: BTreeMap::from([("KEY".to_owned(), "value".to_owned())]),
        limits: Limits::DEFAULT,
        egress: EgressList::default(),
        backend: BackendName::Wasm,
    }
}

fn seal() -> Seal {
    Seal::sign(
        &key(1),
        Domain::Tickets,
        &NETWORK,
        (LeaseId([1; 20]), provider()),
        &[Digest([8; 32])],
    )
}

pub(super) fn order() -> Order {
    Order {
        ticket: Ticket {
            lease: LeaseId([1; 20]),
            provider: provider(),
            sequence: 12,
            job: JobId([2; 16]),
            code: Digest([6; 32]),
            input: Digest([7; 32]),
            limits: Limits::DEFAULT,
            prices: PRICES,
            price_max_ucr: 1_000,
            deadline_ms: 1_700_000_000_000,
            replaces: Some(11),
        },
        payer: key(1).public(),
        exposure_ucr: 5_000,
        seal: Some(seal()),
        work: Arc::new(work()),
        event: Bytes::from_static(b"{\"a\":1}"),
        parameters: Bytes::from_static(b"null"),
        salt: None,
        is_tentative: false,
        cancel: CancellationToken::new(),
        body: None,
        outlet: Outlet::nowhere(),
    }
}

fn receipt() -> Receipt {
    let ticket = order().ticket;
    Receipt {
        lease: ticket.lease,
        provider: ticket.provider,
        sequence: ticket.sequence,
        job: ticket.job,
        code: ticket.code,
        input: ticket.input,
        output: Digest([8; 32]),
        status: JobStatus::Ok,
        counters: counters(),
        price_ucr: 3,
        duration_us: 250,
    }
}

fn counters() -> Counters {
    Counters {
        cpu_us: 100,
        memory_byte_ms: 200,
        egress_bytes: 300,
    }
}

fn delivery(outcome: Outcome) -> DeliveryFrame {
    let mut logs = Logs::default();
    logs.add(LogLevel::Warn, "mind\n");
    logs.lines[0].at_ms = 1_700_000_000_000;
    DeliveryFrame::from(Delivery {
        receipt: receipt(),
        mark: [6; 32],
        finished: Finished {
            outcome,
            logs,
            counters: counters(),
            memory_peak_bytes: 1 << 20,
            duration: Duration::from_micros(250),
            reusable: true,
        },
        cold: true,
        pull_us: 10,
        is_cut: false,
    })
}

fn raised() -> Raised {
    Raised {
        kind: "ValueError".into(),
        message: "no".into(),
        stack: "main.py:1".into(),
    }
}

fn outcomes() -> Vec<(&'static str, Outcome)> {
    vec![
        ("returned", Outcome::Returned(Bytes::from_static(b"42"))),
        ("raised", Outcome::Raised(raised())),
        ("timed-out", Outcome::TimedOut),
        ("stopped", Outcome::Stopped),
        ("out-of-memory", Outcome::OutOfMemory),
        ("crashed", Outcome::Crashed("signal 11".into())),
        ("output-too-large", Outcome::OutputTooLarge),
        ("output-invalid", Outcome::OutputInvalid("not JSON".into())),
    ]
}

fn rejection() -> Rejection {
    Rejection::new(Code::TicketExpired, "too late")
        .hint("a hint")
        .field("deadline")
}

pub(super) type Kinds = Vec<(String, Vec<u8>)>;

fn put<T: BorshSerialize + BorshDeserialize>(kinds: &mut Kinds, name: impl Into<String>, value: &T) {
    let bytes = borsh::to_vec(value).expect("bytes");
    let again: T = borsh::from_slice(&bytes).expect("it reads what it writes");
    assert_eq!(borsh::to_vec(&again).expect("bytes"), bytes);
    kinds.push((name.into(), bytes));
}

fn asks() -> Vec<(&'static str, Ask)> {
    let unsealed = Unsealed {
        receipt: receipt(),
        mark: [6; 32],
    };
    vec![
        ("check", Ask::Check(work())),
        ("accept-seal", Ask::AcceptSeal(seal(), vec![1, 2])),
        (
            "seal-receipts",
            Ask::SealReceipts((LeaseId([1; 20]), provider()), vec![unsealed]),
        ),
    ]
}

fn answers() -> Vec<(&'static str, Answer)> {
    vec![
        ("checked", Answer::Checked(Ok(()))),
        ("checked-code", Answer::Checked(Err(LoadError::Code(rejection())))),
        (
            "checked-unsupported",
            Answer::Checked(Err(LoadError::Unsupported { reason: "numpy".into() })),
        ),
        ("checked-failed", Answer::Checked(Err(LoadError::Failed("disk".into())))),
        ("accepted", Answer::Accepted(Err(rejection()))),
        ("sealed", Answer::Sealed(Ok(seal()))),
    ]
}

fn load() -> Load {
    Load {
        running: 1,
        instances: 2,
        instance_bytes: 3,
        draining: false,
        paused: true,
    }
}

pub(super) fn version_2() -> Kinds {
    let id = OrderId::of(&order().ticket);
    let mut kinds = handshake();
    let to = |kinds: &mut Kinds, name: &str, frame| put::<ToProvider>(kinds, format!("to-provider {name}"), &frame);
    to(
        &mut kinds,
        "order",
        ToProvider::Order(Box::new(OrderFrame::new(&order()))),
    );
    to(&mut kinds, "cancel", ToProvider::Cancel(id));
    to(&mut kinds, "confirm", ToProvider::Confirm(id));
    for (name, ask) in asks() {
        to(&mut kinds, name, ToProvider::Ask(5, Box::new(ask)));
    }
    to(&mut kinds, "forget", ToProvider::Forget(FunctionId([5; 12]), 7));
    let bytes = Bytes::from_static(b"part");
    to(
        &mut kinds,
        "chunk",
        ToProvider::Chunk {
            fetch: 1,
            total: 9,
            bytes,
        },
    );
    to(&mut kinds, "beat", ToProvider::Beat);
    let from =
        |kinds: &mut Kinds, name: &str, frame| put::<ToController>(kinds, format!("to-controller {name}"), &frame);
    for (name, outcome) in outcomes() {
        from(
            &mut kinds,
            name,
            ToController::Done(id, Box::new(Ok(delivery(outcome)))),
        );
    }
    from(
        &mut kinds,
        "refused",
        ToController::Done(id, Box::new(Err(rejection()))),
    );
    for (name, answer) in answers() {
        from(&mut kinds, name, ToController::Answer(5, Box::new(answer)));
    }
    let fetch = ToController::Fetch {
        fetch: 1,
        digest: Digest([6; 32]),
        offset: 4,
    };
    from(&mut kinds, "fetch", fetch);
    let warm = vec![(FunctionId([5; 12]), 7)];
    from(&mut kinds, "beat", ToController::Beat { load: load(), warm });
    kinds
}

pub(super) fn version_3() -> Kinds {
    let id = OrderId::of(&order().ticket);
    let mut kinds = Kinds::new();
    let opening = Opening::Order {
        order: Box::new(OrderFrame::bare(&order())),
        event_bytes: 7,
        parameters_bytes: 4,
        has_body: true,
    };
    put(&mut kinds, "opening control", &Opening::Control);
    put(&mut kinds, "opening order", &opening);
    put(&mut kinds, "opening fetch", &Opening::Fetch(id));
    put(
        &mut kinds,
        "opening bundle",
        &Opening::Bundle {
            fetch: 1,
            bytes: Some(9),
        },
    );
    put(&mut kinds, "part begun", &Part::Begun);
    let head = Head {
        status: 200,
        headers: vec![("content-type".into(), Bytes::from_static(b"text/plain"))],
    };
    put(&mut kinds, "part head", &Part::Head(head));
    put(&mut kinds, "part chunk", &Part::Chunk(Bytes::from_static(b"chunk")));
    let finished = Part::Finished {
        delivery: Box::new(delivery(Outcome::Streamed)),
        output_bytes: 0,
        is_cut: true,
    };
    put(&mut kinds, "part finished", &finished);
    put(&mut kinds, "part refused", &Part::Refused(rejection()));
    put(&mut kinds, "part unknown", &Part::Unknown);
    for (name, ask) in asks() {
        put(&mut kinds, format!("tell {name}"), &Tell::Ask(5, Box::new(ask)));
    }
    put(&mut kinds, "tell cancel", &Tell::Cancel(id));
    put(&mut kinds, "tell confirm", &Tell::Confirm(id));
    put(&mut kinds, "tell forget", &Tell::Forget(FunctionId([5; 12]), 7));
    put(&mut kinds, "tell waiting", &Tell::Waiting(vec![id]));
    put(&mut kinds, "tell beat", &Tell::Beat);
    let warm = vec![(FunctionId([5; 12]), 7)];
    put(&mut kinds, "say beat", &Say::Beat { load: load(), warm });
    for (name, answer) in answers() {
        put(&mut kinds, format!("say {name}"), &Say::Answer(5, Box::new(answer)));
    }
    put(&mut kinds, "say kept", &Say::Kept(id));
    let digest = Digest([6; 32]);
    put(&mut kinds, "say fetch", &Say::Fetch { fetch: 1, digest });
    kinds
}

fn check(golden: &str, kinds: &Kinds) {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines: Vec<String> = kinds
        .iter()
        .map(|(name, bytes)| format!("{name}: {}", hex(bytes)))
        .collect();
    let known: Vec<&str> = golden.lines().collect();
    for (line, known) in lines.iter().zip(&known) {
        assert_eq!(line, known, "these bytes are relied on");
    }
    assert_eq!(lines.len(), known.len(), "{}", lines.join("\n"));
}

#[test]
fn every_frame_of_version_2_has_the_bytes_that_old_programs_know() {
    check(include_str!("golden/v2.txt"), &version_2());
}

#[test]
fn every_message_of_version_3_has_the_bytes_that_it_had() {
    check(include_str!("golden/v3.txt"), &version_3());
}

/// What version 4 adds to version 3.
#[test]
fn every_message_of_version_4_has_the_bytes_that_it_had() {
    let mut kinds = Kinds::new();
    let opening = Opening::Salted {
        salt: piecework_model::Salt([9; 32]),
        order: Box::new(OrderFrame::bare(&order())),
        event_bytes: 7,
        parameters_bytes: 4,
        has_body: true,
    };
    put(&mut kinds, "opening salted", &opening);
    check(include_str!("golden/v4.txt"), &kinds);
}

/// What version 5 adds to version 4.
#[test]
fn every_message_of_version_5_has_the_bytes_that_it_had() {
    let mut kinds = Kinds::new();
    let opening = Opening::Tentative {
        salt: Some(piecework_model::Salt([9; 32])),
        order: Box::new(OrderFrame::bare(&order())),
        event_bytes: 7,
        parameters_bytes: 4,
        has_body: false,
    };
    put(&mut kinds, "opening tentative", &opening);
    check(include_str!("golden/v5.txt"), &kinds);
}
