//! Build logs: whose they are, how many are kept, and what they count for.

use piecework_model::{AccountId, FunctionName};
use piecework_store::{BuildLog, FAILED_BUILDS_MAX, FAILED_BUILDS_OF_NAME_MAX, Function, Kept, Store};

use super::samples::{self, START_MS, unique};

fn of(function: &Function, version: Option<u32>, text: &str) -> BuildLog {
    BuildLog {
        owner: function.owner,
        name: function.name.clone(),
        version: version.map(|number| (function.id, number)),
        at_ms: START_MS,
        text: text.to_owned(),
    }
}

async fn created(store: &dyn Store, owner: AccountId) -> Function {
    let function = samples::function(unique(), owner);
    let version = samples::version(function.id, function.live_version);
    store.create_function(&function, &version).await.expect("created");
    function
}

async fn logs(store: &dyn Store, account: AccountId) -> u64 {
    store.usage(account).await.expect("read").get(Kept::Logs)
}

async fn failed(store: &dyn Store, owner: AccountId, name: Option<&FunctionName>) -> Vec<String> {
    let all = store.failed_builds(owner, name).await.expect("read");
    all.into_iter().map(|log| log.text).collect()
}

pub(super) async fn a_build_log_is_its_versions_and_goes_with_it(store: &dyn Store) {
    let owner = samples::account(unique());
    let function = created(store, owner).await;
    let first = of(&function, Some(function.live_version), "resolved");
    store.put_build_log(&first).await.expect("kept");
    store.put_build_log(&of(&function, None, "broken")).await.expect("kept");
    let none = of(&function, Some(function.live_version + 9), "of no version");
    store.put_build_log(&none).await.expect("passed over");
    let read = store.build_log(function.id, function.live_version).await.expect("read");
    assert_eq!(read.as_ref(), Some(&first));
    let read = store
        .build_log(function.id, function.live_version + 9)
        .await
        .expect("read");
    assert_eq!(read, None);
    assert_eq!(logs(store, owner).await, 14);
    store.delete_function(function.id, START_MS).await.expect("deleted");
    let read = store.build_log(function.id, function.live_version).await.expect("read");
    assert_eq!(read, Some(first), "the function can be restored");
    store.purge_function(function.id).await.expect("purged");
    let read = store.build_log(function.id, function.live_version).await.expect("read");
    assert_eq!(read, None);
    assert!(failed(store, owner, None).await.is_empty());
    assert_eq!(logs(store, owner).await, 0);
}

pub(super) async fn the_last_failed_deploys_are_kept_for_each_name_and_account(store: &dyn Store) {
    let owner = samples::account(unique());
    let names: Vec<Function> = (0..8).map(|_| samples::function(unique(), owner)).collect();
    let other = samples::function(unique(), samples::account(unique()));
    store.put_build_log(&of(&other, None, "another's")).await.expect("kept");
    for function in &names {
        for number in 0..9 {
            store
                .put_build_log(&of(function, None, &number.to_string()))
                .await
                .expect("kept");
        }
        let kept = failed(store, owner, Some(&function.name)).await;
        assert_eq!(kept, ["8", "7", "6", "5", "4"]);
        assert_eq!(kept.len(), FAILED_BUILDS_OF_NAME_MAX as usize);
    }
    assert_eq!(failed(store, owner, None).await.len(), FAILED_BUILDS_MAX as usize);
    assert!(
        failed(store, owner, Some(&names[0].name)).await.is_empty(),
        "the oldest went"
    );
    assert_eq!(failed(store, other.owner, None).await, ["another's"]);
    assert!(failed(store, other.owner, Some(&names[7].name)).await.is_empty());
}

pub(super) async fn build_logs_count_as_logs_and_take_a_quarter_of_them(store: &dyn Store) {
    let owner = samples::account(unique());
    store
        .set_quotas(owner, &[(Kept::Logs, Some(4_000))])
        .await
        .expect("set");
    let function = created(store, owner).await;
    let text = "x".repeat(400);
    store
        .put_build_log(&of(&function, Some(function.live_version), &text))
        .await
        .expect("kept");
    assert_eq!(logs(store, owner).await, 400);
    for _ in 0..2 {
        store.put_build_log(&of(&function, None, &text)).await.expect("kept");
    }
    assert_eq!(logs(store, owner).await, 800, "a third one is more than a quarter");
    let read = store.build_log(function.id, function.live_version).await.expect("read");
    assert_eq!(read, None, "the oldest went");
    store
        .put_build_log(&of(&function, None, &"y".repeat(1_001)))
        .await
        .expect("answered");
    assert_eq!(logs(store, owner).await, 0, "one that is too long goes, too");
}
