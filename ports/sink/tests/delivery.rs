//! Results on their way to real servers on this machine: what arrives, what is tried again, what is never sent.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse as _, Redirect, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use piecework_model::{Digest, EgressPolicy, JobId};
use piecework_sink::{Courier, Deliver as _, Parcel, Sink, Undelivered};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

#[derive(Clone, Debug)]
struct Seen {
    method: String,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

type Answer = fn(&Seen) -> Response;

/// A server that answers by its rule and remembers what it was asked.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

async fn server(answer: Answer) -> Server {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let router = Router::new().fallback(take).with_state((answer, seen.clone()));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Server { address, seen }
}

async fn take(State((answer, seen)): State<(Answer, Arc<Mutex<Vec<Seen>>>)>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let request = Seen {
        method: parts.method.to_string(),
        uri: parts.uri,
        headers: parts.headers,
        body: axum::body::to_bytes(body, 1 << 20).await.expect("a body"),
    };
    seen.lock().expect("no panics").push(request.clone());
    answer(&request)
}

impl Server {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panics").clone()
    }

    fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }
}

fn ok(_: &Seen) -> Response {
    StatusCode::OK.into_response()
}

/// An operator who allows this machine's own addresses.
fn courier() -> Courier {
    let private = vec![
        "127.0.0.0/8".parse().expect("a network"),
        "::1".parse().expect("an address"),
    ];
    Courier::within(EgressPolicy { private }, Duration::from_secs(2)).expect("a client")
}

const OUTPUT: &[u8] = br#"{"answer":42}"#;

fn parcel() -> Parcel {
    Parcel {
        job: JobId::new(1_700_000_000_000, [7; 10]),
        digest: Digest::of(OUTPUT),
        output: Some(Bytes::from_static(OUTPUT)),
        report: Bytes::from_static(br#"{"state":"succeeded","output":{"answer":42}}"#),
    }
}

fn http(url: String) -> Sink {
    Sink::Http {
        url,
        token: Some("letmein".into()),
    }
}

#[tokio::test]
async fn an_output_is_put_under_the_jobs_id_with_its_digest() {
    let server = server(ok).await;
    let id = parcel().job.to_string();
    courier()
        .deliver(&http(server.url("/in")), &parcel())
        .await
        .expect("delivered");
    let seen = server.only();
    assert_eq!(
        (seen.method.as_str(), seen.uri.path()),
        ("PUT", format!("/in/{id}").as_str())
    );
    assert_eq!((&*seen.body, seen.header("content-type")), (OUTPUT, "application/json"));
    assert_eq!(seen.header("authorization"), "Bearer letmein");
    assert_eq!(seen.header("x-piecework-digest"), Digest::of(OUTPUT).to_string());
    courier()
        .deliver(&http(server.url("/a/{job}.json?k=v")), &parcel())
        .await
        .expect("delivered");
    assert_eq!(server.seen()[1].uri.to_string(), format!("/a/{id}.json?k=v"));
}

#[tokio::test]
async fn a_webhook_is_told_what_became_of_the_job_under_a_signature() {
    let server = server(ok).await;
    let key = b"a key of some length";
    let sink = Sink::Webhook {
        url: server.url("/hook"),
        secret: Some(format!("whsec_{}", STANDARD.encode(key))),
    };
    courier().deliver(&sink, &parcel()).await.expect("delivered");
    let seen = server.only();
    assert_eq!((seen.method.as_str(), seen.uri.path()), ("POST", "/hook"));
    assert_eq!(seen.header("webhook-id"), parcel().job.to_string());
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(format!("{}.{}.", seen.header("webhook-id"), seen.header("webhook-timestamp")).as_bytes());
    mac.update(&seen.body);
    let expected = STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(seen.header("webhook-signature"), format!("v1,{expected}"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = server(|seen| match seen.uri.path().starts_with("/in") {
        true => Redirect::temporary("/elsewhere").into_response(),
        false => StatusCode::OK.into_response(),
    })
    .await;
    let said = courier().deliver(&http(server.url("/in")), &parcel()).await;
    assert_eq!(said, Err(Undelivered::Answered(307)));
    assert!(server.only().uri.path().starts_with("/in"));
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_never_connected_to() {
    let server = server(ok).await;
    let sink = http(format!("http://localhost:{}/in", server.address.port()));
    let strict = Courier::new(EgressPolicy::default()).expect("a client");
    strict.check(&sink).expect("a name says nothing yet");
    let said = strict.deliver(&sink, &parcel()).await;
    assert_eq!(said, Err(Undelivered::Forbidden));
    assert!(Undelivered::Forbidden.is_final());
    let literal = strict.deliver(&http(server.url("/in")), &parcel()).await;
    assert_eq!(literal, Err(Undelivered::Forbidden));
    assert!(server.seen().is_empty());
    courier()
        .deliver(&sink, &parcel())
        .await
        .expect("where the operator allows it");
}

#[tokio::test]
async fn whoever_does_not_take_it_is_asked_again_unless_he_says_never() {
    let said = |answer: Answer| async move {
        let server = server(answer).await;
        courier()
            .deliver(&http(server.url("/in")), &parcel())
            .await
            .expect_err("not taken")
    };
    let busy = said(|_| StatusCode::SERVICE_UNAVAILABLE.into_response()).await;
    assert_eq!((busy.clone(), busy.is_final()), (Undelivered::Answered(503), false));
    let gone = said(|_| StatusCode::GONE.into_response()).await;
    assert_eq!((gone.clone(), gone.is_final()), (Undelivered::Answered(410), true));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = format!("http://{}/in", listener.local_addr().expect("bound"));
    let said = courier()
        .deliver(&http(silent.clone()), &parcel())
        .await
        .expect_err("nobody answers");
    assert_eq!(said, Undelivered::NoAnswer("it did not answer in time"));
    drop(listener);
    let said = courier()
        .deliver(&http(silent), &parcel())
        .await
        .expect_err("nobody listens");
    assert_eq!(said, Undelivered::NoAnswer("it could not be reached"));
}

const REGION: &str = "eu-test-1";
const ACCESS_KEY: &str = "AKIDEXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SESSION: &str = "a lent/token+==";

fn s3(endpoint: String, secret_key: &str, expires_at_ms: Option<u64>) -> Sink {
    Sink::S3 {
        endpoint,
        bucket: "results".into(),
        region: REGION.into(),
        prefix: "ada/echo/".into(),
        access_key: ACCESS_KEY.into(),
        secret_key: secret_key.into(),
        session_token: Some(SESSION.into()),
        expires_at_ms,
    }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks a presigned request as S3 does (signature version 4, query parameters), from its own reading of the specification.
fn s3_answer(seen: &Seen) -> Response {
    let query = seen.uri.query().unwrap_or_default();
    let mut pairs: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let signature = pairs.remove("X-Amz-Signature").unwrap_or_default();
    let date = pairs.get("X-Amz-Date").copied().unwrap_or_default();
    let scope = format!("{}/{REGION}/s3/aws4_request", date.get(..8).unwrap_or_default());
    let canonical_query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let canonical = format!(
        "{}\n{}\n{}\nhost:{}\n\nhost\nUNSIGNED-PAYLOAD",
        seen.method,
        seen.uri.path(),
        canonical_query.join("&"),
        seen.header("host")
    );
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    let key = ["s3", "aws4_request"].iter().fold(
        hmac(&hmac(format!("AWS4{SECRET_KEY}").as_bytes(), &date[..8]), REGION),
        |key, part| hmac(&key, part),
    );
    let credential = format!("{ACCESS_KEY}/{scope}").replace('/', "%2F");
    let whole = hex(&hmac(&key, &to_sign)) == signature
        && pairs.get("X-Amz-Credential") == Some(&credential.as_str())
        && pairs.get("X-Amz-Security-Token") == Some(&"a%20lent%2Ftoken%2B%3D%3D");
    match whole && seen.method == "PUT" {
        true => StatusCode::OK.into_response(),
        false => StatusCode::FORBIDDEN.into_response(),
    }
}

#[tokio::test]
async fn an_object_is_put_with_a_lent_credential() {
    let server = server(s3_answer).await;
    courier()
        .deliver(&s3(server.url(""), SECRET_KEY, None), &parcel())
        .await
        .expect("stored");
    let seen = server.only();
    assert_eq!(seen.uri.path(), format!("/results/ada/echo/{}.json", parcel().job));
    assert_eq!(&*seen.body, OUTPUT);
    let said = courier().deliver(&s3(server.url(""), "another", None), &parcel()).await;
    assert_eq!(said, Err(Undelivered::Answered(403)), "the server does check");
}

#[tokio::test]
async fn an_expired_credential_is_not_shown_to_anybody() {
    let server = server(s3_answer).await;
    let said = courier()
        .deliver(&s3(server.url(""), SECRET_KEY, Some(1_000)), &parcel())
        .await;
    assert_eq!(said, Err(Undelivered::CredentialExpired));
    assert!(server.seen().is_empty());
}
