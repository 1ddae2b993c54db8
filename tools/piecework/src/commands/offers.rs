//! `piecework offers`: the providers' offers and prices.

use crate::{failure::Failure, session, show};

/// List the providers' offers on the ledger
#[derive(Debug, clap::Args)]
pub struct Offers {
    #[command(flatten)]
    page: super::Page,
}

impl Offers {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let list = session::connect()?.offers(&self.page.query()).await?;
        if json {
            return show::json(&list);
        }
        let rows = list.items.into_iter().map(|offer| {
            [
                offer.provider,
                offer.region,
                offer.backends.join(" "),
                format!(
                    "{} cores, {}, disk {}",
                    offer.cores,
                    show::bytes(offer.memory_bytes),
                    show::bytes(offer.disk_bytes)
                ),
                offer.prices.start_ucr.to_string(),
                offer.prices.cpu_ucr_per_s.to_string(),
                offer.prices.memory_ucr_per_gib_s.to_string(),
                offer.prices.egress_ucr_per_mib.to_string(),
                offer.expires_at_height.to_string(),
            ]
        });
        let header = [
            "PROVIDER",
            "REGION",
            "SANDBOXES",
            "MACHINE",
            "UCR/START",
            "UCR/CPU S",
            "UCR/GIB S",
            "UCR/MIB OUT",
            "UNTIL BLOCK",
        ];
        let dispensable = ["UNTIL BLOCK", "SANDBOXES", "MACHINE", "REGION"];
        show::fitted(header, rows.collect(), "no offers", &dispensable)?;
        super::more(list.next.as_deref());
        Ok(())
    }
}
