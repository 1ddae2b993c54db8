//! Invites: what they are for, and what an account that is there already gets of them.

use axum::http::Method;
use piecework_ledger::{Action, Register, SignedTransaction, Transaction};
use piecework_model::{AccountId, Code, Role, SecretKey};
use serde_json::{Value, json};

use crate::{accounts::invites, doubles::machine::Machine};

async fn invite(machine: &Machine, body: Value) -> String {
    let made = machine.ask(Method::POST, "/invites", Some(body)).await.ok();
    made["code"].as_str().expect("a code").to_owned()
}

/// What a computer sends when it joins.
fn joining(machine: &Machine, name: &str, invite: &str) -> (SecretKey, Value) {
    let key = SecretKey::from_seed([77; 32]);
    let transaction = Transaction {
        sender: AccountId::of(&key.public()),
        nonce: 0,
        action: Action::Register(Register {
            name: name.parse().expect("a name"),
            roles: [Role::Provider].into_iter().collect(),
            sponsor: None,
            owner: None,
        }),
    };
    let signed = SignedTransaction::sign(transaction, &key, &machine.ledger.network_id());
    let registration = hex::encode(borsh::to_vec(&signed).expect("memory does not fail"));
    let body = json!({"name": name, "public_key": key.public(), "registration": registration, "roles": ["provider"],
        "invite": invite});
    (key, body)
}

#[tokio::test]
async fn an_invite_that_is_no_good_for_a_computer_registers_nothing() {
    let machine = Machine::start().await;
    let plain = invite(&machine, json!({})).await;
    let join = async |invite: &str| {
        let (_, body) = joining(&machine, "laptop", invite);
        machine.ask_as(None, Method::POST, "/accounts", Some(body)).await
    };
    join(&plain).await.refused(422, Code::InviteWrongRole);
    let poor = invite(&machine, json!({"roles": ["provider"], "grant_ucr": 0})).await;
    join(&poor).await.refused(422, Code::InviteNoDeposit);
    machine
        .get("/accounts/laptop")
        .await
        .refused(404, Code::AccountNotFound);

    // It was not used up, and the name is not taken.
    let person = json!({"name": "laptop", "password": "correct horse", "invite": plain});
    machine.ask_as(None, Method::POST, "/accounts", Some(person)).await.ok();
    let (_, body) = joining(&machine, "desk", &poor);
    machine
        .ask_as(None, Method::POST, "/accounts", Some(body))
        .await
        .refused(422, Code::InviteNoDeposit);
    let right = invite(&machine, json!({"roles": ["provider"]})).await;
    let (_, body) = joining(&machine, "desk", &right);
    machine.ask_as(None, Method::POST, "/accounts", Some(body)).await.ok();
}

#[tokio::test]
async fn an_account_that_is_there_accepts_another_invite() {
    let machine = Machine::start().await;
    let token = machine.person("ada", 5).await;
    let accept = async |token: &str, code: &str| {
        let body = json!({"invite": code});
        machine
            .ask_as(Some(token), Method::POST, "/invites/accept", Some(body))
            .await
    };
    accept(&token, "inv_nothing").await.refused(422, Code::InviteBad);
    let right = invite(&machine, json!({"roles": ["provider"]})).await;
    accept(&machine.token, &right).await.refused(422, Code::InviteBad);
    let view = accept(&token, &right).await.ok();
    assert_eq!(view["posted_ucr"], 2_000_005, "{view}");
    accept(&token, &right).await.refused(422, Code::InviteBad);
    assert_eq!(machine.posted("ada").await, 2_000_005, "once");
}

#[tokio::test]
async fn who_only_provides_deploys_nothing_until_it_is_a_developer() {
    let machine = Machine::start().await;
    let made = invite(&machine, json!({"roles": ["provider"]})).await;
    let body = json!({"name": "pat", "password": "correct horse", "roles": ["provider"], "invite": made});
    machine.ask_as(None, Method::POST, "/accounts", Some(body)).await.ok();
    let login = json!({"name": "pat", "password": "correct horse"});
    let session = machine.ask_as(None, Method::POST, "/sessions", Some(login)).await.ok();
    let token = session["token"].as_str().expect("a token");
    let refused = machine.deploy_as(token, "f", "return 1", json!({})).await;
    refused.refused(403, Code::AuthRole);
    let developer = invite(&machine, json!({"roles": ["developer"]})).await;
    let accept = json!({"invite": developer});
    machine
        .ask_as(Some(token), Method::POST, "/invites/accept", Some(accept))
        .await
        .ok();
    machine.deploy_as(token, "f", "return 1", json!({})).await.ok();
}

#[tokio::test]
async fn an_account_has_a_bounded_number_of_invites_and_expired_ones_go() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 5).await;
    let make = async || {
        let body = json!({"expires_in_s": 60});
        machine.ask_as(Some(&ada), Method::POST, "/invites", Some(body)).await
    };
    for _ in 0..100 {
        make().await.ok();
    }
    make().await.refused(409, Code::InviteTooMany);
    invite(&machine, json!({})).await;
    let accounts = machine.accounts();
    let now_ms = crate::clock::now_ms();
    let forgotten = invites::forget_expired(accounts, now_ms).await.expect("looked");
    assert_eq!(forgotten, 0);
    let forgotten = invites::forget_expired(accounts, now_ms + 120_000)
        .await
        .expect("looked");
    assert_eq!(forgotten, 100, "the operator's lasts longer");
    make().await.ok();
}
