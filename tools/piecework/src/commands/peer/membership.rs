//! `piecework peer proposals`, `propose` and `vote`: what the owners of peers decide together.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use piecework_chain::{Chain, Final};
use piecework_chain_http::remote;
use piecework_ledger::{Change, Event, Key, Params, Value};
use piecework_model::{AccountId, OwnerName, PublicKey, SecretKey};
use piecework_peer::{Card, membership};
use serde_json::json;

use super::{Place, local, not_taken, owner_key_path, unreachable};
use crate::{failure::Failure, keyfile, show, units};

/// List open proposals and the current peers
#[derive(Debug, clap::Args)]
pub struct Proposals {
    #[command(flatten)]
    desk: Desk,
}

/// Propose a change, or vote for it if somebody else proposed the same
#[derive(Debug, clap::Args)]
pub struct Propose {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Add a peer
    Add {
        /// Card printed by the new peer's `piecework peer join`
        card: PathBuf,
        #[command(flatten)]
        desk: Desk,
    },
    /// Remove a peer
    Remove {
        /// Consensus key of the peer
        #[arg(value_parser = units::public_key)]
        key: PublicKey,
        #[command(flatten)]
        desk: Desk,
    },
    /// Change rules, like window_blocks=7200
    Params {
        /// Rules and their new values
        #[arg(value_name = "NAME=VALUE", required = true, value_parser = units::assignment)]
        changes: Vec<(String, String)>,
        #[command(flatten)]
        desk: Desk,
    },
}

/// Vote for an account's proposal
#[derive(Debug, clap::Args)]
pub struct Vote {
    /// Name or id of the account that made the proposal
    proposer: String,
    #[command(flatten)]
    desk: Desk,
}

/// Who votes, and through which peer.
#[derive(Debug, clap::Args)]
struct Desk {
    #[command(flatten)]
    place: Place,
    /// HTTP API of the peer to use; may be repeated [default: this peer's own]
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
}

struct Owner {
    chain: Arc<dyn Chain>,
    key: SecretKey,
    name: OwnerName,
}

/// Longer than a change of leader takes.
const PATIENCE: Duration = Duration::from_secs(15);

impl Desk {
    async fn open(&self) -> Result<Owner, Failure> {
        let directory = self.place.directory()?;
        let settings = self.place.settings()?;
        let member = piecework_peer::member(&directory).map_err(local)?;
        let urls = match self.url.is_empty() {
            true => vec![format!("http://{}", reachable(settings.api))],
            false => self.url.clone(),
        };
        let mut options = remote::Options::new(urls, member.genesis);
        options.patience = PATIENCE;
        Ok(Owner {
            chain: remote::connect(options).await.map_err(unreachable)?,
            key: keyfile::existing(&owner_key_path(&directory))?,
            name: settings.owner,
        })
    }
}

/// Where one on the same machine dials what listens on all addresses.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match (listen.ip().is_unspecified(), listen) {
        (true, SocketAddr::V4(_)) => ([127, 0, 0, 1], listen.port()).into(),
        (true, SocketAddr::V6(_)) => (std::net::Ipv6Addr::LOCALHOST, listen.port()).into(),
        (false, _) => listen,
    }
}

impl Owner {
    async fn support(&self, change: Change) -> Result<(), Failure> {
        let done = membership::support(&*self.chain, &self.key, &self.name, change).await;
        self.tell(done.map_err(not_taken)?).await
    }

    async fn tell(&self, done: Final) -> Result<(), Failure> {
        let carried = done.events.iter().find_map(|event| match event {
            Event::PeersChanged { from_height, .. } => {
                Some(format!("carried: the peers change at block {from_height}"))
            }
            Event::ParamsChanged {} => Some("carried: the rules have changed".to_owned()),
            _ => None,
        });
        let text = match carried {
            Some(text) => text,
            None => "voted; more votes are needed (`piecework peer proposals`)".to_owned(),
        };
        show::text(&format!("block {}: {text}\n", done.height))
    }
}

impl Propose {
    pub async fn run(self) -> Result<(), Failure> {
        match self.what {
            What::Add { card, desk } => {
                let text =
                    fs::read_to_string(&card).with_context(|| format!("cannot read the card {}", card.display()))?;
                let card: Card = serde_json::from_str(&text)
                    .map_err(|error| Failure::usage(format!("{} is not a card: {error}", card.display())))?;
                let owner = desk.open().await?;
                owner.support(card.change(owner.chain.network())?).await
            }
            What::Remove { key, desk } => desk.open().await?.support(Change::RemovePeer(key)).await,
            What::Params { changes, desk } => {
                let owner = desk.open().await?;
                let present = match owner.chain.get(&Key::Params).await.map_err(unreachable)? {
                    Some(Value::Params(params)) => params,
                    Some(_) | None => return Err(Failure::Local(anyhow::anyhow!("the ledger has no parameters"))),
                };
                owner.support(Change::SetParams(changed(&present, &changes)?)).await
            }
        }
    }
}

/// The rules with some of them set.
fn changed(present: &Params, changes: &[(String, String)]) -> Result<Params, Failure> {
    let mut value = serde_json::to_value(present).context("parameters are plain data")?;
    for (name, text) in changes {
        let Some(field) = value.get_mut(name) else {
            return Err(Failure::usage(format!("the ledger has no parameter `{name}`")));
        };
        *field = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    }
    serde_json::from_value(value).map_err(|error| Failure::usage(format!("invalid value for a parameter: {error}")))
}

impl Vote {
    pub async fn run(self) -> Result<(), Failure> {
        let owner = self.desk.open().await?;
        let proposer = match self.proposer.parse::<AccountId>() {
            Ok(id) => id,
            Err(_) => {
                let name: OwnerName = self.proposer.parse()?;
                let known = membership::account_named(&*owner.chain, &name)
                    .await
                    .map_err(unreachable)?;
                known.ok_or_else(|| Failure::usage(format!("the ledger has no account `{name}`")))?
            }
        };
        let done = membership::vote(&*owner.chain, &owner.key, &owner.name, proposer).await;
        owner.tell(done.map_err(not_taken)?).await
    }
}

impl Proposals {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let owner = self.desk.open().await?;
        let chain = &*owner.chain;
        let open = membership::proposals(chain).await.map_err(unreachable)?;
        let committee = membership::committee(chain).await.map_err(unreachable)?;
        let present = committee.at(chain.status().height + 1);
        if json {
            let open: Vec<_> = open
                .iter()
                .map(|open| json!({"proposer": open.proposer, "proposal": open.proposal}))
                .collect();
            return show::json(&json!({"proposals": open, "committee": committee}));
        }
        let votes = |voters: &[AccountId]| present.iter().filter(|peer| voters.contains(&peer.owner)).count();
        let rows = open
            .iter()
            .map(|open| {
                [
                    open.proposer.to_string(),
                    describe(&open.proposal.change),
                    format!("{} of {}", votes(&open.proposal.votes), present.len()),
                    open.proposal.expires_at_height.to_string(),
                ]
            })
            .collect();
        show::table(["PROPOSER", "WHAT", "VOTES", "UNTIL BLOCK"], rows, "no open proposals")?;
        let rows = present
            .iter()
            .map(|peer| {
                [
                    peer.key.to_string(),
                    peer.address.clone(),
                    peer.since_height.to_string(),
                ]
            })
            .collect();
        show::table(["PEER", "ADDRESS", "SINCE BLOCK"], rows, "no peers")
    }
}

fn describe(change: &Change) -> String {
    match change {
        Change::AddPeer(add) => format!("add peer {} at {}", add.key, add.address),
        Change::RemovePeer(key) => format!("remove peer {key}"),
        Change::SetParams(params) => format!("rules {}", serde_json::to_string(params).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose;

    #[test]
    fn rules_change_by_name_and_nothing_else_does() {
        let set = |name: &str, value: &str| changed(&compose::PARAMS, &[(name.to_owned(), value.to_owned())]);
        let expected = Params {
            window_blocks: 7_200,
            ..compose::PARAMS
        };
        assert_eq!(set("window_blocks", "7200").expect("a rule"), expected);
        set("windows", "7200").expect_err("no such rule");
        set("window_blocks", "many").expect_err("no number");
    }

    #[test]
    fn what_listens_everywhere_is_dialled_here() {
        let here = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(here("0.0.0.0:7441"), "127.0.0.1:7441");
        assert_eq!(here("[::]:7441"), "[::1]:7441");
        assert_eq!(here("10.0.0.7:7441"), "10.0.0.7:7441");
    }
}
