//! Many rows a statement: sqlx hands each statement to another thread, which costs more than the row itself.

use sqlx::{Arguments, AssertSqlSafe, SqliteConnection, sqlite::SqliteArguments};

use crate::StoreFailure;

/// Rows of the longest statement. Lengths are powers of two, so that few statements are prepared, and stay so.
const ROWS_MAX: usize = 256;

/// A statement around `VALUES (?, ...), ...`.
pub(super) struct Bulk {
    pub(super) operation: &'static str,
    pub(super) before: &'static str,
    pub(super) columns: usize,
    pub(super) after: &'static str,
}

/// One row's values in the order of the columns.
pub(super) struct RowBinder<'a>(&'a mut SqliteArguments);

impl RowBinder<'_> {
    pub(super) fn blob(&mut self, bytes: Vec<u8>) -> &mut Self {
        self.add(bytes)
    }

    pub(super) fn optional_blob(&mut self, bytes: Option<Vec<u8>>) -> &mut Self {
        self.add(bytes)
    }

    /// Saturates above 2^63: SQL knows no more.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.add(i64::try_from(number).unwrap_or(i64::MAX))
    }

    pub(super) fn optional_number(&mut self, number: Option<u64>) -> &mut Self {
        self.add(number.map(|number| i64::try_from(number).unwrap_or(i64::MAX)))
    }

    pub(super) fn text(&mut self, text: String) -> &mut Self {
        self.add(text)
    }

    fn add<'t, T: sqlx::Encode<'t, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(&mut self, value: T) -> &mut Self {
        self.0.add(value).expect("numbers, bytes and text always encode");
        self
    }
}

impl Bulk {
    fn sql(&self, rows: usize) -> String {
        let mut row = String::with_capacity(self.columns * 2 + 1);
        row.push('(');
        row.push_str(&vec!["?"; self.columns].join(","));
        row.push(')');
        let values = vec![row.as_str(); rows].join(",");
        [self.before, &values, self.after].concat()
    }

    /// Runs the statement as often as `rows` need and gives the number of rows it touched; `bind` gives each row's values.
    pub(super) async fn run<R>(
        &self,
        writer: &mut SqliteConnection,
        rows: &[R],
        bind: impl Fn(&mut RowBinder<'_>, &R),
    ) -> Result<u64, StoreFailure> {
        let mut touched = 0;
        for chunk in chunks(rows) {
            let arguments = self.arguments(chunk, &bind);
            let done = sqlx::query_with(AssertSqlSafe(self.sql(chunk.len())), arguments)
                .execute(&mut *writer)
                .await
                .map_err(StoreFailure::database(self.operation))?;
            touched += done.rows_affected();
        }
        Ok(touched)
    }

    /// As [`Bulk::run`], for a statement that gives rows.
    pub(super) async fn fetch<R>(
        &self,
        writer: &mut SqliteConnection,
        rows: &[R],
        bind: impl Fn(&mut RowBinder<'_>, &R),
    ) -> Result<Vec<sqlx::sqlite::SqliteRow>, StoreFailure> {
        let mut found = Vec::new();
        for chunk in chunks(rows) {
            let arguments = self.arguments(chunk, &bind);
            let part = sqlx::query_with(AssertSqlSafe(self.sql(chunk.len())), arguments)
                .fetch_all(&mut *writer)
                .await
                .map_err(StoreFailure::database(self.operation))?;
            found.extend(part);
        }
        Ok(found)
    }

    fn arguments<R>(&self, rows: &[R], bind: impl Fn(&mut RowBinder<'_>, &R)) -> SqliteArguments {
        let mut arguments = SqliteArguments::default();
        arguments.reserve(rows.len() * self.columns, 0);
        for row in rows {
            bind(&mut RowBinder(&mut arguments), row);
        }
        assert_eq!(
            arguments.len(),
            rows.len() * self.columns,
            "{}: a value for each column",
            self.operation
        );
        arguments
    }
}

/// Cuts into lengths that are powers of two, the longest first.
fn chunks<R>(mut rows: &[R]) -> impl Iterator<Item = &[R]> {
    std::iter::from_fn(move || {
        let length = (rows.len().checked_ilog2().map(|bits| 1 << bits)?).min(ROWS_MAX);
        let (chunk, rest) = rows.split_at(length);
        rows = rest;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_every_row_once_in_order() {
        for count in [0, 1, 2, 3, 255, 256, 257, 1_000] {
            let rows: Vec<usize> = (0..count).collect();
            assert!(chunks(&rows).all(|chunk| chunk.len().is_power_of_two() && chunk.len() <= ROWS_MAX));
            assert_eq!(chunks(&rows).flatten().copied().collect::<Vec<_>>(), rows);
        }
    }
}
