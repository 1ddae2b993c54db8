//! Lets through to the interface what a page of the portal asked for, in the name of its browser's session.
//!
//! A browser adds a cookie to requests that anybody's page makes it send. So a request also has to show that a page of the portal
//! made it: by a header that other origins' pages can only send after a preflight, which is never granted here, and by what the
//! browser itself says of its origin. Pages of functions have other origins, or none (see `origin`), also those below this host,
//! which count as the same site.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use piecework_api::routes;
use piecework_model::Code;

use super::super::{HttpError, HttpResult};
use crate::{Controller, accounts::auth::SESSION_TTL_MS, failure::Refusal};

/// Behind TLS: a browser takes a cookie of this form only from this host itself, and sends it nowhere else.
const SECURE_NAME: &str = "__Host-piecework";
const NAME: &str = "piecework";

/// How cookies are called and requests are told apart.
pub(crate) struct Gate {
    is_secure: bool,
    /// Of the platform's URL.
    origin: String,
}

impl Gate {
    pub(crate) fn new(controller: &Controller) -> Arc<Self> {
        Arc::new(Self::at(&controller.ground.base_url))
    }

    fn at(base_url: &str) -> Self {
        Self {
            is_secure: base_url.starts_with("https:"),
            origin: base_url.trim_end_matches('/').to_ascii_lowercase(),
        }
    }

    fn name(&self) -> &'static str {
        if self.is_secure { SECURE_NAME } else { NAME }
    }

    /// The token in the session's cookie. With two cookies of the name, one was set by somebody else: neither counts.
    pub(crate) fn token<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let pairs = headers.get_all(header::COOKIE).into_iter();
        let mut found = pairs
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == self.name())
            .map(|(_, token)| token);
        let token = found.next()?;
        found.next().is_none().then_some(token)
    }

    /// Whether a request is for a place where the cookie counts.
    pub(crate) fn is_before(path: &str) -> bool {
        path.starts_with("/portal/api/") || path == routes::PORTAL_SESSION
    }

    pub(super) fn cookie(&self, token: &str) -> String {
        self.with_attributes(token, SESSION_TTL_MS / 1_000)
    }

    pub(super) fn no_cookie(&self) -> String {
        self.with_attributes("", 0)
    }

    fn with_attributes(&self, token: &str, seconds: u64) -> String {
        let name = self.name();
        let (path, secure) = if self.is_secure {
            ("/", "; Secure")
        } else {
            ("/portal/", "")
        };
        format!("{name}={token}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
    }

    /// Refuses with `auth.foreign_page`.
    fn check(&self, method: &Method, headers: &HeaderMap) -> HttpResult<()> {
        let text = |name| {
            headers
                .get(name)
                .map(|value: &HeaderValue| value.to_str().unwrap_or("?"))
        };
        let is_own_origin = |origin: &str| {
            let origin = origin.to_ascii_lowercase();
            let host = origin.split_once("://").map(|(_, host)| host);
            origin == self.origin || (host.is_some() && host == text("host").map(str::to_ascii_lowercase).as_deref())
        };
        let (origin, site) = (text("origin"), text("sec-fetch-site"));
        let is_own = text(routes::PORTAL_HEADER).is_some()
            && origin.is_none_or(is_own_origin)
            && site.is_none_or(|site| site == "same-origin");
        // Browsers name the origin of everything but a plain read.
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        if is_own && (is_read || origin.is_some()) {
            return Ok(());
        }
        let refusal = Refusal::new(
            Code::AuthForeignPage,
            "the request did not come from a page of the portal at this address",
        );
        let hint = "open the portal at its own address; programs use the same paths without `/portal/api`, and a token";
        Err(HttpError(refusal.hint(hint).into()))
    }
}

/// No page is ever made of an answer: what functions say is among them.
const NO_PAGE: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox; frame-ancestors 'none'");
const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-store");

/// Puts the session's token in place of the cookie. No other token counts here.
pub(super) async fn admit(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let mut response = match gate.check(request.method(), request.headers()) {
        Ok(()) => {
            let bearer = gate
                .token(request.headers())
                .and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
            let headers = request.headers_mut();
            headers.remove(header::COOKIE);
            headers.remove(header::AUTHORIZATION);
            if let Some(mut bearer) = bearer {
                bearer.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, bearer);
            }
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    };
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, NO_PAGE);
    response.headers_mut().insert(header::CACHE_CONTROL, NOT_KEPT);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn of_two_cookies_of_the_name_neither_counts() {
        let gate = Gate::at("http://127.0.0.1:7433");
        let token = |cookies: &[(&'static str, &'static str)]| gate.token(&with(cookies)).map(str::to_owned);
        assert_eq!(
            token(&[("cookie", "a=1; piecework=pw_x; b=2")]).as_deref(),
            Some("pw_x")
        );
        assert_eq!(token(&[("cookie", "piecework=pw_x; piecework=pw_y")]), None);
        assert_eq!(
            token(&[("cookie", "piecework=pw_x"), ("cookie", "piecework=pw_y")]),
            None
        );
        assert_eq!(token(&[("cookie", "__Host-piecework=pw_x")]), None);
        assert_eq!(token(&[]), None);
    }

    #[test]
    fn behind_tls_the_cookie_is_this_hosts_alone() {
        let cookie = Gate::at("https://cloud.example.org").cookie("pw_x");
        assert!(
            cookie.starts_with("__Host-piecework=pw_x; Path=/; ") && cookie.ends_with("; Secure"),
            "{cookie}"
        );
        let cookie = Gate::at("http://127.0.0.1:7433").cookie("pw_x");
        assert!(
            cookie.contains("Path=/portal/;") && !cookie.contains("Secure"),
            "{cookie}"
        );
    }

    #[test]
    fn only_pages_of_the_portal_are_let_in() {
        let gate = Gate::at("https://cloud.example.org");
        const OWN: (&str, &str) = (routes::PORTAL_HEADER, "1");
        const HOST: (&str, &str) = ("host", "cloud.example.org");
        let table = [
            (Method::GET, vec![OWN, HOST], true),
            (Method::GET, vec![HOST], false),
            (Method::POST, vec![OWN, HOST], false),
            (
                Method::POST,
                vec![OWN, HOST, ("origin", "https://cloud.example.org")],
                true,
            ),
            (Method::POST, vec![HOST, ("origin", "https://cloud.example.org")], false),
            // Behind a proxy that says another host, and at another address of the same server.
            (
                Method::POST,
                vec![OWN, ("host", "10.0.0.7"), ("origin", "https://cloud.example.org")],
                true,
            ),
            (
                Method::POST,
                vec![OWN, ("host", "10.0.0.7:80"), ("origin", "http://10.0.0.7:80")],
                true,
            ),
            (
                Method::POST,
                vec![OWN, HOST, ("origin", "https://f.ada.fn.cloud.example.org")],
                false,
            ),
            (Method::POST, vec![OWN, HOST, ("origin", "null")], false),
            (Method::GET, vec![OWN, HOST, ("sec-fetch-site", "same-site")], false),
            (Method::GET, vec![OWN, HOST, ("sec-fetch-site", "cross-site")], false),
            (Method::GET, vec![OWN, HOST, ("sec-fetch-site", "none")], false),
            (Method::GET, vec![OWN, HOST, ("sec-fetch-site", "same-origin")], true),
        ];
        for (method, headers, due) in table {
            assert_eq!(
                gate.check(&method, &with(&headers)).is_ok(),
                due,
                "{method} {headers:?}"
            );
        }
    }
}
