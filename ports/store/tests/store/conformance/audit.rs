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

pub(super) async fn of_too_many_entries_the_oldest_go_and_the_record_says_so(store: &dyn Store) {
    let (busy, quiet) = (samples::account(unique()), samples::account(unique()));
    let change = |actor, owner, nth: u32| Change {
        at_ms: START_MS,
        actor,
        owner,
        action: "sample.updated".to_owned(),
        target: nth.to_string(),
        detail: "{}".to_owned(),
    };
    for nth in 0..20 {
        store.record(&change(Some(busy), busy, nth)).await.expect("recorded");
        if nth < 16 {
            store.record(&change(None, quiet, nth)).await.expect("recorded");
            // What others did to it counts as theirs.
            store
                .record(&change(Some(busy), quiet, 100 + nth))
                .await
                .expect("recorded");
        }
    }
    let targets = async |account| {
        let filter = AuditFilter {
            account: Some(account),
            limit: 100,
            ..AuditFilter::default()
        };
        let entries = store.audit(&filter).await.expect("read").items.into_iter();
        let changes = entries.map(|entry| (entry.change.action, entry.change.target));
        changes.collect::<Vec<_>>()
    };
    assert_eq!(
        store.prune_audit(36, START_MS).await.expect("pruned"),
        0,
        "no more than it may"
    );
    assert_eq!(store.prune_audit(16, START_MS).await.expect("pruned"), 36 - 12);
    let left = targets(busy).await;
    assert_eq!(left[0], ("audit.dropped".to_owned(), "audit".to_owned()));
    assert_eq!(
        (left.len(), left[12].1.as_str()),
        (1 + 12, "12"),
        "the newest of what it did"
    );
    let of_quiet = targets(quiet).await;
    let platforms = of_quiet
        .iter()
        .filter(|(_, target)| target.parse::<u32>().is_ok_and(|nth| nth < 100));
    assert_eq!(platforms.count(), 16);
    assert_eq!(
        store.prune_audit(16, START_MS).await.expect("pruned"),
        0,
        "it is told once"
    );
    assert_eq!(targets(busy).await.len(), 13);
}
