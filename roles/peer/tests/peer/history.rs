//! What has happened, page by page: transactions, jobs and leases, of all or of one account.

use std::collections::BTreeSet;

use crate::served::{
    key,
    reader::{Reader, WITHIN},
};
use piecework_ledger::{Action, Metered, OpenLease, Settle, SettledJob, Subject};
use piecework_model::{
    AccountId, Code, Counters, Credits, Digest, Domain, JobId, JobStatus, LeaseId, NetworkId, Prices, Receipt, Seal,
};
use serde_json::Value;

fn account(number: u8) -> AccountId {
    AccountId::of(&key(number).public())
}

/// The developer's own key pays and takes the results.
fn open_lease(developer: u8) -> Action {
    let ucr = 1_000_000;
    Action::OpenLease(OpenLease {
        subject: Subject::AnyFunction,
        provider: None,
        controller: account(developer),
        price_caps: Prices {
            start_ucr: ucr,
            cpu_ucr_per_s: ucr,
            memory_ucr_per_gib_s: ucr,
            egress_ucr_per_mib: ucr,
        },
        budget: Credits(1_000_000),
        payer_keys: vec![key(developer).public()],
        mailboxes: vec![key(developer).public()],
        exposure_ucr: 1_000_000,
    })
}

fn job(lease: LeaseId, sequence: u64, provider: u8) -> JobId {
    JobId::new(1_700_000_000_000 + sequence, [provider ^ lease.0[0]; 10])
}

/// Jobs from a sequence on, run by `provider` at 10 ucr each.
fn settle(network: &NetworkId, lease: LeaseId, provider: u8, sequences: std::ops::Range<u64>) -> Action {
    settle_as(network, lease, provider, sequences, |sequence| {
        job(lease, sequence, provider)
    })
}

/// The same, with ids of the payer's choice.
fn settle_as(
    network: &NetworkId,
    lease: LeaseId,
    provider: u8,
    sequences: std::ops::Range<u64>,
    id: impl Fn(u64) -> JobId,
) -> Action {
    let code = Digest::of(b"code");
    let receipt = |sequence: u64| Receipt {
        lease,
        provider: account(provider),
        sequence,
        job: id(sequence),
        code,
        input: Digest::of(b"input"),
        output: Digest::of(b"output"),
        status: JobStatus::Ok,
        counters: Counters::default(),
        price_ucr: 10,
        duration_us: 10,
    };
    let receipts: Vec<Receipt> = sequences.map(receipt).collect();
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
    Action::Settle(Settle {
        lease,
        provider: account(provider),
        codes: vec![code],
        jobs: jobs.collect(),
        receipts: Some(seal.signature),
        acks: None,
    })
}

fn texts(items: &[Value], field: &str) -> Vec<String> {
    let text = |item: &Value| item[field].as_str().unwrap().to_owned();
    items.iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_come_newest_first_page_by_page_of_all_or_of_one() {
    let reader = Reader::new().await;
    let mut sent = Vec::new();
    for nonce in 0..3 {
        sent.push(reader.transfer(0, nonce, 1).await);
        sent.push(reader.transfer(2, nonce, 3).await);
    }
    let newest_first: Vec<Value> = sent.iter().rev().cloned().collect();
    for limit in [1, 4, 1000] {
        assert_eq!(reader.pages("/ledger/transactions", limit).await, newest_first);
        // Sent by it, and sent to it.
        for (account, first) in [("owner-0", 0), ("owner-1", 0), ("owner-2", 1), ("owner-3", 1)] {
            let listed = reader
                .pages(&format!("/ledger/transactions?account={account}"), limit)
                .await;
            let own: Vec<Value> = sent.iter().skip(first).step_by(2).rev().cloned().collect();
            assert_eq!(listed, own, "{account}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_and_leases_come_newest_first_page_by_page_of_all_or_of_one() {
    let reader = Reader::new().await;
    let network = reader.served.genesis.network_id();
    let leases = [0, 1].map(|developer| LeaseId::of(account(developer), 0));
    reader.send(0, 0, open_lease(0)).await;
    reader.send(1, 0, open_lease(1)).await;
    let mut blocks = BTreeSet::new();
    for (developer, provider, sequences) in [(0, 2, 0..3), (0, 3, 0..2), (1, 2, 0..1), (0, 2, 3..5)] {
        let action = settle(&network, leases[usize::from(developer)], provider, sequences);
        let settled = reader.send(developer, 0, action).await;
        assert!(settled["rejection"].is_null(), "{settled}");
        blocks.insert(settled["height"].as_u64().unwrap());
    }
    // Lease, sequence, provider.
    let all = [
        (0, 4, 2),
        (0, 3, 2),
        (1, 0, 2),
        (0, 1, 3),
        (0, 0, 3),
        (0, 2, 2),
        (0, 1, 2),
        (0, 0, 2),
    ];
    // The lists learn of a block a moment after it is final.
    let complete = async {
        while reader.pages("/ledger/leases", 100).await.len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WITHIN, complete).await.unwrap();
    for limit in [1, 3, 100] {
        let listed = reader.pages("/ledger/jobs", limit).await;
        let expected = all.map(|(lease, sequence, provider)| job(leases[lease], sequence, provider).to_string());
        assert_eq!(texts(&listed, "id"), expected);
        assert!(listed.iter().all(|job| job["paid"] == true), "{listed:?}");
        for (name, count, field) in [
            ("owner-0", 7, "developer"),
            ("owner-1", 1, "developer"),
            ("owner-3", 2, "provider"),
        ] {
            let own = reader.pages(&format!("/ledger/jobs?account={name}"), limit).await;
            assert_eq!(own.len(), count, "{name}");
            assert!(texts(&own, field).iter().all(|seen| seen == name), "{own:?}");
        }
        let listed = reader.pages("/ledger/leases", limit).await;
        assert_eq!(texts(&listed, "id"), [leases[1].to_string(), leases[0].to_string()]);
        assert!(listed[0]["opened_at_height"].as_u64() >= listed[1]["opened_at_height"].as_u64());
        let own = reader.pages("/ledger/leases?account=owner-0", limit).await;
        assert_eq!(texts(&own, "id"), [leases[0].to_string()]);
        assert_eq!(own[0]["used_ucr"], 70);
    }
    // A list shows a job as it is shown alone.
    let one = reader.get("/ledger/jobs?limit=1").await["items"][0].clone();
    let alone = reader
        .get(&format!("/ledger/jobs/{}", one["id"].as_str().unwrap()))
        .await;
    assert_eq!(one, alone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payer_that_settles_under_the_id_of_somebody_elses_job_changes_nothing_of_it() {
    let reader = Reader::new().await;
    let network = reader.served.genesis.network_id();
    let leases = [0, 1].map(|developer| LeaseId::of(account(developer), 0));
    reader.send(0, 0, open_lease(0)).await;
    reader.send(1, 0, open_lease(1)).await;
    reader.send(0, 0, settle(&network, leases[0], 2, 0..1)).await;
    let victim = job(leases[0], 0, 2);
    let path = format!("/ledger/jobs/{victim}");
    let shown = async {
        loop {
            let shown = reader.get(&path).await;
            if shown["paid"] == true {
                return shown;
            }
            tokio::task::yield_now().await;
        }
    };
    let before = tokio::time::timeout(WITHIN, shown).await.unwrap();

    let foreign = settle_as(&network, leases[1], 3, 0..1, |_| victim);
    let settled = reader.send(1, 0, foreign).await;
    assert!(
        settled["rejection"].is_null(),
        "the money is the payer's own: {settled}"
    );
    let told = async {
        loop {
            let shown = reader.get(&path).await;
            if shown["other_leases"].is_array() {
                return shown;
            }
            tokio::task::yield_now().await;
        }
    };
    let mut after = tokio::time::timeout(WITHIN, told).await.unwrap();
    let others = after.as_object_mut().unwrap().remove("other_leases").unwrap();
    assert_eq!(others, serde_json::json!([leases[1].to_string()]));
    assert_eq!(after, before);
    let other = reader.get(&format!("{path}?lease={}", leases[1])).await;
    assert_eq!(
        (&other["developer"], &other["provider"]),
        (&"owner-1".into(), &"owner-3".into())
    );
    let nobodys = format!("{path}?lease={}", LeaseId([9; 20]));
    reader.refused(&nobodys, 404, Code::JobNotFound).await;
    // Each of them is in the list once, with what is its own.
    let listed = reader.pages("/ledger/jobs", 100).await;
    assert_eq!(texts(&listed, "id"), [victim.to_string(), victim.to_string()]);
    assert_eq!(texts(&listed, "developer"), ["owner-1", "owner-0"]);
    assert!(
        listed.iter().all(|job| job["events"].as_array().unwrap().len() == 3),
        "{listed:?}"
    );
}
