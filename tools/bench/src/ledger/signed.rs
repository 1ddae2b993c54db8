//! The bench's network on paper: its genesis, its keys, and signed transactions.

use std::net::SocketAddr;

use anyhow::Result;
use piecework_ledger::{
    Action, Genesis, GenesisPeer, Grant, Metered, OpenLease, Params, Roles, Settle, SettledJob, SignedTransaction,
    Subject, Transaction, Transfer,
};
use piecework_model::{
    AccountId, Counters, Credits, Digest, Domain, JobId, JobStatus, LeaseId, NetworkId, Prices, Receipt, Seal,
    SecretKey,
};

/// Accounts with credits: senders, developers and providers.
const ACCOUNTS: u32 = 800;
pub const GRANT: i128 = 1_000_000_000_000;
const PRICE_UCR: u64 = 25;

pub fn key(number: u32) -> SecretKey {
    let mut seed = [0x11; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    SecretKey::from_seed(seed)
}

/// Consensus keys are apart from account keys.
pub fn peer_key(number: usize) -> SecretKey {
    let mut seed = [0xee; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    SecretKey::from_seed(seed)
}

fn name(number: u32) -> String {
    format!("account-{number}")
}

/// The same in every process.
pub fn genesis(addresses: &[SocketAddr]) -> Result<Genesis> {
    let roles = Roles {
        developer: true,
        provider: true,
        peer: true,
        controller: true,
    };
    let grant = |number: u32| -> Result<Grant> {
        Ok(Grant {
            name: name(number).parse()?,
            key: key(number).public(),
            roles,
            amount: Credits(GRANT),
        })
    };
    let peer = |(number, address): (usize, &SocketAddr)| -> Result<GenesisPeer> {
        Ok(GenesisPeer {
            key: peer_key(number).public(),
            owner: name(0).parse()?,
            address: address.to_string(),
        })
    };
    Ok(Genesis {
        network_name: "bench".to_owned(),
        created_at_ms: 0,
        params: Params {
            commission_ppm: 30_000,
            offer_deposit: Credits(1_000),
            window_blocks: 3_600,
            jobs_per_settlement_max: 1_000,
            transactions_per_block_max: 2_000,
            lane_intervals_max: 4_096,
            epoch_blocks: 240,
        },
        peers: addresses.iter().enumerate().map(peer).collect::<Result<_>>()?,
        grants: (0..ACCOUNTS).map(grant).collect::<Result<_>>()?,
    })
}

pub fn account(number: u32) -> AccountId {
    AccountId::of(&key(number).public())
}

fn sign(number: u32, nonce: u64, action: Action, network: &NetworkId) -> SignedTransaction {
    let transaction = Transaction {
        sender: account(number),
        nonce,
        action,
    };
    SignedTransaction::sign(transaction, &key(number), network)
}

pub fn transfer(network: &NetworkId, from: u32, nonce: u64, to: u32) -> SignedTransaction {
    let action = Action::Transfer(Transfer {
        to: account(to),
        amount: Credits(1),
    });
    sign(from, nonce, action, network)
}

/// A lease whose payer and mailbox is the developer's own key.
pub fn open_lease(network: &NetworkId, developer: u32, nonce: u64, budget: i128) -> (LeaseId, SignedTransaction) {
    let action = Action::OpenLease(OpenLease {
        subject: Subject::AnyFunction,
        provider: None,
        controller: account(developer),
        price_caps: Prices {
            start_ucr: 1_000_000,
            cpu_ucr_per_s: 1_000_000,
            memory_ucr_per_gib_s: 1_000_000,
            egress_ucr_per_mib: 1_000_000,
        },
        budget: Credits(budget),
        payer_keys: vec![key(developer).public()],
        mailboxes: vec![key(developer).public()],
        exposure_ucr: 1_000_000,
    });
    (
        LeaseId::of(account(developer), nonce),
        sign(developer, nonce, action, network),
    )
}

/// What varies from job to job, without a source of entropy: as incompressible as the real thing.
fn noise(provider: u32, sequence: u64, of: &str) -> Digest {
    Digest::of(format!("{provider} {sequence} {of}").as_bytes())
}

fn receipt(lease: LeaseId, provider: u32, sequence: u64) -> Receipt {
    let random = noise(provider, sequence, "numbers").0;
    let number =
        |at: usize, below: u64| u64::from(u32::from_le_bytes([random[at], random[at + 1], random[at + 2], 0])) % below;
    let mut tail = [0; 10];
    tail.copy_from_slice(&random[22..]);
    Receipt {
        lease,
        provider: account(provider),
        sequence,
        job: JobId::new(1_700_000_000_000 + sequence / 3, tail),
        code: Digest::of(b"code"),
        input: noise(provider, sequence, "input"),
        output: noise(provider, sequence, "output"),
        status: JobStatus::Ok,
        counters: Counters {
            cpu_us: 500 + number(0, 20_000),
            memory_byte_ms: (1 << 30) + number(3, 1 << 24),
            egress_bytes: number(6, 4_000),
        },
        price_ucr: PRICE_UCR + number(9, 20),
        duration_us: 700 + number(12, 30_000),
    }
}

/// Receipts and times of arrival of the jobs `[from, from + count)` of one lane.
pub fn settle(
    network: &NetworkId,
    lease: LeaseId,
    developer: u32,
    provider: u32,
    from: u64,
    count: u64,
) -> SignedTransaction {
    let receipts: Vec<Receipt> = (from..from + count)
        .map(|sequence| receipt(lease, provider, sequence))
        .collect();
    let leaves: Vec<Digest> = receipts.iter().map(Receipt::leaf).collect();
    let lane = (lease, account(provider));
    let seal = Seal::sign(&key(provider), Domain::Receipts, network, lane, &leaves);
    let settled = |receipt: &Receipt| SettledJob {
        sequence: receipt.sequence,
        job: receipt.job,
        code: 0,
        input: receipt.input,
        price_max_ucr: 10_000,
        metered: Some(Metered {
            output: receipt.output,
            status: receipt.status,
            counters: receipt.counters,
            price_ucr: receipt.price_ucr,
            duration_us: receipt.duration_us,
        }),
        received_at_ms: Some(1_700_000_000_000 + receipt.sequence / 3 + receipt.duration_us / 1_000),
    };
    let action = Action::Settle(Settle {
        lease,
        provider: account(provider),
        codes: vec![Digest::of(b"code")],
        jobs: receipts.iter().map(settled).collect(),
        receipts: Some(seal.signature),
        acks: None,
    });
    sign(developer, 0, action, network)
}
