//! The settings of a role that runs on its own: a TOML file in which an unknown key is an error.

mod acme;
mod alerts;
mod controller;
mod peer;
mod provider;
mod tls;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Serialize, de::DeserializeOwned};

pub use acme::AcmeSettings;
pub use alerts::AlertSettings;
pub use controller::ControllerSettings;
pub use peer::{HEARTBEAT, PeerSettings};
pub use provider::ProviderSettings;
pub use tls::TlsSettings;

use crate::failure::Failure;

/// Settings of one role.
pub trait Settings: Serialize + DeserializeOwned {
    /// Their file in the role's directory.
    const FILE: &'static str;
    /// What to do where there is none.
    const WITHOUT_A_FILE: &'static str;

    /// What the types alone cannot say; checked before anything starts.
    fn check(&self) -> Result<(), Failure>;
}

/// Where they lie: the file that was named, else the one in the directory.
pub fn path<S: Settings>(directory: &Path, named: Option<&Path>) -> PathBuf {
    named.map_or_else(|| directory.join(S::FILE), Path::to_owned)
}

/// The settings in a file, checked.
pub fn read<S: Settings>(path: &Path) -> Result<S, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!(
            "cannot read {}: {error}\n  {}",
            path.display(),
            S::WITHOUT_A_FILE
        ))
    })?;
    parse(&text).map_err(|failure| Failure::usage(format!("{}: {failure}", path.display())))
}

/// Reads the file and says that it is sound.
pub fn check<S: Settings>(directory: &Path, named: Option<&Path>) -> Result<(), Failure> {
    let path = path::<S>(directory, named);
    read::<S>(&path)?;
    crate::show::text(&format!("{}: ok\n", path.display()))
}

fn parse<S: Settings>(text: &str) -> Result<S, Failure> {
    let settings: S = toml::from_str(text).map_err(|error| Failure::usage(error.to_string().trim_end().to_owned()))?;
    settings.check()?;
    Ok(settings)
}

/// All that is in force, the defaults too.
pub fn text<S: Settings>(settings: &S) -> Result<String, Failure> {
    let text = toml::to_string_pretty(settings).context("the settings have no form as TOML")?;
    Ok(text)
}

/// Writes the file that `init` leaves; one that is there stays.
pub fn write<S: Settings>(path: &Path, settings: &S, head: &str) -> Result<(), Failure> {
    settings.check()?;
    let text = format!("{head}\n{}", text(settings)?);
    match fs::File::create_new(path) {
        Ok(mut file) => {
            use std::io::Write as _;
            let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
            Ok(written.with_context(|| format!("cannot write {}", path.display()))?)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::usage(format!(
            "{} already exists; edit it, or use another --data directory",
            path.display()
        ))),
        Err(error) => Err(anyhow::Error::new(error)
            .context(format!("cannot write {}", path.display()))
            .into()),
    }
}

/// A whole number within bounds, or a sentence that names the key.
fn within(key: &str, value: u64, least: u64, most: u64) -> Result<(), Failure> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(Failure::usage(format!(
            "`{key}` is {value}; it must be between {least} and {most}"
        ))),
    }
}

/// `http://host:port` or `https://...`, without a path.
fn check_url(key: &str, url: &str) -> Result<(), Failure> {
    let parsed = reqwest::Url::parse(url).ok();
    match parsed.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
        true => Ok(()),
        false => Err(Failure::usage(format!(
            "`{key}` is `{url}`; expected a URL like http://example.org:7441"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> PeerSettings {
        PeerSettings::new(
            "ada".parse().expect("a name"),
            "ada.example.org:7440".to_owned(),
            "0.0.0.0:7440".parse().expect("an address"),
            "0.0.0.0:7441".parse().expect("an address"),
        )
    }

    #[test]
    fn what_is_written_is_read_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(PeerSettings::FILE);
        write(&path, &peer(), "# head").expect("written");
        assert_eq!(read::<PeerSettings>(&path).expect("read"), peer());
        write(&path, &peer(), "# head").expect_err("it is there");
    }

    #[test]
    fn an_unknown_key_is_named() {
        let text = format!("hearbeat_ms = 5\n{}", text(&peer()).expect("text"));
        let said = parse::<PeerSettings>(&text).expect_err("unknown").to_string();
        assert!(said.contains("hearbeat_ms"), "{said}");
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let least = "owner = 'ada'\naddress = 'h:1'\nlisten = '0.0.0.0:1'\napi = '0.0.0.0:2'";
        let settings: PeerSettings = parse(least).expect("enough");
        assert_eq!(settings.heartbeat_ms, peer().heartbeat_ms);
        assert_eq!(settings.limits, peer().limits);
    }

    #[test]
    fn a_check_reads_the_file_and_refuses_what_a_start_would() {
        let folder = tempfile::tempdir().expect("a folder");
        check::<PeerSettings>(folder.path(), None).expect_err("there is none");
        let path = folder.path().join(PeerSettings::FILE);
        write(&path, &peer(), "# head").expect("written");
        check::<PeerSettings>(folder.path(), None).expect("sound");
        let spoilt = text(&peer())
            .expect("text")
            .replace("heartbeat_ms = 1000", "heartbeat_ms = 1");
        fs::write(&path, spoilt).expect("written");
        let said = check::<PeerSettings>(folder.path(), None)
            .expect_err("too short")
            .to_string();
        assert!(said.contains("peer.toml") && said.contains("heartbeat_ms"), "{said}");
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        let with = |change: fn(&mut PeerSettings)| {
            let mut settings = peer();
            change(&mut settings);
            settings.check().expect_err("bad").to_string()
        };
        assert!(with(|settings| settings.heartbeat_ms = 3).contains("heartbeat_ms"));
        assert!(with(|settings| settings.address = "nowhere".to_owned()).contains("address"));
        assert!(with(|settings| settings.limits.connections_max = 0).contains("connections_max"));
        let bad = |peers: &[&str]| {
            let peers = peers.iter().map(|url| (*url).to_owned()).collect();
            let listen = "127.0.0.1:0".parse().expect("an address");
            let name = |name: &str| name.parse().expect("a name");
            ControllerSettings::new(name("controller"), name("operator"), listen, peers)
                .check()
                .expect_err("bad")
                .to_string()
        };
        assert!(bad(&[]).contains("peers"));
        assert!(bad(&["peer.example.org"]).contains("peers"));
    }
}
