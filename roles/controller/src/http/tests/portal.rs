//! The portal: its files, its sessions, and who may not use them.

use axum::http::{Method, Request, header, request};
use piecework_model::Code;
use serde_json::{Value, json};

use crate::doubles::{answer::Answer, machine::Machine};

const HOST: &str = "here";

/// As a page of the portal asks.
fn from_a_page(method: Method, path: &str, cookie: Option<&str>) -> request::Builder {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, HOST)
        .header(header::ORIGIN, format!("http://{HOST}"))
        .header("sec-fetch-site", "same-origin")
        .header("x-piecework-portal", "1");
    match cookie {
        Some(cookie) => request.header(header::COOKIE, cookie),
        None => request,
    }
}

async fn sign_in(machine: &Machine, body: Value) -> Answer {
    machine
        .send(from_a_page(Method::POST, "/portal/session", None), Some(body))
        .await
}

/// As the browser sends it back.
fn cookie_of(answer: &Answer) -> String {
    let set = answer.headers[header::SET_COOKIE].to_str().expect("ASCII");
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    set.split(';').next().expect("a pair").to_owned()
}

async fn get(machine: &Machine, path: &str, encodings: &str) -> Answer {
    let request = Request::builder()
        .uri(path)
        .header(header::HOST, HOST)
        .header(header::ACCEPT_ENCODING, encodings);
    machine.send(request, None).await
}

#[tokio::test]
async fn the_page_and_its_files_come_compressed_with_what_they_may_do() {
    let machine = Machine::start().await;
    for path in ["/portal/", "/portal/jobs/some-job", "/portal/functions?name=x"] {
        let page = get(&machine, path, "gzip, br").await;
        assert_eq!(
            (page.status.as_u16(), &page.body),
            (200, &json!("index in brotli")),
            "{path}"
        );
        let policy = page.headers["content-security-policy"].to_str().expect("ASCII");
        assert!(policy.contains("script-src here/portal/assets/;"), "{policy}");
        assert!(
            policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        for (name, due) in [
            ("cache-control", "no-cache"),
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(page.headers[name], due, "{path}");
        }
    }
    let again = Request::builder()
        .uri("/portal/")
        .header(header::IF_NONE_MATCH, "\"one\"");
    assert_eq!(machine.send(again, None).await.status, 304);
    let asset = get(&machine, "/portal/assets/app-1.js", "gzip").await;
    assert_eq!(
        (&asset.body, &asset.headers["content-encoding"]),
        (&json!("app in gzip"), &"gzip".parse().expect("a value"))
    );
    assert_eq!(asset.headers["cache-control"], "public, max-age=31536000, immutable");
    assert!(!asset.headers.contains_key("content-security-policy"));
    let worker = get(&machine, "/portal/assets/proof.worker-1.js", "br").await;
    let policy = worker.headers["content-security-policy"].to_str().expect("ASCII");
    assert_eq!(
        policy, "default-src 'none'; script-src 'wasm-unsafe-eval'; connect-src here/portal/assets/",
        "it alone may make modules"
    );
    for path in ["/portal/assets/app-2.js", "/portal/api/nothing"] {
        get(&machine, path, "br").await.refused(404, Code::PathNotFound);
    }
    let root = get(&machine, "/", "br").await;
    assert_eq!(
        (root.status.as_u16(), &root.headers["location"]),
        (307, &"/portal/".parse().expect("a value"))
    );
}

#[tokio::test]
async fn a_cookie_is_good_below_the_portal_and_nowhere_else() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 100_000).await;
    machine.deploy_as(&ada, "hello", "return 1", json!({})).await.ok();
    let session = sign_in(&machine, json!({"name": "ada", "password": "correct horse"})).await;
    let cookie = cookie_of(&session);
    let session = session.ok();
    assert_eq!(
        (&session["account"]["name"], &session["operator"]),
        (&json!("ada"), &json!(false))
    );
    assert!(
        !session.to_string().contains("pw_"),
        "no script gets the secret: {session}"
    );
    let shown = machine
        .send(from_a_page(Method::GET, "/portal/session", Some(&cookie)), None)
        .await;
    assert_eq!(shown.ok()["account"]["name"], "ada");
    let list = machine
        .send(from_a_page(Method::GET, "/portal/api/functions", Some(&cookie)), None)
        .await;
    assert_eq!(list.ok()["items"][0]["name"], "hello");
    let ran = from_a_page(Method::POST, "/portal/api/execute/hello", Some(&cookie));
    assert_eq!(machine.send(ran, Some(json!({"input": 1}))).await.status, 200);
    for (method, path) in [
        (Method::GET, "/functions"),
        (Method::POST, "/execute/hello"),
        (Method::POST, "/fn/ada/hello"),
    ] {
        let answer = machine.send(from_a_page(method, path, Some(&cookie)), None).await;
        answer.refused(401, Code::AuthMissingToken);
    }
    // Nor is a token good where the cookie is.
    let request = from_a_page(Method::GET, "/portal/api/functions", None);
    let with_token = request.header(header::AUTHORIZATION, format!("Bearer {ada}"));
    machine
        .send(with_token, None)
        .await
        .refused(401, Code::AuthMissingToken);
}

#[tokio::test]
async fn no_other_page_can_use_the_session() {
    let machine = Machine::start().await;
    machine.person("ada", 5).await;
    let cookie = cookie_of(&sign_in(&machine, json!({"name": "ada", "password": "correct horse"})).await);
    let from_elsewhere = |pairs: &[(&str, &str)], method: Method, path: &str| {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, HOST)
            .header(header::COOKIE, &cookie);
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        request
    };
    let own = ("x-piecework-portal", "1");
    let of_a_function = ("origin", "http://hello.ada.fn.here");
    for pairs in [
        vec![],
        vec![("origin", "http://here")],
        vec![own, ("origin", "null")],
        vec![own, of_a_function, ("sec-fetch-site", "same-site")],
        vec![own, of_a_function],
        vec![own, ("origin", "http://here"), ("sec-fetch-site", "cross-site")],
    ] {
        for (method, path) in [
            (Method::GET, "/portal/session"),
            (Method::GET, "/portal/api/jobs"),
            (Method::POST, "/portal/api/tokens"),
            (Method::POST, "/portal/session"),
            (Method::DELETE, "/portal/session"),
        ] {
            let answer = machine
                .send(from_elsewhere(&pairs, method, path), Some(json!({"scopes": ["admin"]})))
                .await;
            answer.refused(403, Code::AuthForeignPage);
            assert!(
                !answer.headers.contains_key("access-control-allow-origin"),
                "{pairs:?} {path}"
            );
        }
    }
    let preflight = from_elsewhere(&[of_a_function], Method::OPTIONS, "/portal/api/tokens");
    let preflight = machine
        .send(preflight.header("access-control-request-method", "POST"), None)
        .await;
    assert!(!preflight.status.is_success() && !preflight.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn signing_out_ends_the_session_and_nothing_else() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 5).await;
    let cookie = cookie_of(&sign_in(&machine, json!({"token": ada})).await);
    let jobs = async || {
        machine
            .send(from_a_page(Method::GET, "/portal/api/jobs", Some(&cookie)), None)
            .await
    };
    jobs().await.ok();
    let out = async |cookie: Option<&str>| {
        machine
            .send(from_a_page(Method::DELETE, "/portal/session", cookie), None)
            .await
    };
    let closed = out(Some(&cookie)).await;
    assert_eq!(closed.status, 204);
    assert!(
        closed.headers[header::SET_COOKIE]
            .to_str()
            .expect("ASCII")
            .contains("Max-Age=0")
    );
    jobs().await.refused(401, Code::AuthBadToken);
    assert_eq!(out(Some(&cookie)).await.status, 204, "already");
    assert_eq!(out(None).await.status, 204, "without any");
    machine.ask_as(Some(&ada), Method::GET, "/jobs", None).await.ok();
}

#[tokio::test]
async fn signing_in_is_refused_as_logging_in_is() {
    let machine = Machine::start().await;
    machine.person("ada", 5).await;
    for (body, status, code) in [
        (
            json!({"name": "ada", "password": "wrong horse"}),
            401,
            Code::AuthBadCredentials,
        ),
        (
            json!({"name": "nobody", "password": "correct horse"}),
            401,
            Code::AuthBadCredentials,
        ),
        (json!({"token": "pw_00"}), 401, Code::AuthBadToken),
        (json!({"name": "ada"}), 422, Code::BodyMalformed),
        (json!({"name": "ada", "challenge": "00"}), 422, Code::BodyMalformed),
        (
            json!({"name": "ada", "challenge": "00", "signature": "00".repeat(64)}),
            401,
            Code::AuthBadCredentials,
        ),
        (
            json!({"name": "ada", "password": "correct horse", "token": "x"}),
            422,
            Code::BodyMalformed,
        ),
        (json!({"user": "ada"}), 422, Code::BodyMalformed),
    ] {
        let answer = sign_in(&machine, body).await;
        answer.refused(status, code);
        assert!(!answer.headers.contains_key(header::SET_COOKIE));
    }
}

#[tokio::test]
async fn of_an_accounts_sessions_the_newest_stay() {
    let machine = Machine::start().await;
    let body = json!({"token": machine.token});
    let mut cookies = Vec::new();
    for _ in 0..10 {
        let opened = sign_in(&machine, body.clone()).await;
        assert_eq!(opened.status, 201, "{}", opened.body);
        cookies.push(cookie_of(&opened));
    }
    let with = async |cookie: &str| {
        let asked = from_a_page(Method::GET, "/portal/session", Some(cookie));
        machine.send(asked, None).await
    };
    with(&cookies[0]).await.refused(401, Code::AuthBadToken);
    with(&cookies[9]).await.ok();
    // What is no session stays.
    machine.get("/functions").await.ok();
    let tokens = machine.get("/tokens").await.ok();
    let sessions = tokens["items"].as_array().into_iter().flatten();
    let sessions = sessions.filter(|token| token["label"] == "portal").count();
    assert_eq!(sessions, 8, "{tokens}");
}
