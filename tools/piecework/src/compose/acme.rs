//! A certificate that the server obtains by itself.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use piecework_acme::{Proof, Served, Wanted, certificate_file, keep, prepare};
use piecework_serve::Tls;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::files::make_private;
use crate::settings::AcmeSettings;

/// Below the data directory.
const FOLDER: &str = "acme";

/// What keeps the certificate good once the server serves.
pub(super) struct Renewal {
    wanted: Wanted,
    pub(super) tls: Arc<Tls>,
    trouble: watch::Sender<Option<String>>,
}

impl Renewal {
    /// With the certificate that is kept in `directory`, or one that nobody trusts yet.
    pub(super) fn new(directory: &Path, settings: &AcmeSettings) -> Result<Self> {
        let folder = directory.join(FOLDER);
        make_private(&folder)?;
        let wanted = Wanted {
            domains: settings.domains.clone(),
            directory: settings.directory.clone(),
            contacts: settings.contacts.clone(),
            folder,
        };
        prepare(&wanted, try_out).context("cannot begin with a certificate")?;
        let file = certificate_file(&wanted.folder);
        Ok(Self {
            tls: Tls::read(&file, &file).with_context(|| format!("cannot use {}", file.display()))?,
            wanted,
            trouble: watch::Sender::new(None),
        })
    }

    /// What is wrong, if anything.
    pub(super) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// The server must answer by then: the authority looks.
    pub(super) fn start(self, shutdown: CancellationToken) {
        tokio::spawn(async move {
            let shows = Shows(self.tls);
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = keep(self.wanted, &shows, &self.trouble) => {}
            }
        });
    }
}

fn try_out(file: &Path) -> Result<(), String> {
    Tls::read(file, file).map(drop).map_err(|error| error.to_string())
}

struct Shows(Arc<Tls>);

impl Served for Shows {
    fn prove(&self, domain: &str, proof: Option<Proof>) {
        let proof = proof.map(|proof| (proof.certificate, proof.key));
        if let Err(error) = self.0.prove(domain, proof) {
            tracing::warn!(domain, %error, "the proof for the authority cannot be shown");
        }
    }

    fn try_out(&self, file: &Path) -> Result<(), String> {
        try_out(file)
    }

    fn changed(&self) {
        if let Err(error) = self.0.read_again() {
            tracing::warn!(%error, "the new certificate cannot be used; the one before stays");
        }
    }
}
