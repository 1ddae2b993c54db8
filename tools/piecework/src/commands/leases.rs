//! `piecework leases`: credits held to pay for runs, closing them, and who may use them.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use piecework_api::{
    Client, PageQuery,
    ledger::{AddPayer, HistoryQuery, LeaseView},
};
use piecework_ledger::{Action, CloseLease, DelegatePayer, OpenLease, Subject, TopUp};
use piecework_model::{Credits, LeaseId, PublicKey};

use super::signed;
use crate::{failure::Failure, keyfile, session, show, units};

/// List your leases, or open, close and delegate one
#[derive(Debug, clap::Args)]
pub struct Leases {
    #[command(flatten)]
    page: super::Page,
    #[command(subcommand)]
    action: Option<Change>,
}

#[derive(Debug, clap::Subcommand)]
enum Change {
    /// Open a lease that holds credits for runs (only if you keep your account's key; otherwise the controller does it)
    Open {
        /// Amount to hold [default: the amount that the controller uses for other accounts]
        #[arg(value_parser = units::credits_ucr)]
        amount: Option<i128>,
        /// File with your account's key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Add credits to a lease (only if you keep your account's key; otherwise the controller does it)
    TopUp {
        /// Amount to add
        #[arg(value_parser = units::credits_ucr)]
        amount: i128,
        /// File with your account's key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Lease id [default: your open lease]
        #[arg(long, value_name = "LEASE", value_parser = units::noun::<LeaseId>)]
        lease: Option<LeaseId>,
    },
    /// Close a lease: it takes no new runs, and the unspent credits return when its window is over. The next run
    /// opens another
    Close {
        #[command(flatten)]
        of: Of,
    },
    /// Let another controller pay from a lease and ack results, for example when yours is lost; or revoke that
    Delegate {
        /// Public key of the controller [default: the one you are logged in to]
        payer: Option<PublicKey>,
        /// Revoke the key
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        of: Of,
    },
}

/// Whose turn it is to sign, and for what.
#[derive(Debug, clap::Args)]
struct Of {
    /// Lease id [default: your open lease]
    #[arg(long, value_name = "LEASE", value_parser = units::noun::<LeaseId>)]
    lease: Option<LeaseId>,
    /// File with your account's key, if you keep it yourself
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl Leases {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        match &self.action {
            None => list(&client, &self.page.query(), json).await,
            Some(Change::Open { amount, key }) => open(&client, key, *amount, json).await,
            Some(Change::TopUp { amount, key, lease }) => top_up(&client, key, (*lease, *amount), json).await,
            Some(Change::Close { of }) => close(&client, of, json).await,
            Some(Change::Delegate { payer, remove, of }) => {
                let payer = match payer {
                    Some(payer) => *payer,
                    None => client.lease_terms().await?.payer_key,
                };
                delegate(&client, of, (&payer, !remove), json).await
            }
        }
    }
}

fn is_open(lease: &LeaseView) -> bool {
    lease.state == "open"
}

/// The one that this controller pays from.
async fn open_here(client: &Client) -> Result<Option<LeaseView>, Failure> {
    let here = client.leases(&PageQuery::default()).await?.items;
    Ok(here.into_iter().find(is_open))
}

/// The one that another controller pays from.
async fn open_elsewhere(client: &Client) -> Result<Option<LeaseView>, Failure> {
    let query = HistoryQuery {
        account: Some(client.own_account().await?.id.to_string()),
        ..HistoryQuery::default()
    };
    let all = client.ledger_leases(&query).await?.items;
    Ok(all.into_iter().find(is_open))
}

/// The lease that was named, or else the one that is open here.
async fn chosen(client: &Client, named: Option<LeaseId>) -> Result<LeaseId, Failure> {
    match named {
        Some(lease) => Ok(lease),
        None => found(open_here(client).await?),
    }
}

fn found(open: Option<LeaseView>) -> Result<LeaseId, Failure> {
    open.map(|lease| lease.id)
        .ok_or_else(|| Failure::usage("you have no open lease; list yours with `piecework leases`"))
}

/// With a key file the transaction is signed here, and the controller is asked for nothing but to pass it on.
async fn signed_here(client: &Client, key: &Path, action: Action, lease: LeaseId) -> Result<LeaseView, Failure> {
    signed::submit_once(client, &keyfile::existing(key)?, action).await?;
    Ok(client.ledger_lease(&lease.to_string()).await?)
}

/// The controller's time to hear from the ledger of a lease of its own.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

async fn open(client: &Client, key: &Path, amount: Option<i128>, json: bool) -> Result<(), Failure> {
    if let Some(open) = open_here(client).await? {
        return Err(Failure::usage(format!(
            "{} is already open; add to it with `piecework leases top-up AMOUNT --key FILE`",
            open.id
        )));
    }
    let terms = client.lease_terms().await?;
    let action = Action::OpenLease(OpenLease {
        subject: Subject::AnyFunction,
        provider: None,
        controller: terms.controller,
        price_caps: terms.price_caps.into(),
        budget: Credits(amount.unwrap_or(terms.budget_ucr.into())),
        payer_keys: vec![terms.payer_key],
        mailboxes: vec![terms.payer_key],
        exposure_ucr: terms.exposure_ucr,
    });
    let signed = signed::submit_once(client, &keyfile::existing(key)?, action).await?;
    let lease = LeaseId::of(signed.sender.id, signed.sender.nonce);
    let view = client.ledger_lease(&lease.to_string()).await?;
    let deadline = Instant::now() + HEARD_WITHIN;
    while !client
        .leases(&PageQuery::default())
        .await?
        .items
        .iter()
        .any(|known| known.id == lease)
    {
        if Instant::now() > deadline {
            eprintln!("the controller does not see the lease yet; until it does, runs are refused with lease.none");
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    told(&view, json, "pays for your runs")
}

async fn top_up(
    client: &Client,
    key: &Path,
    (lease, amount): (Option<LeaseId>, i128),
    json: bool,
) -> Result<(), Failure> {
    let lease = chosen(client, lease).await?;
    let action = Action::TopUp(TopUp {
        lease,
        amount: Credits(amount),
    });
    let view = signed_here(client, key, action, lease).await?;
    told(&view, json, "is topped up")
}

fn told(view: &LeaseView, json: bool, what: &str) -> Result<(), Failure> {
    if json {
        return show::json(view);
    }
    let left = show::ucr_long(Credits(view.budget_ucr.0 - view.used_ucr.0));
    show::text(&format!("{} {what}; it holds {left}\n", view.id))
}

async fn close(client: &Client, of: &Of, json: bool) -> Result<(), Failure> {
    let lease = chosen(client, of.lease).await?;
    let view = match &of.key {
        Some(key) => signed_here(client, key, Action::CloseLease(CloseLease { lease }), lease).await?,
        None => client.close_lease(&lease.to_string()).await?,
    };
    if json {
        return show::json(&view);
    }
    let rest = show::ucr_long(Credits(view.budget_ucr.0 - view.used_ucr.0));
    let until = view
        .expires_at_height
        .map_or_else(|| "its window".to_owned(), |height| format!("block {height}"));
    show::text(&format!(
        "{lease} is closing; the unspent part of {rest} returns to you after {until}\n"
    ))
}

async fn delegate(client: &Client, of: &Of, (payer, add): (&PublicKey, bool), json: bool) -> Result<(), Failure> {
    let lease = match (of.lease, open_here(client).await?) {
        (Some(named), _) => named,
        (None, Some(open)) => open.id,
        (None, None) => found(open_elsewhere(client).await?)?,
    };
    let view = match &of.key {
        Some(key) => {
            let action = Action::DelegatePayer(DelegatePayer {
                lease,
                key: *payer,
                add,
                mailbox: true,
            });
            signed_here(client, key, action, lease).await?
        }
        None if add => client.add_payer(&lease.to_string(), &AddPayer { key: *payer }).await?,
        None => client.remove_payer(&lease.to_string(), &payer.to_string()).await?,
    };
    if json {
        return show::json(&view);
    }
    let payers: Vec<String> = view.payer_keys.iter().map(PublicKey::to_string).collect();
    show::text(&format!("{lease} can be used by {}\n", payers.join(", ")))
}

async fn list(client: &Client, query: &PageQuery, json: bool) -> Result<(), Failure> {
    let list = client.leases(query).await?;
    if json {
        return show::json(&list);
    }
    let rows = list.items.into_iter().map(|lease| {
        [
            lease.id.to_string(),
            lease.state,
            show::or_dash(lease.expires_at_height),
            lease.function.unwrap_or_else(|| "all functions".into()),
            lease.provider.unwrap_or_else(|| "the network".into()),
            show::ucr(lease.budget_ucr),
            show::ucr(lease.used_ucr),
            show::ucr(lease.reserved_ucr),
        ]
    });
    let header = [
        "LEASE",
        "STATE",
        "UNTIL BLOCK",
        "FOR",
        "WITH",
        "BUDGET",
        "USED",
        "RESERVED",
    ];
    show::table(
        header,
        rows.collect(),
        "no leases; the first run opens one, or run `piecework leases open` if you keep your account's key yourself",
    )?;
    super::more(list.next.as_deref());
    Ok(())
}
