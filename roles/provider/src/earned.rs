//! What this computer has earned, by day: counted as jobs run, and kept in its directory for whoever sits at it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::civil::Date;
use piecework_model::Format;
use serde::{Deserialize, Serialize};

use crate::agent::write_private;

/// More than a year, a line of some dozen bytes each.
const DAYS_KEPT: usize = 400;
/// What a power cut may lose: the ledger has it all the same.
const WRITTEN_EVERY: Duration = Duration::from_secs(10);
const FORMAT: Format = Format::new("what a provider has earned", 1);

/// Jobs that ran and what they cost; a part of the price is the network's commission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    pub jobs: u64,
    pub price_ucr: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.jobs = self.jobs.saturating_add(other.jobs);
        self.price_ucr = self.price_ucr.saturating_add(other.price_ucr);
    }
}

/// Sums by local day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Days {
    days: BTreeMap<Date, Sum>,
    /// Of all days, those that are not kept any more too.
    all: Sum,
}

/// As it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Earnings {
    pub today: Sum,
    pub last_7_days: Sum,
    pub last_30_days: Sum,
    pub in_all: Sum,
}

pub struct Earned {
    path: PathBuf,
    days: Days,
    /// When it was last written, if anything has changed since.
    due: Option<Instant>,
}

impl Earned {
    /// Takes up what is at `path`, if anything is. Fails with `InvalidData` where that is not what it should be.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let days = read(&path)?;
        Ok(Self { path, days, due: None })
    }

    /// A job ran on this day.
    pub fn ran(&mut self, price_ucr: u64, today: Date) {
        let sum = Sum { jobs: 1, price_ucr };
        self.days.days.entry(today).or_default().add(sum);
        self.days.all.add(sum);
        while self.days.days.len() > DAYS_KEPT {
            self.days.days.pop_first();
        }
        self.due.get_or_insert_with(Instant::now);
    }

    pub fn shown(&self, today: Date) -> Earnings {
        shown(&self.days, today)
    }

    /// What is to be written, if it is time for it.
    pub fn to_write(&mut self, is_last: bool) -> Option<impl FnOnce() -> io::Result<()> + Send + use<>> {
        self.due.filter(|since| is_last || since.elapsed() >= WRITTEN_EVERY)?;
        self.due = None;
        let (path, text) = (self.path.clone(), text(&self.days));
        Some(move || write_private(&path, &text))
    }
}

fn text(days: &Days) -> String {
    #[derive(Serialize)]
    struct Marked<'a> {
        format: u8,
        #[serde(flatten)]
        days: &'a Days,
    }
    let format = FORMAT.newest();
    serde_json::to_string(&Marked { format, days }).expect("numbers are JSON")
}

/// What the provider that kept `path` has earned, whether it runs or not.
pub fn kept(path: &Path, today: Date) -> io::Result<Earnings> {
    Ok(shown(&read(path)?, today))
}

/// Whether this build reads it, if it is there. Writes nothing.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    read(path).map(drop)
}

fn read(path: &Path) -> io::Result<Days> {
    #[derive(Deserialize)]
    struct Marked {
        format: u8,
        #[serde(flatten)]
        days: Days,
    }
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Days::default()),
        Err(error) => return Err(error),
    };
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()));
    let marked: Marked = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    FORMAT
        .check(marked.format.into())
        .map_err(|unknown| io::Error::new(io::ErrorKind::InvalidData, unknown))?;
    Ok(marked.days)
}

fn shown(days: &Days, today: Date) -> Earnings {
    let since = |days_back: i64| {
        let first = today.saturating_sub(jiff::Span::new().days(days_back));
        let mut sum = Sum::default();
        days.days.range(first..).for_each(|(_, day)| sum.add(*day));
        sum
    };
    Earnings {
        today: since(0),
        last_7_days: since(6),
        last_30_days: since(29),
        in_all: days.all,
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn days_are_summed_and_outlive_the_program() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("earned");
        let mut earned = Earned::open(path.clone()).expect("new");
        let today = date(2026, 3, 31);
        for (price, day) in [
            (5, today),
            (7, today),
            (11, date(2026, 3, 25)),
            (13, date(2026, 3, 24)),
            (17, date(2026, 1, 1)),
        ] {
            earned.ran(price, day);
        }
        assert!(earned.to_write(false).is_none(), "too early");
        earned.to_write(true).expect("something to write")().expect("written");
        assert!(earned.to_write(true).is_none(), "nothing new");
        let shown = kept(&path, today).expect("read");
        assert_eq!(shown, Earned::open(path).expect("read").shown(today));
        let prices =
            [shown.today, shown.last_7_days, shown.last_30_days, shown.in_all].map(|sum| (sum.jobs, sum.price_ucr));
        assert_eq!(prices, [(2, 12), (3, 23), (4, 36), (5, 53)]);
    }

    #[test]
    fn what_is_something_else_is_left_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("earned");
        for text in ["", "{}", r#"{"format":2}"#] {
            fs::write(&path, text).expect("written");
            let refused = Earned::open(path.clone()).err().expect("not ours");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
    }
}
