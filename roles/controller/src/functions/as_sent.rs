//! The code of a version as its developer sent it.

use piecework_blobs::{Bundle, BundleLimits};
use piecework_model::{Language, typescript};
use piecework_store::{Site, Version};

use crate::{
    Answer,
    failure::{blobs, failed, rejected},
    functions::{Functions, pages},
};

/// A version's files without resolved packages, and without what the deploy has put beside them. A `package.json` that was made to say
/// `"type": "module"` says so.
pub(crate) async fn bundle(functions: &Functions, version: &Version) -> Answer<Bundle> {
    let _reading = pages::reading(functions).await;
    let tar = functions.ground.blobs.get(&version.code).await.map_err(blobs)?;
    let read = tokio::task::spawn_blocking(move || Bundle::read(&tar, &BundleLimits::RESOLVED));
    let whole = read.await.map_err(|error| failed("read a bundle", &error))?;
    Ok(stripped(whole.map_err(rejected)?, version))
}

fn stripped(whole: Bundle, version: &Version) -> Bundle {
    let packages = match version.language {
        Language::Python => "packages/",
        Language::JavaScript => "node_modules/",
    };
    let packages = Some(packages).filter(|_| !version.packages.is_empty());
    let entry = Some(version.language.entry_file()).filter(|_| version.site == Site::Alone);
    let sources = whole.clone();
    whole.without(|path| {
        let is_made = typescript::made_of(path).is_some_and(|source| sources.get(source).is_some());
        is_made || entry == Some(path) || packages.is_some_and(|folder| path.starts_with(folder))
    })
}
