//! `piecework deposits`: credits that an operator books in.

use piecework_api::bookings::{CreateDeposit, DepositState, DepositView};
use piecework_model::Credits;

use crate::{failure::Failure, pending, session, show, units};

/// List deposits, or book one (operators only)
#[derive(Debug, clap::Args)]
pub struct Deposits {
    #[command(flatten)]
    page: super::Page,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Book credits in for an account; they move from the operator's account, once for each reference
    Add {
        /// Account that gets the credits
        name: String,
        /// Amount: whole micro-credits like 250, or credits like 1.5cr
        #[arg(value_parser = units::credits_ucr)]
        amount: i128,
        /// What came in, such as the id of a bank transfer; at most 100 characters; both sides see it in their statements
        #[arg(long, value_name = "TEXT")]
        reference: String,
    },
}

impl Deposits {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        match self.action {
            None => {
                let list = client.deposits(&self.page.query()).await?;
                if json {
                    return show::json(&list);
                }
                table(&list.items)?;
                super::more(list.next.as_deref());
                Ok(())
            }
            Some(Action::Add {
                name,
                amount,
                reference,
            }) => {
                let body = CreateDeposit {
                    account: name,
                    amount_ucr: Credits(amount),
                    reference,
                };
                let booked = client.create_deposit(&body).await;
                let view = booked.map_err(|error| pending::queued(error.into()))?;
                match json {
                    true => show::json(&view),
                    false => show::text(&told(&view)),
                }
            }
        }
    }
}

fn told(view: &DepositView) -> String {
    let (amount, reference) = (show::ucr_long(view.amount_ucr), &view.reference);
    match view.is_repeated {
        true => format!(
            "`{reference}` was booked before: {amount} for {}; nothing more moved\n",
            view.account
        ),
        false => format!("{amount} for {}, booked as `{reference}`\n", view.account),
    }
}

fn table(views: &[DepositView]) -> Result<(), Failure> {
    let rows = views.iter().map(|view| {
        [
            view.reference.clone(),
            view.account.clone(),
            show::ucr(view.amount_ucr),
            match view.state {
                DepositState::Queued => "queued".to_owned(),
                DepositState::Booked => show::or_dash(view.height),
            },
            show::time(view.at),
            view.by.clone(),
        ]
    });
    let header = ["REFERENCE", "ACCOUNT", "AMOUNT", "BLOCK", "AT", "BY"];
    show::table(header, rows.collect(), "no deposits")
}
