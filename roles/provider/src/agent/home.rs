//! What a provider remembers in its directory: its network, its owner, and the controllers that it works for.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use piecework_api::Client;
use piecework_ledger::Genesis;
use piecework_model::{AccountId, Code, NetworkId, PublicKey, Rejection};

use super::Failure;
use crate::Provider;

const GENESIS: &str = "genesis.json";
const NETWORK: &str = "network";
const OWNER: &str = "owner";
const CONTROLLERS: &str = "controllers";

/// A provider's directory.
#[derive(Clone, Debug)]
pub struct Home(pub PathBuf);

impl Home {
    fn read(&self, name: &str) -> Result<Option<String>, Failure> {
        let path = self.0.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::Read(path, error)),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.0.join(name);
        write_private(&path, text).map_err(|error| Failure::Write(path, error))
    }

    /// The genesis of the network that this directory has joined; none where it has joined none.
    pub fn kept_genesis(&self) -> Result<Option<Genesis>, Failure> {
        let Some(text) = self.read(GENESIS)? else {
            return Ok(None);
        };
        let genesis = serde_json::from_str(&text);
        genesis.map_err(|error| Failure::NotAGenesis(self.0.join(GENESIS), error))
    }

    /// As the controller shows it; its digest is the network's id, so there is nothing to trust.
    pub async fn first_genesis(&self, client: &Client, network: NetworkId) -> Result<Genesis, Failure> {
        let shown = client.ledger_genesis().await?;
        let text = shown.to_string();
        let genesis: Genesis = serde_json::from_value(shown).map_err(Failure::NoGenesis)?;
        if genesis.network_id() != network {
            return Err(Failure::OtherGenesis);
        }
        self.write(GENESIS, &text)?;
        Ok(genesis)
    }

    /// A directory belongs to the network that it first joined: its key and its journal mean nothing elsewhere.
    pub fn keep_to_network(&self, network: NetworkId) -> Result<(), Failure> {
        let name = network.to_string();
        match self.read(NETWORK)? {
            Some(known) if known.trim() == name => Ok(()),
            Some(_) => Err(Failure::OtherNetwork(self.0.clone())),
            None => self.write(NETWORK, &name),
        }
    }

    /// The account of the person whose computer this is, as it joined.
    pub fn owner(&self) -> Result<AccountId, Failure> {
        let owner = fs::read_to_string(self.0.join(OWNER)).map_err(Failure::NoOwner)?;
        Ok(owner.trim().parse()?)
    }

    pub(super) fn set_owner(&self, owner: AccountId) -> Result<(), Failure> {
        self.write(OWNER, &owner.to_string())
    }

    /// At each URL the controller that was met first is the one to work for, by its key. The file has a line for each, the
    /// key and the URL; a key without a URL holds everywhere.
    pub fn trusts(self, provider: Arc<Provider>) -> impl Fn(&str, PublicKey) -> Result<(), Rejection> {
        let path = self.0.join(CONTROLLERS);
        let turn = Mutex::new(());
        move |url, key| {
            let _turn = turn.lock();
            let known = fs::read_to_string(&path).unwrap_or_default();
            let of_url: Vec<&str> = known.lines().filter_map(|line| key_for(line, url)).collect();
            if of_url.is_empty() {
                write_private(&path, &format!("{known}{key} {url}\n")).map_err(|error| not_written(&path, &error))?;
            } else if !of_url.contains(&&*key.to_string()) {
                return Err(Rejection::new(
                    Code::LinkUntrustedController,
                    format!("the controller has a different key than before: {key}"),
                )
                .hint(format!(
                    "if you trust the new key, add it as a line to {}",
                    path.display()
                )));
            }
            provider.trust(key);
            Ok(())
        }
    }
}

/// The key of a line, where it is one for this URL.
fn key_for<'a>(line: &'a str, url: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace();
    let key = words.next()?;
    words.next().is_none_or(|of| of == url).then_some(key)
}

/// What was to be remembered is not.
fn not_written(path: &Path, error: &io::Error) -> Rejection {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Rejection::new(Code::ProviderDiskFull, "the provider's disk is full")
        }
        _ => Rejection::new(
            Code::ProviderDiskFailed,
            format!("cannot write {}: {error}", path.display()),
        ),
    }
}

/// Writes a file that only its owner reads: all of it, or nothing.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_for_its_url_and_without_one_everywhere() {
        for (line, due) in [
            ("key http://a", Some("key")),
            ("key http://b", None),
            ("key", Some("key")),
            ("", None),
        ] {
            assert_eq!(key_for(line, "http://a"), due, "{line}");
        }
    }

    #[test]
    fn a_directory_keeps_to_its_first_network() {
        let directory = tempfile::tempdir().expect("a directory");
        let home = Home(directory.path().to_owned());
        let (one, other) = (NetworkId([1; 32]), NetworkId([2; 32]));
        home.keep_to_network(one).expect("the first");
        home.keep_to_network(one).expect("again");
        let refused = home.keep_to_network(other).expect_err("another");
        assert!(matches!(refused, Failure::OtherNetwork(_)), "{refused:?}");
        assert!(home.kept_genesis().expect("read").is_none());
        assert!(matches!(home.owner(), Err(Failure::NoOwner(_))));
    }
}
