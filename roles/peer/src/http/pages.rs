//! Lists that take much reading: made once for all who ask for the same, one at a time, and not too much for one address.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    http::header,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use moka::sync::Cache;
use parking_lot::Mutex;
use piecework_api::{
    errors::Refusal,
    server::{HttpError, HttpResult, aside},
};
use piecework_model::Code;
use piecework_serve::Caller;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::Explorer;

/// Pages that are kept, by their bytes, and for how long: a page is of one height and never changes, but few ask for an old
/// one.
const KEPT_BYTES_MAX: u64 = 32 << 20;
const KEPT_FOR: Duration = Duration::from_secs(10);
/// One core at the most is busy with pages.
const MADE_AT_ONCE: usize = 1;
/// Work that one address may ask for, as a part of one core in the long run, and how much of it at once. Answers that are kept
/// cost nothing.
const WORK_SHARE: f64 = 0.1;
const WORK_AT_ONCE: Duration = Duration::from_secs(2);
/// Addresses whose work is counted; one that was idle longer than its account takes to fill loses nothing by going.
const ADDRESSES_MAX: u64 = 65_536;

/// The lists of one explorer.
pub(super) struct Pages {
    kept: Cache<String, Bytes>,
    making: Semaphore,
    spent: Cache<Caller, Arc<Mutex<Account>>>,
}

/// Work that an address may still ask for.
struct Account {
    left_s: f64,
    at: Instant,
}

impl Account {
    fn new(now: Instant) -> Self {
        Self {
            left_s: WORK_AT_ONCE.as_secs_f64(),
            at: now,
        }
    }

    fn earn(&mut self, now: Instant) -> f64 {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * WORK_SHARE;
        self.left_s = (self.left_s + earned).min(WORK_AT_ONCE.as_secs_f64());
        self.at = now;
        self.left_s
    }

    /// Refuses with `rate.limited` who has asked for too much.
    fn check(&mut self, now: Instant) -> HttpResult<()> {
        let left_s = self.earn(now);
        if left_s > 0.0 {
            return Ok(());
        }
        let refusal = Refusal::new(Code::RateLimited, "this address has asked for too many long lists");
        let wait_s = (-left_s / WORK_SHARE).ceil().max(1.0);
        Err(HttpError(Box::new(
            refusal.hint(format!("retry in {wait_s} s, or ask for shorter pages")),
        )))
    }
}

impl Default for Pages {
    fn default() -> Self {
        let fills_in = WORK_AT_ONCE.div_f64(WORK_SHARE);
        Self {
            kept: Cache::builder()
                .weigher(|key: &String, page: &Bytes| u32::try_from(key.len() + page.len()).unwrap_or(u32::MAX))
                .max_capacity(KEPT_BYTES_MAX)
                .time_to_live(KEPT_FOR)
                .build(),
            making: Semaphore::new(MADE_AT_ONCE),
            spent: Cache::builder()
                .max_capacity(ADDRESSES_MAX)
                .time_to_idle(2 * fills_in)
                .build(),
        }
    }
}

/// The page that `key` names at the present height: as it was made for somebody before, else by `make`.
pub(super) async fn page<T: Serialize + Send + 'static>(
    explorer: &Explorer,
    caller: Caller,
    key: String,
    make: impl Future<Output = HttpResult<T>>,
) -> HttpResult<Response> {
    let pages = &explorer.pages;
    let key = format!("{} {key}", explorer.chain.status().height);
    if let Some(page) = pages.kept.get(&key) {
        return Ok(answer(page));
    }
    let begun = || Arc::new(Mutex::new(Account::new(Instant::now())));
    let account = pages.spent.get_with(caller, begun);
    if !explorer.limiter.trusts(caller) {
        account.lock().check(Instant::now())?;
    }
    let _turn = pages.making.acquire().await.expect("it is never closed");
    if let Some(page) = pages.kept.get(&key) {
        return Ok(answer(page));
    }
    let began = Instant::now();
    let written = match make.await {
        // Its size is known only when it is written.
        Ok(page) => aside(usize::MAX, move || serde_json::to_vec(&page)).await,
        Err(refused) => Err(refused),
    };
    account.lock().left_s -= began.elapsed().as_secs_f64();
    let page: Bytes = written?.expect("views are plain data").into();
    pages.kept.insert(key, page.clone());
    Ok(answer(page))
}

fn answer(page: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], page).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_had_much_work_done_waits_and_earns_it_again() {
        let begun = Instant::now();
        let at = |s| begun + Duration::from_secs(s);
        let mut account = Account::new(begun);
        account.check(at(0)).expect("nothing was asked for yet");
        account.left_s -= 5.0;
        assert_eq!(account.check(at(1)).expect_err("too much").0.code, Code::RateLimited);
        account.check(at(40)).expect("earned");
        assert!(account.earn(at(86_400)) <= WORK_AT_ONCE.as_secs_f64());
    }
}
