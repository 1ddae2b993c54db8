//! The files of `public/`: a site alone, and beside a function.

use std::io::{Read as _, Write as _};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use flate2::read::GzDecoder;
use piecework_blobs::{Bundle, BundleLimits};
use piecework_model::Code;
use serde_json::{Value, json};

use crate::{
    carried_whole::{Raw, connect, raw},
    machine::Machine,
};

fn up() -> (Machine, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    (machine, directory)
}

async fn deploy(machine: &Machine, name: &str, files: &[(&str, &str)], public: bool) -> Value {
    let files = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), Bytes::copy_from_slice(text.as_bytes())));
    let bundle = Bundle::new(files, &BundleLimits::UPLOAD).expect("a bundle");
    let body = json!({"name": name, "language": "javascript", "bundle": BASE64_STANDARD.encode(bundle.pack().tar), "public": public});
    machine.ask(reqwest::Method::POST, "/functions", Some(body)).await.ok()
}

fn ask(machine: &Machine, request: &str, more: &str) -> Raw {
    let mut stream = connect(machine);
    let head = if more.contains("host:") {
        ""
    } else {
        "host: example.org\r\n"
    };
    let request = format!("{request} HTTP/1.1\r\n{head}connection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("read");
    raw(&bytes)
}

async fn jobs(machine: &Machine) -> usize {
    machine.get("/jobs").await.ok()["items"]
        .as_array()
        .expect("a list")
        .len()
}

const BROWSER: &str = "accept: text/html,*/*;q=0.8\r\nsec-fetch-mode: navigate\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_served_without_a_job() {
    let (machine, _directory) = up();
    let style = "body { color: black }\n".repeat(200);
    let files = [
        ("public/index.html", "<h1>home</h1>"),
        ("public/style.css", style.as_str()),
        ("public/docs/index.html", "docs"),
        ("public/.env", "SECRET=1"),
        ("README.md", "not public"),
    ];
    let view = deploy(&machine, "site", &files, true).await;
    assert_eq!(view["site"], "alone", "{view}");
    let home = ask(&machine, "GET /fn/operator/site/", "");
    assert_eq!((home.status(), &*home.body), (200, &b"<h1>home</h1>"[..]));
    assert_eq!(home.values("content-type"), ["text/html; charset=utf-8"]);
    assert_eq!(home.values("x-content-type-options"), ["nosniff"]);
    assert!(
        home.values("content-security-policy")[0].starts_with("sandbox "),
        "the platform's own origin"
    );
    let own = ask(&machine, "GET /", "host: site.operator.fn.localhost\r\n");
    assert_eq!((own.status(), own.values("content-security-policy").len()), (200, 0));
    assert_eq!(own.values("x-content-type-options"), ["nosniff"]);

    let css = ask(
        &machine,
        "GET /fn/operator/site/style.css",
        "accept-encoding: br, gzip\r\n",
    );
    assert_eq!(
        (css.values("content-encoding"), css.values("vary")),
        (vec!["gzip"], vec!["accept-encoding"])
    );
    let mut text = String::new();
    GzDecoder::new(&css.body[..]).read_to_string(&mut text).expect("gzip");
    assert_eq!(text, style);
    let tag = css.values("etag")[0];
    let again = ask(
        &machine,
        "GET /fn/operator/site/style.css",
        &format!("accept-encoding: gzip\r\nif-none-match: {tag}\r\n"),
    );
    assert_eq!(
        (again.status(), again.body.len(), again.values("etag")),
        (304, 0, vec![tag])
    );
    let part = ask(&machine, "GET /fn/operator/site/style.css", "range: bytes=5-9\r\n");
    assert_eq!((part.status(), &*part.body), (206, &style.as_bytes()[5..10]));
    let beyond = ask(&machine, "GET /fn/operator/site/style.css", "range: bytes=99999-\r\n");
    assert_eq!(
        (beyond.status(), beyond.values("content-range")),
        (416, vec!["bytes */4400"])
    );
    assert_eq!(beyond.json()["error"]["code"], Code::SiteBadRange.as_str());
    let head = ask(&machine, "HEAD /fn/operator/site/style.css", "");
    assert_eq!(
        (head.status(), head.values("content-length"), head.body.len()),
        (200, vec!["4400"], 0)
    );

    let bare = ask(&machine, "GET /fn/operator/site?q=1", "");
    assert_eq!((bare.status(), bare.values("location")), (308, vec!["./site/?q=1"]));
    let folder = ask(&machine, "GET /fn/operator/site/docs", "");
    assert_eq!((folder.status(), folder.values("location")), (308, vec!["./docs/"]));
    let any = ask(&machine, "GET /fn/operator/site/users/7", BROWSER);
    assert_eq!(
        (any.status(), &*any.body),
        (200, &b"<h1>home</h1>"[..]),
        "an application of one page"
    );
    for path in [
        "a.png",
        ".env",
        "../README.md",
        "%2e%2e/README.md",
        "..%2fREADME.md",
        "..%5cREADME.md",
        "public/index.html",
        "docs%2findex.html",
    ] {
        let got = ask(&machine, &format!("GET /fn/operator/site/{path}"), "");
        assert_eq!(
            (got.status(), got.json()["error"]["code"].as_str()),
            (404, Some(Code::PathNotFound.as_str())),
            "{path}"
        );
    }
    let posted = ask(&machine, "POST /fn/operator/site/", "content-length: 0\r\n");
    assert_eq!(
        (posted.status(), posted.json()["error"]["code"].as_str()),
        (405, Some(Code::MethodNotAllowed.as_str()))
    );
    assert_eq!(jobs(&machine).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_gets_what_names_no_file_and_a_private_one_is_for_its_owner() {
    let (machine, _directory) = up();
    let code = "export default (event) => ({ method: event.method, path: event.path });\n";
    let files = [
        ("main.mjs", code),
        ("public/index.html", "home"),
        ("public/200.html", "any page"),
    ];
    let view = deploy(&machine, "app", &files, true).await;
    assert_eq!((&view["site"], &view["handler"]), (&json!("beside"), &json!(null)));
    let due = |method: &str, path: &str| json!({"method": method, "path": path});
    assert_eq!(ask(&machine, "GET /fn/operator/app/", "").body, b"home");
    assert_eq!(jobs(&machine).await, 0);
    let posted = ask(&machine, "POST /fn/operator/app/", "content-length: 0\r\n");
    assert_eq!(posted.json(), due("POST", "/"));
    assert_eq!(
        ask(&machine, "GET /fn/operator/app/api/x", "").json(),
        due("GET", "/api/x")
    );
    assert_eq!(ask(&machine, "GET /fn/operator/app/users/7", BROWSER).body, b"any page");
    assert_eq!(
        ask(&machine, "GET /fn/operator/app/main.mjs", "").json(),
        due("GET", "/main.mjs")
    );

    let files = [("public/index.html", "mine"), ("public/404.html", "no such page")];
    deploy(&machine, "mine", &files, false).await;
    let stranger = ask(&machine, "GET /fn/operator/mine/", "");
    assert_eq!(stranger.json()["error"]["code"], Code::AuthMissingToken.as_str());
    let bearer = format!("authorization: Bearer {}\r\n", machine.token);
    let owner = ask(&machine, "GET /fn/operator/mine/", &bearer);
    assert_eq!(
        (owner.body.as_slice(), owner.values("cache-control")),
        (&b"mine"[..], vec!["private, max-age=0, must-revalidate"])
    );
    let none = ask(&machine, "GET /fn/operator/mine/nowhere", &bearer);
    assert_eq!((none.status(), none.body.as_slice()), (404, &b"no such page"[..]));
    let stopped = machine.ask(reqwest::Method::POST, "/functions/mine/stop", None).await;
    assert!(stopped.status.is_success(), "{}", stopped.body);
    let refused = ask(&machine, "GET /fn/operator/mine/", &bearer);
    assert_eq!(refused.json()["error"]["code"], Code::FunctionStopped.as_str());
}
