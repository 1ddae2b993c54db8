//! The portal's files, which the program carries compressed, and what they may do in a browser.

use std::io::Read as _;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use flate2::read::GzDecoder;
use piecework_api::routes;

/// A file as it was packed when the program was built.
#[derive(Debug)]
pub struct PortalFile {
    /// Of an asset: its name has its digest in it. [`INDEX`] is the page.
    pub name: &'static str,
    pub content_type: &'static str,
    /// Quoted.
    pub etag: &'static str,
    pub gzip: &'static [u8],
    pub brotli: &'static [u8],
}

/// The page from which the others are made.
const INDEX: &str = "index.html";
/// How the name of the worker begins that checks proofs. It alone may make a module of WebAssembly, and has nothing but that: pages may not.
const CHECKER: &str = "proof.worker-";
/// An asset's name changes with its content.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ASK_EACH_TIME: HeaderValue = HeaderValue::from_static("no-cache");

/// The page, for any path; a page that says how to build it where the program was built without it.
pub(super) fn page(files: &[PortalFile], headers: &HeaderMap) -> Response {
    let mut response = match files.iter().find(|file| file.name == INDEX) {
        Some(index) if is_known(index, headers) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            set(&mut response, header::ETAG, HeaderValue::from_static(index.etag));
            response
        }
        Some(index) => content(index, headers.get(header::ACCEPT_ENCODING)),
        None => not_built(),
    };
    guard(&mut response, headers.get(header::HOST));
    set(&mut response, header::CACHE_CONTROL, ASK_EACH_TIME);
    response
}

pub(super) fn asset(file: &'static PortalFile, headers: &HeaderMap) -> Response {
    let mut response = content(file, headers.get(header::ACCEPT_ENCODING));
    if file.name.starts_with(CHECKER) {
        let policy = format!(
            "default-src 'none'; script-src 'wasm-unsafe-eval'; connect-src {}",
            sources(headers.get(header::HOST)).0
        );
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            set(&mut response, header::CONTENT_SECURITY_POLICY, policy);
        }
    }
    set(&mut response, header::CACHE_CONTROL, FOR_EVER);
    let own = HeaderValue::from_static("same-origin");
    set(
        &mut response,
        HeaderName::from_static("cross-origin-resource-policy"),
        own,
    );
    response
}

fn set(response: &mut Response, name: HeaderName, value: HeaderValue) {
    response.headers_mut().insert(name, value);
}

fn is_known(file: &PortalFile, headers: &HeaderMap) -> bool {
    let asked = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    asked.is_some_and(|tags| {
        tags.split(',')
            .any(|tag| tag.trim().trim_start_matches("W/") == file.etag)
    })
}

fn content(file: &PortalFile, accepts: Option<&HeaderValue>) -> Response {
    let accepts = accepts.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (encoding, bytes) = match () {
        () if takes(accepts, "br") => (Some("br"), file.brotli.into()),
        () if takes(accepts, "gzip") => (Some("gzip"), file.gzip.into()),
        () => (None, plain(file)),
    };
    let mut response = Response::new(Body::from(bytes));
    set(
        &mut response,
        header::CONTENT_TYPE,
        HeaderValue::from_static(file.content_type),
    );
    set(&mut response, header::ETAG, HeaderValue::from_static(file.etag));
    set(&mut response, header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(encoding) = encoding {
        set(
            &mut response,
            header::CONTENT_ENCODING,
            HeaderValue::from_static(encoding),
        );
    }
    response
}

/// Whether a list of encodings has this one, and not with a weight of nothing.
fn takes(accepts: &str, encoding: &str) -> bool {
    accepts.split(',').any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        name.trim().eq_ignore_ascii_case(encoding) && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

/// For programs that take nothing compressed; browsers all do.
fn plain(file: &PortalFile) -> bytes::Bytes {
    let mut plain = Vec::new();
    GzDecoder::new(file.gzip)
        .read_to_end(&mut plain)
        .expect("packed when the program was built");
    plain.into()
}

const NOT_BUILT: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Piecework</title>
<h1>The portal is not in this program</h1>
<p>The program was built without it. With Node 20 or later and npm, run <code>portal/build.sh</code>, then build the program again.
<p>The HTTP API works all the same: see <a href=\"/openapi.json\">/openapi.json</a>, and <code>piecework --help</code> for the command line.
";

fn not_built() -> Response {
    let mut response = Response::new(Body::from(NOT_BUILT));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    set(&mut response, header::CONTENT_TYPE, html);
    response
}

/// Where assets, interface and session are, as a policy names it.
fn sources(host: Option<&HeaderValue>) -> (String, String, String) {
    let at = host.and_then(|host| host.to_str().ok()).filter(|host| is_plain(host));
    match at {
        // A host that a policy cannot name, such as an IPv6 address.
        None => ("'self'".to_owned(), "'self'".to_owned(), String::new()),
        Some(host) => (
            format!("{host}{}", routes::PORTAL_ASSETS),
            format!("{host}{}/", routes::PORTAL_API),
            format!("{host}{}", routes::PORTAL_SESSION),
        ),
    }
}

/// What the page may do: its own scripts and styles, requests to its own interface, and nothing of any other place. On this host
/// there are functions' pages too, so the sources have paths.
fn guard(response: &mut Response, host: Option<&HeaderValue>) {
    let (assets, api, session) = sources(host);
    let policy = format!(
        "default-src 'none'; script-src {assets}; style-src {assets}; img-src {assets}; font-src {assets}; \
         worker-src {assets}; connect-src {api} {session}; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types svelte-trusted-html piecework-worker"
    );
    // The host was looked at above; the rest is written here.
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        set(response, header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        (
            "permissions-policy",
            "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
    ] {
        set(response, HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

fn is_plain(host: &str) -> bool {
    let is_of_a_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    !host.is_empty() && host.len() <= 255 && host.bytes().all(is_of_a_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_counts_unless_it_is_refused() {
        assert!(takes("gzip, deflate, br", "br") && takes("BR;q=0.5", "br"));
        assert!(!takes("gzip;q=0, br;q=0.000", "gzip") && !takes("gzip", "br") && !takes("", "gzip"));
    }

    #[test]
    fn a_host_is_in_the_policy_only_if_it_is_one() {
        for host in ["127.0.0.1:7433", "cloud.example.org"] {
            assert!(is_plain(host), "{host}");
        }
        for host in ["", "[::1]:7433", "a b", "a; script-src *", "a,b", "*"] {
            assert!(!is_plain(host), "{host}");
        }
    }
}
