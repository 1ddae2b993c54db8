//! The client against a server of this process: what it sends, and how it tells one failure from another.

use axum::{
    Json, Router,
    body::Bytes,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Redirect, Response},
    routing::{any, get, post},
};
use piecework_api::{
    Client, ClientError, ErrorBody, Refusal, execute::Execute, functions::FunctionsQuery, jobs::JobsQuery, parse_body,
    routes,
};
use piecework_model::Code;
use serde_json::json;
use tokio::net::TcpListener;

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn event() -> Execute {
    parse_body(br#"{"input": {"a": 1}}"#).expect("a fine body")
}

#[tokio::test]
async fn a_refusal_keeps_code_status_hint_and_retry_after() {
    let refuse = || async {
        let refusal = Refusal::new(Code::FunctionTooMany, "ten run already").hint("wait");
        let status = StatusCode::from_u16(refusal.status()).expect("a status");
        (status, [("retry-after", "3")], Json(ErrorBody { error: refusal })).into_response()
    };
    let url = serve(Router::new().route(routes::EXECUTE, post(refuse))).await;
    let client = Client::new(&url, None).expect("a client");
    match client.execute("hello", &event(), None).await {
        Err(ClientError::Refused {
            status: 429,
            refusal,
            retry_after: Some(after),
        }) => {
            assert_eq!(
                (refusal.code.known(), refusal.hint.as_deref()),
                (Some(Code::FunctionTooMany), Some("wait"))
            );
            assert_eq!(after.as_secs(), 3);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nobody_there_is_no_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let client = Client::new(&url, None).expect("a client");
    match client.health().await {
        Err(ClientError::Connection { url: tried, .. }) => assert_eq!(tried, url),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_page_of_something_else_is_foreign() {
    let url = serve(Router::new().fallback(any(|| async { (StatusCode::BAD_GATEWAY, "<html>proxy</html>") }))).await;
    let client = Client::new(&url, None).expect("a client");
    assert!(matches!(
        client.health().await,
        Err(ClientError::Foreign { status: 502, .. })
    ));
}

#[tokio::test]
async fn a_token_does_not_follow_a_redirect() {
    let url = serve(Router::new().fallback(any(|| async { Redirect::temporary("http://127.0.0.1:1/") }))).await;
    let client = Client::new(&url, Some("secret".into())).expect("a client");
    assert!(matches!(
        client.health().await,
        Err(ClientError::Foreign { status: 307, .. })
    ));
}

/// Answers with what it was sent.
async fn echo(uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let seen = json!({
        "uri": uri.to_string(), "token": header("authorization"), "key": header("idempotency-key"),
        "prefer": header("prefer"), "body": String::from_utf8_lossy(&body),
    });
    let refusal = Refusal::new(Code::ServerFailed, "echo").details(seen);
    (StatusCode::INTERNAL_SERVER_ERROR, Json(ErrorBody { error: refusal })).into_response()
}

fn seen<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> serde_json::Value {
    match answer {
        Err(ClientError::Refused { refusal, .. }) => refusal.details.expect("the echo"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn names_queries_and_headers_arrive_as_they_were_given() {
    let url = serve(Router::new().fallback(any(echo))).await;
    let client = Client::new(&format!("{url}/under/a/prefix/"), Some("pw_x".into())).expect("a client");
    let sent = seen(client.execute_async("a b/c?", &event(), Some("k1")).await);
    assert_eq!(sent["uri"], "/under/a/prefix/execute/a%20b%2Fc%3F");
    assert_eq!(
        (&sent["token"], &sent["key"], &sent["prefer"]),
        (&"Bearer pw_x".into(), &"k1".into(), &"respond-async".into())
    );
    assert_eq!(sent["body"], r#"{"input":{"a": 1}}"#);
    let query = JobsQuery {
        function: Some("a&b=c".into()),
        limit: Some(7),
        ..JobsQuery::default()
    };
    let sent = seen(client.jobs(&query).await);
    assert_eq!(sent["uri"], "/under/a/prefix/jobs?function=a%26b%3Dc&limit=7");
    let sent = seen(client.functions(&FunctionsQuery::default()).await);
    assert_eq!(sent["uri"], "/under/a/prefix/functions");
}

#[tokio::test]
async fn an_answer_of_another_shape_is_foreign() {
    let url = serve(Router::new().route(routes::HEALTHZ, get(|| async { Json(json!({"status": 1})) }))).await;
    let client = Client::new(&url, None).expect("a client");
    assert!(matches!(
        client.health().await,
        Err(ClientError::Foreign { status: 200, .. })
    ));
}

#[test]
fn only_http_urls_are_taken() {
    for bad in ["", "localhost:1", "ftp://h", "http://", "file:///etc/passwd"] {
        assert!(
            matches!(Client::new(bad, None), Err(ClientError::BadUrl { .. })),
            "{bad}"
        );
    }
}
