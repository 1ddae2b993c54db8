//! Functions' own origins, `NAME.OWNER.fn.HOST`: a browser keeps what functions set there apart from the platform and from
//! one another. At the plain path, which is the platform's own origin, they may set little.

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use piecework_model::{FunctionName, OwnerName};

/// Where functions have origins of their own.
#[derive(Clone, Debug)]
pub(crate) struct Origins {
    /// `.fn.HOST`, and `.fn.localhost` for browsers on this machine.
    suffixes: Vec<String>,
    /// What goes before and after the host in a URL; `None` where the platform's host is a number, which has no names below
    /// it.
    shown: Option<(String, String)>,
}

const LOCAL: &str = ".fn.localhost";

impl Origins {
    /// Of a platform at this URL.
    pub(crate) fn of(base_url: &str) -> Self {
        let uri = base_url.parse::<Uri>().unwrap_or_default();
        let scheme = uri.scheme_str().unwrap_or("http");
        let host = uri.host().unwrap_or("localhost").trim_matches(['[', ']']);
        let port = uri.port_u16().map_or_else(String::new, |port| format!(":{port}"));
        let own = match host.parse::<std::net::IpAddr>() {
            Ok(address) if address.is_loopback() => Some(LOCAL.to_owned()),
            Ok(_) => None,
            Err(_) => Some(format!(".fn.{}", host.to_ascii_lowercase())),
        };
        let mut suffixes = vec![LOCAL.to_owned()];
        suffixes.extend(own.clone().filter(|suffix| suffix != LOCAL));
        Self {
            suffixes,
            shown: own.map(|suffix| (format!("{scheme}://"), format!("{suffix}{port}"))),
        }
    }

    /// The function that a `Host` header names.
    pub(crate) fn function(&self, host: &str) -> Option<(OwnerName, FunctionName)> {
        let host = match host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            Some(_) | None => host,
        };
        // Most requests are to the platform itself.
        if !host
            .as_bytes()
            .windows(4)
            .any(|part| part.eq_ignore_ascii_case(b".fn."))
        {
            return None;
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let names = self
            .suffixes
            .iter()
            .find_map(|suffix| host.strip_suffix(suffix.as_str()))?;
        let (name, owner) = names.split_once('.')?;
        Some((owner.parse().ok()?, name.parse().ok()?))
    }

    /// The URL of a function's own origin.
    pub(crate) fn url(&self, owner: &OwnerName, name: &FunctionName) -> Option<String> {
        let (before, after) = self.shown.as_ref()?;
        Some(format!("{before}{name}.{owner}{after}/"))
    }
}

/// What would speak for the platform, or for all functions, where functions share its origin: what a browser keeps for the
/// origin, or does to more than this answer. `www-authenticate` would have a password that was typed for one function sent to
/// the next.
const SHARED_FORBIDDEN: [&str; 27] = [
    "accept-ch",
    "accept-ch-lifetime",
    "activate-storage-access",
    "alt-svc",
    "authentication-info",
    CLEAR_SITE_DATA,
    "content-security-policy-report-only",
    "critical-ch",
    "document-isolation-policy",
    "expect-ct",
    "nel",
    "observe-browsing-topics",
    "origin-agent-cluster",
    "origin-trial",
    "public-key-pins",
    "public-key-pins-report-only",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "service-worker-allowed",
    "set-cookie",
    "set-cookie2",
    "set-login",
    "speculation-rules",
    "strict-transport-security",
    "use-as-dictionary",
    "www-authenticate",
];
/// What speaks to a proxy in front of the platform, or to the next hop, and not to the caller: some have a proxy send a file of
/// its own, or what another server says, in place of the answer.
const FOR_PROXIES: [&str; 14] = [
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-connection",
    "x-accel-charset",
    "x-accel-expires",
    "x-accel-limit-rate",
    "x-accel-redirect",
    "x-lighttpd-send-file",
    "x-lighttpd-send-tempfile",
    "x-litespeed-location",
    "x-reproxy-url",
    "x-sendfile",
    "x-sendfile-type",
];
const CLEAR_SITE_DATA: &str = "clear-site-data";
/// A page may run scripts, but in an origin that nobody else has: it reads nothing of the platform's and keeps nothing.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox allow-scripts allow-forms allow-popups allow-downloads");

/// Takes from an answer at the plain path what a function may not say there.
pub(super) fn share(headers: &mut HeaderMap) {
    for name in SHARED_FORBIDDEN.into_iter().chain(FOR_PROXIES) {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, SANDBOX);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Takes from an answer at the function's own origin what reaches beyond it: a browser clears, and may set, cookies for all
/// of the host above.
pub(super) fn keep_apart(headers: &mut HeaderMap) {
    for name in FOR_PROXIES.into_iter().chain([CLEAR_SITE_DATA]) {
        headers.remove(name);
    }
    if !headers.contains_key(header::SET_COOKIE) {
        return;
    }
    let cookies: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    headers.remove(header::SET_COOKIE);
    for cookie in cookies.into_iter().filter(|cookie| !has_domain(cookie.as_bytes())) {
        headers.append(header::SET_COOKIE, cookie);
    }
}

fn has_domain(cookie: &[u8]) -> bool {
    let attributes = cookie.split(|byte| *byte == b';').skip(1);
    let name = |attribute: &[u8]| {
        let name = attribute.split(|byte| *byte == b'=').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"domain")
    };
    attributes.into_iter().any(name)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    #[test]
    fn a_host_names_a_function() {
        let origins = Origins::of("https://cloud.example.org");
        let table = [
            ("hello.ada.fn.cloud.example.org", Some(("ada", "hello"))),
            ("HELLO.ada.FN.cloud.example.org", Some(("ada", "hello"))),
            ("Hello.Ada.fn.Cloud.Example.org.:8443", Some(("ada", "hello"))),
            ("hello.ada.fn.localhost:7433", Some(("ada", "hello"))),
            ("hello.ada.fn.evil.org", None),
            ("hello.fn.cloud.example.org", None),
            ("x.hello.ada.fn.cloud.example.org", None),
            (".ada.fn.cloud.example.org", None),
            ("cloud.example.org", None),
            ("127.0.0.1:7433", None),
            ("", None),
        ];
        for (host, due) in table {
            let found = origins.function(host);
            let found = found.as_ref().map(|(owner, name)| (owner.as_str(), name.as_str()));
            assert_eq!(found, due, "{host}");
        }
    }

    #[test]
    fn the_url_of_a_functions_origin_is_below_the_platforms_host() {
        let (owner, name) = ("ada".parse().expect("a name"), "hello".parse().expect("a name"));
        let table = [
            (
                "https://cloud.example.org",
                Some("https://hello.ada.fn.cloud.example.org/"),
            ),
            ("http://127.0.0.1:7433", Some("http://hello.ada.fn.localhost:7433/")),
            ("http://[::1]:7433", Some("http://hello.ada.fn.localhost:7433/")),
            ("http://localhost:7433", Some("http://hello.ada.fn.localhost:7433/")),
            ("http://10.0.0.7:7433", None),
        ];
        for (base, due) in table {
            assert_eq!(Origins::of(base).url(&owner, &name).as_deref(), due, "{base}");
        }
    }

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut map = HeaderMap::new();
        for (name, value) in of.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn a_function_does_not_speak_for_the_platforms_origin() {
        let mut set = headers(&[
            ("set-cookie", "session=evil; Path=/"),
            ("clear-site-data", "\"*\""),
            ("service-worker-allowed", "/"),
            ("strict-transport-security", "max-age=99999999; includeSubDomains"),
            ("alt-svc", "h2=\"evil:443\""),
            ("content-security-policy", "default-src *"),
            ("x-content-type-options", "sniff"),
            ("www-authenticate", "Basic realm=\"log in\""),
            ("use-as-dictionary", "match=\"/*\""),
            ("x-accel-redirect", "/internal/keys"),
            ("x-sendfile", "/etc/passwd"),
            ("content-type", "text/html"),
            ("etag", "1"),
        ]);
        share(&mut set);
        let mut left: Vec<&str> = set.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                "content-security-policy",
                "content-type",
                "etag",
                "x-content-type-options"
            ]
        );
        assert!(
            set["content-security-policy"]
                .to_str()
                .expect("ASCII")
                .starts_with("sandbox ")
        );
        assert!(
            !set["content-security-policy"]
                .to_str()
                .expect("ASCII")
                .contains("allow-same-origin")
        );
        assert_eq!(set["x-content-type-options"], "nosniff");
    }

    #[test]
    fn at_its_own_origin_it_sets_what_stays_there() {
        let mut set = headers(&[
            ("set-cookie", "a=1; Path=/; HttpOnly"),
            ("set-cookie", "b=2; Path=/; DOMAIN = example.org"),
            ("set-cookie", "domain=3"),
            ("clear-site-data", "\"*\""),
            ("service-worker-allowed", "/"),
            ("www-authenticate", "Basic"),
            ("x-accel-redirect", "/internal/keys"),
            ("keep-alive", "timeout=1000"),
        ]);
        keep_apart(&mut set);
        assert!(!set.contains_key("x-accel-redirect") && !set.contains_key("keep-alive"));
        assert!(set.contains_key("www-authenticate"), "its own");
        let cookies: Vec<&str> = set
            .get_all("set-cookie")
            .iter()
            .map(|value| value.to_str().expect("ASCII"))
            .collect();
        assert_eq!(cookies, ["a=1; Path=/; HttpOnly", "domain=3"]);
        assert!(!set.contains_key("clear-site-data") && set.contains_key("service-worker-allowed"));
    }
}
