//! The bytes that others depend on: a change here is a change of the network's language.
//!
//! `UPDATE_GOLDEN=1 cargo test -p piecework-model --test model` writes the files anew.
use std::{fmt::Debug, path::PathBuf};

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::*;

fn key() -> SecretKey {
    SecretKey::from_seed([42; 32])
}

const NETWORK: NetworkId = NetworkId([7; 32]);

fn account() -> AccountId {
    AccountId::of(&key().public())
}

fn lease() -> LeaseId {
    LeaseId::of(account(), 3)
}

fn ticket() -> Ticket {
    Ticket {
        lease: lease(),
        provider: account(),
        sequence: 5,
        job: JobId::new(1_700_000_000_000, [1; 10]),
        code: Digest::of(b"code"),
        input: Digest::of(b"input"),
        limits: Limits::DEFAULT,
        prices: Prices {
            start_ucr: 2,
            cpu_ucr_per_s: 278,
            memory_ucr_per_gib_s: 35,
            egress_ucr_per_mib: 5,
        },
        price_max_ucr: 1_000,
        deadline_ms: 1_700_000_005_000,
        replaces: Some(4),
    }
}

fn receipt() -> Receipt {
    Receipt {
        lease: lease(),
        provider: account(),
        sequence: 5,
        job: JobId::new(1_700_000_000_000, [1; 10]),
        code: Digest::of(b"code"),
        input: Digest::of(b"input"),
        output: Digest::of(b"output"),
        status: JobStatus::OutOfMemory,
        counters: Counters {
            cpu_us: 20_000,
            memory_byte_ms: 1 << 40,
            egress_bytes: 3,
        },
        price_ucr: 44,
        duration_us: 25_000,
    }
}

fn ack() -> Ack {
    Ack {
        job: JobId::new(1_700_000_000_000, [1; 10]),
        output: Digest::of(b"output"),
        received_at_ms: 1_700_000_000_100,
    }
}

/// Compares with the file, or writes it when asked to.
fn pinned(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.hex"));
    let lines: Vec<String> = bytes.chunks(32).map(hex::encode).collect();
    let text = lines.join("\n") + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(known, text, "the encoding of {name} has changed");
}

fn pinned_value<T: BorshSerialize + BorshDeserialize + PartialEq + Debug>(name: &str, value: &T) {
    let bytes = borsh::to_vec(value).unwrap();
    pinned(name, &bytes);
    assert_eq!(&T::try_from_slice(&bytes).unwrap(), value, "{name} decodes to itself");
    assert!(
        T::try_from_slice(&bytes[..bytes.len() - 1]).is_err(),
        "{name} cut short is refused"
    );
    let longer = [bytes, vec![0]].concat();
    assert!(
        T::try_from_slice(&longer).is_err(),
        "{name} with a byte too many is refused"
    );
}

#[test]
fn papers_keep_their_encoding_and_their_leaves() {
    pinned_value("ticket", &ticket());
    pinned_value("receipt", &receipt());
    pinned_value("ack", &ack());
    pinned("ticket.leaf", &ticket().leaf().0);
    pinned("receipt.leaf", &receipt().leaf().0);
    pinned("ack.leaf", &ack().leaf().0);
}

#[test]
fn ids_are_made_the_same_way() {
    pinned("public-key", &key().public().0);
    pinned("account-id", &account().0);
    pinned("lease-id", &lease().0);
    pinned_value("job-id", &JobId::new(1_700_000_000_000, [1; 10]));
    pinned("digest-of-bytes", &Digest::of(b"piecework").0);
    pinned("digest-of-value", &Digest::of_value("a tag", &(1u8, 2u64)).0);
}

#[test]
fn seals_keep_their_signatures() {
    let leaves = [ticket().leaf(), receipt().leaf(), ack().leaf()];
    for (name, domain) in [
        ("seal.tickets", Domain::Tickets),
        ("seal.receipts", Domain::Receipts),
        ("seal.acks", Domain::Acks),
    ] {
        let seal = Seal::sign(&key(), domain, &NETWORK, (lease(), account()), &leaves);
        pinned_value(name, &seal);
        seal.verify(&key().public(), domain, &NETWORK, &leaves).unwrap();
    }
}

#[test]
fn every_domain_signs_in_its_own_way() {
    let domains = [
        ("transaction", Domain::Transaction),
        ("tickets", Domain::Tickets),
        ("receipts", Domain::Receipts),
        ("acks", Domain::Acks),
        ("login", Domain::Login),
        ("owner", Domain::Owner),
        ("sponsor", Domain::Sponsor),
        ("request", Domain::Request),
    ];
    for (name, domain) in domains {
        let signature = key().sign(domain, &NETWORK, &account());
        pinned(&format!("signature.{name}"), &signature.0);
    }
}

#[test]
fn merkle_roots_of_every_small_size_are_kept() {
    let leaves: Vec<Digest> = (0u8..9).map(|nth| leaf(&nth)).collect();
    let roots: Vec<u8> = (0..=9).flat_map(|size| merkle_root(&leaves[..size]).0).collect();
    pinned("merkle-roots", &roots);
    pinned_value("merkle-proof", &merkle_proof(&leaves, 6).unwrap());
}
