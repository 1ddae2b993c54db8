//! Container images: their layers come in parts before the deploy that names them.
//!
//! ```text
//! parts: missing? -> uploaded (held for an hour, counted) -> named by a deploy (held) -> had by a version (counted) -> sweep
//! ```
//! Parts are an account's own: whoever only knows a digest neither learns whether somebody has such a part, nor gets it.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use piecework_blobs::Bundle;
use piecework_image::{Description, IMAGE_BYTES_MAX, PART_BYTES, parts_of_bundle};
use piecework_model::{AccountId, Code, Digest};
use piecework_store::{ImageName, Kept};

use crate::{
    Answer,
    failure::{blobs, failed, refuse, rejected, store},
    functions::{Functions, bundles::Hold},
    quotas,
};

/// Between uploads of one deploy, and from the last of them to the deploy.
const HELD_FOR: Duration = Duration::from_secs(3_600);
/// Parts of the largest image, with short last ones, twice over.
pub(crate) const PARTS_MAX: usize = 2_000;

/// What waits to be named, and what is known of the images that versions have.
#[derive(Default)]
pub(crate) struct Images {
    uploaded: Mutex<HashMap<AccountId, Uploaded>>,
    /// By the bundles that name them; those of bundles that are gone go with the next sweep.
    parts: Mutex<HashMap<Digest, Arc<[Digest]>>>,
    /// Counts up when a version of an image was written, before what held its parts lets go.
    generation: Arc<AtomicU64>,
}

#[derive(Default)]
struct Uploaded {
    parts: HashMap<Digest, (u64, Hold)>,
    last: Option<Instant>,
}

impl Uploaded {
    fn bytes(&self) -> u64 {
        self.parts.values().map(|(bytes, _)| bytes).sum()
    }

    fn is_over(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.duration_since(last) > HELD_FOR)
    }
}

/// Keeps what a deploy names until its version is written. Dropped in this order: who sweeps is told first.
pub(crate) struct Holds {
    _written: Option<Written>,
    _all: Vec<Hold>,
}

impl Holds {
    pub(crate) fn of(hold: Hold) -> Self {
        Self {
            _written: None,
            _all: vec![hold],
        }
    }
}

struct Written(Arc<AtomicU64>);

impl Drop for Written {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Images {
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Lets go of what nobody has named for an hour.
    pub(crate) fn expire(&self, now: Instant) {
        self.uploaded.lock().retain(|_, uploaded| !uploaded.is_over(now));
    }

    /// Forgets images that no version has.
    fn keep_only(&self, bundles: &HashSet<Digest>) {
        self.parts.lock().retain(|bundle, _| bundles.contains(bundle));
    }

    /// What versions of the account have is kept, and counted, with them.
    fn have_versions(&self, account: AccountId, had: &HashSet<Digest>) {
        if let Some(uploaded) = self.uploaded.lock().get_mut(&account) {
            uploaded.parts.retain(|part, _| !had.contains(part));
        }
    }

    /// Which of these the account has uploaded, with their sizes. Named again, they wait as long again.
    fn uploaded(&self, account: AccountId) -> HashMap<Digest, u64> {
        let mut all = self.uploaded.lock();
        let Some(uploaded) = all.get_mut(&account) else {
            return HashMap::new();
        };
        uploaded.last = Some(Instant::now());
        uploaded
            .parts
            .iter()
            .map(|(part, (bytes, _))| (*part, *bytes))
            .collect()
    }
}

/// The parts that a bundle of an image names.
async fn parts_of(functions: &Functions, bundle: Digest) -> Answer<Arc<[Digest]>> {
    if let Some(known) = functions.images.parts.lock().get(&bundle) {
        return Ok(known.clone());
    }
    let tar = functions.ground.blobs.get(&bundle).await.map_err(blobs)?;
    let parts: Arc<[Digest]> = parts_of_bundle(&tar).into();
    functions.images.parts.lock().insert(bundle, parts.clone());
    Ok(parts)
}

/// All parts of all versions, or of those of one account.
pub(crate) async fn parts(functions: &Functions, owner: Option<AccountId>) -> Answer<HashSet<Digest>> {
    let bundles = functions.ground.store.image_bundles(owner).await.map_err(store)?;
    let mut all = HashSet::new();
    for bundle in &bundles {
        all.extend(parts_of(functions, *bundle).await?.iter().copied());
    }
    if owner.is_none() {
        functions.images.keep_only(&bundles);
    }
    Ok(all)
}

/// Which of these parts the account has to upload.
pub(crate) async fn missing(functions: &Functions, account: AccountId, asked: Vec<Digest>) -> Answer<Vec<Digest>> {
    if asked.len() > PARTS_MAX {
        return refuse(Code::ImageTooLarge, format!("an image has at most {PARTS_MAX} parts"));
    }
    let had = parts(functions, Some(account)).await?;
    functions.images.have_versions(account, &had);
    let uploaded = functions.images.uploaded(account);
    let mut missing: Vec<Digest> = asked
        .into_iter()
        .filter(|part| !had.contains(part) && !uploaded.contains_key(part))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    Ok(missing)
}

/// Keeps a part for an hour, in which a deploy may name it. Refuses with `image.digest_mismatch`, `image.too_large` and
/// `quota.bundles`.
pub(crate) async fn upload(functions: &Functions, account: AccountId, digest: Digest, bytes: Bytes) -> Answer<()> {
    let length = bytes.len() as u64;
    if length == 0 || length > PART_BYTES {
        return refuse(Code::ImageTooLarge, "a part of a layer has 1 byte to 4 MiB");
    }
    if Digest::of(&bytes) != digest {
        return refuse(
            Code::ImageDigestMismatch,
            "the part does not have the digest by which it was sent",
        );
    }
    let most = functions.ground.store.quotas(account).get(Kept::Bundles);
    let used = functions
        .ground
        .store
        .usage(account)
        .await
        .map_err(store)?
        .get(Kept::Bundles);
    let hold = functions.bundles.hold(digest).await;
    {
        let mut all = functions.images.uploaded.lock();
        let uploaded = all.entry(account).or_default();
        // One that is sent again counts once.
        let again = uploaded.parts.get(&digest).map_or(0, |(bytes, _)| *bytes);
        let waiting = (uploaded.bytes() - again).saturating_add(length);
        if used.saturating_add(waiting) > most {
            return Err(quotas::refused((Kept::Bundles, used.saturating_add(waiting), most)));
        }
        if waiting > IMAGE_BYTES_MAX || uploaded.parts.len() >= PARTS_MAX {
            return refuse(
                Code::ImageTooLarge,
                "the account has uploaded more parts than one image has",
            );
        }
        uploaded.last = Some(Instant::now());
        uploaded.parts.insert(digest, (length, hold));
    }
    if let Err(failure) = functions.ground.blobs.put(bytes).await {
        if let Some(uploaded) = functions.images.uploaded.lock().get_mut(&account) {
            uploaded.parts.remove(&digest);
        }
        return Err(blobs(failure));
    }
    Ok(())
}

/// An image that a deploy names: checked, with all its parts held.
pub(crate) struct Named {
    pub(crate) name: ImageName,
    /// Of its layers.
    pub(crate) disk_bytes: u64,
    pub(crate) holds: Vec<Hold>,
}

/// Refuses with `image.missing_part` where the account has not uploaded a part.
pub(crate) async fn named(functions: &Functions, account: AccountId, bundle: &Bundle) -> Answer<Named> {
    let described = Description::read(bundle).map_err(rejected)?;
    let named: HashSet<Digest> = described.parts().copied().collect();
    let mut holds = Vec::with_capacity(named.len());
    for part in &named {
        holds.push(functions.bundles.hold(*part).await);
    }
    let had = parts(functions, Some(account)).await?;
    let uploaded = functions.images.uploaded(account);
    let mut disk_bytes = 0;
    for part in &named {
        let is_known = had.contains(part) || uploaded.contains_key(part);
        let size = match is_known {
            true => functions.ground.blobs.size(part).await.map_err(blobs)?,
            false => None,
        };
        let Some(size) = size else {
            return refuse(
                Code::ImageMissingPart,
                format!("the image names the part {part}, which you have not uploaded; upload it, then deploy again"),
            );
        };
        disk_bytes += size.disk_bytes;
    }
    Ok(Named {
        name: ImageName {
            reference: described.reference,
            digest: described.digest.to_string(),
            platform: described.platform,
        },
        disk_bytes,
        holds,
    })
}

/// Holds a version's bundle, and the parts that it names if it is an image.
pub(crate) async fn hold(functions: &Functions, bundle: Digest, is_image: bool) -> Answer<Holds> {
    let mut all = vec![functions.bundles.hold(bundle).await];
    if is_image {
        for part in parts_of(functions, bundle).await?.iter() {
            all.push(functions.bundles.hold(*part).await);
        }
    }
    Ok(Holds {
        _written: is_image.then(|| Written(functions.images.generation.clone())),
        _all: all,
    })
}

impl Holds {
    pub(crate) fn of_image(functions: &Functions, bundle: Hold, parts: Vec<Hold>) -> Self {
        let mut all = parts;
        all.push(bundle);
        Self {
            _written: Some(Written(functions.images.generation.clone())),
            _all: all,
        }
    }
}

/// The bundle of an image as it was sent.
pub(crate) async fn bundle(code: Option<String>, bundle: Option<String>) -> Answer<Option<Bundle>> {
    match (code, bundle) {
        (None, None) => Ok(None),
        (None, Some(encoded)) => {
            let decoded = tokio::task::spawn_blocking(move || super::deploy::decode(encoded)).await;
            decoded.map_err(|error| failed("read a bundle", &error))?.map(Some)
        }
        (Some(_), _) => refuse(
            Code::FunctionBadCode,
            "an image has no code: send the bundle that describes it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::bundles::Bundles;

    #[tokio::test]
    async fn parts_that_a_version_has_do_not_count_as_uploads_as_well() {
        let (images, bundles) = (Images::default(), Bundles::default());
        let [named, waiting] = [b"named", b"waits"].map(|bytes| Digest::of(bytes));
        let (account, other) = (AccountId([1; 20]), AccountId([2; 20]));
        for owner in [account, other] {
            for part in [named, waiting] {
                let hold = bundles.hold(part).await;
                let mut all = images.uploaded.lock();
                let uploaded = all.entry(owner).or_default();
                uploaded.parts.insert(part, (100, hold));
            }
        }
        images.have_versions(account, &HashSet::from([named]));
        assert_eq!(images.uploaded(account), HashMap::from([(waiting, 100)]));
        assert_eq!(images.uploaded(other).len(), 2, "another's wait on");
    }
}
