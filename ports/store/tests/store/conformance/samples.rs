//! Records to test with: all different by a number, all fields set to something.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use piecework_model::{
    AccountId, BackendName, Counters, Digest, EgressList, FunctionId, FunctionName, JobId, JobStatus, Language,
    LeaseId, Limits, OwnerName, PublicKey,
};
use piecework_scheduler::Placement;

use piecework_store::{
    AcceptedJob, BackendReason, Function, Idempotency, Job, JobState, Policy, Roles, Scope, Settlement, Token, User,
    Version,
};

/// 2026-01-01, the time samples begin at.
pub const START_MS: u64 = 1_767_225_600_000;

/// Never the same twice in a process.
pub fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn bytes<const N: usize>(kind: &str, number: u64) -> [u8; N] {
    Digest::of_value(kind, &number).0[..N]
        .try_into()
        .expect("at most 32 bytes")
}

pub fn account(number: u64) -> AccountId {
    AccountId(bytes("sample account", number))
}

pub fn function_id(number: u64) -> FunctionId {
    FunctionId(bytes("sample function", number))
}

pub fn lease(number: u64) -> LeaseId {
    LeaseId(bytes("sample lease", number))
}

pub fn digest(number: u64) -> Digest {
    Digest(bytes("sample digest", number))
}

/// A second after the one before.
pub fn job_id(number: u64) -> JobId {
    JobId::new(START_MS + number * 1_000, bytes("sample job", number))
}

pub fn function_name(number: u64) -> FunctionName {
    format!("sample-{number:08}").parse().expect("a name")
}

pub fn user(number: u64) -> User {
    let name: OwnerName = format!("user-{number}").parse().expect("a name");
    User {
        account: account(number),
        name,
        public_key: PublicKey(bytes("sample key", number)),
        password_hash: Some("$argon2id$sample".to_owned()),
        sealed_key: Some(vec![1, 2, 3]),
        roles: Roles {
            developer: true,
            ..Roles::default()
        },
        operator: true,
        created_at_ms: START_MS + number,
    }
}

pub fn token(number: u64, owner: AccountId) -> Token {
    Token {
        id: format!("tok_{number}"),
        hash: bytes("sample token", number),
        account: owner,
        scopes: BTreeSet::from([Scope::Invoke, Scope::View]),
        label: "laptop".to_owned(),
        created_at_ms: START_MS + number,
        expires_at_ms: number.is_multiple_of(2).then_some(START_MS + 1_000_000),
        parent: None,
    }
}

pub fn function(number: u64, owner: AccountId) -> Function {
    Function {
        id: function_id(number),
        owner,
        owner_name: "user-1".parse().expect("a name"),
        name: function_name(number),
        live_version: 1,
        public: false,
        concurrency: 8,
        created_at_ms: START_MS,
        updated_at_ms: START_MS,
        policy: Policy::default(),
    }
}

pub fn version(function: FunctionId, number: u32) -> Version {
    Version {
        function,
        version: number,
        language: Language::Python,
        code: digest(u64::from(number)),
        handler: Some("main.handler".to_owned()),
        limits: Limits::DEFAULT,
        backend: BackendName::Wasm,
        backend_reason: BackendReason::Chosen("the default for python".to_owned()),
        env: BTreeMap::from([("MODE".to_owned(), "test".to_owned())]),
        sealed_secrets: vec![0, 255, 7],
        secret_names: vec!["TOKEN".to_owned()],
        packages: vec!["requests==2".to_owned()],
        strict: true,
        egress: EgressList::parse(&["*.example.org:443".to_owned()]).expect("a destination"),
        placement: Placement {
            region: Some("here".to_owned()),
            ..Placement::default()
        },
        rerun_percent: 5,
        stream_bytes: 9,
        site: piecework_store::Site::None,
        bundle_bytes: 1_000,
        image: None,
        created_at_ms: START_MS + 5,
    }
}

/// A job that succeeded and is to be settled.
pub fn finished(number: u64, function: FunctionId, developer: AccountId) -> Job {
    let id = job_id(number);
    Job {
        provider: Some(account(7_000_001)),
        backend: Some(BackendName::Wasm),
        state: JobState::Succeeded,
        cold: number.is_multiple_of(3),
        queued_us: 11,
        pull_us: 22,
        duration_us: 1_000 + number,
        counters: Counters {
            cpu_us: 900 + number,
            memory_byte_ms: 1 << 30,
            egress_bytes: 5,
        },
        memory_peak_bytes: 1_000_000 + number,
        price_ucr: 3 + number,
        received: true,
        replaces: Some(job_id(0)),
        rerun_of: Some(job_id(1)),
        settlement: Some(settlement(number)),
        passed_over: Some("[]".to_owned()),
        output: Some(format!("{{\"n\":{number}}}").into_bytes()),
        logs: format!("line of {number}\n"),
        ..Job::queued(id, (function, 1), function_name(1), developer, id.created_at_ms())
    }
}

pub fn settlement(number: u64) -> Settlement {
    Settlement {
        lease: lease(1),
        sequence: number,
        code: digest(1),
        input: digest(2),
        output: digest(3),
        status: JobStatus::Ok,
        price_max_ucr: 1_000,
        received_at_ms: Some(START_MS + 9),
        mark: [9; 32],
    }
}

pub fn accepted(number: u64, function: FunctionId, developer: AccountId) -> AcceptedJob {
    let id = job_id(number);
    AcceptedJob {
        id,
        function,
        function_name: function_name(1),
        version: 1,
        developer,
        caller: developer,
        input: Bytes::from(format!("[{number}]")),
        parameters: "{}".to_owned(),
        created_at_ms: id.created_at_ms(),
        deadline_ms: id.created_at_ms() + 60_000,
        idempotency: None,
    }
}

pub fn idempotency(key: &str, request: u64, account: AccountId) -> Idempotency {
    Idempotency {
        account,
        key: key.to_owned(),
        request: digest(request),
    }
}
