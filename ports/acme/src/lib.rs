//! Obtains a server's certificate from an ACME authority (RFC 8555) and renews it at two thirds of its life.
//!
//! ```text
//! placeholder or kept certificate --due--> order --proved by TLS-ALPN-01--> tried out --> file --> in force --two thirds--> due
//!                                           `--failed--> told, pause that doubles --> due
//! ```
//! The authority proves a name by a TLS handshake with the server itself (RFC 8737), so nothing else has to be reachable. No
//! failure ends this or the server: what was in force stays.

mod http;
mod kept;
mod order;
mod pause;
mod validity;

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

pub use kept::{KeptError, certificate_file, prepare};

/// The authority that is asked if none is named.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Names in one certificate: each is proved apart, and the usual authorities take a hundred.
pub const DOMAINS_MAX: usize = 20;

/// What a certificate is wanted for, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Names in lower case, without wildcards; at least one.
    pub domains: Vec<String>,
    /// The authority's directory, an `https` URL.
    pub directory: String,
    /// Mail addresses of the account; the authority may write to them.
    pub contacts: Vec<String>,
    /// Holds the certificate and the account's key; private.
    pub folder: PathBuf,
}

/// A certificate that answers one look of the authority.
pub struct Proof {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

/// The server that uses the certificate.
pub trait Served: Send + Sync {
    /// Answers `acme-tls/1` for the name with this certificate from now on; with none, no longer.
    fn prove(&self, domain: &str, proof: Option<Proof>);
    /// Whether the server could use this file, and why not.
    fn try_out(&self, file: &Path) -> Result<(), String>;
    /// The file is another one now.
    fn changed(&self);
}

/// The clock may jump, and the machine may sleep.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// Keeps the certificate in [`certificate_file`] good, for ever. [`prepare`] comes first. `trouble` has a sentence for the operator while an attempt
/// has failed and none has succeeded since.
pub async fn keep(wanted: Wanted, served: &dyn Served, trouble: &watch::Sender<Option<String>>) {
    let mut failures: u32 = 0;
    loop {
        if let Some(rest) = kept::rest(&wanted, SystemTime::now()) {
            tokio::time::sleep(rest.min(LOOK_EVERY)).await;
            continue;
        }
        match order::order(&wanted, served).await {
            Ok(until) => {
                failures = 0;
                trouble.send_replace(None);
                let until = jiff::Timestamp::try_from(until)
                    .map(|at| at.to_string())
                    .unwrap_or_default();
                tracing::warn!(
                    domains = wanted.domains.join(", "),
                    until,
                    "a new certificate is in force"
                );
            }
            Err(error) => {
                let rest = pause::pause(error.is_refusal(), failures);
                failures = failures.saturating_add(1);
                let message = told(&wanted, &error);
                // The first one is logged with the alert that follows.
                if trouble.borrow().is_some() {
                    tracing::warn!(next_in_s = rest.as_secs(), "{message}");
                }
                trouble.send_replace(Some(message));
                tokio::time::sleep(rest).await;
            }
        }
    }
}

fn told(wanted: &Wanted, error: &order::OrderError) -> String {
    let next = match error {
        order::OrderError::Refused(_) => {
            "Check that each name leads to this server on port 443, which the authority must reach from outside."
        }
        order::OrderError::Unusable(_) => "Check this machine's clock and the space on its disk.",
        order::OrderError::Failed(_) => {
            "Check that this machine reaches the authority's directory and trusts its certificate."
        }
    };
    format!(
        "The certificate of {} could not be obtained from {}: {error}. {next} It is tried again by itself, with growing pauses; \
         the server goes on with the certificate that it has.",
        wanted.domains.join(", "),
        wanted.directory
    )
}
