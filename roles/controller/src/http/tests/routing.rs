//! Routes of the accounts' own, by path and by host.

use axum::http::Method;
use piecework_model::Code;
use serde_json::{Value, json};

use crate::doubles::{answer::Answer, machine::Machine};

async fn set(machine: &Machine, token: &str, route: Value) -> Answer {
    machine.ask_as(Some(token), Method::PUT, "/routes", Some(route)).await
}

/// As a browser would, without a token.
async fn visit(machine: &Machine, method: Method, host: &str, path: &str) -> Answer {
    let request = axum::http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", host);
    machine.send(request, None).await
}

async fn public(machine: &Machine, name: &str) {
    machine.deploy_with(name, "echo", json!({"public": true})).await.ok();
}

#[tokio::test]
async fn the_longest_path_below_the_owner_leads_to_the_function() {
    let machine = Machine::start().await;
    public(&machine, "api").await;
    public(&machine, "orders").await;
    let token = machine.token.clone();
    set(&machine, &token, json!({"path": "/api", "function": "api"}))
        .await
        .ok();
    let route = json!({"path": "/api/orders/", "function": "orders", "methods": ["get", "POST"]});
    let view = set(&machine, &token, route).await.ok();
    assert_eq!(view["url"], "http://here/r/operator/api/orders", "{view}");
    assert_eq!(view["path"], "/api/orders", "{view}");

    let event = visit(&machine, Method::GET, "here", "/r/operator/api/orders/7?x=1")
        .await
        .ok();
    assert_eq!(
        (&event["path"], &event["query"]["x"]),
        (&json!("/7"), &json!("1")),
        "{event}"
    );
    let event = visit(&machine, Method::GET, "here", "/r/operator/api/other").await.ok();
    assert_eq!(event["path"], "/other", "{event}");
    let refused = visit(&machine, Method::DELETE, "here", "/r/operator/api/orders/7").await;
    refused.refused(405, Code::MethodNotAllowed);
    let refused = visit(&machine, Method::GET, "here", "/r/operator/apis").await;
    refused.refused(404, Code::PathNotFound);

    let list = machine.get("/routes").await.ok();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2), "{list}");
    let machine = machine.restart().await;
    visit(&machine, Method::GET, "here", "/r/operator/api/orders")
        .await
        .ok();
    machine.ask(Method::DELETE, "/routes?path=/api/orders", None).await.ok();
    let event = visit(&machine, Method::GET, "here", "/r/operator/api/orders")
        .await
        .ok();
    assert_eq!(event["path"], "/orders", "{event}");
    let again = machine.ask(Method::DELETE, "/routes?path=/api/orders", None).await;
    again.refused(404, Code::RouteNotFound);
}

#[tokio::test]
async fn a_route_changes_nothing_of_who_may_call_a_function() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 1_000_000).await;
    machine.deploy_as(&ada, "hello", "echo", json!({})).await.ok();
    set(&machine, &ada, json!({"path": "/x", "function": "hello"}))
        .await
        .ok();
    let stranger = visit(&machine, Method::GET, "here", "/r/ada/x").await;
    stranger.refused(401, Code::AuthMissingToken);
    let other = machine.get("/r/ada/x").await;
    other.refused(404, Code::FunctionNotFound);
    machine.ask_as(Some(&ada), Method::GET, "/r/ada/x", None).await.ok();

    let cors = json!({"cors": {"origins": ["https://app.example"]}, "public": true});
    machine
        .ask_as(Some(&ada), Method::PUT, "/functions/hello", Some(cors))
        .await
        .ok();
    set(
        &machine,
        &ada,
        json!({"path": "/x", "function": "hello", "methods": ["POST"]}),
    )
    .await
    .ok();
    let preflight = machine
        .request(Method::OPTIONS, "/r/ada/x")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST");
    let answer = machine.send(preflight, None).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
    assert!(answer.headers.contains_key("content-security-policy") || answer.body.is_string());
}

/// However setting routes and taking the host back fall together.
#[tokio::test]
async fn a_host_that_is_assigned_anew_begins_without_routes() {
    const ROUNDS: usize = 8;
    const HOST: &str = "/routes/hosts/shop.example.org";
    let machine = Machine::start().await;
    let ada = machine.person("ada", 1_000_000).await;
    let bob = machine.person("bob", 1_000_000).await;
    machine
        .deploy_as(&ada, "shop", "echo", json!({"public": true}))
        .await
        .ok();
    let assign = |owner: &str| machine.ask(Method::PUT, HOST, Some(json!({"owner": owner})));
    for round in 0..ROUNDS {
        assign("ada").await.ok();
        let sets = async {
            for path in ["/a", "/b", "/c", "/d"] {
                // Refused once the host has gone.
                let route = json!({"host": "shop.example.org", "path": path, "function": "shop"});
                drop(set(&machine, &ada, route).await);
            }
        };
        let moves = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            machine.ask(Method::DELETE, HOST, None).await.ok();
            assign("bob").await.ok();
        };
        futures::join!(sets, moves);
        for owner in [&ada, &bob] {
            let list = machine.ask_as(Some(owner), Method::GET, "/routes", None).await.ok();
            assert_eq!(list["items"], json!([]), "round {round}");
        }
        machine.ask(Method::DELETE, HOST, None).await.ok();
    }
}

#[tokio::test]
async fn a_host_is_assigned_by_an_operator_and_no_other_account_has_routes_on_it() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 1_000_000).await;
    let bob = machine.person("bob", 1_000_000).await;
    machine
        .deploy_as(&ada, "shop", "echo", json!({"public": true}))
        .await
        .ok();
    machine
        .deploy_as(&bob, "shop", "echo", json!({"public": true}))
        .await
        .ok();
    let route = json!({"host": "Shop.Example.org", "path": "/", "function": "shop"});
    set(&machine, &ada, route.clone())
        .await
        .refused(403, Code::RouteNotAllowed);
    let assign = Some(json!({"owner": "ada"}));
    let own = machine.ask_as(
        Some(&ada),
        Method::PUT,
        "/routes/hosts/shop.example.org",
        assign.clone(),
    );
    own.await.refused(403, Code::AuthOperator);
    machine
        .ask(Method::PUT, "/routes/hosts/shop.example.org", assign.clone())
        .await
        .ok();
    let others = Some(json!({"owner": "bob"}));
    let taken = machine.ask(Method::PUT, "/routes/hosts/shop.example.org", others).await;
    taken.refused(409, Code::RouteTaken);
    set(&machine, &bob, route.clone())
        .await
        .refused(403, Code::RouteNotAllowed);
    set(&machine, &ada, route).await.ok();

    let event = visit(&machine, Method::GET, "SHOP.example.org:443", "/cart/1")
        .await
        .ok();
    assert_eq!(event["path"], "/cart/1", "{event}");
    // The platform's own paths are not there.
    let event = visit(&machine, Method::GET, "shop.example.org", "/healthz").await.ok();
    assert_eq!(event["path"], "/healthz", "{event}");
    let text = machine.get("/metrics").await.body.as_str().expect("text").to_owned();
    assert!(!text.contains("shop") && !text.contains("cart"), "{text}");

    let hosts = machine.get("/routes/hosts").await.ok();
    assert_eq!(hosts["items"], json!([{"host": "shop.example.org", "owner": "ada"}]));
    machine
        .ask(Method::DELETE, "/routes/hosts/shop.example.org", None)
        .await
        .ok();
    let list = machine.ask_as(Some(&ada), Method::GET, "/routes", None).await.ok();
    assert_eq!(list["items"], json!([]));
    let platform = visit(&machine, Method::GET, "shop.example.org", "/healthz").await.ok();
    assert_eq!(platform["status"], "ok", "{platform}");
    let gone = machine
        .ask(Method::DELETE, "/routes/hosts/shop.example.org", None)
        .await;
    gone.refused(404, Code::RouteNotFound);
}

#[tokio::test]
async fn bad_foreign_and_too_many_routes_are_refused() {
    let machine = Machine::start().await;
    public(&machine, "f").await;
    public(&machine, "g").await;
    let token = machine.token.clone();
    for route in [
        json!({"path": "api", "function": "f"}),
        json!({"path": "/", "function": "f"}),
        json!({"path": "/a/../b", "function": "f"}),
        json!({"path": "/a", "function": "f", "methods": ["BREW"]}),
        json!({"path": "/a", "function": "f", "host": "localhost"}),
        json!({"path": "/a", "function": "f", "host": "x.fn.here"}),
        json!({"path": "/a", "function": "f", "host": "10.0.0.1"}),
    ] {
        set(&machine, &token, route).await.refused(422, Code::RouteMalformed);
    }
    let missing = set(&machine, &token, json!({"path": "/a", "function": "none"})).await;
    missing.refused(404, Code::FunctionNotFound);
    set(&machine, &token, json!({"path": "/a", "function": "f"})).await.ok();
    let taken = set(&machine, &token, json!({"path": "/a", "function": "g"})).await;
    taken.refused(409, Code::RouteTaken);
    for number in 1..100 {
        set(
            &machine,
            &token,
            json!({"path": format!("/n{number}"), "function": "f"}),
        )
        .await
        .ok();
    }
    let more = set(&machine, &token, json!({"path": "/more", "function": "f"})).await;
    more.refused(409, Code::RouteTooMany);
    set(
        &machine,
        &token,
        json!({"path": "/a", "function": "f", "methods": ["GET"]}),
    )
    .await
    .ok();
}
