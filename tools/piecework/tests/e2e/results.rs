//! Results that go to their developer's own place, across restarts, and nowhere they must not.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode};
use piecework_model::Code;
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    machine::Machine,
    providers::{accepted, until},
};

const ECHO: &str = "export default (event) => event;\n";
const RAISES: &str = "export default () => { throw new Error('broken'); };\n";

/// A developer's own server: takes everything, and keeps what it was sent.
struct Server {
    address: SocketAddr,
    state: Arc<Kept>,
}

struct Kept {
    seen: Mutex<Vec<Seen>>,
}

#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Kept { seen: Mutex::default() });
        let router = Router::new().fallback(keep).with_state(state.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, state }
    }

    fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("no panics").clone()
    }

    /// Of requests to a path that ends so.
    fn at(&self, end: &str) -> Vec<Seen> {
        self.seen()
            .into_iter()
            .filter(|seen| seen.path.ends_with(end))
            .collect()
    }
}

async fn keep(
    State(state): State<Arc<Kept>>,
    method: Method,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let path = uri.path().to_owned();
    state.seen.lock().expect("no panics").push(Seen {
        method,
        path,
        headers,
        body,
    });
    StatusCode::OK
}

async fn result_is(machine: &Machine, job: &str, state: &str) -> Value {
    until(&format!("the result is {state}"), async || {
        let view = machine.get(&format!("/jobs/{job}")).await.ok();
        (view["result"]["state"] == state).then_some(view)
    })
    .await
}

async fn called(machine: &Machine, name: &str, input: Value) -> String {
    let answer = machine.call(name, input).await.ok();
    answer["job_id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_go_to_their_developers_place_and_expire_here() {
    let home = tempfile::tempdir().expect("a directory");
    let machine = Machine::start_with(home.path(), &["--results-to", "127.0.0.0/8"]);
    let server = Server::start().await;
    let url = |path: &str| format!("http://{}{path}", server.address);

    let sink = json!({"kind": "http", "url": url("/in/{job}.json"), "token": "letmein"});
    let deployed = machine
        .deploy_with("echo", "javascript", ECHO, json!({"results": {"sink": sink}}))
        .await
        .ok();
    assert_eq!(deployed["results"]["sink"]["to"], url("/in/{job}.json"), "{deployed}");
    assert!(!deployed.to_string().contains("letmein"), "{deployed}");
    let job = called(&machine, "echo", json!({"n": 1})).await;
    let view = result_is(&machine, &job, "delivered").await;
    assert_eq!(
        (&view["state"], &view["output"]),
        (&json!("succeeded"), &Value::Null),
        "{view}"
    );
    machine
        .get(&format!("/jobs/{job}/result"))
        .await
        .refused(404, Code::ResultElsewhere);
    let put = server.at(&format!("/in/{job}.json"));
    assert_eq!(
        (put.len(), &put[0].method, put[0].json()),
        (1, &Method::PUT, json!({"n": 1}))
    );
    assert_eq!(put[0].headers["authorization"], "Bearer letmein");
    machine.paid(&job).await;
    let proof = machine.get(&format!("/jobs/{job}/proof")).await.ok().to_string();
    let digest = put[0].headers["x-piecework-digest"].to_str().expect("text");
    assert!(proof.contains(digest), "the ledger has {digest}: {proof}");

    let hook = json!({"results": {"sink": {"kind": "webhook", "url": url("/hook"), "secret": "whsec_c2VjcmV0"}}});
    machine.deploy_with("raises", "javascript", RAISES, hook).await.ok();
    let job = accepted(&machine, "raises", json!(null)).await;
    result_is(&machine, &job, "delivered").await;
    let told = server.at("/hook");
    assert_eq!(
        (told[0].json()["job_id"].as_str(), &told[0].json()["state"]),
        (Some(job.as_str()), &json!("failed"))
    );
    assert_eq!(told[0].json()["error"]["code"], Code::FunctionRaised.as_str());
    assert!(
        told[0].headers["webhook-signature"]
            .to_str()
            .expect("text")
            .starts_with("v1,")
    );

    let slow = "export default () => { const end = Date.now() + 3000; while (Date.now() < end); };\n";
    machine.deploy_with("slow", "javascript", slow, json!({})).await.ok();
    let job = accepted(&machine, "slow", json!(null)).await;
    machine
        .get(&format!("/jobs/{job}/result"))
        .await
        .refused(409, Code::JobNotFinished);
    machine.deploy_with("usual", "javascript", ECHO, json!({})).await.ok();
    let large = called(&machine, "usual", json!("x".repeat(40_000))).await;
    machine
        .get(&format!("/jobs/{large}/result"))
        .await
        .refused(404, Code::ResultNotKept);

    let path = "/functions/echo/results";
    machine
        .ask(Method::PUT, path, Some(json!({"ttl_s": 0})))
        .await
        .refused(422, Code::ResultBadTtl);
    machine.ask(Method::PUT, path, Some(json!({"ttl_s": 2}))).await.ok();
    let job = called(&machine, "echo", json!(7)).await;
    until("it expires", async || {
        let answer = machine.get(&format!("/jobs/{job}/result")).await;
        match answer.status.as_u16() {
            200 => {
                assert_eq!(answer.body, json!(7));
                None
            }
            _ => {
                answer.refused(410, Code::ResultExpired);
                Some(())
            }
        }
    })
    .await;
    let view = machine.get(&format!("/jobs/{job}")).await.ok();
    assert_eq!(
        (&view["output"], &view["result"]["state"]),
        (&Value::Null, &json!("expired")),
        "{view}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_is_sent_to_no_private_address() {
    let home = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(home.path());
    let server = Server::start().await;
    let results = |host: &str| {
        let url = format!("http://{host}:{}/in", server.address.port());
        json!({"results": {"sink": {"kind": "http", "url": url}}})
    };
    for host in ["127.0.0.1", "[::1]", "169.254.169.254", "10.0.0.1"] {
        let answer = machine.deploy_with("echo", "javascript", ECHO, results(host)).await;
        answer.refused(422, Code::ResultPrivateAddress);
    }
    let ftp = json!({"results": {"sink": {"kind": "http", "url": "ftp://example.org/"}}});
    machine
        .deploy_with("echo", "javascript", ECHO, ftp)
        .await
        .refused(422, Code::ResultBadSink);
    // What a name leads to shows when it is connected to.
    machine
        .deploy_with("echo", "javascript", ECHO, results("localhost"))
        .await
        .ok();
    let job = called(&machine, "echo", json!(1)).await;
    let view = result_is(&machine, &job, "undelivered").await;
    assert_eq!(view["output"], 1, "{view}");
    assert!(server.seen().is_empty());
}
