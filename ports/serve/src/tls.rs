//! TLS with a certificate that is read again when its files change, as those that renew it leave them; and the proofs by which
//! an authority of certificates sees whose server this is (RFC 8737).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

/// What a connection is read from and written to.
pub(crate) type Stream = Either<TcpStream, Box<tokio_rustls::server::TlsStream<TcpStream>>>;

/// Where connections come in, in the clear or by TLS.
pub struct Door {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<Arc<Tls>>,
}

impl Door {
    pub fn new(listener: TcpListener, tls: Option<Arc<Tls>>) -> Self {
        Self { listener, tls }
    }
}

impl From<TcpListener> for Door {
    fn from(listener: TcpListener) -> Self {
        Self::new(listener, None)
    }
}

/// A certificate and its key.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    config: RwLock<Arc<ServerConfig>>,
    proofs: Arc<Proofs>,
}

/// What an authority sees that looks, by name.
type Proofs = RwLock<BTreeMap<String, Arc<CertifiedKey>>>;
/// What it asks for by ALPN. Nothing else is said on such a connection.
const PROOF_ALPN: &[u8] = b"acme-tls/1";

/// Which certificate a client is shown.
#[derive(Debug)]
struct Shown {
    certificate: Arc<CertifiedKey>,
    proofs: Arc<Proofs>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if client
            .alpn()
            .is_some_and(|mut offered| offered.any(|name| name == PROOF_ALPN))
        {
            return self.proofs.read().get(client.server_name()?).cloned();
        }
        Some(self.certificate.clone())
    }
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read the certificate {path}: {reason}")]
    Certificate { path: PathBuf, reason: String },
    #[error("cannot read the key {path}: {reason}")]
    Key { path: PathBuf, reason: String },
    #[error("the certificate and the key do not belong together, or are of a kind that is not supported")]
    Pair(#[source] rustls::Error),
}

/// Between looks at the files. Renewed certificates overlap the old ones by days.
const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Tls {
    /// A chain of certificates, the server's own first, and its key: files in PEM.
    pub fn read(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let proofs = Arc::default();
        Ok(Arc::new(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            config: RwLock::new(config((certificate, key), &proofs)?),
            proofs,
        }))
    }

    /// Shows this certificate to an authority that looks for the proof of `domain`; with none, its look fails.
    pub fn prove(
        &self,
        domain: &str,
        proof: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> Result<(), TlsError> {
        let Some((certificate, key)) = proof else {
            self.proofs.write().remove(domain);
            return Ok(());
        };
        // Whether they belong together is not asked: the critical extension of a proof is not known to who would look.
        let key = provider().key_provider.load_private_key(key).map_err(TlsError::Pair)?;
        let shown = CertifiedKey::new(vec![certificate], key);
        self.proofs.write().insert(domain.to_owned(), Arc::new(shown));
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.read().clone())
    }

    /// Reads the files again. What was in force stays if they are no good.
    pub fn read_again(&self) -> Result<(), TlsError> {
        *self.config.write() = config((&self.certificate, &self.key), &self.proofs)?;
        Ok(())
    }

    fn changed(&self) -> [Option<SystemTime>; 2] {
        let at = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
        [at(&self.certificate), at(&self.key)]
    }

    /// Reads the files again whenever they have changed, for ever.
    pub(crate) async fn watch(&self) {
        let mut seen = self.changed();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.changed();
            if now == seen {
                continue;
            }
            match self.read_again() {
                Ok(()) => tracing::warn!(certificate = %self.certificate.display(), "the certificate was read again"),
                // Half of the pair may be new: the other half comes, and then this looks again.
                Err(error) => tracing::warn!(%error, "the changed certificate is not used; the one before stays"),
            }
            seen = now;
        }
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn config((certificate, key): (&Path, &Path), proofs: &Arc<Proofs>) -> Result<Arc<ServerConfig>, TlsError> {
    let no_certificate = |reason: String| TlsError::Certificate {
        path: certificate.to_owned(),
        reason,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| no_certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(no_certificate("there is no CERTIFICATE in it".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::Key {
        path: key.to_owned(),
        reason: error.to_string(),
    })?;
    let provider = Arc::new(provider());
    let certificate = CertifiedKey::from_der(chain, private, &provider).map_err(TlsError::Pair)?;
    let shown = Shown {
        certificate: Arc::new(certificate),
        proofs: proofs.clone(),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![b"http/1.1".to_vec(), PROOF_ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// The handshake, if there is one.
pub(crate) async fn greet(tls: Option<&Tls>, stream: TcpStream) -> io::Result<Stream> {
    match tls {
        None => Ok(Either::Left(stream)),
        Some(tls) => {
            let stream = tls.acceptor().accept(stream).await?;
            if stream.get_ref().1.alpn_protocol() == Some(PROOF_ALPN) {
                return Err(io::Error::other("an authority has looked for a proof"));
            }
            Ok(Either::Right(Box::new(stream)))
        }
    }
}
