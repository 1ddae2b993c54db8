//! Users, tokens, values, sealing.

use super::samples::{self, unique};
use piecework_store::{Put, Roles, Store, StoreFailure, Token};

pub(super) async fn users_are_unique_by_name_and_account(store: &dyn Store) {
    let user = samples::user(unique());
    store.insert_user(&user).await.expect("a new user");
    let same_name = piecework_store::User {
        account: samples::account(unique()),
        ..user.clone()
    };
    let same_account = piecework_store::User {
        name: samples::user(unique()).name,
        ..user.clone()
    };
    for taken in [&user, &same_name, &same_account] {
        let refused = store.insert_user(taken).await.expect_err("taken");
        assert!(matches!(refused, StoreFailure::Conflict { .. }), "{refused:?}");
    }
    assert_eq!(
        store.user_by_name(&user.name).await.expect("read").as_ref(),
        Some(&user)
    );
    assert_eq!(
        store.user_by_account(user.account).await.expect("read").as_ref(),
        Some(&user)
    );
    assert_eq!(store.user_by_account(same_name.account).await.expect("read"), None);
    assert!(store.list_users().await.expect("listed").contains(&user));
    let changed = piecework_store::User {
        roles: Roles {
            provider: true,
            ..Roles::default()
        },
        password_hash: None,
        sealed_key: None,
        ..user.clone()
    };
    store.update_user(&changed).await.expect("changed");
    assert_eq!(store.user_by_name(&user.name).await.expect("read"), Some(changed));
    let unknown = store.update_user(&samples::user(unique())).await.expect_err("unknown");
    assert_eq!(unknown.code(), "store.not_found");
}

pub(super) async fn tokens_are_found_by_hash_and_deleted_by_their_owner(store: &dyn Store) {
    let owner = samples::account(unique());
    let tokens = [samples::token(unique(), owner), samples::token(unique(), owner)];
    for token in &tokens {
        store.insert_token(token).await.expect("a new token");
    }
    assert!(store.insert_token(&tokens[0]).await.expect_err("taken").is_conflict());
    assert_eq!(
        store.token_by_hash(&tokens[1].hash).await.expect("read").as_ref(),
        Some(&tokens[1])
    );
    assert_eq!(store.token_by_hash(&[0; 32]).await.expect("read"), None);
    assert_eq!(store.list_tokens(owner).await.expect("listed"), tokens);
    let stranger = samples::account(unique());
    assert!(
        !store.delete_token(stranger, &tokens[0].id).await.expect("asked"),
        "not the stranger's"
    );
    assert!(store.delete_token(owner, &tokens[0].id).await.expect("deleted"));
    assert!(
        !store.delete_token(owner, &tokens[0].id).await.expect("asked"),
        "gone already"
    );
    assert_eq!(store.token_by_hash(&tokens[0].hash).await.expect("read"), None);
}

pub(super) async fn a_token_goes_with_the_one_it_was_made_with(store: &dyn Store) {
    let owner = samples::account(unique());
    let made_with = |parent: Option<&Token>| Token {
        parent: parent.map(|parent| parent.id.clone()),
        ..samples::token(unique(), owner)
    };
    let root = made_with(None);
    let (child, other) = (made_with(Some(&root)), made_with(None));
    let grandchild = made_with(Some(&child));
    for token in [&root, &child, &other, &grandchild] {
        store.insert_token(token).await.expect("a new token");
    }
    let found = store.token_by_hash(&grandchild.hash).await.expect("read");
    assert_eq!(found.as_ref(), Some(&grandchild));
    assert!(store.delete_token(owner, &root.id).await.expect("deleted"));
    assert_eq!(store.list_tokens(owner).await.expect("listed"), [other]);
    let orphan = store
        .insert_token(&made_with(Some(&root)))
        .await
        .expect_err("its parent is gone");
    assert_eq!(orphan.code(), "store.not_found");
}

pub(super) async fn values_are_taken_once(store: &dyn Store) {
    let space = format!("space-{}", unique());
    for key in ["a/1", "a/2", "a/3", "b/1"] {
        store.insert_value(&space, key, key.as_bytes()).await.expect("new");
    }
    assert!(
        store
            .insert_value(&space, "a/1", b"again")
            .await
            .expect_err("taken")
            .is_conflict()
    );
    store.put_value(&space, "a/1", b"replaced").await.expect("replaced");
    assert_eq!(
        store.value(&space, "a/1").await.expect("read").as_deref(),
        Some(&b"replaced"[..])
    );
    assert_eq!(store.value("another", "a/1").await.expect("read"), None);
    let page = store.list_values(&space, "a/", None, 2).await.expect("listed");
    let keys: Vec<&str> = page.items.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!((keys, page.next.as_deref()), (vec!["a/1", "a/2"], Some("a/2")));
    let rest = store
        .list_values(&space, "a/", page.next.as_deref(), 2)
        .await
        .expect("listed");
    assert_eq!((rest.items.len(), rest.next), (1, None));
    assert_eq!(
        store.take_value(&space, "b/1").await.expect("taken").as_deref(),
        Some(&b"b/1"[..])
    );
    assert_eq!(store.take_value(&space, "b/1").await.expect("asked"), None);
    assert_eq!(store.value(&space, "b/1").await.expect("read"), None);
}

pub(super) async fn values_are_replaced_together_and_crowded_spaces_are_found(store: &dyn Store) {
    let prefix = format!("crowd-{}/", unique());
    let (crowded, roomy) = (format!("{prefix}a"), format!("{prefix}b"));
    for key in ["1", "2", "3"] {
        store.put_value(&crowded, key, b"old").await.expect("put");
    }
    store.put_value(&roomy, "1", b"old").await.expect("put");
    assert_eq!(
        store.crowded_spaces(&prefix, 1).await.expect("counted"),
        [(crowded.clone(), 3)]
    );
    assert_eq!(store.crowded_spaces(&prefix, 0).await.expect("counted").len(), 2);
    let takes: Vec<(String, String)> = ["1", "2", "9"].map(|key| (crowded.clone(), key.to_owned())).into();
    // What is taken and put is put.
    let put = Put {
        space: crowded.clone(),
        key: "2".to_owned(),
        value: b"new".to_vec(),
    };
    store.replace_values(&takes, &[put]).await.expect("replaced");
    let left = store.list_values(&crowded, "", None, 10).await.expect("listed").items;
    assert_eq!(
        left,
        [("2".to_owned(), b"new".to_vec()), ("3".to_owned(), b"old".to_vec())]
    );
    assert_eq!(
        store.value(&roomy, "1").await.expect("read").as_deref(),
        Some(&b"old"[..])
    );
}

pub(super) async fn sealed_bytes_open_only_in_their_context(store: &dyn Store) {
    let sealed = store.seal("user/1", b"key").expect("sealed");
    assert_ne!(
        sealed,
        store.seal("user/1", b"key").expect("sealed"),
        "never twice the same"
    );
    assert_eq!(store.open_sealed("user/1", &sealed).expect("opened"), b"key");
    for broken in [&sealed[..0], &sealed[..20], &[sealed.as_slice(), b"x"].concat()[..]] {
        let refused = store.open_sealed("user/1", broken).expect_err("broken");
        assert_eq!(refused.code(), "store.seal_broken");
    }
    assert_eq!(
        store.open_sealed("user/2", &sealed).expect_err("foreign").code(),
        "store.seal_broken"
    );
}
