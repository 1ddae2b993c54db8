//! Who pays from a lease.

use axum::http::Method;
use piecework_model::Code;
use serde_json::{Value, json};

use crate::doubles::machine::Machine;

async fn leases_of(machine: &Machine, token: &str) -> Vec<Value> {
    let list = machine.ask_as(Some(token), Method::GET, "/leases", None).await.ok();
    list["items"].as_array().expect("a list").clone()
}

fn id(lease: &Value) -> String {
    lease["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_developer_says_who_pays_from_his_lease_and_nobody_else_does() {
    let machine = Machine::start().await;
    machine.deploy("echo", "echo").await;
    machine.call("echo", json!(1)).await.ok();
    let lease = leases_of(&machine, &machine.token).await.remove(0);
    let own = lease["payer_keys"][0]
        .as_str()
        .expect("the controller's key")
        .to_owned();
    let other = "0303030303030303030303030303030303030303030303030303030303030303";
    let payers = format!("/leases/{}/payers", id(&lease));
    let add = Some(json!({"key": other}));
    let remove = |key: &str| format!("{payers}/{key}");
    let eve = machine.person("eve", 0).await;
    for (method, path, body) in [
        (Method::POST, payers.clone(), add.clone()),
        (Method::DELETE, remove(&own), None),
        (Method::POST, format!("/leases/{}/close", id(&lease)), None),
    ] {
        let others = machine.ask_as(Some(&eve), method.clone(), &path, body.clone()).await;
        others.refused(404, Code::LeaseNotFound);
        let nobody = machine.ask_as(None, method, &path, body).await;
        nobody.refused(401, Code::AuthMissingToken);
    }
    let document = machine.get("/openapi.json").await.ok();
    let of_one = document["paths"].as_object().expect("paths").iter();
    let verbs = of_one.filter(|(path, _)| path.starts_with("/leases/{id}"));
    assert_eq!(verbs.count(), 3, "each verb of a lease is tried as somebody else above");
    machine
        .ask(Method::DELETE, &remove(other), None)
        .await
        .refused(409, Code::LeasePayerUnknown);
    let added = machine.ask(Method::POST, &payers, add.clone()).await.ok();
    assert_eq!(added["payer_keys"], json!([own, other]));
    machine
        .ask(Method::POST, &payers, add)
        .await
        .refused(409, Code::LeasePayerExists);
    // Without this controller's key nothing is ordered from the lease: the next call opens another.
    let left = machine.ask(Method::DELETE, &remove(&own), None).await.ok();
    assert_eq!(left["payer_keys"], json!([other]));
    let job = machine.call("echo", json!(1)).await.ok()["job_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let paid = machine.paid(&job).await;
    assert_eq!(paid["paid"], true);
    let open = leases_of(&machine, &machine.token).await;
    assert!(
        open.iter()
            .any(|other| id(other) != id(&lease) && other["state"] == "open"),
        "{open:?}"
    );
}
