//! The user names and passwords that `docker login` has left in `config.json`.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::Reference;

/// By registry. Never shown: see `Debug`.
#[derive(Clone, Default)]
pub struct Logins(BTreeMap<String, (String, String)>);

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
}

impl std::fmt::Debug for Logins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Logins {
    /// Of the text of `config.json`; none where it is something else. Helpers that keep passwords elsewhere are not asked.
    pub fn parse(json: &[u8]) -> Self {
        let file: File = serde_json::from_slice(json).unwrap_or(File { auths: BTreeMap::new() });
        let login = |(registry, auth): (String, Auth)| Some((host_of(&registry).to_owned(), auth.pair()?));
        Self(file.auths.into_iter().filter_map(login).collect())
    }

    pub(super) fn of(&self, reference: &Reference) -> Option<&(String, String)> {
        let host = match &*reference.registry {
            "docker.io" => "index.docker.io",
            other => other,
        };
        self.0.get(host)
    }
}

impl Auth {
    fn pair(self) -> Option<(String, String)> {
        if !self.username.is_empty() {
            return Some((self.username, self.password));
        }
        let text = String::from_utf8(STANDARD.decode(self.auth.trim()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        (!user.is_empty()).then(|| (user.to_owned(), password.to_owned()))
    }
}

/// Some tools write addresses.
fn host_of(registry: &str) -> &str {
    let rest = registry
        .strip_prefix("https://")
        .or_else(|| registry.strip_prefix("http://"));
    rest.unwrap_or(registry).split('/').next().unwrap_or(registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_that_of_its_registry() {
        let json = br#"{"auths": {"https://index.docker.io/v1/": {"auth": "YWRhOnNlY3JldA=="}, "127.0.0.1:5000": {"username": "bo", "password": "p:w"}, "empty.example": {}}}"#;
        let logins = Logins::parse(json);
        let of = |text: &str| logins.of(&text.parse().expect("a reference")).cloned();
        assert_eq!(of("alpine"), Some(("ada".into(), "secret".into())));
        assert_eq!(of("127.0.0.1:5000/x"), Some(("bo".into(), "p:w".into())));
        assert_eq!(of("empty.example/x"), None);
        assert_eq!(of("ghcr.io/x/y"), None);
        assert!(!format!("{logins:?}").contains("secret"));
        assert!(Logins::parse(b"[").0.is_empty());
    }
}
