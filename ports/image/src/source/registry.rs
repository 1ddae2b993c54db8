//! A client of registries, on the developer's own machine: the part of the OCI distribution interface that pulls one image.
//!
//! A client of its own, and not a library: what is needed is three requests, and the libraries bring other versions of what this
//! program already has.

use std::{io::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use piecework_model::{Code, Rejection};
use reqwest::{RequestBuilder, Response, Url, header};
use serde::Deserialize;
use tempfile::TempDir;

use super::{
    Blob, Fetched, Logins, Reference, SourceError,
    index::{self, Descriptor, Document},
    registry_failed,
};
use crate::{DOCUMENT_BYTES_MAX, IMAGE_BYTES_MAX, Sha256, Sha256Stream, bad, description::mismatch, too_large};

const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A registry that says nothing for so long hangs.
const SILENT_MAX: Duration = Duration::from_secs(30);
const HOPS_MAX: usize = 4;
/// What a registry answers, of RFC 9110.
const HAS_IT: u16 = 200;
const ASKS_WHO: u16 = 401;
const GIVES_IT_TO_OTHERS: u16 = 403;
const HAS_IT_NOT: u16 = 404;
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// One registry, for one image.
pub struct Registry {
    http: reqwest::Client,
    reference: Reference,
    login: Option<(String, String)>,
    /// What the registry gave for the login, or for nothing.
    token: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

/// How a registry wants to be asked.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Registry {
    pub fn new(reference: Reference, logins: &Logins) -> Result<Self, Rejection> {
        Self::with_patience(reference, logins, SILENT_MAX)
    }

    /// One that says nothing for longer is given up.
    pub fn with_patience(reference: Reference, logins: &Logins, silent_max: Duration) -> Result<Self, Rejection> {
        // Fails where the process has one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("piecework/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_WITHIN)
            .read_timeout(silent_max)
            .build()
            .map_err(|error| registry_failed(format!("no client for registries: {error}")))?;
        Ok(Self {
            http,
            login: logins.of(&reference).cloned(),
            reference,
            token: None,
        })
    }

    /// The image of this platform, into temporary files. `say` hears of each layer.
    pub async fn pull(mut self, say: impl Fn(&str)) -> Result<Fetched, SourceError> {
        let mut wanted = self.reference.wanted();
        let mut digest = self.reference.digest;
        for _ in 0..HOPS_MAX {
            let bytes = self.manifest(&wanted, digest).await?;
            match index::document(&bytes)? {
                Document::Index(entry) => (wanted, digest) = (entry.digest.to_string(), Some(entry.digest)),
                Document::Manifest(found) => {
                    let config = self.small(&found.config).await?;
                    let layers = self.layers(&found.layers, say).await?;
                    return Ok(Fetched {
                        reference: self.reference.to_string(),
                        manifest: bytes,
                        config,
                        layers,
                    });
                }
            }
        }
        Err(bad("the image's indexes are nested too deeply or refer to each other").into())
    }

    async fn manifest(&mut self, wanted: &str, digest: Option<Sha256>) -> Result<Bytes, SourceError> {
        let response = self.get(&format!("manifests/{wanted}")).await?;
        let said = response.headers().get("docker-content-digest");
        let said = said.and_then(|said| said.to_str().ok()?.parse::<Sha256>().ok());
        let bytes = whole(response, DOCUMENT_BYTES_MAX, &self.reference).await?;
        let found = Sha256::of(&bytes);
        match digest.or(said) {
            Some(digest) if digest != found => Err(mismatch("the manifest that the registry sent", digest).into()),
            Some(_) | None => Ok(bytes),
        }
    }

    async fn small(&mut self, part: &Descriptor) -> Result<Bytes, SourceError> {
        let response = self.get(&format!("blobs/{}", part.digest)).await?;
        let bytes = whole(response, DOCUMENT_BYTES_MAX, &self.reference).await?;
        match Sha256::of(&bytes) == part.digest {
            true => Ok(bytes),
            false => Err(mismatch("the configuration that the registry sent", part.digest).into()),
        }
    }

    async fn layers(&mut self, layers: &[Descriptor], say: impl Fn(&str)) -> Result<Vec<Blob>, SourceError> {
        let sum = layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.size));
        if sum.is_none_or(|sum| sum > IMAGE_BYTES_MAX) {
            let message = format!("the layers of an image have at most {} MiB", IMAGE_BYTES_MAX >> 20);
            return Err(too_large(message).into());
        }
        let folder = tempfile::tempdir().map_err(SourceError::io("cannot make a temporary folder"))?;
        let folder = Arc::new(folder);
        let mut blobs = Vec::with_capacity(layers.len());
        for (place, layer) in layers.iter().enumerate() {
            say(&format!("pulling layer {} of {}", place + 1, layers.len()));
            blobs.push(self.layer(layer, (place, &folder)).await?);
        }
        Ok(blobs)
    }

    async fn layer(
        &mut self,
        layer: &Descriptor,
        (place, folder): (usize, &Arc<TempDir>),
    ) -> Result<Blob, SourceError> {
        let cannot = || SourceError::io("cannot write a layer into a temporary folder");
        let response = self.get(&format!("blobs/{}", layer.digest)).await?;
        let path = folder.path().join(place.to_string());
        let mut file = std::fs::File::create(&path).map_err(cannot())?;
        let (mut stream, mut hash, mut bytes) = (response.bytes_stream(), Sha256Stream::default(), 0u64);
        while let Some(part) = stream.next().await {
            let part = part.map_err(|error| broke_off(&self.reference, &error))?;
            bytes += part.len() as u64;
            if bytes > layer.size {
                return Err(mismatch("a layer that the registry sent", layer.digest).into());
            }
            hash.update(&part);
            file.write_all(&part).map_err(cannot())?;
        }
        if bytes != layer.size || hash.finish() != layer.digest {
            return Err(mismatch("a layer that the registry sent", layer.digest).into());
        }
        Ok(Blob {
            file: path,
            offset: 0,
            bytes,
            _folder: Some(folder.clone()),
        })
    }

    /// Something of this image; the registry may want to be asked once more, with a token.
    async fn get(&mut self, what: &str) -> Result<Response, Rejection> {
        let scheme = if self.reference.is_here() { "http" } else { "https" };
        let url = format!("{scheme}://{}/v2/{}/{what}", self.reference.host(), self.reference.name);
        let mut response = self.ask(&url).await?;
        if response.status().as_u16() == ASKS_WHO {
            let challenge = challenge(response.headers()).ok_or_else(|| self.login_required())?;
            match challenge {
                Challenge::Basic if self.login.is_none() => return Err(self.login_required()),
                Challenge::Basic => self.token = None,
                Challenge::Bearer { realm, service, scope } => {
                    self.token = Some(self.token(&realm, service.as_deref(), scope.as_deref()).await?);
                }
            }
            response = self.ask(&url).await?;
        }
        match response.status().as_u16() {
            HAS_IT => Ok(response),
            ASKS_WHO | GIVES_IT_TO_OTHERS => Err(self.login_required()),
            HAS_IT_NOT => Err(registry_failed(format!("the registry has no image {}", self.reference))),
            status => Err(registry_failed(format!(
                "the registry {} answered {status}",
                self.reference.registry
            ))),
        }
    }

    async fn ask(&self, url: &str) -> Result<Response, Rejection> {
        let request = self.http.get(url).header(header::ACCEPT, ACCEPTED);
        let request = match (&self.token, &self.login) {
            (Some(token), _) => request.bearer_auth(token),
            // In the clear only to this machine.
            (None, Some((user, password))) => request.basic_auth(user, Some(password)),
            (None, None) => request,
        };
        self.send(request).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Rejection> {
        request.send().await.map_err(|error| {
            let why = match error.is_timeout() {
                true => "it does not answer".to_owned(),
                false => last_cause(&error),
            };
            registry_failed(format!(
                "the registry {} cannot be asked: {why}",
                self.reference.registry
            ))
        })
    }

    async fn token(&self, realm: &str, service: Option<&str>, scope: Option<&str>) -> Result<String, Rejection> {
        let strange = || {
            registry_failed(format!(
                "the registry {} asks for a login but names no token server",
                self.reference.registry
            ))
        };
        let mut url: Url = realm.parse().map_err(|_| strange())?;
        // A password is never sent in the clear to another machine.
        if url.scheme() != "https" && !(url.scheme() == "http" && self.reference.is_here()) {
            return Err(strange());
        }
        let own = format!("repository:{}:pull", self.reference.name);
        url.query_pairs_mut().append_pair("scope", scope.unwrap_or(&own));
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", service);
        }
        let request = self.http.get(url);
        let request = match &self.login {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(self.login_required());
        }
        let bytes = whole(response, TOKEN_BYTES_MAX, &self.reference).await?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| strange())?;
        Ok(token.token)
    }

    fn login_required(&self) -> Rejection {
        let registry = &self.reference.registry;
        let (message, hint) = match &self.login {
            None => (
                format!(
                    "the registry {registry} wants a user name and password for {}",
                    self.reference.name
                ),
                format!("log in with `docker login {registry}`, then deploy again"),
            ),
            Some((user, _)) => (
                format!(
                    "the registry {registry} does not let `{user}` have {}",
                    self.reference.name
                ),
                format!("log in as another user with `docker login {registry}`, then deploy again"),
            ),
        };
        Rejection::new(Code::ImageLoginRequired, message).hint(hint)
    }
}

/// An answer of which no more is taken than it may have.
async fn whole(response: Response, bytes_max: usize, reference: &Reference) -> Result<Bytes, Rejection> {
    let (mut stream, mut bytes) = (response.bytes_stream(), Vec::new());
    while let Some(part) = stream.next().await {
        bytes.extend_from_slice(&part.map_err(|error| broke_off(reference, &error))?);
        if bytes.len() > bytes_max {
            return Err(too_large(format!(
                "the registry sent more than {bytes_max} bytes for a manifest"
            )));
        }
    }
    Ok(bytes.into())
}

fn broke_off(reference: &Reference, error: &reqwest::Error) -> Rejection {
    let why = match error.is_timeout() {
        true => "it went silent".to_owned(),
        false => last_cause(error),
    };
    registry_failed(format!(
        "the answer of the registry {} broke off: {why}",
        reference.registry
    ))
}

fn last_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => last_cause(cause),
        None => error.to_string(),
    }
}

/// `WWW-Authenticate`, of RFC 9110 and the registries' own rules.
fn challenge(headers: &header::HeaderMap) -> Option<Challenge> {
    let said = headers.get_all(header::WWW_AUTHENTICATE).iter();
    let mut said = said.filter_map(|value| value.to_str().ok());
    said.find_map(parse_challenge)
}

fn parse_challenge(said: &str) -> Option<Challenge> {
    let (scheme, rest) = said.split_once(' ').unwrap_or((said, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope, mut rest) = (None, None, None, rest.trim());
    while let Some((name, after)) = rest.split_once('=') {
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        match name.trim() {
            "realm" => realm = Some(value.to_owned()),
            "service" => service = Some(value.to_owned()),
            "scope" => scope = Some(value.to_owned()),
            _ => {}
        }
        rest = left.trim_start_matches([',', ' ']);
    }
    Some(Challenge::Bearer {
        realm: realm?,
        service,
        scope,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_commas_in_quotes() {
        let said = r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push""#;
        let due = Challenge::Bearer {
            realm: "https://auth.example/token".into(),
            service: Some("r.example".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(parse_challenge(said), Some(due));
        assert_eq!(parse_challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        for none in ["", "Digest x=1", "Bearer service=\"x\"", "Bearer realm=\"x"] {
            assert_eq!(parse_challenge(none), None, "{none}");
        }
    }
}
