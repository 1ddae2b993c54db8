//! `piecework transfer`: credits from one account to another.

use piecework_api::ledger::CreateTransfer;
use piecework_model::Credits;

use crate::{failure::Failure, session, show, units};

/// Send credits to an account
#[derive(Debug, clap::Args)]
pub struct Transfer {
    /// The account that receives
    to: String,
    /// Whole micro-credits like 250, or credits like 1.5cr
    #[arg(value_parser = units::credits_ucr, allow_hyphen_values = true)]
    amount: i128,
    /// At most 100 characters; both sides see it in their statements
    #[arg(long)]
    memo: Option<String>,
    /// Repeating a transfer with the same key moves the credits once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Transfer {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let body = CreateTransfer {
            to: self.to,
            amount_ucr: Credits(self.amount),
            memo: self.memo,
        };
        let done = session::connect()?
            .transfer(&body, self.idempotency_key.as_deref())
            .await?;
        if json {
            return show::json(&done);
        }
        let (amount, left) = (show::ucr_long(done.amount_ucr), show::ucr_long(done.posted_ucr));
        show::text(&format!(
            "{amount} from {} to {} in block {}; left {left}\n",
            done.from, done.to, done.height
        ))
    }
}
