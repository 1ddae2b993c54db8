//! Where results go, as set by a developer, with the credentials for it.

use std::{fmt, net::IpAddr};

use piecework_model::{Code, EgressPolicy, Rejection};
use reqwest::Url;
use serde::{Deserialize, Serialize};

/// A place for results. Holds secrets: kept sealed, never shown again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Sink {
    /// `PUT` of the output to the URL, `{job}` in it replaced by the job's id, or the id appended as a path.
    Http {
        url: String,
        /// Sent as `Authorization: Bearer`.
        token: Option<String>,
    },
    /// `POST` of the job's outcome, failures too, according to the Standard Webhooks specification.
    Webhook {
        url: String,
        /// Signs the body, if present.
        secret: Option<String>,
    },
    /// An object `PREFIX` + job id + `.json` for each output.
    S3 {
        /// Of the service, without the bucket.
        endpoint: String,
        bucket: String,
        region: String,
        prefix: String,
        access_key: String,
        secret_key: String,
        /// Of a credential that a token service lent.
        session_token: Option<String>,
        /// Unix milliseconds after which the credential is not even tried.
        expires_at_ms: Option<u64>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkKind {
    Http,
    Webhook,
    S3,
}

impl Sink {
    pub fn kind(&self) -> SinkKind {
        match self {
            Self::Http { .. } => SinkKind::Http,
            Self::Webhook { .. } => SinkKind::Webhook,
            Self::S3 { .. } => SinkKind::S3,
        }
    }

    /// Where it is, without secrets: a URL's query may be one.
    pub fn shown(&self) -> String {
        match self {
            Self::Http { url, .. } | Self::Webhook { url, .. } => {
                url.split(['?', '#']).next().unwrap_or_default().to_owned()
            }
            Self::S3 {
                endpoint,
                bucket,
                prefix,
                ..
            } => format!("{}/{bucket}/{prefix}", endpoint.trim_end_matches('/')),
        }
    }

    fn address(&self) -> &str {
        match self {
            Self::Http { url, .. } | Self::Webhook { url, .. } => url,
            Self::S3 { endpoint, .. } => endpoint,
        }
    }

    /// What can be judged before any name is resolved.
    pub(crate) fn check(&self, policy: &EgressPolicy) -> Result<(), Rejection> {
        let url = self.address().replace(JOB, "job");
        if self.address().len() > URL_LENGTH_MAX {
            return Err(bad(format!("the URL has more than {URL_LENGTH_MAX} characters")));
        }
        permitted(&parse(&url)?, policy)?;
        match self {
            Self::Http { .. } => Ok(()),
            Self::Webhook { secret, .. } => crate::sign::key(secret.as_deref())
                .map(drop)
                .ok_or_else(|| bad("a secret that begins with whsec_ must continue in base64")),
            Self::S3 { bucket, prefix, .. } => {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
                if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(plain) {
                    return Err(bad(
                        "the bucket's name must be 3 to 63 letters, digits, dots and dashes",
                    ));
                }
                match prefix.len() <= 512 && !prefix.starts_with('/') {
                    true => Ok(()),
                    false => Err(bad("the prefix must have at most 512 bytes and not begin with a slash")),
                }
            }
        }
    }
}

/// Stands for the job's id in a URL.
pub(crate) const JOB: &str = "{job}";
const URL_LENGTH_MAX: usize = 2_048;

fn bad(why: impl fmt::Display) -> Rejection {
    Rejection::new(Code::ResultBadSink, format!("results cannot be sent there: {why}")).field("results")
}

pub(crate) fn parse(url: &str) -> Result<Url, Rejection> {
    let parsed = Url::parse(url).map_err(|error| bad(format!("`{url}`: {error}")))?;
    if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
        return Err(bad("the URL must begin with https:// or http://"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(bad("the URL must not contain a user name or password; use a token"));
    }
    Ok(parsed)
}

/// An address that stands in the URL as such. Names are judged when they are resolved.
pub(crate) fn permitted(url: &Url, policy: &EgressPolicy) -> Result<(), Rejection> {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address {
        Ok(address) if !policy.permits(address) => Err(Rejection::new(
            Code::ResultPrivateAddress,
            format!("{address} is not a public address, so results cannot be sent there"),
        )
        .hint("the operator can allow private networks with `--results-to NETWORK`")
        .field("results")),
        Ok(_) | Err(_) => Ok(()),
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind(), self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(url: &str) -> Sink {
        Sink::Http {
            url: url.into(),
            token: None,
        }
    }

    fn code(sink: &Sink, private: &[&str]) -> Option<Code> {
        let private = private.iter().map(|text| text.parse().expect("a network")).collect();
        sink.check(&EgressPolicy { private }).err()?.code.known()
    }

    #[test]
    fn addresses_that_are_not_public_are_refused_however_they_are_written() {
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/x",
            "http://[::1]:8080/",
            "http://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest",
            "http://192.168.1.1/{job}",
            "http://0/",
        ] {
            assert_eq!(code(&http(url), &[]), Some(Code::ResultPrivateAddress), "{url}");
        }
        assert_eq!(code(&http("http://10.1.2.3/"), &["10.0.0.0/8"]), None);
        assert_eq!(
            code(&http("http://169.254.169.254/"), &["0.0.0.0/0"]),
            Some(Code::ResultPrivateAddress),
            "whatever the operator allows"
        );
        assert_eq!(code(&http("https://results.example.org/{job}?x=1"), &[]), None);
    }

    #[test]
    fn what_can_never_work_is_refused_at_once() {
        for url in [
            "",
            "results.example.org",
            "ftp://example.org/",
            "file:///etc/passwd",
            "https://a:b@example.org/",
        ] {
            assert_eq!(code(&http(url), &[]), Some(Code::ResultBadSink), "{url}");
        }
        let webhook = Sink::Webhook {
            url: "https://example.org/".into(),
            secret: Some("whsec_!".into()),
        };
        assert_eq!(code(&webhook, &[]), Some(Code::ResultBadSink));
        assert_eq!(code(&s3("a/b", ""), &[]), Some(Code::ResultBadSink));
        assert_eq!(code(&s3("bucket", "/x"), &[]), Some(Code::ResultBadSink));
        assert_eq!(code(&s3("bucket", "x/"), &[]), None);
    }

    fn s3(bucket: &str, prefix: &str) -> Sink {
        Sink::S3 {
            endpoint: "https://s3.example.org".into(),
            bucket: bucket.into(),
            region: "r".into(),
            prefix: prefix.into(),
            access_key: "AKIA-secret-1".into(),
            secret_key: "secret-2".into(),
            session_token: Some("secret-3".into()),
            expires_at_ms: None,
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let http = Sink::Http {
            url: "https://example.org/a?sig=secret-4".into(),
            token: Some("secret-5".into()),
        };
        for sink in [http, s3("bucket", "p/")] {
            assert!(!format!("{sink:?} {}", sink.shown()).contains("secret-"), "{sink:?}");
        }
    }
}
