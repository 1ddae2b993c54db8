//! `piecework withdrawals`: credits that are to be paid outside of the ledger.

use piecework_api::{
    Client,
    bookings::{CreateWithdrawal, DeclineWithdrawal, SettleWithdrawal, WithdrawalView, WithdrawalsQuery},
};
use piecework_model::Credits;

use crate::{failure::Failure, pending, session, show, units};

/// List your withdrawals, request one, or decide about one (operators)
#[derive(Debug, clap::Args)]
pub struct Withdrawals {
    /// List those of all accounts (operators only)
    #[arg(long)]
    all: bool,
    /// List only those that wait for a decision
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    page: super::Page,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Ask the operator to pay out credits; they leave your account at once and return only if the operator declines
    Request {
        /// Amount: whole micro-credits like 250, or credits like 1.5cr; only what you own, not what you may owe
        #[arg(value_parser = units::credits_ucr)]
        amount: i128,
        /// Where to pay, such as a bank account; at most 100 characters
        #[arg(long, value_name = "TEXT")]
        pay_to: String,
    },
    /// Note that you paid a withdrawal (operators only)
    Settle {
        /// Id of the withdrawal
        id: String,
        /// What went out, such as the id of a bank transfer; settles one withdrawal
        #[arg(long, value_name = "TEXT")]
        reference: String,
    },
    /// Return a withdrawal's credits to its account (operators only)
    Decline {
        /// Id of the withdrawal
        id: String,
        /// Why; the account's owner sees it
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

impl Withdrawals {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        let Some(action) = self.action else {
            let page = self.page.query();
            let query = WithdrawalsQuery {
                all: self.all,
                open: self.open,
                limit: page.limit,
                cursor: page.cursor,
            };
            let list = client.withdrawals(&query).await?;
            if json {
                return show::json(&list);
            }
            table(&list.items)?;
            super::more(list.next.as_deref());
            return Ok(());
        };
        let view = carry_out(&client, action).await?;
        if json {
            return show::json(&view);
        }
        let amount = show::ucr_long(view.amount_ucr);
        show::text(&format!(
            "{}: {amount} of {}, {}\n",
            view.id,
            view.account,
            view.state.as_str()
        ))
    }
}

async fn carry_out(client: &Client, action: Action) -> Result<WithdrawalView, Failure> {
    let done = match action {
        Action::Request { amount, pay_to } => {
            let (words, amount_ucr) = (["withdraw", &amount.to_string(), &pay_to.clone()], Credits(amount));
            let body = CreateWithdrawal { amount_ucr, pay_to };
            let request = async |key: &str| client.create_withdrawal(&body, Some(key)).await;
            return pending::once(client, &words, request).await;
        }
        Action::Settle { id, reference } => client.settle_withdrawal(&id, &SettleWithdrawal { reference }).await,
        Action::Decline { id, reason } => client.decline_withdrawal(&id, &DeclineWithdrawal { reason }).await,
    };
    done.map_err(|error| pending::queued(error.into()))
}

fn table(views: &[WithdrawalView]) -> Result<(), Failure> {
    let rows = views.iter().map(|view| {
        [
            view.id.clone(),
            view.account.clone(),
            show::ucr(view.amount_ucr),
            view.state.as_str().to_owned(),
            show::time(view.at),
            view.pay_to.clone(),
            show::or_dash(view.detail.as_ref()),
        ]
    });
    let header = ["WITHDRAWAL", "ACCOUNT", "AMOUNT", "STATE", "AT", "PAY TO", "DETAIL"];
    show::table(header, rows.collect(), "no withdrawals")
}
