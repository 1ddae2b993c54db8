//! The ledger's bytes: transactions, state and genesis. A change here is a fork of every network.
//!
//! `UPDATE_GOLDEN=1 cargo test -p piecework-ledger --test golden` writes the files anew.
#![allow(clippy::unwrap_used)]

use std::{fmt::Debug, path::PathBuf};

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_ledger::*;
use piecework_model::*;

const NETWORK: NetworkId = NetworkId([7; 32]);

fn key() -> SecretKey {
    SecretKey::from_seed([42; 32])
}

fn account() -> AccountId {
    AccountId::of(&key().public())
}

fn lease() -> LeaseId {
    LeaseId::of(account(), 3)
}

fn prices() -> Prices {
    Prices {
        start_ucr: 2,
        cpu_ucr_per_s: 278,
        memory_ucr_per_gib_s: 35,
        egress_ucr_per_mib: 5,
    }
}

fn resources() -> Resources {
    Resources {
        cores: 4,
        memory_bytes: 8 << 30,
        disk_bytes: 64 << 30,
        slots: 16,
    }
}

fn roles() -> Roles {
    Roles {
        developer: true,
        provider: false,
        peer: true,
        controller: false,
    }
}

fn name(text: &str) -> OwnerName {
    text.parse().unwrap()
}

fn metered() -> Metered {
    Metered {
        output: Digest::of(b"output"),
        status: JobStatus::TimedOut,
        counters: Counters {
            cpu_us: 20_000,
            memory_byte_ms: 1 << 40,
            egress_bytes: 3,
        },
        price_ucr: 44,
        duration_us: 25_000,
    }
}

fn settle() -> Settle {
    let both = SettledJob {
        sequence: 5,
        job: JobId::new(1_700_000_000_000, [1; 10]),
        code: 0,
        input: Digest::of(b"input"),
        price_max_ucr: 1_000,
        metered: Some(metered()),
        received_at_ms: Some(1_700_000_000_100),
    };
    let ack_alone = SettledJob {
        sequence: 9,
        metered: None,
        ..both.clone()
    };
    Settle {
        lease: lease(),
        provider: account(),
        codes: vec![Digest::of(b"code")],
        jobs: vec![both, ack_alone],
        receipts: Some(key().sign(Domain::Receipts, &NETWORK, &1u8)),
        acks: Some((key().public(), key().sign(Domain::Acks, &NETWORK, &1u8))),
    }
}

fn open_lease() -> OpenLease {
    OpenLease {
        subject: Subject::Function(FunctionId([8; 12])),
        provider: Some(account()),
        controller: account(),
        price_caps: prices(),
        budget: Credits(5_000_000),
        payer_keys: vec![key().public()],
        mailboxes: vec![key().public()],
        exposure_ucr: 1_000,
    }
}

fn actions() -> Vec<(&'static str, Action)> {
    let (lease, amount) = (lease(), Credits(123_456));
    let ticket = OpenTicket {
        sequence: 5,
        job: JobId::new(1_700_000_000_000, [1; 10]),
        code: Digest::of(b"code"),
        input: Digest::of(b"input"),
        price_max_ucr: 1_000,
    };
    let register = Register {
        name: name("ada"),
        roles: roles(),
        sponsor: Some((account(), amount, key().sign(Domain::Sponsor, &NETWORK, &1u8))),
        owner: Some((account(), key().sign(Domain::Owner, &NETWORK, &1u8))),
    };
    let rotate = RotateKey {
        new_key: key().public(),
        proof: key().sign(Domain::Owner, &NETWORK, &account()),
    };
    let offer = PutOffer {
        prices: prices(),
        resources: resources(),
        backends: vec!["wasm".into(), "jail".into()],
        region: "lab".into(),
        labels: vec!["gpu=no".into()],
        expires_at_height: 77,
    };
    let delegate = DelegatePayer {
        lease,
        key: key().public(),
        add: true,
        mailbox: true,
    };
    let jobs = OpenJobs {
        lease,
        provider: account(),
        tickets: vec![ticket],
    };
    let release = ReleaseJobs {
        lease,
        provider: account(),
        sequences: vec![5, 9],
    };
    let pay = PayClaims {
        lease,
        provider: account(),
        sequences: vec![5, 9],
    };
    let mismatch = ReportMismatch {
        lease,
        receipt: sealed(receipt()),
        rerun: sealed(receipt()),
    };
    let vote = Vote {
        proposer: account(),
        change: add_peer().digest(),
    };
    let set_rules = SetRules {
        rules: 2,
        from_height: 1_203,
    };
    vec![
        ("register", Action::Register(register)),
        ("rotate-key", Action::RotateKey(rotate)),
        ("transfer", Action::Transfer(Transfer { to: account(), amount })),
        ("put-offer", Action::PutOffer(offer)),
        ("drop-offer", Action::DropOffer(DropOffer {})),
        ("open-lease", Action::OpenLease(open_lease())),
        ("top-up", Action::TopUp(TopUp { lease, amount })),
        ("delegate-payer", Action::DelegatePayer(delegate)),
        ("open-jobs", Action::OpenJobs(jobs)),
        ("release-jobs", Action::ReleaseJobs(release)),
        ("settle", Action::Settle(settle())),
        ("close-lease", Action::CloseLease(CloseLease { lease })),
        ("expire-lease", Action::ExpireLease(ExpireLease { lease })),
        ("claim", Action::Claim(claim())),
        ("pay-claims", Action::PayClaims(pay)),
        (
            "challenge-receipt",
            challenge(Evidence::OtherReceipt(Box::new(sealed(receipt())))),
        ),
        (
            "challenge-replaced",
            challenge(Evidence::Replaced(Box::new(sealed(receipt())))),
        ),
        ("report-mismatch", Action::ReportMismatch(Box::new(mismatch))),
        (
            "set-limit",
            Action::SetLimit(SetLimit {
                account: account(),
                limit: amount,
            }),
        ),
        (
            "cover-debt",
            Action::CoverDebt(CoverDebt {
                account: account(),
                amount,
            }),
        ),
        ("propose-add", propose(add_peer())),
        ("propose-remove", propose(Change::RemovePeer(key().public()))),
        ("propose-params", propose(Change::SetParams(genesis().params))),
        ("propose-rules", propose(Change::SetRules(set_rules))),
        ("vote", Action::Vote(vote)),
        ("pay-peers", Action::PayPeers(PayPeers {})),
    ]
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
        prices: prices(),
        price_max_ucr: 1_000,
        deadline_ms: 1_700_000_060_000,
        replaces: Some(4),
    }
}

fn receipt() -> Receipt {
    let (ticket, metered) = (ticket(), metered());
    Receipt {
        lease: ticket.lease,
        provider: ticket.provider,
        sequence: ticket.sequence,
        job: ticket.job,
        code: ticket.code,
        input: ticket.input,
        output: metered.output,
        status: metered.status,
        counters: metered.counters,
        price_ucr: metered.price_ucr,
        duration_us: metered.duration_us,
    }
}

fn sealed<T: BorshSerialize>(member: T) -> Sealed<T> {
    let leaves = [leaf(&member), Digest::of(b"another")];
    Sealed {
        member,
        proof: merkle_proof(&leaves, 0).unwrap(),
        count: 2,
        signature: key().sign(Domain::Receipts, &NETWORK, &1u8),
    }
}

fn claim() -> Claim {
    let job = ClaimedJob {
        ticket: ticket(),
        metered: metered(),
        received_at_ms: Some(1_700_000_000_100),
    };
    let batch = TicketBatch {
        payer: key().public(),
        signature: key().sign(Domain::Tickets, &NETWORK, &1u8),
        tickets: vec![
            BatchTicket::Claimed(Box::new(job)),
            BatchTicket::Other(Digest::of(b"leaf")),
        ],
    };
    Claim {
        lease: lease(),
        batches: vec![batch],
        acks: Some((key().public(), key().sign(Domain::Acks, &NETWORK, &1u8))),
    }
}

fn challenge(evidence: Evidence) -> Action {
    Action::Challenge(Challenge {
        lease: lease(),
        provider: account(),
        sequence: 5,
        evidence,
    })
}

fn add_peer() -> Change {
    Change::AddPeer(AddPeer {
        key: key().public(),
        owner: account(),
        address: "peer.example:7000".into(),
        proof: key().sign(Domain::Owner, &NETWORK, &account()),
    })
}

fn propose(change: Change) -> Action {
    Action::Propose(Propose { change })
}

fn genesis() -> Genesis {
    Genesis {
        network_name: "golden".into(),
        created_at_ms: 1_700_000_000_000,
        params: Params {
            commission_ppm: 30_000,
            offer_deposit: Credits(1_000_000),
            window_blocks: 600,
            jobs_per_settlement_max: 1_000,
            transactions_per_block_max: 2_000,
            lane_intervals_max: 1_000,
            epoch_blocks: 600,
        },
        peers: vec![GenesisPeer {
            key: key().public(),
            owner: name("ada"),
            address: "peer.example:7000".into(),
        }],
        grants: vec![Grant {
            name: name("ada"),
            key: key().public(),
            roles: roles(),
            amount: Credits(1_000_000_000),
        }],
    }
}

/// Compares with the file, or writes it when asked to.
fn pinned(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.hex"));
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    let text: String = bytes.chunks(32).map(line).collect();
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
    for length in 0..bytes.len() {
        assert!(
            T::try_from_slice(&bytes[..length]).is_err(),
            "{name} cut to {length} bytes is refused"
        );
    }
    let longer = [bytes, vec![0]].concat();
    assert!(
        T::try_from_slice(&longer).is_err(),
        "{name} with a byte too many is refused"
    );
}

#[test]
fn every_action_keeps_its_encoding_its_signature_and_its_id() {
    for (name, action) in actions() {
        let transaction = Transaction {
            sender: account(),
            nonce: 3,
            action,
        };
        let signed = SignedTransaction::sign(transaction, &key(), &NETWORK);
        signed.verify(&NETWORK).unwrap();
        pinned_value(&format!("transaction.{name}"), &signed);
        pinned(&format!("transaction.{name}.id"), &signed.id().0.0);
    }
}

#[test]
fn a_genesis_keeps_its_encoding_and_its_network_id() {
    pinned_value("genesis", &genesis());
    pinned("genesis.network-id", &genesis().network_id().0);
    let state: Vec<(Key, Option<Value>)> = genesis().state().unwrap().into_iter().collect();
    pinned_value("genesis.state", &state);
}

fn state() -> Vec<(&'static str, Key, Value)> {
    let job = OpenJob {
        job: JobId::new(1_700_000_000_000, [1; 10]),
        code: Digest::of(b"code"),
        input: Digest::of(b"input"),
        price_max_ucr: 1_000,
        metered: Some(metered()),
        received_at_ms: None,
        opened_at_height: 12,
        claimed_until: Some(612),
    };
    let lane = Lane {
        taken: vec![(0, 5), (7, 9)],
        paid: Credits(4_400),
        commission: Credits(132),
        jobs: 7,
    };
    let offer = Offer {
        prices: prices(),
        resources: resources(),
        backends: vec!["wasm".into()],
        region: "lab".into(),
        labels: vec![],
        expires_at_height: 77,
        deposit: Credits(1_000_000),
    };
    let open = open_lease();
    let held = Lease {
        developer: account(),
        subject: Subject::Pod(Digest::of(b"pod")),
        provider: None,
        controller: account(),
        price_caps: prices(),
        budget: open.budget,
        used: Credits(4_400),
        reserved: Credits(44),
        payer_keys: open.payer_keys,
        former_payers: vec![(key().public(), 700)],
        mailboxes: open.mailboxes,
        exposure_ucr: 1_000,
        window_blocks: 600,
        state: LeaseState::Draining { until_height: 900 },
        open_jobs: 1,
        claimed_jobs: 1,
    };
    let peer = Peer {
        key: key().public(),
        owner: account(),
        address: "peer.example:7000".into(),
        since_height: 40,
    };
    let next = NextCommittee {
        from_height: 1_200,
        peers: vec![peer.clone(), peer.clone()],
    };
    let committee = Committee {
        peers: vec![peer],
        next: Some(next),
    };
    let rules = Rules {
        now: 1,
        next: Some(NextRules {
            from_height: 1_203,
            rules: 2,
        }),
    };
    let proposal = Proposal {
        change: add_peer(),
        votes: vec![account()],
        expires_at_height: 100_012,
    };
    let mismatch = Mismatch {
        job: JobId::new(1_700_000_000_000, [1; 10]),
        code: Digest::of(b"code"),
        input: Digest::of(b"input"),
        output: Digest::of(b"output"),
        other_provider: account(),
        other_output: Digest::of(b"other"),
        reported_at_height: 12,
    };
    vec![
        ("committee", Key::Committee, Value::Committee(committee)),
        ("rules", Key::Rules, Value::Rules(rules)),
        ("proposal", Key::Proposal(account()), Value::Proposal(proposal)),
        (
            "mismatch",
            Key::Mismatch(lease(), account(), 5),
            Value::Mismatch(mismatch),
        ),
        ("offer", Key::Offer(account()), Value::Offer(offer)),
        ("lease", Key::Lease(lease()), Value::Lease(held)),
        ("lane", Key::Lane(lease(), account()), Value::Lane(lane)),
        ("open-job", Key::OpenJob(lease(), account(), 5), Value::OpenJob(job)),
    ]
}

/// Params, pools, accounts and names are pinned by the genesis state.
#[test]
fn the_state_keeps_its_encoding() {
    for (name, key, value) in state() {
        pinned_value(&format!("state.{name}"), &(key, value));
    }
}
