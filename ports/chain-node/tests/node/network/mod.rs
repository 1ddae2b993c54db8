//! A small network for tests: keys, a genesis, signed transactions.

#![allow(dead_code, clippy::unwrap_used)]

use std::{net::SocketAddr, path::Path, time::Duration};

use piecework_chain::{Chain, Node};
use piecework_chain_node::{Options, start};
use piecework_ledger::{
    Account, Action, Genesis, GenesisPeer, Grant, Key, Metered, OpenLease, Params, Pools, Roles, Settle, SettledJob,
    SignedTransaction, Subject, Transaction, Transfer, Value,
};
use piecework_model::{
    AccountId, Counters, Credits, Digest, Domain, JobId, JobStatus, LeaseId, NetworkId, OwnerName, Prices, Receipt,
    Seal, SecretKey,
};

pub const GRANT: i128 = 1_000_000_000;

pub fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32])
}

pub fn account(number: u8) -> AccountId {
    AccountId::of(&key(number).public())
}

/// Consensus keys are apart from account keys.
pub fn peer_key(number: u8) -> SecretKey {
    SecretKey::from_seed([200 + number; 32])
}

pub fn params() -> Params {
    Params {
        commission_ppm: 30_000,
        offer_deposit: Credits(1_000),
        window_blocks: 100,
        jobs_per_settlement_max: 1_000,
        transactions_per_block_max: 2_000,
        lane_intervals_max: 100,
        epoch_blocks: 20,
    }
}

/// A network of `peers` peers, at these addresses, with `accounts` accounts that hold [`GRANT`] each.
pub fn genesis(accounts: u8, addresses: &[SocketAddr]) -> Genesis {
    let grant = |number: u8| Grant {
        name: format!("account-{number}").parse::<OwnerName>().unwrap(),
        key: key(number).public(),
        roles: Roles {
            developer: true,
            provider: true,
            peer: true,
            controller: true,
        },
        amount: Credits(GRANT),
    };
    let peer = |(number, address): (usize, &SocketAddr)| GenesisPeer {
        key: peer_key(number as u8).public(),
        owner: "account-0".parse().unwrap(),
        address: address.to_string(),
    };
    Genesis {
        network_name: "test".to_owned(),
        created_at_ms: 1_700_000_000_000,
        params: params(),
        peers: addresses.iter().enumerate().map(peer).collect(),
        grants: (0..accounts).map(grant).collect(),
    }
}

pub fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub fn alone(accounts: u8) -> Genesis {
    genesis(accounts, &[any_port()])
}

pub fn options(directory: &Path, genesis: Genesis) -> Options {
    let mut options = Options::new(directory.to_owned(), genesis, peer_key(0), any_port());
    options.heartbeat = Duration::from_millis(250);
    options
}

pub async fn start_alone(directory: &Path, accounts: u8) -> Box<dyn Node> {
    start(options(directory, alone(accounts))).await.unwrap()
}

pub fn sign(number: u8, nonce: u64, action: Action, network: &NetworkId) -> SignedTransaction {
    let transaction = Transaction {
        sender: account(number),
        nonce,
        action,
    };
    SignedTransaction::sign(transaction, &key(number), network)
}

pub fn transfer(network: &NetworkId, from: u8, nonce: u64, to: u8, amount: i128) -> SignedTransaction {
    let action = Action::Transfer(Transfer {
        to: account(to),
        amount: Credits(amount),
    });
    sign(from, nonce, action, network)
}

pub async fn balance(chain: &dyn Chain, number: u8) -> Account {
    match chain.get(&Key::Account(account(number))).await.unwrap() {
        Some(Value::Account(account)) => account,
        other => panic!("account {number} is {other:?}"),
    }
}

/// All credits of the accounts and pools.
pub async fn supply(chain: &dyn Chain, accounts: u8) -> i128 {
    let mut sum = 0;
    for number in 0..accounts {
        sum += balance(chain, number).await.posted.0;
    }
    match chain.get(&Key::Pools).await.unwrap() {
        Some(Value::Pools(Pools { peers, insurance })) => sum + peers.0 + insurance.0,
        other => panic!("the pools are {other:?}"),
    }
}

/// Account `developer` opens a lease whose payer and mailbox is its own key.
pub fn open_lease(network: &NetworkId, developer: u8, nonce: u64, budget: i128) -> (LeaseId, SignedTransaction) {
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
    let lease = LeaseId::of(account(developer), nonce);
    (lease, sign(developer, nonce, action, network))
}

/// Receipts and acks of jobs `[from, from + count)` by `provider`, at 10 ucr each.
pub fn settle(
    network: &NetworkId,
    lease: LeaseId,
    developer: u8,
    provider: u8,
    from: u64,
    count: u64,
) -> SignedTransaction {
    let code = Digest::of(b"code");
    let receipt = |sequence: u64| Receipt {
        lease,
        provider: account(provider),
        sequence,
        job: JobId::new(1_700_000_000_000 + sequence, [7; 10]),
        code,
        input: Digest::of(b"input"),
        output: Digest::of(&sequence.to_le_bytes()),
        status: JobStatus::Ok,
        counters: Counters {
            cpu_us: 10,
            ..Counters::default()
        },
        price_ucr: 10,
        duration_us: 10,
    };
    let receipts: Vec<Receipt> = (from..from + count).map(receipt).collect();
    let leaves: Vec<Digest> = receipts.iter().map(Receipt::leaf).collect();
    let lane = (lease, account(provider));
    let seal = Seal::sign(&key(provider), Domain::Receipts, network, lane, &leaves);
    let jobs = receipts.into_iter().map(|receipt| SettledJob {
        sequence: receipt.sequence,
        job: receipt.job,
        code: 0,
        input: receipt.input,
        price_max_ucr: 10,
        metered: Some(Metered {
            output: receipt.output,
            status: receipt.status,
            counters: receipt.counters,
            price_ucr: receipt.price_ucr,
            duration_us: receipt.duration_us,
        }),
        received_at_ms: Some(1_700_000_000_000),
    });
    let action = Action::Settle(Settle {
        lease,
        provider: account(provider),
        codes: vec![code],
        jobs: jobs.collect(),
        receipts: Some(seal.signature),
        acks: None,
    });
    sign(developer, 0, action, network)
}
