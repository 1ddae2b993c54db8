//! `piecework peer genesis`: creates a network.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::Context as _;
use piecework_ledger::{Grant, Params, Roles};
use piecework_model::{Credits, OwnerName, PublicKey};
use piecework_peer::Card;

use crate::{compose, failure::Failure, show, units};

/// Create the genesis file of a new network from the cards of its first peers
#[derive(Debug, clap::Args)]
pub struct MakeGenesis {
    /// Name of the network
    #[arg(long)]
    name: String,
    /// Cards of the peers, one file each
    #[arg(value_name = "CARD", required = true)]
    cards: Vec<PathBuf>,
    /// Credits for each owner of a peer
    #[arg(long, value_name = "AMOUNT", value_parser = units::credits_ucr, default_value = "0")]
    owners: i128,
    /// Additional account, like ada=KEY:100cr or ada=KEY:0:controller; may be repeated
    #[arg(long = "grant", value_name = "NAME=KEY:AMOUNT[:ROLE]", value_parser = grant)]
    grants: Vec<Grant>,
    /// Commission on each payment
    #[arg(long, value_name = "PERCENT", value_parser = units::permille, default_value = "3%")]
    commission: u32,
    /// Number of blocks that a claim waits and a closed lease drains
    #[arg(long, value_name = "BLOCKS", default_value_t = compose::PARAMS.window_blocks)]
    window: u32,
    /// Length of an epoch in blocks; a change of the peers takes effect with the epoch after the next
    #[arg(long, value_name = "BLOCKS", default_value_t = compose::PARAMS.epoch_blocks)]
    epoch: u32,
    /// Deposit that is held for each offer
    #[arg(long, value_name = "AMOUNT", value_parser = units::credits_ucr, default_value = "1cr")]
    offer_deposit: i128,
    /// Output file [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// `ada=KEY:100cr`, `c=KEY:0:controller`.
fn grant(text: &str) -> Result<Grant, String> {
    const FORM: &str = "expected NAME=KEY:AMOUNT or NAME=KEY:AMOUNT:ROLE";
    let (name, rest) = text.split_once('=').ok_or(FORM)?;
    let (key, rest) = rest.split_once(':').ok_or(FORM)?;
    let (amount, roles) = rest.split_once(':').unwrap_or((rest, "developer"));
    Ok(Grant {
        name: units::noun::<OwnerName>(name)?,
        key: units::public_key(key)?,
        roles: roles.split(',').try_fold(Roles::default(), with_role)?,
        amount: Credits(units::credits_ucr(amount)?),
    })
}

fn with_role(mut roles: Roles, role: &str) -> Result<Roles, String> {
    match role {
        "developer" => roles.developer = true,
        "provider" => roles.provider = true,
        "peer" => roles.peer = true,
        "controller" => roles.controller = true,
        other => {
            return Err(format!(
                "`{other}` is not a role: developer, provider, peer or controller"
            ));
        }
    }
    Ok(roles)
}

impl MakeGenesis {
    pub fn run(self) -> Result<(), Failure> {
        let cards = self.cards.iter().map(read_card).collect::<Result<Vec<_>, _>>()?;
        let params = Params {
            commission_ppm: self.commission * 1_000,
            window_blocks: self.window,
            epoch_blocks: self.epoch,
            offer_deposit: Credits(self.offer_deposit),
            ..compose::PARAMS
        };
        let mut grants = owners(&cards, Credits(self.owners))?;
        grants.extend(self.grants);
        let genesis = piecework_peer::genesis_of(self.name, compose::now_ms()?, params, grants, &cards)?;
        let text = serde_json::to_string_pretty(&genesis).context("a genesis has no maps with odd keys")?;
        eprintln!("network {}", genesis.network_id());
        match &self.output {
            None => show::text(&format!("{text}\n")),
            Some(path) => {
                let mut file = fs::File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?;
                use std::io::Write as _;
                Ok(writeln!(file, "{text}").with_context(|| format!("cannot write {}", path.display()))?)
            }
        }
    }
}

fn read_card(path: &PathBuf) -> Result<Card, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read the card {}: {error}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{} is not a card: {error}", path.display())))
}

/// One account for each owner, however many peers are theirs.
fn owners(cards: &[Card], amount: Credits) -> Result<Vec<Grant>, Failure> {
    let mut keys: BTreeMap<&OwnerName, PublicKey> = BTreeMap::new();
    for card in cards {
        let known = *keys.entry(&card.owner).or_insert(card.owner_key);
        if known != card.owner_key {
            return Err(Failure::usage(format!(
                "two cards have the owner `{}` with different keys",
                card.owner
            )));
        }
    }
    let owner = |(name, key): (&OwnerName, PublicKey)| Grant {
        name: name.clone(),
        key,
        roles: Roles {
            peer: true,
            ..Roles::default()
        },
        amount,
    };
    Ok(keys.into_iter().map(owner).collect())
}

#[cfg(test)]
mod tests {
    use piecework_model::SecretKey;

    use super::*;

    fn card(owner: &str, number: u8) -> Card {
        let key = |seed: u8| SecretKey::from_seed([seed; 32]).public();
        Card::new(
            owner.parse().expect("a name"),
            key(owner.len() as u8),
            key(100 + number),
            format!("h:{number}"),
        )
    }

    #[test]
    fn an_owner_of_two_peers_has_one_account() {
        let cards = [card("ada", 1), card("ada", 2), card("bobby", 3)];
        let grants = owners(&cards, Credits(5)).expect("two owners");
        assert_eq!(grants.len(), 2);
        let made = piecework_peer::genesis_of("net".to_owned(), 1, compose::PARAMS, grants, &cards);
        assert_eq!(made.expect("valid").peers.len(), 3);
        let mut forged = card("ada", 4);
        forged.owner_key = forged.peer_key;
        owners(&[card("ada", 1), forged], Credits(5)).expect_err("two keys for one name");
    }

    #[test]
    fn a_grant_is_read_from_its_line() {
        let key = SecretKey::from_seed([1; 32]).public();
        let made = grant(&format!("ada={key}:2cr:developer,provider")).expect("a grant");
        assert_eq!((made.amount, made.key), (Credits(2_000_000), key));
        assert!(made.roles.developer && made.roles.provider && !made.roles.peer);
        for bad in ["ada", "ada=x:1", &format!("ada={key}"), &format!("ada={key}:1:king")] {
            grant(bad).expect_err(bad);
        }
    }
}
