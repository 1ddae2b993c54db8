//! A version's code, read back.

use bytes::Bytes;
use piecework_blobs::{Bundle, BundleLimits};
use piecework_model::Code;
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{Functions, Live};
use crate::{
    Answer,
    failure::{blobs, failed, refuse, rejected, store},
};

/// A bundle with its packages is in memory for a moment, and may have hundreds of MiB.
static TURN: Semaphore = Semaphore::const_new(1);

/// The files of a version as they were deployed, as a tar: without the packages that were resolved for them. Refuses with
/// `version.not_found`.
pub(crate) async fn code(functions: &Functions, live: &Live, number: &str) -> Answer<Bytes> {
    let function = &live.function;
    let version = match number.parse() {
        Ok(number) => functions
            .ground
            .store
            .version(function.id, number)
            .await
            .map_err(store)?,
        Err(_) => None,
    };
    let Some(version) = version else {
        let message = format!("`{}` has no version {number}", function.name);
        return refuse(Code::VersionNotFound, message);
    };
    let _turn = TURN.acquire().await.expect("it is never closed");
    let whole = functions.ground.blobs.get(&version.code).await.map_err(blobs)?;
    if version.packages.is_empty() {
        return Ok(whole);
    }
    let own = move || {
        let bundle = Bundle::read(&whole, &BundleLimits::RESOLVED)?;
        let folder = piecework_packages::folder(version.language);
        let own = bundle.with_folder(folder, [], &BundleLimits::UPLOAD)?;
        Ok(own.pack().tar)
    };
    let read = spawn_blocking(own).await;
    read.map_err(|error| failed("read a bundle", &error))?.map_err(rejected)
}
