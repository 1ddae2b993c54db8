//! The name of an image in a registry: `HOST/NAME:TAG@DIGEST`, as `docker pull` takes it.

use std::{fmt, net::IpAddr, str::FromStr};

use piecework_model::Rejection;

use crate::{Sha256, bad};

const LENGTH_MAX: usize = 400;
const HUB: &str = "docker.io";

/// Where an image is, checked: it can stand in an address as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host and port of the registry.
    pub registry: String,
    pub name: String,
    pub tag: Option<String>,
    pub digest: Option<Sha256>,
}

impl Reference {
    /// The host that answers.
    pub(super) fn host(&self) -> &str {
        match &*self.registry {
            HUB => "registry-1.docker.io",
            other => other,
        }
    }

    /// A registry on this machine speaks HTTP, all others HTTPS; as Docker has it.
    pub(super) fn is_here(&self) -> bool {
        let host = match self.registry.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.registry,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// By what its manifest is asked for.
    pub(super) fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The last part of the name: what a function may be called.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

fn is_part(part: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    part.bytes().all(fits) && ends(part.bytes().next()) && ends(part.bytes().last())
}

fn is_tag(tag: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=128).contains(&tag.len()) && tag.bytes().all(fits) && !tag.starts_with(['.', '-'])
}

fn is_host(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    !host.is_empty() && host.bytes().all(fits)
}

impl FromStr for Reference {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Rejection> {
        let shown = || text.chars().take(120).collect::<String>();
        let refuse = || bad(format!("`{}` is not the name of an image, like HOST/NAME:TAG", shown()));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag.to_owned())),
            _ => (rest, None),
        };
        // What has a dot or a port, or is this machine, is a host; else the whole is a name at Docker Hub.
        let (registry, name) = match rest.split_once('/') {
            Some((host, name)) if host.contains(['.', ':']) || host == "localhost" => (host, name.to_owned()),
            Some(_) => (HUB, rest.to_owned()),
            None => (HUB, format!("library/{rest}")),
        };
        let fits = text.len() <= LENGTH_MAX
            && is_host(registry)
            && name.split('/').all(is_part)
            && tag.as_deref().is_none_or(is_tag);
        if !fits {
            return Err(refuse());
        }
        Ok(Self {
            registry: registry.to_owned(),
            name,
            tag,
            digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_docker_reads_them() {
        let digest = "sha256:".to_owned() + &"a".repeat(64);
        for (text, registry, name, wanted, is_here) in [
            ("alpine", "docker.io", "library/alpine", "latest", false),
            ("me/web:1.2", "docker.io", "me/web", "1.2", false),
            ("127.0.0.1:5000/web", "127.0.0.1:5000", "web", "latest", true),
            ("localhost/a/b:x", "localhost", "a/b", "x", true),
            ("[::1]:5000/web", "[::1]:5000", "web", "latest", true),
            ("ghcr.io/me/web", "ghcr.io", "me/web", "latest", false),
            (
                &format!("ghcr.io/me/web:1@{digest}"),
                "ghcr.io",
                "me/web",
                &digest,
                false,
            ),
        ] {
            let found: Reference = text.parse().expect(text);
            assert_eq!((&*found.registry, &*found.name), (registry, name), "{text}");
            assert_eq!((&*found.wanted(), found.is_here()), (wanted, is_here), "{text}");
        }
        for bad in [
            "",
            "a b",
            "A",
            "web:",
            "web:a/b:",
            "host.x/../y",
            "web@sha256:1",
            "a/-b",
            "http://x/y",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
