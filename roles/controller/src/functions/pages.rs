//! The files of `public/`, which are served without a run: read from the version's bundle, and kept in memory while they are asked for.

use std::{
    collections::HashMap,
    io::Write as _,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use moka::sync::Cache;
use piecework_blobs::{Bundle, BundleLimits};
use piecework_model::Digest;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    Answer,
    failure::{blobs, failed, rejected},
    functions::{Functions, entry::PUBLIC},
};

/// Of all sites that are kept, with what is compressed of them. One has at most 32 MiB.
const KEPT_BYTES: u64 = 128 << 20;
/// What a file takes beside its content.
const FILE_BYTES: u64 = 512;
/// Bundles that are read at a time: each is in memory meanwhile.
const READ_AT_ONCE: usize = 1;
/// Smaller ones gain nothing.
const ZIPPED_BYTES_MIN: usize = 1_024;
/// 64 bits: nobody looks for two that are alike.
const TAG_LENGTH: usize = 16;

/// The pages of versions, by the digests of their bundles.
pub(crate) struct Pages {
    kept: Cache<Digest, Arc<Site>>,
    reading: Semaphore,
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
        let weight = |_: &Digest, site: &Arc<Site>| u32::try_from(site.memory_bytes()).unwrap_or(u32::MAX);
        Self {
            kept: Cache::builder().weigher(weight).max_capacity(KEPT_BYTES).build(),
            reading: Semaphore::new(READ_AT_ONCE),
        }
    }
}

/// The site of a bundle.
pub(crate) async fn of_bundle(functions: &Functions, code: Digest) -> Answer<Arc<Site>> {
    let pages = &functions.pages;
    if let Some(site) = pages.kept.get(&code) {
        return Ok(site);
    }
    let _reading = reading(functions).await;
    if let Some(site) = pages.kept.get(&code) {
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
    pages.kept.insert(code, site.clone());
    Ok(site)
}

/// The right to have a whole bundle in memory for a moment.
pub(crate) async fn reading(functions: &Functions) -> SemaphorePermit<'_> {
    let turn = functions.pages.reading.acquire().await;
    turn.expect("this semaphore is never closed")
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
