//! What accounts keep: counted exactly, and no more than they may.

use piecework_model::AccountId;
use piecework_store::{
    Amounts, Function, Job, Kept, ResultNote, ResultState, Store, StoreFailure, VERSIONS_OF_ONE_MAX,
};

use super::samples::{self, START_MS, unique};

const LARGE: usize = 4_000;

/// A job with an output and logs of so many bytes each; paid for already.
fn large(number: u64, developer: AccountId) -> Job {
    Job {
        output: Some(vec![b'7'; LARGE]),
        logs: "l".repeat(LARGE),
        settlement: None,
        ..samples::finished(number, samples::function_id(number), developer)
    }
}

async fn finish(store: &dyn Store, jobs: &[Job]) {
    for job in jobs {
        store.finish(job.clone()).expect("kept");
    }
    store.flush().await.expect("filed");
}

async fn used(store: &dyn Store, account: AccountId, kept: Kept) -> u64 {
    store.usage(account).await.expect("read").get(kept)
}

pub(super) async fn what_is_stored_is_counted_until_it_is_gone(store: &dyn Store) {
    let (account, other) = (samples::account(unique()), samples::account(unique()));
    let jobs: Vec<Job> = (0..3).map(|_| large(unique(), account)).collect();
    finish(store, &jobs).await;
    finish(store, &[large(unique(), other)]).await;
    let usage = store.usage(account).await.expect("read");
    assert_eq!(usage.get(Kept::Outputs), 3 * LARGE as u64);
    assert_eq!(usage.get(Kept::Logs), 3 * LARGE as u64);
    assert!(usage.get(Kept::Records) > 300, "{usage:?}");
    let note = ResultNote {
        job: jobs[0].id,
        function: jobs[0].function,
        state: ResultState::Delivered,
        attempts: 1,
        next_at_ms: 0,
        expires_at_ms: None,
        detail: String::new(),
    };
    store.note_result(&note, false).await.expect("noted");
    assert_eq!(used(store, account, Kept::Outputs).await, 2 * LARGE as u64);
    let newest = jobs.iter().map(|job| job.created_at_ms).max().expect("some");
    store.prune(newest + 1).await.expect("pruned");
    assert_eq!(store.usage(account).await.expect("read"), Amounts::default());
}

pub(super) async fn inputs_count_until_their_jobs_end(store: &dyn Store) {
    let account = samples::account(unique());
    let (number, function) = (unique(), samples::function_id(unique()));
    let mut order = samples::accepted(number, function, account);
    order.input = vec![b'1'; LARGE].into();
    store.accept(order).await.expect("accepted");
    store.flush().await.expect("filed");
    assert!(used(store, account, Kept::Inputs).await >= LARGE as u64);
    finish(store, &[samples::finished(number, function, account)]).await;
    assert_eq!(used(store, account, Kept::Inputs).await, 0);
}

pub(super) async fn the_oldest_outputs_go_first_and_their_jobs_say_so(store: &dyn Store) {
    let account = samples::account(unique());
    let room = [
        (Kept::Outputs, Some(2 * LARGE as u64)),
        (Kept::Logs, Some(LARGE as u64)),
    ];
    store.set_quotas(account, &room).await.expect("set");
    assert_eq!(store.quotas(account).get(Kept::Outputs), 2 * LARGE as u64);
    let jobs: Vec<Job> = (0..4).map(|_| large(unique(), account)).collect();
    let owed = ResultNote {
        job: jobs[1].id,
        function: jobs[1].function,
        state: ResultState::Delivering,
        attempts: 0,
        next_at_ms: u64::MAX >> 1,
        expires_at_ms: None,
        detail: String::new(),
    };
    store.begin_result(owed).expect("noted");
    finish(store, &jobs).await;
    for (nth, job) in jobs.iter().enumerate() {
        let kept = store.job(job.id).await.expect("read").expect("there");
        let note = store.result(job.id).await.expect("read");
        assert_eq!(kept.output.is_some(), nth >= 2, "{nth}");
        assert_eq!(
            note.is_some_and(|note| note.state == ResultState::Dropped),
            nth < 2,
            "{nth}"
        );
        assert_eq!(kept.logs == job.logs, nth == 3, "{nth}");
        assert!(!kept.logs.is_empty(), "{nth}: it says that they were dropped");
    }
    assert_eq!(used(store, account, Kept::Outputs).await, 2 * LARGE as u64);
    assert_eq!(used(store, account, Kept::Logs).await, LARGE as u64);
    store
        .set_quotas(account, &[(Kept::Outputs, Some(10))])
        .await
        .expect("set");
    let last = large(unique(), account);
    finish(store, std::slice::from_ref(&last)).await;
    assert_eq!(
        used(store, account, Kept::Outputs).await,
        0,
        "one that is larger than all room"
    );
    let kept = store.job(last.id).await.expect("read").expect("there");
    assert_eq!((kept.state, kept.output), (last.state, None), "it ran and is billed");
    store.set_quotas(account, &[(Kept::Outputs, None)]).await.expect("set");
    assert!(store.quotas(account).get(Kept::Outputs) > 1 << 20, "the default again");
}

pub(super) async fn the_oldest_records_go_but_none_that_is_unpaid(store: &dyn Store) {
    let account = samples::account(unique());
    let unpaid = samples::finished(unique(), samples::function_id(1), account);
    let paid: Vec<Job> = (0..4).map(|_| large(unique(), account)).collect();
    finish(store, &[unpaid.clone(), paid[0].clone()]).await;
    let room = used(store, account, Kept::Records).await;
    store
        .set_quotas(account, &[(Kept::Records, Some(room))])
        .await
        .expect("set");
    finish(store, &paid[1..]).await;
    assert!(used(store, account, Kept::Records).await <= room);
    assert!(store.job(unpaid.id).await.expect("read").is_some());
    assert!(store.job(paid[0].id).await.expect("read").is_none());
    assert!(store.job(paid[3].id).await.expect("read").is_some());
    let outputs = used(store, account, Kept::Outputs).await;
    assert!(outputs <= 2 * LARGE as u64, "their outputs went with them: {outputs}");
}

#[track_caller]
fn over<T: std::fmt::Debug>(refused: Result<T, StoreFailure>, due: Kept) {
    match refused.expect_err("too much") {
        StoreFailure::OverQuota { kept, used, most } => assert!(kept == due && used > most, "{kept:?} {used} {most}"),
        other => panic!("{other:?}"),
    }
}

async fn create(store: &dyn Store, owner: AccountId, code: u32) -> Result<Function, StoreFailure> {
    let function = samples::function(unique(), owner);
    let mut version = samples::version(function.id, 1);
    version.code = samples::digest(u64::from(code));
    store.create_function(&function, &version).await.map(|()| function)
}

pub(super) async fn functions_versions_and_bundles_have_an_end(store: &dyn Store) {
    let owner = samples::account(unique());
    let room = [
        (Kept::Functions, Some(3)),
        (Kept::Versions, Some(4)),
        (Kept::Bundles, Some(2_000)),
    ];
    store.set_quotas(owner, &room).await.expect("set");
    let first = create(store, owner, 1).await.expect("room");
    create(store, owner, 1).await.expect("the same bundle counts once");
    create(store, owner, 2).await.expect("room");
    over(create(store, owner, 2).await, Kept::Functions);
    assert_eq!(used(store, owner, Kept::Functions).await, 3, "nothing of it was kept");
    let mut next = samples::version(first.id, 0);
    next.code = samples::digest(3);
    over(store.add_version(&next, true).await, Kept::Bundles);
    next.code = samples::digest(2);
    store.add_version(&next, true).await.expect("room");
    over(store.add_version(&next, true).await, Kept::Versions);
    store.delete_function(first.id, START_MS).await.expect("deleted");
    assert_eq!(used(store, owner, Kept::Versions).await, 4, "it can be restored");
    over(create(store, owner, 1).await, Kept::Functions);
    assert!(store.purge_function(first.id).await.expect("purged"));
    assert_eq!(used(store, owner, Kept::Versions).await, 2);
    assert!(
        store.has_bundle(&samples::digest(1)).await.expect("read"),
        "of the second"
    );
    create(store, owner, 1).await.expect("room again");
}

pub(super) async fn a_function_keeps_so_many_versions_and_what_was_deleted_goes(store: &dyn Store) {
    let owner = samples::account(unique());
    let function = create(store, owner, 1).await.expect("room");
    for _ in 0..VERSIONS_OF_ONE_MAX + 3 {
        store
            .add_version(&samples::version(function.id, 0), false)
            .await
            .expect("room");
    }
    let versions = store.versions(function.id).await.expect("read");
    let numbers: Vec<u32> = versions.iter().map(|version| version.version).collect();
    assert_eq!(numbers.last(), Some(&1), "the live one stays");
    assert_eq!(numbers.len() as u32, VERSIONS_OF_ONE_MAX + 1);
    assert_eq!(numbers[0], VERSIONS_OF_ONE_MAX + 4);
    let bundles = store.bundles().await.expect("read");
    assert!(versions.iter().all(|version| bundles.contains(&version.code)));
    assert!(
        !store.purge_function(function.id).await.expect("asked"),
        "it is not deleted"
    );
    store.delete_function(function.id, 5).await.expect("deleted");
    assert_eq!(store.purge_deleted(5).await.expect("asked"), 0, "not before its time");
    assert!(store.purge_deleted(6).await.expect("purged") > 0);
    assert!(store.versions(function.id).await.expect("read").is_empty());
    assert_eq!(store.function_ever(function.id).await.expect("read"), None);
}
