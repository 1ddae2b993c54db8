//! Orders for the tests of this crate.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use piecework_model::{
    AccountId, Digest, FunctionId, JobId, Language, LeaseId, Limits, NetworkId, Prices, SecretKey, Ticket,
};
use piecework_queue::{Order, Profile, Work, input_digest};
use piecework_sandbox::BackendName;
use tokio_util::sync::CancellationToken;

pub(crate) const NETWORK: NetworkId = NetworkId([9; 32]);
pub(crate) const NOW_MS: u64 = 1_000_000;
const PRICES: Prices = Prices {
    start_ucr: 1,
    cpu_ucr_per_s: 278,
    memory_ucr_per_gib_s: 35,
    egress_ucr_per_mib: 10,
};

pub(crate) fn payer() -> SecretKey {
    SecretKey::from_seed([1; 32])
}

pub(crate) fn profile() -> Profile {
    Profile {
        account: AccountId([2; 20]),
        name: "provider".into(),
        prices: PRICES,
        cores: 2,
        memory_bytes: 1 << 30,
        slots: 4,
        region: "here".into(),
        labels: Vec::new(),
        probes: Vec::new(),
        egress: None,
        free_for: None,
    }
}

/// An order that fits, with `sequence`.
pub(crate) fn order(sequence: u64) -> Order {
    let (event, parameters) = (Bytes::from_static(b"{}"), Bytes::from_static(b"null"));
    let work = Arc::new(Work {
        owner: None,
        function: FunctionId([3; 12]),
        version: 1,
        name: "f".into(),
        language: Language::Python,
        code: Digest::of(b"code"),
        handler: None,
        env: BTreeMap::new(),
        limits: Limits::DEFAULT,
        egress: Default::default(),
        backend: BackendName::Wasm,
    });
    let ticket = Ticket {
        lease: LeaseId([4; 20]),
        provider: profile().account,
        sequence,
        job: JobId([5; 16]),
        code: work.code,
        input: input_digest(&event, &parameters),
        limits: work.limits,
        prices: PRICES,
        price_max_ucr: 1_000,
        deadline_ms: NOW_MS + 1,
        replaces: None,
    };
    Order {
        ticket,
        payer: payer().public(),
        exposure_ucr: 2_500,
        seal: None,
        work,
        event,
        parameters,
        salt: None,
        is_tentative: false,
        cancel: CancellationToken::new(),
        body: None,
        outlet: piecework_sandbox::Outlet::nowhere(),
    }
}
