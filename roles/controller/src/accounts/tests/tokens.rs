//! Accounts and tokens: which nobody can have, and what a scope allows.

use axum::http::Method;
use piecework_model::Code;
use serde_json::{Value, json};

use crate::doubles::machine::Machine;

#[tokio::test]
async fn accounts_and_tokens_that_nobody_can_have() {
    let machine = Machine::start().await;
    let invite = machine.ask(Method::POST, "/invites", Some(json!({}))).await.ok();
    let code = invite["code"].as_str().expect("a code");
    let key = "00".repeat(32);
    for (body, status, refused) in [
        (
            json!({"name": "ada", "password": "correct horse"}),
            403,
            Code::InviteRequired,
        ),
        (
            json!({"name": "ada", "password": "correct horse", "invite": "inv_x"}),
            422,
            Code::InviteBad,
        ),
        (
            json!({"name": "ada", "password": "correct horse", "invite": code, "roles": ["controller"]}),
            422,
            Code::InviteWrongRole,
        ),
        (
            json!({"name": "ada", "password": "short", "invite": code}),
            422,
            Code::AccountBadPassword,
        ),
        (
            json!({"name": "ada", "public_key": key, "registration": "00", "invite": code}),
            422,
            Code::AccountBadRegistration,
        ),
        (
            json!({"name": "operator", "password": "correct horse", "invite": code}),
            409,
            Code::AccountExists,
        ),
    ] {
        machine
            .ask_as(None, Method::POST, "/accounts", Some(body))
            .await
            .refused(status, refused);
    }
    let last = json!({"name": "ada", "password": "correct horse", "invite": code});
    machine
        .ask_as(None, Method::POST, "/accounts", Some(last.clone()))
        .await
        .ok();
    machine
        .ask_as(None, Method::POST, "/accounts", Some(last))
        .await
        .refused(422, Code::InviteBad);

    let token = async |body: Value| machine.ask(Method::POST, "/tokens", Some(body)).await;
    token(json!({"scopes": ["fly"]}))
        .await
        .refused(422, Code::BodyMalformed);
    token(json!({"scopes": []})).await.refused(422, Code::TokenBadScope);
    token(json!({"scopes": ["view"], "expires_in_s": 1}))
        .await
        .refused(422, Code::TokenBadExpiry);
    machine
        .ask(Method::DELETE, "/tokens/tok_nothing", None)
        .await
        .refused(404, Code::TokenNotFound);
}

#[tokio::test]
async fn tokens_do_what_their_scopes_say_and_no_more() {
    let machine = Machine::start().await;
    machine.deploy("f", "return 1").await;
    let mint = async |scopes: Value| {
        let made = machine
            .ask(Method::POST, "/tokens", Some(json!({"scopes": scopes})))
            .await
            .ok();
        (
            made["token"].as_str().expect("a token").to_owned(),
            made["id"].as_str().expect("an id").to_owned(),
        )
    };
    let (view, view_id) = mint(json!(["view"])).await;
    let (invoke, _) = mint(json!(["invoke"])).await;
    let run = Some(json!({}));
    machine.ask_as(Some(&view), Method::GET, "/functions", None).await.ok();
    machine
        .ask_as(Some(&view), Method::POST, "/execute/f", run.clone())
        .await
        .refused(403, Code::AuthScope);
    machine
        .ask_as(Some(&invoke), Method::POST, "/execute/f", run)
        .await
        .ok();
    machine
        .ask_as(Some(&invoke), Method::DELETE, "/functions/f", None)
        .await
        .refused(403, Code::AuthScope);
    machine
        .ask_as(Some(&invoke), Method::GET, "/functions", None)
        .await
        .refused(403, Code::AuthScope);
    let more = Some(json!({"scopes": ["admin"]}));
    machine
        .ask_as(Some(&view), Method::POST, "/tokens", more)
        .await
        .refused(403, Code::TokenScopeNotHeld);
    let path = format!("/tokens/{view_id}");
    assert_eq!(machine.ask(Method::DELETE, &path, None).await.status.as_u16(), 204);
    machine
        .ask_as(Some(&view), Method::GET, "/functions", None)
        .await
        .refused(401, Code::AuthBadToken);
    machine
        .ask_as(Some("pw_forged"), Method::GET, "/functions", None)
        .await
        .refused(401, Code::AuthBadToken);
}
