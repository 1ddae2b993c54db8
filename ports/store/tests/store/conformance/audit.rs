//! The audit record.

use super::samples::{self, START_MS, unique};
use piecework_store::{AuditFilter, Change, Store};

pub(super) async fn changes_are_listed_newest_first_to_who_is_concerned(store: &dyn Store) {
    let (ada, bob, eve) = (
        samples::account(unique()),
        samples::account(unique()),
        samples::account(unique()),
    );
    let change = |action: &str, actor, target: &str| Change {
        at_ms: START_MS,
        actor,
        owner: ada,
        action: action.to_owned(),
        target: target.to_owned(),
        detail: r#"{"version":2}"#.to_owned(),
    };
    let changes = [
        change("sample.created", Some(ada), "f"),
        change("sample.updated", Some(bob), "f"),
        change("other.changed", None, "g"),
    ];
    for change in &changes {
        store.record(change).await.expect("recorded");
    }
    let list = async |filter: AuditFilter| {
        let page = store.audit(&filter).await.expect("read");
        (
            page.items.into_iter().map(|entry| entry.change).collect::<Vec<_>>(),
            page.next,
        )
    };
    let of = |account| AuditFilter {
        account: Some(account),
        limit: 10,
        ..AuditFilter::default()
    };
    let newest_first: Vec<Change> = changes.iter().rev().cloned().collect();
    assert_eq!(list(of(ada)).await, (newest_first, None), "what is hers");
    assert_eq!(list(of(bob)).await.0, [changes[1].clone()], "what he did");
    assert_eq!(list(of(eve)).await.0, [], "nothing of hers");
    let functions = AuditFilter {
        action: Some("sample.".into()),
        target: Some("f".into()),
        limit: 1,
        ..of(ada)
    };
    let (first, next) = list(functions.clone()).await;
    assert_eq!(first, [changes[1].clone()]);
    let rest = AuditFilter {
        before: next,
        ..functions
    };
    assert_eq!(list(rest).await, (vec![changes[0].clone()], None));
}
