//! The operator's package indexes: where the tools may connect, and what they are told about it.

use std::{collections::BTreeMap, path::Path};

use piecework_model::{EgressList, Language};

/// What pip and npm ask where the operator says nothing.
const PYTHON_INDEX: [&str; 2] = ["https://pypi.org/simple", "https://files.pythonhosted.org"];
const NPM_REGISTRY: &str = "https://registry.npmjs.org/";
/// Variables that name a file of certificate authorities on the operator's machine.
const AUTHORITY_FILES: [&str; 6] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "NPM_CONFIG_CAFILE",
    "npm_config_cafile",
];
/// Variables that name the way to an index, as URLs separated by spaces.
const PYTHON_URLS: [&str; 3] = ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"];
const NPM_URLS: [&str; 2] = ["NPM_CONFIG_REGISTRY", "npm_config_registry"];
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];
/// A certificate bundle is a quarter of this.
const AUTHORITIES_BYTES_MAX: u64 = 1 << 20;

/// What one resolution is given of the operator's settings.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Everything that may be reached: the index hosts, or the proxies before them.
    pub(crate) egress: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    /// Files for the jail's bundle, by name.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl Index {
    /// `env` as [`crate::ENV_PASSED`] lists it. A `PIP_FIND_LINKS` that is a folder of the operator's machine is left out: a jail
    /// does not see it.
    pub(crate) fn new(language: Language, env: &BTreeMap<String, String>) -> Self {
        let mut index = Self::default();
        for (name, value) in env {
            index.take(language, name, value);
        }
        index.fill_in(language);
        index.egress.sort();
        index.egress.dedup();
        index
    }

    fn take(&mut self, language: Language, name: &str, value: &str) {
        let urls = match language {
            Language::Python => &PYTHON_URLS[..],
            Language::JavaScript => &NPM_URLS[..],
            Language::Image => &[],
        };
        if AUTHORITY_FILES.contains(&name) {
            self.copy_authorities(name, Path::new(value));
        } else if urls.contains(&name) || PROXIES.contains(&name) {
            let remote: Vec<&str> = value
                .split_whitespace()
                .filter(|url| destination(url).is_some())
                .collect();
            self.egress.extend(remote.iter().filter_map(|url| destination(url)));
            if !remote.is_empty() {
                self.env.insert(name.to_owned(), remote.join(" "));
            }
        } else if !PYTHON_URLS.contains(&name) && !NPM_URLS.contains(&name) {
            self.env.insert(name.to_owned(), value.to_owned());
        }
    }

    fn fill_in(&mut self, language: Language) {
        let by_default: &[&str] = match language {
            Language::Python if self.env.contains_key("PIP_NO_INDEX") || self.env.contains_key("PIP_INDEX_URL") => &[],
            Language::Python => &PYTHON_INDEX,
            Language::JavaScript if NPM_URLS.iter().any(|name| self.env.contains_key(*name)) => &[],
            Language::JavaScript => &[NPM_REGISTRY],
            Language::Image => &[],
        };
        self.egress.extend(by_default.iter().filter_map(|url| destination(url)));
    }

    fn copy_authorities(&mut self, name: &str, path: &Path) {
        let small = path.metadata().is_ok_and(|found| found.len() <= AUTHORITIES_BYTES_MAX);
        let Some(bytes) = small.then(|| std::fs::read(path).ok()).flatten() else {
            return;
        };
        let file = format!("authorities-{}.pem", name.to_ascii_lowercase());
        self.env.insert(name.to_owned(), format!("/function/{file}"));
        self.files.insert(file, bytes);
    }

    pub(crate) fn list(&self) -> Result<EgressList, piecework_model::Rejection> {
        EgressList::parse(&self.egress)
    }
}

/// Whether a lock file's `resolved` lies on one of the npm registries.
pub(crate) fn is_on_registry(env: &BTreeMap<String, String>, url: &str) -> bool {
    let named = NPM_URLS.iter().filter_map(|name| env.get(*name)).next();
    let registry = named.map_or(NPM_REGISTRY, String::as_str);
    origin(registry).is_some_and(|registry| origin(url) == Some(registry))
}

fn origin(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some((scheme, authority.rsplit('@').next()?))
}

/// `host:port` of an `http` or `https` URL.
fn destination(url: &str) -> Option<String> {
    let (scheme, authority) = origin(url)?;
    let port = match scheme {
        "https" => "443",
        "http" => "80",
        _ => return None,
    };
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, port));
    // The jail's own hosts file says so too.
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    Some(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn without_settings_the_public_indexes_alone_are_reached() {
        let python = Index::new(Language::Python, &env(&[("PATH", "/usr/bin")]));
        assert_eq!(python.egress, ["files.pythonhosted.org:443", "pypi.org:443"]);
        let javascript = Index::new(Language::JavaScript, &env(&[]));
        assert_eq!(javascript.egress, ["registry.npmjs.org:443"]);
        assert!(python.list().is_ok() && javascript.list().is_ok());
    }

    #[test]
    fn an_operators_index_takes_the_place_of_the_public_one() {
        let own = env(&[
            ("PIP_INDEX_URL", "https://bob:secret@pypi.example.org:8443/simple"),
            ("PIP_FIND_LINKS", "/opt/wheels http://localhost:9000/wheels"),
            ("NPM_CONFIG_REGISTRY", "http://127.0.0.1:4873/"),
        ]);
        let python = Index::new(Language::Python, &own);
        assert_eq!(python.egress, ["127.0.0.1:9000", "pypi.example.org:8443"]);
        assert_eq!(python.env["PIP_FIND_LINKS"], "http://localhost:9000/wheels");
        assert!(!python.env.contains_key("NPM_CONFIG_REGISTRY"));
        let javascript = Index::new(Language::JavaScript, &own);
        assert_eq!(javascript.egress, ["127.0.0.1:4873"]);
    }

    #[test]
    fn what_lies_elsewhere_is_not_on_the_registry() {
        let own = env(&[("NPM_CONFIG_REGISTRY", "http://127.0.0.1:4873/npm/")]);
        assert!(is_on_registry(&own, "http://127.0.0.1:4873/npm/-/left"));
        for other in [
            "git+http://127.0.0.1:4873/x.git#1",
            "git+file:///etc",
            "file:../x",
            "http://127.0.0.1:80/npm",
            "https://registry.npmjs.org/x",
        ] {
            assert!(!is_on_registry(&own, other), "{other}");
        }
    }
}
