//! `piecework lend`: what an account may owe, and to whom.

use std::path::PathBuf;

use piecework_api::accounts::{PayLoan, SetLoan};
use piecework_ledger::{Action, CoverDebt, SetLimit};
use piecework_model::Credits;

use super::{account, signed};
use crate::{failure::Failure, keyfile, pending, session, show, units};

/// Let another account owe credits, as its sponsor (your account holds the amount), or pay off its debt
#[derive(Debug, clap::Args)]
pub struct Lend {
    /// Account to lend to; your own name, to give back a limit that you do not need
    name: String,
    /// Total that the account may owe; 0 ends the loan, once nothing is owed
    #[arg(value_parser = units::credits_ucr)]
    limit: Option<i128>,
    /// Pay this much of the debt from the held credits; the loan shrinks and is not repaid
    #[arg(long, value_name = "AMOUNT", value_parser = units::credits_ucr, conflicts_with = "limit")]
    cover: Option<i128>,
    /// File with your account's key, if you keep it yourself
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

enum Change {
    Limit(Credits),
    Cover(Credits),
}

impl Lend {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let change = match (self.limit, self.cover) {
            (Some(limit), _) => Change::Limit(Credits(limit)),
            (None, Some(amount)) => Change::Cover(Credits(amount)),
            (None, None) => {
                return Err(Failure::usage(
                    "give an amount: `piecework lend NAME AMOUNT`, or `--cover AMOUNT`",
                ));
            }
        };
        let client = session::connect()?;
        let view = match (&self.key, change) {
            (None, Change::Limit(limit_ucr)) => {
                let set = client.set_loan(&self.name, &SetLoan { limit_ucr }).await;
                set.map_err(|error| pending::queued(error.into()))?
            }
            (None, Change::Cover(amount_ucr)) => {
                let (words, body) = (["cover", &self.name, &amount_ucr.to_string()], PayLoan { amount_ucr });
                let pay = async |key: &str| client.pay_loan(&self.name, &body, Some(key)).await;
                pending::once(&client, &words, pay).await?
            }
            (Some(key), change) => {
                let account = client.account(&self.name).await?.id;
                let action = match change {
                    Change::Limit(limit) => Action::SetLimit(SetLimit { account, limit }),
                    Change::Cover(amount) => Action::CoverDebt(CoverDebt { account, amount }),
                };
                signed::submit_once(&client, &keyfile::existing(key)?, action).await?;
                client.account(&self.name).await?
            }
        };
        if json {
            show::json(&view)
        } else {
            show::fields(&account::rows(&view))
        }
    }
}
