//! Delivers over HTTP, and never to a forbidden address.
//!
//! A name is resolved here and only addresses that the operator's policy permits are connected to, so a name that
//! changes between the check and the connection leads nowhere else. Redirects are not followed, proxies of the
//! environment not used, and of an answer nothing but the status is read.

use std::{error::Error as _, fmt, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use piecework_model::{EgressPolicy, JobId, Rejection};
use reqwest::{
    Client, RequestBuilder, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle, actions::PutObject};

use crate::{
    Deliver, Parcel, Sink, Undelivered,
    place::{JOB, parse, permitted},
    sign,
};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The largest output at a slow line's megabyte a second.
const DELIVER_WITHIN: Duration = Duration::from_secs(30);
/// A presigned request is sent at once; this covers clocks that differ.
const PRESIGNED_FOR: Duration = Duration::from_secs(300);

/// Brings results over HTTP.
pub struct Courier {
    client: Client,
    policy: EgressPolicy,
}

impl Courier {
    /// Without trusted certificates on this machine, only addresses without TLS can be delivered to; that is logged.
    pub fn new(policy: EgressPolicy) -> Result<Self, CourierError> {
        Self::within(policy, DELIVER_WITHIN)
    }

    /// Gives up on one delivery after `time`.
    pub fn within(policy: EgressPolicy, time: Duration) -> Result<Self, CourierError> {
        // Some other part may have chosen one before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let guard = Arc::new(Guard(Arc::new(policy.clone())));
        let builder = || {
            Client::builder()
                .redirect(redirect::Policy::none())
                .no_proxy()
                .dns_resolver(guard.clone())
                .connect_timeout(CONNECT_WITHIN)
                .timeout(time)
                .user_agent(concat!("piecework/", env!("CARGO_PKG_VERSION")))
        };
        let client = match builder().build() {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(
                    cause = ?error.source().map(ToString::to_string),
                    "no trusted certificates on this machine: results cannot be sent to https addresses until they are installed"
                );
                builder().tls_backend_preconfigured(trusting_nobody()?).build()?
            }
        };
        Ok(Self { client, policy })
    }

    fn request(&self, sink: &Sink, parcel: &Parcel, now: Timestamp) -> Result<RequestBuilder, Undelivered> {
        let output = || parcel.output.clone().unwrap_or_default();
        let request = match sink {
            Sink::Http { url, token } => {
                let request = self.client.put(self.target(&of_job(url, parcel.job))?).body(output());
                match token {
                    Some(token) => request.bearer_auth(token),
                    None => request,
                }
            }
            Sink::Webhook { url, secret } => {
                let request = self.client.post(self.target(url)?).body(parcel.report.clone());
                signed(request, secret.as_deref(), parcel, now)
            }
            Sink::S3 { .. } => self
                .client
                .put(self.target(presigned(sink, parcel.job, now)?.as_str())?)
                .body(output()),
        };
        Ok(request
            .header("content-type", "application/json")
            .header("x-piecework-job", parcel.job.to_string())
            .header("x-piecework-digest", parcel.digest.to_string()))
    }

    fn target(&self, url: &str) -> Result<Url, Undelivered> {
        let url = parse(url).map_err(|_| Undelivered::Forbidden)?;
        permitted(&url, &self.policy).map_err(|_| Undelivered::Forbidden)?;
        Ok(url)
    }
}

/// Why there is no courier.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    #[error("cannot set the HTTP client up")]
    Client(#[from] reqwest::Error),
    #[error("cannot set TLS up")]
    Tls(#[from] rustls::Error),
}

/// Every handshake fails.
pub(crate) fn trusting_nobody() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(config)
}

fn of_job(url: &str, job: JobId) -> String {
    match url.contains(JOB) {
        true => url.replace(JOB, &job.to_string()),
        false => format!("{}/{job}", url.trim_end_matches('/')),
    }
}

fn signed(request: RequestBuilder, secret: Option<&str>, parcel: &Parcel, now: Timestamp) -> RequestBuilder {
    let (id, seconds) = (parcel.job.to_string(), now.as_second());
    let request = request
        .header("webhook-id", &id)
        .header("webhook-timestamp", seconds.to_string());
    match sign::key(secret).filter(|key| !key.is_empty()) {
        Some(key) => request.header("webhook-signature", sign::webhook(&key, &id, seconds, &parcel.report)),
        None => request,
    }
}

fn presigned(sink: &Sink, job: JobId, now: Timestamp) -> Result<Url, Undelivered> {
    let Sink::S3 {
        endpoint,
        bucket,
        region,
        prefix,
        access_key,
        secret_key,
        session_token,
        expires_at_ms,
    } = sink
    else {
        unreachable!("only S3 is presigned")
    };
    let expires = expires_at_ms.and_then(|at_ms| i64::try_from(at_ms).ok());
    if expires.is_some_and(|at_ms| at_ms <= now.as_millisecond()) {
        return Err(Undelivered::CredentialExpired);
    }
    let endpoint = parse(endpoint).map_err(|_| Undelivered::Forbidden)?;
    let bucket = Bucket::new(endpoint, UrlStyle::Path, bucket.clone(), region.clone());
    let bucket = bucket.map_err(|_| Undelivered::Forbidden)?;
    let credentials = match session_token {
        Some(token) => Credentials::new_with_token(access_key, secret_key, token),
        None => Credentials::new(access_key, secret_key),
    };
    let object = format!("{prefix}{job}.json");
    Ok(PutObject::new(&bucket, Some(&credentials), &object).sign_with_time(PRESIGNED_FOR, &now))
}

#[async_trait]
impl Deliver for Courier {
    fn check(&self, sink: &Sink) -> Result<(), Rejection> {
        sink.check(&self.policy)
    }

    async fn deliver(&self, sink: &Sink, parcel: &Parcel) -> Result<(), Undelivered> {
        let request = self.request(sink, parcel, Timestamp::now())?;
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(Undelivered::Answered(answer.status().as_u16())),
            Err(error) => Err(undelivered(&error)),
        }
    }
}

fn undelivered(error: &reqwest::Error) -> Undelivered {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<NotPermitted>() {
            return Undelivered::Forbidden;
        }
        cause = inner.source();
    }
    Undelivered::NoAnswer(match (error.is_timeout(), error.is_connect()) {
        (true, _) => "it did not answer in time",
        (false, true) => "it could not be reached",
        (false, false) => "the connection broke",
    })
}

/// Resolves names as this machine does, and gives only addresses that may be connected to.
struct Guard(Arc<EgressPolicy>);

#[derive(Debug)]
struct NotPermitted;

impl fmt::Display for NotPermitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no permitted address")
    }
}

impl std::error::Error for NotPermitted {}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<SocketAddr> = found.filter(|address| policy.permits(address.ip())).collect();
            match permitted.is_empty() {
                true => Err(NotPermitted.into()),
                false => Ok(Box::new(permitted.into_iter()) as Addrs),
            }
        })
    }
}
