//! The files of `public/`, which are served without a run: read from the version's bundle, and kept in memory while they are asked for.

use std::{
    collections::HashMap,
    io::Write as _,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use parking_lot::Mutex;
use piecework_blobs::{Bundle, BundleLimits};
use piecework_model::{AccountId, Code, Digest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    Answer,
    failure::{Refusal, blobs, failed, refuse, rejected},
    functions::{Functions, checks::Spent, entry::PUBLIC},
};

/// Of all sites that are kept, with what is compressed of them. One has at most 32 MiB.
const KEPT_BYTES: u64 = 128 << 20;
/// What a site counts for at least, so that few are kept at a time.
const SITE_BYTES_MIN: u64 = 128 << 10;
/// What a file takes beside its content.
const FILE_BYTES: u64 = 512;
/// Bundles that are read at a time: each is in memory meanwhile.
const READ_AT_ONCE: usize = 1;
/// Requests of one account's sites that wait for its bundles.
const WAITING_MAX: usize = 64;
/// Beyond this many accounts those are forgotten about which there is nothing to remember.
const ACCOUNTS_KEPT: usize = 4_096;
/// Smaller ones gain nothing.
const ZIPPED_BYTES_MIN: usize = 1_024;
/// 64 bits: nobody looks for two that are alike.
const TAG_LENGTH: usize = 16;

/// The pages of versions, by the digests of their bundles.
pub(crate) struct Pages {
    kept: Mutex<Kept>,
    reading: Arc<Semaphore>,
    readers: Mutex<HashMap<AccountId, Reader>>,
}

/// The sites in memory. If there are too many, the account whose sites take the most room loses its least recently used one. So no
/// account can push out the sites of an account that has less here.
#[derive(Default)]
struct Kept {
    sites: HashMap<Digest, KeptSite>,
    bytes: u64,
    /// Counts what was asked for.
    asked: u64,
}

struct KeptSite {
    site: Arc<Site>,
    owner: AccountId,
    bytes: u64,
    asked: u64,
}

/// An account whose bundles are read.
struct Reader {
    /// Waiting or at work.
    here: usize,
    /// One of its requests at a time waits for a place among all: others wait for at most one bundle of each account.
    line: Arc<Semaphore>,
    /// Reading is free, so there is a bound on it.
    spent: Spent,
}

/// The right to have a whole bundle in memory for a moment. The time is charged to the account when it is dropped.
pub(crate) struct Reading<'a> {
    pages: &'a Pages,
    account: AccountId,
    is_free: bool,
    permits: Option<(Instant, [OwnedSemaphorePermit; 2])>,
}

/// The files of one bundle, by their paths below `public/`. There is no file system behind them: a path that is no key is no file.
pub(crate) struct Site(HashMap<String, Page>);

/// One file.
pub(crate) struct Page {
    pub(crate) content: Bytes,
    /// Names the content; without quotes.
    pub(crate) tag: String,
    /// The content's type by the name of the file.
    pub(crate) kind: String,
    zipped: OnceLock<Option<Bytes>>,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            reading: Arc::new(Semaphore::new(READ_AT_ONCE)),
            readers: Mutex::default(),
        }
    }
}

impl Kept {
    fn get(&mut self, code: &Digest) -> Option<Arc<Site>> {
        self.asked += 1;
        let kept = self.sites.get_mut(code)?;
        kept.asked = self.asked;
        Some(kept.site.clone())
    }

    fn put(&mut self, code: Digest, owner: AccountId, site: Arc<Site>) {
        let bytes = site.memory_bytes().max(SITE_BYTES_MIN);
        self.asked += 1;
        let kept = KeptSite {
            site,
            owner,
            bytes,
            asked: self.asked,
        };
        self.bytes += bytes;
        if let Some(old) = self.sites.insert(code, kept) {
            self.bytes -= old.bytes;
        }
        while self.bytes > KEPT_BYTES {
            self.give_up_one();
        }
    }

    fn give_up_one(&mut self) {
        let mut by_account: HashMap<AccountId, u64> = HashMap::new();
        for kept in self.sites.values() {
            *by_account.entry(kept.owner).or_default() += kept.bytes;
        }
        let most = by_account.into_iter().max_by_key(|(account, bytes)| (*bytes, *account));
        let (account, _) = most.expect("what has bytes has sites");
        let own = self.sites.iter().filter(|(_, kept)| kept.owner == account);
        let oldest = own.min_by_key(|(_, kept)| kept.asked).map(|(code, _)| *code);
        let gone = self.sites.remove(&oldest.expect("it has the most"));
        self.bytes -= gone.expect("it was there").bytes;
    }
}

impl Pages {
    /// In the account's line, and then among all. Nothing is counted with `is_free`. Refuses with `server.busy` where too many of the
    /// account's requests wait, or its time is used up. Cancel safe.
    async fn read(&self, account: AccountId, is_free: bool) -> Answer<Reading<'_>> {
        let line = self.enter(account, is_free)?;
        let mut reading = Reading {
            pages: self,
            account,
            is_free,
            permits: None,
        };
        let own = acquire(line).await;
        let one_of_all = acquire(self.reading.clone()).await;
        reading.permits = Some((Instant::now(), [own, one_of_all]));
        Ok(reading)
    }

    fn enter(&self, account: AccountId, is_free: bool) -> Answer<Arc<Semaphore>> {
        let now = Instant::now();
        let mut readers = self.readers.lock();
        if readers.len() > ACCOUNTS_KEPT {
            readers.retain(|_, reader| reader.here > 0 || !reader.spent.is_none(now));
        }
        let reader = readers.entry(account).or_insert_with(|| Reader {
            here: 0,
            line: Arc::new(Semaphore::new(1)),
            spent: Spent::none(now),
        });
        if reader.here >= WAITING_MAX {
            return refuse(
                Code::ServerBusy,
                "too many requests wait for files of this account; retry in a second",
            );
        }
        if let Some(wait) = reader.spent.wait(now).filter(|_| !is_free) {
            let message = "this account has used its free time for reading its sites' files today";
            let hint = format!("retry in {} s", wait.as_secs() + 1);
            return Err(Refusal::new(Code::ServerBusy, message).hint(hint).into());
        }
        reader.here += 1;
        Ok(reader.line.clone())
    }

    fn charge(&self, account: AccountId, took: Duration) {
        if let Some(reader) = self.readers.lock().get_mut(&account) {
            reader.spent.add(took, Instant::now());
        }
    }
}

async fn acquire(semaphore: Arc<Semaphore>) -> OwnedSemaphorePermit {
    let permit = semaphore.acquire_owned().await;
    permit.expect("these semaphores are never closed")
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if let Some((since, _)) = &self.permits
            && !self.is_free
        {
            self.pages.charge(self.account, since.elapsed());
        }
        if let Some(reader) = self.pages.readers.lock().get_mut(&self.account) {
            reader.here -= 1;
        }
    }
}

/// The site of a bundle of this account's. Once the bundle is being read it is read to its end: what is in memory counts until then.
pub(crate) async fn of_bundle(functions: &Arc<Functions>, owner: AccountId, code: Digest) -> Answer<Arc<Site>> {
    if let Some(site) = functions.pages.kept.lock().get(&code) {
        return Ok(site);
    }
    let reads = functions.ground.tasks.spawn(read(functions.clone(), owner, code));
    reads
        .await
        .map_err(|error| failed("read the files of a site", &error))?
}

async fn read(functions: Arc<Functions>, owner: AccountId, code: Digest) -> Answer<Arc<Site>> {
    let _reading = reading(&functions, owner).await?;
    let pages = &functions.pages;
    if let Some(site) = pages.kept.lock().get(&code) {
        return Ok(site);
    }
    let tar = functions.ground.blobs.get(&code).await.map_err(blobs)?;
    let files = tokio::task::spawn_blocking(move || {
        let files = Bundle::folder_of(&tar, PUBLIC, &BundleLimits::RESOLVED)?;
        Ok(Site::new(files))
    });
    let site = files
        .await
        .map_err(|error| failed("read the files of a site", &error))?;
    let site = Arc::new(site.map_err(rejected)?);
    pages.kept.lock().put(code, owner, site.clone());
    Ok(site)
}

/// The right to have a bundle of this account's in memory. Nothing is counted for the operator, whose machine it is.
pub(crate) async fn reading(functions: &Functions, account: AccountId) -> Answer<Reading<'_>> {
    functions
        .pages
        .read(account, account == functions.ground.operator)
        .await
}

/// Has the account's site compressed, at its cost.
pub(crate) fn charge(functions: &Functions, account: AccountId, took: Duration) {
    functions.pages.charge(account, took);
}

impl Site {
    /// Of files by their paths in the bundle. Hidden ones are left out.
    pub(crate) fn new(files: impl IntoIterator<Item = (String, Bytes)>) -> Self {
        let below = files.into_iter().filter_map(|(path, content)| {
            let path = path.strip_prefix(PUBLIC)?.to_owned();
            (!is_hidden(&path)).then(|| (path.clone(), Page::new(&path, content)))
        });
        Self(below.collect())
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Page> {
        self.0.get(path)
    }

    fn memory_bytes(&self) -> u64 {
        let each = |page: &Page| 2 * page.content.len() as u64 + FILE_BYTES;
        self.0.values().map(each).sum()
    }
}

/// What editors and tools leave behind, such as `.env`; not what the web has agreed on.
fn is_hidden(path: &str) -> bool {
    path.split('/')
        .any(|part| part.starts_with('.') && part != ".well-known")
}

impl Page {
    fn new(path: &str, content: Bytes) -> Self {
        let mut kind = mime_guess::from_path(path).first_or_octet_stream().to_string();
        if kind.starts_with("text/") || kind == "application/javascript" {
            kind.push_str("; charset=utf-8");
        }
        Self {
            tag: Digest::of(&content).to_string()[..TAG_LENGTH].to_owned(),
            content,
            kind,
            zipped: OnceLock::new(),
        }
    }

    /// Whether it may become smaller.
    pub(crate) fn can_be_zipped(&self) -> bool {
        let kind = self.kind.split(';').next().unwrap_or_default();
        let is_text = kind.starts_with("text/")
            || kind.ends_with("+json")
            || kind.ends_with("+xml")
            || [
                "application/json",
                "application/javascript",
                "application/xml",
                "application/wasm",
            ]
            .contains(&kind);
        is_text && self.content.len() >= ZIPPED_BYTES_MIN
    }

    /// Its content in gzip, if that is known already.
    pub(crate) fn known_zipped(&self) -> Option<&Option<Bytes>> {
        self.zipped.get()
    }

    /// Its content in gzip, if that is smaller. Blocks the first time.
    pub(crate) fn zipped(&self) -> Option<Bytes> {
        let zip = || {
            let mut zip = GzEncoder::new(Vec::new(), Compression::default());
            zip.write_all(&self.content).expect("a vector accepts every byte");
            let zipped = zip.finish().expect("a vector accepts every byte");
            (zipped.len() < self.content.len()).then(|| zipped.into())
        };
        self.zipped.get_or_init(zip).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(paths: &[&str]) -> Site {
        Site::new(
            paths
                .iter()
                .map(|path| ((*path).to_owned(), Bytes::from("x".repeat(2_000)))),
        )
    }

    #[test]
    fn a_site_has_what_lies_in_public_and_is_not_hidden() {
        let site = site(&[
            "public/a.html",
            "public/.env",
            "public/.git/config",
            "public/.well-known/x",
            "main.mjs",
            "publicity/b",
        ]);
        assert!(site.get("a.html").is_some() && site.get(".well-known/x").is_some());
        for none in [".env", ".git/config", "main.mjs", "../main.mjs", "b", ""] {
            assert!(site.get(none).is_none(), "{none}");
        }
    }

    fn account(number: u8) -> AccountId {
        AccountId([number; 20])
    }

    fn sized(mib: usize) -> Arc<Site> {
        Arc::new(Site::new([("public/x".to_owned(), Bytes::from(vec![0; mib << 20]))]))
    }

    #[test]
    fn sites_of_one_account_do_not_push_out_those_of_others() {
        let mut kept = Kept::default();
        let code = |number: u8| Digest([number; 32]);
        kept.put(code(0), account(0), sized(2));
        for number in 1..=9 {
            kept.put(code(number), account(1), sized(16));
            assert!(kept.get(&code(1)).is_some(), "asked for again and again");
        }
        assert!(kept.bytes <= KEPT_BYTES);
        assert!(kept.get(&code(0)).is_some(), "the other account's is there");
        assert!(kept.get(&code(9)).is_some(), "and the newest of its own");
        assert!(kept.get(&code(2)).is_none(), "the one that nobody asked for went");
        let of_all: u64 = kept.sites.values().map(|kept| kept.bytes).sum();
        assert_eq!(of_all, kept.bytes);
        let tiny = Arc::new(Site(HashMap::new()));
        for number in 0..5_000_u32 {
            let code = Digest::of(&number.to_be_bytes());
            kept.put(code, account(2), tiny.clone());
        }
        assert!(kept.sites.len() as u64 <= KEPT_BYTES / SITE_BYTES_MIN);
        assert!(kept.get(&code(0)).is_some());
    }

    #[tokio::test]
    async fn an_account_with_many_misses_leaves_a_turn_to_another() {
        let pages = Pages::default();
        let first = pages.read(account(1), false).await.expect("free");
        let mut waiting: Vec<_> = (1..WAITING_MAX)
            .map(|_| Box::pin(pages.read(account(1), false)))
            .collect();
        for read in &mut waiting {
            assert!(futures::poll!(read).is_pending());
        }
        let full = pages.read(account(1), false).await.err().expect("full");
        assert_eq!(full.code, Code::ServerBusy);
        let mut others = Box::pin(pages.read(account(2), false));
        assert!(futures::poll!(&mut others).is_pending());
        drop(first);
        // The account's next takes its turn behind the other, which waited before.
        assert!(futures::poll!(&mut waiting[0]).is_pending());
        let others = others.await.expect("its turn");
        assert!(futures::poll!(&mut waiting[0]).is_pending());
        drop(others);
        drop((&mut waiting[0]).await.expect("its turn"));
        drop(waiting);
        assert!(pages.readers.lock().values().all(|reader| reader.here == 0));
        assert_eq!(pages.reading.available_permits(), READ_AT_ONCE);
    }

    #[tokio::test]
    async fn reading_is_charged_and_an_account_without_time_left_is_told_when_to_come_back() {
        let pages = Pages::default();
        let reading = pages.read(account(1), false).await.expect("free");
        std::thread::sleep(Duration::from_millis(2));
        drop(reading);
        let now = Instant::now();
        assert!(
            !pages
                .readers
                .lock()
                .get_mut(&account(1))
                .expect("known")
                .spent
                .is_none(now)
        );
        pages.charge(account(1), Duration::from_secs(86_400));
        let refused = pages.read(account(1), false).await.err().expect("used up");
        assert_eq!(refused.code, Code::ServerBusy);
        assert!(
            refused
                .hint
                .as_deref()
                .is_some_and(|hint| hint.starts_with("retry in "))
        );
        assert!(pages.read(account(1), true).await.is_ok(), "the operator's own");
        assert!(pages.read(account(2), false).await.is_ok());
    }

    #[test]
    fn types_come_from_names_and_text_is_compressed() {
        let site = site(&[
            "public/a.html",
            "public/b.js",
            "public/c.png",
            "public/d",
            "public/e.svg",
            "public/f.webmanifest",
        ]);
        let kind = |path| site.get(path).map(|page| page.kind.as_str());
        assert_eq!(kind("a.html"), Some("text/html; charset=utf-8"));
        assert_eq!(kind("b.js"), Some("text/javascript; charset=utf-8"));
        assert_eq!(kind("c.png"), Some("image/png"));
        assert_eq!(kind("d"), Some("application/octet-stream"));
        assert_eq!(kind("e.svg"), Some("image/svg+xml"));
        assert!(
            ["a.html", "b.js", "e.svg", "f.webmanifest"]
                .iter()
                .all(|path| site.get(path).expect("there").can_be_zipped())
        );
        assert!(!site.get("c.png").expect("there").can_be_zipped());
        let page = site.get("a.html").expect("there");
        assert!(page.zipped().is_some_and(|zipped| zipped.len() < 100));
    }
}
