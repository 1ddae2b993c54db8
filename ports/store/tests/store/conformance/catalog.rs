//! Functions and versions.

use super::samples::{self, START_MS, unique};
use piecework_model::Code;
use piecework_store::{Function, FunctionSettings, Policy, Quarantine, Store, Traffic};

async fn create(store: &dyn Store, function: &Function) {
    let version = samples::version(function.id, 1);
    store.create_function(function, &version).await.expect("a new function");
}

pub(super) async fn a_name_is_free_again_after_deletion(store: &dyn Store) {
    let owner = samples::account(unique());
    let first = samples::function(unique(), owner);
    create(store, &first).await;
    let second = Function {
        id: samples::function_id(unique()),
        ..first.clone()
    };
    let refused = store.create_function(&second, &samples::version(second.id, 1)).await;
    assert!(refused.expect_err("the name is taken").is_conflict());
    assert!(
        store.versions(second.id).await.expect("read").is_empty(),
        "nothing of the refused one is kept"
    );
    assert!(store.delete_function(first.id, START_MS + 1).await.expect("deleted"));
    assert!(
        !store.delete_function(first.id, START_MS + 2).await.expect("asked"),
        "gone already"
    );
    create(store, &second).await;
    assert_eq!(store.function(first.id).await.expect("read"), None);
    let (kept, deleted_at_ms) = store.function_ever(first.id).await.expect("read").expect("kept");
    assert_eq!((kept, deleted_at_ms), (first.clone(), Some(START_MS + 1)));
    assert_eq!(
        store.versions(first.id).await.expect("read"),
        [samples::version(first.id, 1)]
    );
    let found = store.function_by_name(owner, &first.name).await.expect("read");
    assert_eq!(found, Some(second));
    let added = store.add_version(&samples::version(first.id, 0), true).await;
    assert_eq!(added.expect_err("deleted").code(), "store.not_found");
}

pub(super) async fn versions_count_up_and_any_can_be_live(store: &dyn Store) {
    let function = samples::function(unique(), samples::account(unique()));
    create(store, &function).await;
    let second = samples::version(function.id, 2);
    assert_eq!(store.add_version(&second, false).await.expect("added"), 2);
    let live = store.function(function.id).await.expect("read").expect("there");
    assert_eq!(live.live_version, 1, "beside the live one");
    assert_eq!(
        store
            .add_version(&samples::version(function.id, 3), true)
            .await
            .expect("added"),
        3
    );
    assert_eq!(store.version(function.id, 2).await.expect("read"), Some(second));
    assert_eq!(store.version(function.id, 4).await.expect("read"), None);
    let numbers = store
        .versions(function.id)
        .await
        .expect("read")
        .iter()
        .map(|version| version.version)
        .collect();
    assert_eq!(Vec::<u32>::from_iter::<Vec<u32>>(numbers), [3, 2, 1]);
    store.set_live(function.id, 1, START_MS + 8).await.expect("rolled back");
    let live = store.function(function.id).await.expect("read").expect("there");
    assert_eq!((live.live_version, live.updated_at_ms), (1, START_MS + 8));
    let unknown = store
        .set_live(function.id, 9, START_MS)
        .await
        .expect_err("no such version");
    assert_eq!(unknown.code(), "store.not_found");
    assert_eq!(
        store
            .add_version(&samples::version(function.id, 0), true)
            .await
            .expect("added"),
        4,
        "after a rollback too"
    );
    let settings = FunctionSettings {
        public: Some(true),
        concurrency: None,
    };
    store
        .update_settings(function.id, settings, START_MS + 9)
        .await
        .expect("changed");
    let changed = store.function(function.id).await.expect("read").expect("there");
    assert_eq!(
        (changed.public, changed.concurrency, changed.live_version),
        (true, 8, 4)
    );
}

pub(super) async fn functions_are_listed_in_pages(store: &dyn Store) {
    let owner = samples::account(unique());
    let functions: Vec<Function> = (0..5).map(|_| samples::function(unique(), owner)).collect();
    for function in &functions {
        create(store, function).await;
    }
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = store
            .list_functions(owner, "", after.as_ref(), 2)
            .await
            .expect("listed");
        assert!(page.items.len() <= 2);
        listed.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, functions);
    let part = &functions[3].name.as_str()[1..];
    let found = store.list_functions(owner, part, None, 1).await.expect("listed");
    assert_eq!((found.items, found.next), (vec![functions[3].clone()], None));
    let found = store.list_functions(owner, "%", None, 1).await.expect("listed");
    assert_eq!(found.items, [], "a part, no pattern");
}

pub(super) async fn a_deleted_function_comes_back_while_its_name_is_free(store: &dyn Store) {
    let owner = samples::account(unique());
    let first = samples::function(unique(), owner);
    create(store, &first).await;
    assert!(
        !store.restore_function(first.id, START_MS).await.expect("asked"),
        "it is there"
    );
    store.delete_function(first.id, START_MS + 5).await.expect("deleted");
    let deleted = store.list_deleted(owner, START_MS + 5).await.expect("listed");
    assert_eq!(deleted, [(first.clone(), START_MS + 5)]);
    assert_eq!(store.list_deleted(owner, START_MS + 6).await.expect("listed"), []);
    assert!(store.restore_function(first.id, START_MS + 6).await.expect("restored"));
    let back = store.function(first.id).await.expect("read").expect("there");
    assert_eq!((back.live_version, back.updated_at_ms), (1, START_MS + 6));
    store.delete_function(first.id, START_MS + 7).await.expect("deleted");
    let second = Function {
        id: samples::function_id(unique()),
        ..first.clone()
    };
    create(store, &second).await;
    let refused = store.restore_function(first.id, START_MS + 8).await;
    assert!(refused.expect_err("the name is taken").is_conflict());
}

pub(super) async fn a_policy_is_read_back_whole(store: &dyn Store) {
    let function = samples::function(unique(), samples::account(unique()));
    create(store, &function).await;
    let chosen = piecework_store::Moved {
        code: samples::version(function.id, 2).code,
        reason: "its calls cost less there".to_owned(),
        at_ms: START_MS,
    };
    let policy = Policy {
        moved: std::collections::BTreeMap::default(),
        chosen: [(2, chosen)].into(),
        traffic: Some(Traffic {
            weights: [(1, 90), (2, 10)].into(),
            errors_permille_max: 100,
            calls_min: 20,
            since_ms: START_MS,
        }),
        quarantined: [(
            3,
            Quarantine {
                code: Code::FunctionCrashed.into(),
                failures: 10,
                at_ms: START_MS,
            },
        )]
        .into(),
        budget_ucr: Some(100),
        stopped: true,
        cors: Some(piecework_store::Cors {
            origins: vec!["https://app.example".to_owned()],
            credentials: true,
            ..piecework_store::Cors::default()
        }),
        results: Some(piecework_store::ResultPolicy {
            ttl_s: Some(60),
            sealed_sink: Some("00ff".into()),
            hears_of_failures: true,
        }),
    };
    store.set_policy(function.id, &policy, START_MS + 4).await.expect("set");
    let found = store.function(function.id).await.expect("read").expect("there");
    assert_eq!((found.policy, found.updated_at_ms), (policy, START_MS + 4));
    let unknown = store
        .set_policy(samples::function_id(unique()), &Policy::default(), START_MS)
        .await;
    assert_eq!(unknown.expect_err("no such function").code(), "store.not_found");
}
