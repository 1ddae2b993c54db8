//! How many jobs a second one core settles: signatures, Merkle roots, rules and changes, all that `execute` does.
//!
//! `cargo run --release -p piecework-ledger --example throughput -- [jobs per settlement] [settlements]`

use std::{collections::BTreeMap, hint::black_box, time::Instant};

use piecework_ledger::*;
use piecework_model::{
    AccountId, Counters, Credits, Digest, Domain, JobId, JobStatus, LeaseId, NetworkId, Prices, Receipt, Seal,
    SecretKey, leaf, merkle_root,
};

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn genesis(jobs_per_settlement: u32) -> Genesis {
    let grant = |seed: u8, name: &str| Grant {
        name: name.parse().expect("a valid name"),
        key: key(seed).public(),
        roles: Roles::default(),
        amount: Credits(1_000_000_000_000),
    };
    Genesis {
        network_name: "throughput".into(),
        created_at_ms: 0,
        params: Params {
            commission_ppm: 30_000,
            offer_deposit: Credits::ZERO,
            window_blocks: 10,
            jobs_per_settlement_max: jobs_per_settlement,
            transactions_per_block_max: 1_000,
            lane_intervals_max: 1_000,
            epoch_blocks: 600,
        },
        peers: vec![GenesisPeer {
            key: key(9).public(),
            owner: "controller".parse().expect("a valid name"),
            address: "localhost:1".into(),
        }],
        grants: vec![grant(1, "developer"), grant(2, "provider"), grant(3, "controller")],
    }
}

fn open_lease(network: &NetworkId) -> SignedTransaction {
    let controller = key(3).public();
    let open = OpenLease {
        subject: Subject::AnyFunction,
        provider: None,
        controller: AccountId::of(&controller),
        price_caps: Prices {
            cpu_ucr_per_s: 278,
            memory_ucr_per_gib_s: 35,
            start_ucr: 2,
            egress_ucr_per_mib: 5,
        },
        budget: Credits(500_000_000_000),
        payer_keys: vec![controller],
        mailboxes: vec![controller],
        exposure_ucr: 0,
    };
    let transaction = Transaction {
        sender: AccountId::of(&key(1).public()),
        nonce: 0,
        action: Action::OpenLease(open),
    };
    SignedTransaction::sign(transaction, &key(1), network)
}

fn settled(sequence: u64) -> SettledJob {
    SettledJob {
        sequence,
        job: JobId::new(1_700_000_000_000 + sequence, [1; 10]),
        code: 0,
        input: Digest::of(&sequence.to_le_bytes()),
        price_max_ucr: 1_000,
        metered: Some(Metered {
            output: Digest::of(&sequence.to_be_bytes()),
            status: JobStatus::Ok,
            counters: Counters {
                cpu_us: 20_000 + sequence % 100,
                memory_byte_ms: (64 << 20) * 25,
                egress_bytes: 0,
            },
            price_ucr: 7,
            duration_us: 25_000,
        }),
        received_at_ms: Some(1_700_000_000_000),
    }
}

fn receipt(settle: &Settle, job: &SettledJob) -> Option<Receipt> {
    let metered = job.metered.clone()?;
    Some(Receipt {
        lease: settle.lease,
        provider: settle.provider,
        sequence: job.sequence,
        job: job.job,
        code: settle.codes[0],
        input: job.input,
        output: metered.output,
        status: metered.status,
        counters: metered.counters,
        price_ucr: metered.price_ucr,
        duration_us: metered.duration_us,
    })
}

fn settlement(network: &NetworkId, first: u64, count: u64) -> SignedTransaction {
    let lease = LeaseId::of(AccountId::of(&key(1).public()), 0);
    let provider = AccountId::of(&key(2).public());
    let mut settle = Settle {
        lease,
        provider,
        codes: vec![Digest::of(b"code")],
        jobs: (first..first + count).map(settled).collect(),
        receipts: None,
        acks: None,
    };
    let leaves: Vec<Digest> = settle
        .jobs
        .iter()
        .filter_map(|job| receipt(&settle, job))
        .map(|one| one.leaf())
        .collect();
    settle.receipts = Some(Seal::sign(&key(2), Domain::Receipts, network, (lease, provider), &leaves).signature);
    let transaction = Transaction {
        sender: AccountId::of(&key(3).public()),
        nonce: 0,
        action: Action::Settle(settle),
    };
    SignedTransaction::sign(transaction, &key(3), network)
}

fn apply(state: &mut BTreeMap<Key, Value>, changes: Changes) {
    for (key, change) in changes {
        match change {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
}

fn paid(applied: &Applied) -> usize {
    let events = applied
        .outcomes
        .iter()
        .flat_map(|outcome| outcome.result.iter().flatten());
    events.filter(|event| matches!(event, Event::JobPaid { .. })).count()
}

/// Seconds that this thread has really run, where the system tells: other programs of the machine do not count.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e9)
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<u64>().ok());
    let (batch, count) = (arguments.next().unwrap_or(1_000), arguments.next().unwrap_or(200));
    let genesis = genesis(u32::try_from(batch).expect("a batch below 2^32"));
    let network = genesis.network_id();
    let mut state = BTreeMap::new();
    apply(&mut state, genesis.state().expect("a valid genesis"));
    let mut context = BlockContext { network, height: 1 };
    let opened = execute(&state, &context, &[open_lease(&network)]);
    apply(&mut state, opened.changes);

    let blocks: Vec<SignedTransaction> = (0..count).map(|nth| settlement(&network, nth * batch, batch)).collect();
    let bytes = borsh::to_vec(&blocks[0]).expect("a vector accepts every byte").len();
    let (started, cpu_before) = (Instant::now(), cpu_seconds());
    let mut jobs = 0;
    for settlement in &blocks {
        context.height += 1;
        let applied = execute(&state, &context, std::slice::from_ref(settlement));
        jobs += paid(&applied);
        apply(&mut state, applied.changes);
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = cpu_seconds().zip(cpu_before).map(|(after, before)| after - before);
    assert_eq!(jobs as u64, batch * count, "every job is paid");
    println!(
        "{batch} jobs a settlement: {:.1} bytes a job",
        bytes as f64 / batch as f64
    );
    println!(
        "{jobs} jobs paid in {seconds:.3} s: {:.0} jobs/s",
        jobs as f64 / seconds
    );
    if let Some(cpu) = cpu {
        println!(
            "{cpu:.3} s of one core: {:.0} jobs/s when it has nothing else to do",
            jobs as f64 / cpu
        );
    }
    profile(&network, &blocks[0]);
}

/// Where the time of one settlement goes.
fn profile(network: &NetworkId, signed: &SignedTransaction) {
    let Action::Settle(settle) = &signed.transaction.action else {
        return;
    };
    let timed = |what: &str, run: &dyn Fn()| {
        let started = Instant::now();
        (0..20).for_each(|_| run());
        println!("  {what}: {:.0} us", started.elapsed().as_secs_f64() * 1e6 / 20.0);
    };
    let receipts: Vec<Receipt> = settle.jobs.iter().filter_map(|job| receipt(settle, job)).collect();
    let leaves: Vec<Digest> = receipts.iter().map(leaf).collect();
    timed("transaction signature", &|| {
        signed.verify(network).expect("signed above")
    });
    timed("transaction id", &|| {
        black_box(signed.id());
    });
    timed("receipt leaves", &|| {
        black_box(receipts.iter().map(leaf).collect::<Vec<_>>());
    });
    timed("merkle root", &|| {
        black_box(merkle_root(&leaves));
    });
}
