//! `piecework statement`: every movement on the caller's account.

use jiff::Timestamp;
use piecework_api::ledger::{StatementLine, StatementQuery};

use crate::{failure::Failure, session, show};

/// List the movements on your account, newest first
#[derive(Debug, clap::Args)]
pub struct Statement {
    /// Print all pages as CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Start time in RFC 3339, like 2026-11-01T00:00:00Z
    #[arg(long)]
    from: Option<Timestamp>,
    /// End time in RFC 3339, exclusive
    #[arg(long)]
    to: Option<Timestamp>,
    #[command(flatten)]
    page: super::Page,
}

impl Statement {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        let mut query = StatementQuery {
            from: self.from,
            to: self.to,
            limit: Some(self.page.limit),
            cursor: self.page.cursor,
        };
        let mut list = client.statement(&query).await?;
        if json {
            return show::json(&list);
        }
        if !self.csv {
            let rows = list.items.iter().map(row).collect();
            show::fitted(HEADER, rows, "no movements", &["BLOCK", "FOR", "JOBS", "WITH"])?;
            super::more(list.next.as_deref());
            return Ok(());
        }
        show::text("at,height,kind,counterparty,detail,jobs,amount_ucr,posted_ucr,transaction\n")?;
        loop {
            show::text(&list.items.iter().map(csv).collect::<String>())?;
            query.cursor = list.next.take();
            if query.cursor.is_none() {
                return Ok(());
            }
            list = client.statement(&query).await?;
        }
    }
}

const HEADER: [&str; 8] = ["AT", "BLOCK", "KIND", "WITH", "FOR", "JOBS", "AMOUNT", "OWNED AFTER"];

fn row(line: &StatementLine) -> [String; 8] {
    [
        show::time(line.at),
        line.height.to_string(),
        line.kind.clone(),
        show::or_dash(line.counterparty.as_ref()),
        show::or_dash(line.detail.as_ref()),
        line.jobs.to_string(),
        show::ucr(line.amount_ucr),
        show::ucr(line.posted_ucr),
    ]
}

fn csv(line: &StatementLine) -> String {
    let cells = [
        line.at.to_string(),
        line.height.to_string(),
        line.kind.clone(),
        line.counterparty.clone().unwrap_or_default(),
        line.detail.clone().unwrap_or_default(),
        line.jobs.to_string(),
        line.amount_ucr.to_string(),
        line.posted_ucr.to_string(),
        line.transaction.map(|id| id.to_string()).unwrap_or_default(),
    ];
    format!("{}\n", cells.map(|cell| quoted(&cell)).join(","))
}

/// RFC 4180; what a spreadsheet would take for a formula gets an apostrophe before it.
fn quoted(cell: &str) -> String {
    let cell = if cell.parse::<i128>().is_ok() {
        cell.to_owned()
    } else {
        harmless(cell)
    };
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell
    }
}

/// At the beginning, and where some programs begin the next field.
fn harmless(cell: &str) -> String {
    let (mut safe, mut begins) = (String::with_capacity(cell.len()), true);
    for char in cell.chars() {
        if begins && matches!(char, '=' | '+' | '-' | '@' | '\t' | '\r') {
            safe.push('\'');
        }
        begins = matches!(char, ';' | '\t' | '\r' | '\n') || (begins && char == ' ');
        safe.push(char);
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_cannot_break_the_csv_nor_run_in_a_spreadsheet() {
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quoted("=1+1"), "'=1+1");
        assert_eq!(quoted("-5"), "-5");
        assert_eq!(quoted("-5+x"), "'-5+x");
        assert_eq!(quoted("x; =1+1"), "x; '=1+1");
        assert_eq!(quoted("a-b; c"), "a-b; c");
    }
}
