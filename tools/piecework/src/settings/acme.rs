//! The certificate of a role that obtains it by itself.

use piecework_acme::{DOMAINS_MAX, LETS_ENCRYPT};
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, units};

/// From an authority that speaks ACME. The authority's terms of service are agreed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcmeSettings {
    /// Names of this server; port 443 of each must lead to it.
    pub domains: Vec<String>,
    /// The authority's directory.
    #[serde(default = "lets_encrypt")]
    pub directory: String,
    /// Mail addresses to which the authority may write.
    #[serde(default)]
    pub contacts: Vec<String>,
}

fn lets_encrypt() -> String {
    LETS_ENCRYPT.to_owned()
}

/// As many as an authority may be asked to write to.
const CONTACTS_MAX: u64 = 10;

impl AcmeSettings {
    pub fn new(domains: Vec<String>, directory: Option<String>, contacts: Vec<String>) -> Self {
        Self {
            domains,
            directory: directory.unwrap_or_else(lets_encrypt),
            contacts,
        }
    }

    pub fn check(&self) -> Result<(), Failure> {
        super::within("acme.domains", self.domains.len() as u64, 1, DOMAINS_MAX as u64)?;
        super::within("acme.contacts", self.contacts.len() as u64, 0, CONTACTS_MAX)?;
        let checked = |key: &str, found: Result<String, String>, given: &str| match found {
            Ok(found) if found == *given => Ok(()),
            Ok(found) => Err(Failure::usage(format!("`{key}` has `{given}`; write `{found}`"))),
            Err(error) => Err(Failure::usage(format!("`{key}` has `{given}`: {error}"))),
        };
        for domain in &self.domains {
            checked("acme.domains", units::domain(domain), domain)?;
        }
        for contact in &self.contacts {
            checked("acme.contacts", units::mail(contact), contact)?;
        }
        checked("acme.directory", units::https_url(&self.directory), &self.directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_authority_proves_are_refused_with_a_way_out() {
        let of = |domain: &str| AcmeSettings::new(vec![domain.to_owned()], None, Vec::new());
        assert!(of("piecework.example.org").check().is_ok());
        assert!(of("xn--bcher-kva.example").check().is_ok());
        let long = "a".repeat(64);
        for (domain, said) in [
            ("*.example.org", "wildcard"),
            ("192.0.2.7", "name"),
            ("::1", "name"),
            ("https://example.org", "name"),
            ("example.org:443", "name"),
            ("a..b", "name"),
            ("-a.example", "name"),
            ("bücher.example", "xn--"),
            ("Example.org", "example.org"),
            (long.as_str(), "name"),
            ("", "name"),
        ] {
            let refused = of(domain).check().expect_err(domain).to_string();
            assert!(refused.contains(said), "{domain}: {refused}");
        }
        let many = AcmeSettings::new(vec!["a.example".to_owned(); DOMAINS_MAX + 1], None, Vec::new());
        assert!(many.check().is_err());
        let none = AcmeSettings::new(Vec::new(), None, Vec::new());
        assert!(none.check().is_err());
        for directory in ["http://ca.example/directory", "ca.example", ""] {
            let settings = AcmeSettings::new(vec!["a.example".to_owned()], Some(directory.to_owned()), Vec::new());
            assert!(settings.check().is_err(), "{directory}");
        }
        for contact in ["ops", "mailto:ops@example.org", "a@b c", ""] {
            let settings = AcmeSettings::new(vec!["a.example".to_owned()], None, vec![contact.to_owned()]);
            assert!(settings.check().is_err(), "{contact}");
        }
    }
}
