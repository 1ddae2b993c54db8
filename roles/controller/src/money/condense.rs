//! Long statements are made shorter, and still add up: what settlements moved is summed by day and counterparty first, and what
//! is older than all that is kept becomes lines `earlier`.
//!
//! ```text
//! newest | each line | jobs by day and counterparty, everything else as it was | `earlier`, one line for each page | oldest
//! ```

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use piecework_model::{AccountId, Credits};
use piecework_store::Put;

use super::statements::{Line, STATEMENTS};
use crate::{Answer, accounts::transfers::MEMOS, codecs, failure::store, money::Money};

const EVERY: Duration = Duration::from_secs(3_600);
const DAY_MS: u64 = 86_400_000;
/// A line that stands for all that was before.
const EARLIER: &str = "earlier";

/// Lines of one account's statement.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// More are made fewer.
    lines_max: u64,
    /// The newest, which are left as they are.
    whole: u64,
    /// From here on everything is summed.
    kept: u64,
    /// Read and written at once: others who write wait for milliseconds only.
    page: u32,
}

/// About 30 MiB for an account: some hundred thousand settlements, or transfers at the highest rate for a day.
const BOUNDS: Bounds = Bounds {
    lines_max: 100_000,
    whole: 50_000,
    kept: 75_000,
    page: 2_000,
};

/// Every hour, until shutdown.
pub(crate) async fn run(money: Arc<Money>) {
    loop {
        if let Err(refusal) = round(&money, BOUNDS).await {
            tracing::warn!(%refusal, "long statements were not made shorter; retrying in an hour");
        }
        tokio::select! {
            () = money.ground.shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

pub(crate) async fn round(money: &Money, bounds: Bounds) -> Answer<()> {
    let crowded = money.ground.store.crowded_spaces(STATEMENTS, bounds.lines_max).await;
    for (space, lines) in crowded.map_err(store)? {
        let left = condense(money, &space, bounds).await?;
        tracing::info!(%space, lines, left, "a long statement was made shorter");
    }
    Ok(())
}

/// Each page is one transaction of the store, so that a reader finds sums that add up at any moment. Gives the number of lines.
async fn condense(money: &Money, space: &str, bounds: Bounds) -> Answer<u64> {
    let (mut after, mut place) = (None::<String>, 0);
    loop {
        let page = money.ground.store.list_values(space, "", after.as_deref(), bounds.page);
        let page = page.await.map_err(store)?;
        let lines: Answer<Vec<(String, Line)>> = page
            .items
            .into_iter()
            .map(|(key, bytes)| Ok((key, codecs::from_json(&bytes)?)))
            .collect();
        let lines = lines?;
        place += match place < bounds.whole {
            true => lines.len() as u64,
            false => {
                let summed = summed(space, lines, place >= bounds.kept)?;
                let replaced = money.ground.store.replace_values(&summed.takes, &summed.puts);
                replaced.await.map_err(store)?;
                summed.left
            }
        };
        after = page.next;
        if after.is_none() {
            return Ok(place);
        }
    }
}

struct Summed {
    takes: Vec<(String, String)>,
    puts: Vec<Put>,
    left: u64,
}

/// What is summed into one line: a day, a kind, a counterparty.
type Group = (u64, String, Option<AccountId>);

/// Newest first, as they are kept. A sum takes the place of its newest line.
fn summed(space: &str, lines: Vec<(String, Line)>, is_all: bool) -> Answer<Summed> {
    let mut summed = Summed {
        takes: Vec::new(),
        puts: Vec::new(),
        left: 0,
    };
    let mut sums: BTreeMap<Group, (String, Line, bool)> = BTreeMap::new();
    for (key, line) in lines {
        let group = match is_all {
            true => Some((0, EARLIER.to_owned(), None)),
            false if line.jobs > 0 => Some((line.at_ms / DAY_MS, line.kind.clone(), line.counterparty)),
            false => None,
        };
        let Some(group) = group else {
            summed.left += 1;
            continue;
        };
        // The memo is the sender's to keep.
        if is_all && line.kind == "transfer" && line.amount.is_negative() {
            summed.takes.push((MEMOS.to_owned(), line.transaction.to_string()));
        }
        match sums.get_mut(&group) {
            Some((_, sum, is_new)) => {
                sum.amount = Credits(sum.amount.0 + line.amount.0);
                sum.jobs = sum.jobs.saturating_add(line.jobs);
                *is_new = true;
                summed.takes.push((space.to_owned(), key));
            }
            None => drop(sums.insert(group, (key, line, false))),
        }
    }
    summed.left += sums.len() as u64;
    for (key, mut line, is_new) in sums.into_values() {
        if is_all && line.kind != EARLIER {
            (line.kind, line.counterparty) = (EARLIER.to_owned(), None);
        } else if !is_new {
            continue;
        }
        summed.puts.push(codecs::json(space, &key, &line)?);
    }
    Ok(summed)
}

#[cfg(test)]
mod tests {
    use piecework_model::Digest;

    use super::*;
    use crate::{doubles::world::account, money::statements::statement_space};

    fn line(nth: u64, kind: &str, with: u8, amount: i128) -> Line {
        Line {
            at_ms: nth * DAY_MS / 10,
            height: nth,
            kind: kind.to_owned(),
            counterparty: Some(account(with)),
            jobs: if kind == "transfer" { 0 } else { 3 },
            amount: Credits(amount),
            transaction: Digest([nth as u8; 32]),
        }
    }

    /// Newest first, as [`super::super::statements`] names them.
    fn key(nth: u64) -> String {
        format!("{:016x}-{:08x}-00", u64::MAX - nth, u32::MAX)
    }

    fn lines(count: u64) -> Vec<(String, Line)> {
        let made = (0..count).rev().map(|nth| match nth % 5 {
            0 => line(nth, "transfer", 9, if nth % 10 == 0 { -7 } else { 11 }),
            1 | 2 => line(nth, "jobs_paid", 5, -100 - i128::from(nth)),
            _ => line(nth, "jobs_earned", 6, 50),
        });
        made.map(|line| (key(line.height), line)).collect()
    }

    fn total<'a>(lines: impl Iterator<Item = &'a Line>) -> i128 {
        lines.map(|line| line.amount.0).sum()
    }

    fn put(puts: &[Put]) -> Vec<Line> {
        puts.iter()
            .map(|put| codecs::from_json(&put.value).expect("a line"))
            .collect()
    }

    #[test]
    fn jobs_of_a_day_and_a_counterparty_become_one_line_and_transfers_stay() {
        let space = statement_space(account(1));
        let before = lines(20);
        let jobs = before.iter().filter(|(_, line)| line.jobs > 0).map(|(_, line)| line);
        let of_jobs = total(jobs);
        let summed = summed(&space, before.clone(), false).expect("summed");
        let sums = put(&summed.puts);
        assert_eq!(sums.len(), 4, "two days, two counterparties");
        assert_eq!(total(sums.iter()), of_jobs);
        assert!(sums.iter().all(|line| line.jobs == 12));
        assert_eq!(summed.takes.len(), 12);
        assert!(summed.takes.iter().all(|(of, _)| *of == space), "memos stay");
        assert_eq!(summed.left, 8);
        let newest = &before[0];
        assert!(
            summed.puts.iter().any(|put| put.key == newest.0),
            "a sum is where its newest line was"
        );
    }

    #[test]
    fn what_is_older_becomes_one_line_and_its_memos_go() {
        let space = statement_space(account(1));
        let before = lines(20);
        let summed = summed(&space, before.clone(), true).expect("summed");
        let [sum] = &put(&summed.puts)[..] else {
            panic!("one line")
        };
        assert_eq!(sum.amount.0, total(before.iter().map(|(_, line)| line)));
        assert_eq!((sum.kind.as_str(), sum.counterparty, sum.height), (EARLIER, None, 19));
        let memos = summed.takes.iter().filter(|(of, _)| of == MEMOS).count();
        assert_eq!((memos, summed.takes.len()), (2, 19 + 2));
        let again = super::summed(&space, vec![(key(19), sum.clone())], true).expect("summed");
        assert!(again.puts.is_empty() && again.takes.is_empty(), "it is what it is");
    }
}
