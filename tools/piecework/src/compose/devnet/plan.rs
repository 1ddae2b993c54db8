//! What a devnet's directory holds before anything runs: ports, keys, one genesis file, settings.

use std::{
    fmt, fs,
    net::{SocketAddr, TcpListener},
    path::Path,
};

use anyhow::Context as _;
use piecework_ledger::{Genesis, Grant, Params, Roles};
use piecework_loopback::free_addresses;
use piecework_model::{Code, Credits, OwnerName, Rejection, SecretKey};
use piecework_peer::Card;
use serde::{Deserialize, Serialize};

use super::super::{
    controller::ControllerKeys,
    files::{load_or_create_key, make_private, write_private},
    ledger::{OPERATOR_GRANT, PARAMS, now_ms},
};
use crate::{
    failure::Failure,
    settings::{self, ControllerSettings, PeerSettings, Settings},
};

/// What was asked for; what was not is as it was, or as it is usual.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub peers: Option<u16>,
    pub providers: Option<u16>,
    /// The controller's.
    pub listen: Option<SocketAddr>,
}

/// What the directory was made for; written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    pub(super) peers: u16,
    pub(super) providers: u16,
    listen: SocketAddr,
}

const FILE: &str = "devnet.json";
const PEERS: u16 = 4;
const PROVIDERS: u16 = 3;
const LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 7433);
/// A change of peers comes within two minutes here.
const EPOCH_BLOCKS: u32 = 60;

impl Plan {
    pub(super) fn load_or_make(directory: &Path, wanted: Wanted) -> Result<Self, Failure> {
        let path = directory.join(FILE);
        if path.exists() {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let plan: Self = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
            plan.check(directory, wanted)?;
            return plan.moved(directory, wanted.listen);
        }
        check_empty(directory)?;
        let plan = Self {
            peers: wanted.peers.unwrap_or(PEERS),
            providers: wanted.providers.unwrap_or(PROVIDERS),
            listen: wanted.listen.unwrap_or_else(|| LISTEN.into()),
        };
        let plan = plan.make(directory)?;
        write_private(&path, &serde_json::to_string(&plan).context("plain data")?)?;
        Ok(plan)
    }

    fn check(&self, directory: &Path, wanted: Wanted) -> Result<(), Rejection> {
        let other = |asked: bool, is: &dyn fmt::Display, what: &str| match asked {
            true => Err(Rejection::new(
                Code::DevnetOtherNetwork,
                format!("the network in {} has {is} {what}", directory.display()),
            )
            .hint("leave the option out, or use another --data directory for another network")),
            false => Ok(()),
        };
        let peers = wanted.peers.is_some_and(|peers| peers != self.peers);
        other(peers, &self.peers, "peers")?;
        let providers = wanted.providers.is_some_and(|providers| providers != self.providers);
        other(providers, &self.providers, "providers")
    }

    /// With the controller at another address, where one is asked for: no other process depends on where it listens. A port 0
    /// asks for another port only if the one that the network has is taken.
    fn moved(mut self, directory: &Path, listen: Option<SocketAddr>) -> Result<Self, Failure> {
        let listen = match listen {
            Some(listen) if listen.port() == 0 && TcpListener::bind(self.listen).is_err() => {
                SocketAddr::new(listen.ip(), free_addresses(1).context("no free port")?[0].port())
            }
            Some(listen) if listen.port() != 0 && listen != self.listen => listen,
            Some(_) | None => return Ok(self),
        };
        let path = directory.join("controller").join(ControllerSettings::FILE);
        let mut settings = settings::read::<ControllerSettings>(&path)?;
        settings.listen = listen;
        write_private(&path, &settings::text(&settings)?)?;
        self.listen = listen;
        write_private(
            &directory.join(FILE),
            &serde_json::to_string(&self).context("plain data")?,
        )?;
        Ok(self)
    }

    /// With the port that was taken, where any would do.
    fn make(mut self, directory: &Path) -> Result<Self, Failure> {
        let mut ports = free_addresses(usize::from(self.peers) * 2 + 1)
            .context("no free ports")?
            .into_iter();
        let mut port = || ports.next().context("as many as were taken");
        if self.listen.port() == 0 {
            self.listen.set_port(port()?.port());
        }
        let mut cards = Vec::new();
        let mut apis = Vec::new();
        for number in 1..=self.peers {
            let (listen, api) = (port()?, port()?);
            cards.push(make_peer(directory, number, listen, api)?);
            apis.push(format!("http://{api}"));
        }
        let controller = directory.join("controller");
        let keys = ControllerKeys::load_or_create(&controller)?;
        let genesis = genesis(&cards, &keys)?;
        for number in 1..=self.peers {
            let joined = piecework_peer::join(&peer_directory(directory, number), &genesis);
            joined.context("a peer refused the genesis file")?;
        }
        let text = serde_json::to_string_pretty(&genesis).context("plain data")?;
        write_private(&controller.join("genesis.json"), &text)?;
        let settings = ControllerSettings::new(name("controller")?, name("operator")?, self.listen, apis);
        settings::write(&controller.join(ControllerSettings::FILE), &settings, "")?;
        Ok(self)
    }
}

/// What another program, or a start that was cut off, has left is not built upon.
fn check_empty(directory: &Path) -> Result<(), Failure> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    match names.find(|name| name != super::super::files::LOCK) {
        None => Ok(()),
        Some(name) => Err(Rejection::new(
            Code::DevnetForeignDirectory,
            format!(
                "{} contains {} but not a complete network",
                directory.display(),
                name.to_string_lossy()
            ),
        )
        .hint("use another --data directory, or delete the contents if nobody needs them")
        .into()),
    }
}

fn name(text: &str) -> Result<OwnerName, Failure> {
    Ok(text.parse()?)
}

fn peer_directory(directory: &Path, number: u16) -> std::path::PathBuf {
    directory.join(format!("peer-{number}"))
}

fn make_peer(directory: &Path, number: u16, listen: SocketAddr, api: SocketAddr) -> Result<Card, Failure> {
    let place = peer_directory(directory, number);
    make_private(&place)?;
    let settings = PeerSettings::new(name(&format!("owner-{number}"))?, listen.to_string(), listen, api);
    settings::write(&place.join(PeerSettings::FILE), &settings, "")?;
    let owner = load_or_create_key(&place.join("owner.key"))?;
    let key = piecework_peer::peer_key(&place).context("the peer's key")?;
    Ok(Card::new(
        settings.owner,
        owner.public(),
        key.public(),
        settings.address,
    ))
}

/// Each peer has an owner of its own.
fn genesis(cards: &[Card], keys: &ControllerKeys) -> Result<Genesis, Failure> {
    let none = Roles::default();
    let grant = |name: OwnerName, key, roles, amount| Grant {
        name,
        key,
        roles,
        amount,
    };
    let peer = Roles { peer: true, ..none };
    let mut grants: Vec<Grant> = cards
        .iter()
        .map(|card| grant(card.owner.clone(), card.owner_key, peer, Credits::ZERO))
        .collect();
    let of = |key: &SecretKey| key.public();
    let (developer, controller) = (
        Roles {
            developer: true,
            ..none
        },
        Roles {
            controller: true,
            ..none
        },
    );
    grants.push(grant(name("operator")?, of(&keys.operator), developer, OPERATOR_GRANT));
    grants.push(grant(
        name("controller")?,
        of(&keys.controller),
        controller,
        Credits::ZERO,
    ));
    let params = Params {
        epoch_blocks: EPOCH_BLOCKS,
        ..PARAMS
    };
    Ok(piecework_peer::genesis_of(
        "devnet".to_owned(),
        now_ms()?,
        params,
        grants,
        cards,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Wanted = Wanted {
        peers: None,
        providers: None,
        listen: None,
    };

    #[test]
    fn nothing_is_built_on_what_is_there_already() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("notes"), "mine").expect("written");
        let said = Plan::load_or_make(folder.path(), ANY).expect_err("refused").to_string();
        assert!(
            said.contains(Code::DevnetForeignDirectory.as_str()) && said.contains("notes"),
            "{said}"
        );
    }

    #[test]
    fn a_controllers_port_that_was_taken_is_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let first = taken.local_addr().expect("bound");
        let at = |listen| Wanted {
            listen: Some(listen),
            ..ANY
        };
        let listens = |plan: &Plan| {
            let path = folder.path().join("controller").join(ControllerSettings::FILE);
            let settings: ControllerSettings = settings::read(&path).expect("settings");
            assert_eq!(settings.listen, plan.listen);
            plan.listen
        };
        let plan = Plan::load_or_make(folder.path(), at(first)).expect("made");
        assert_eq!(listens(&plan), first);
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let plan = Plan::load_or_make(folder.path(), at(any)).expect("moved");
        let second = listens(&plan);
        assert_ne!(second, first);
        let plan = Plan::load_or_make(folder.path(), at(any)).expect("stays where it can be");
        assert_eq!(listens(&plan), second);
        let third: SocketAddr = ([127, 0, 0, 1], 9).into();
        let plan = Plan::load_or_make(folder.path(), at(third)).expect("moved");
        assert_eq!(listens(&plan), third);
        assert_eq!(listens(&Plan::load_or_make(folder.path(), ANY).expect("kept")), third);
    }

    #[test]
    fn a_directory_keeps_to_what_it_was_made_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let wanted = Wanted {
            peers: Some(2),
            providers: Some(1),
            listen: Some(([127, 0, 0, 1], 0).into()),
        };
        let made = Plan::load_or_make(folder.path(), wanted).expect("made");
        assert_ne!(made.listen.port(), 0);
        assert_eq!(Plan::load_or_make(folder.path(), wanted).expect("the same"), made);
        assert_eq!(Plan::load_or_make(folder.path(), ANY).expect("whatever there is"), made);
        let more = Wanted { peers: Some(3), ..ANY };
        let said = Plan::load_or_make(folder.path(), more)
            .expect_err("another")
            .to_string();
        assert!(
            said.contains(Code::DevnetOtherNetwork.as_str()) && said.contains("2 peers"),
            "{said}"
        );
        for number in 1..=2 {
            let member = piecework_peer::member(&peer_directory(folder.path(), number)).expect("a peer");
            assert!(member.is_founder());
        }
    }
}
