//! Bundles that no version has any more are deleted; never one that a deploy is about to give to a version.
//!
//! ```text
//! deploy: hold -> put -> version written -> let go        sweep, for each: [held? had by a version? else delete]
//! ```
//! Holding and the sweep's step in brackets exclude each other, so a bundle that was put under a hold stays.

use std::{collections::HashMap, sync::Arc, time::Duration};

use piecework_model::Digest;
use tokio::sync::{Mutex, Notify};

use crate::{
    Answer,
    clock::now_ms,
    failure::{blobs, store},
    functions::{Functions, budget, images},
};

/// What a crash between a bundle and its version has left goes with the sweep of the start; the rest of the sweeps are for
/// functions whose time to be restored ends.
const SWEPT_EVERY: Duration = Duration::from_secs(3_600);
/// Deletions come in groups: one sweep serves all of a moment.
const SWEPT_AFTER: Duration = Duration::from_secs(1);

/// Bundles that a deploy works with.
#[derive(Default)]
pub(crate) struct Bundles {
    held: Arc<Mutex<HashMap<Digest, usize>>>,
    /// Some bundle may have lost its last version, or have got none.
    stirred: Arc<Notify>,
}

/// Keeps a bundle from the sweep until it is dropped.
pub(crate) struct Hold {
    held: Arc<Mutex<HashMap<Digest, usize>>>,
    stirred: Arc<Notify>,
    digest: Digest,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let (held, stirred, digest) = (self.held.clone(), self.stirred.clone(), self.digest);
        // The sweep may be at it, for the time of one look and one deletion.
        match held.clone().try_lock_owned() {
            Ok(mut held) => {
                let_go(&mut held, &digest);
                stirred.notify_one();
            }
            Err(_) => drop(tokio::spawn(async move {
                let_go(&mut *held.lock().await, &digest);
                stirred.notify_one();
            })),
        }
    }
}

fn let_go(held: &mut HashMap<Digest, usize>, digest: &Digest) {
    if let Some(holds) = held.get_mut(digest) {
        *holds -= 1;
        if *holds == 0 {
            held.remove(digest);
        }
    }
}

impl Bundles {
    pub(crate) async fn hold(&self, digest: Digest) -> Hold {
        *self.held.lock().await.entry(digest).or_default() += 1;
        Hold {
            held: self.held.clone(),
            stirred: self.stirred.clone(),
            digest,
        }
    }

    /// For as long as the process lives: of functions that no table has.
    pub(crate) async fn hold_for_good(&self, digest: Digest) {
        self.held.lock().await.entry(digest).or_insert(1);
    }

    /// Versions have gone: their bundles may have no other.
    pub(crate) fn stir(&self) {
        self.stirred.notify_one();
    }
}

/// Sweeps now and then, and after each deletion, until shutdown.
pub(crate) async fn run(functions: Arc<Functions>) {
    if let Err(refusal) = size(&functions).await {
        tracing::warn!(%refusal, "the sizes of old bundles are not known yet");
    }
    loop {
        match sweep(&functions).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "deleted bundles that no version has"),
            Err(refusal) => tracing::warn!(%refusal, "unused bundles were not deleted"),
        }
        tokio::select! {
            () = functions.ground.shutdown.cancelled() => return,
            () = tokio::time::sleep(SWEPT_EVERY) => {}
            () = functions.bundles.stirred.notified() => tokio::time::sleep(SWEPT_AFTER).await,
        }
    }
}

/// Notes what the bundles take that were written before that was counted.
async fn size(functions: &Functions) -> Answer<()> {
    for digest in functions.ground.store.unsized_bundles().await.map_err(store)? {
        if let Some(size) = functions.ground.blobs.size(&digest).await.map_err(blobs)? {
            let sized = functions.ground.store.size_bundle(&digest, size.disk_bytes).await;
            sized.map_err(store)?;
        }
    }
    Ok(())
}

/// Functions whose time to be restored is over, then bundles that no version has. Gives the number of bundles.
pub(crate) async fn sweep(functions: &Functions) -> Answer<u64> {
    let window = u64::try_from(functions.ground.tuning.restore_window.as_millis()).unwrap_or(u64::MAX);
    let before = now_ms().saturating_sub(window);
    functions.ground.store.purge_deleted(before).await.map_err(store)?;
    budget::forget_tried(functions).await?;
    let all = functions.ground.blobs.list().await.map_err(blobs)?;
    functions.images.expire(std::time::Instant::now());
    let generation = functions.images.generation();
    let mut used = functions.ground.store.bundles().await.map_err(store)?;
    used.extend(images::parts(functions, None).await?);
    let mut deleted = 0;
    for digest in all.into_iter().filter(|digest| !used.contains(digest)) {
        let held = functions.bundles.held.lock().await;
        if held.contains_key(&digest) || functions.ground.store.has_bundle(&digest).await.map_err(store)? {
            continue;
        }
        // An image has got its parts meanwhile: which of them have none is found out anew.
        if functions.images.generation() != generation {
            functions.bundles.stir();
            break;
        }
        deleted += u64::from(functions.ground.blobs.delete(&digest).await.map_err(blobs)?);
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bundle_is_held_as_long_as_any_deploy_works_with_it() {
        let bundles = Bundles::default();
        let digest = Digest::of(b"code");
        let (one, other) = (bundles.hold(digest).await, bundles.hold(digest).await);
        drop(one);
        assert!(bundles.held.lock().await.contains_key(&digest));
        let sweeping = bundles.held.lock().await;
        drop(other);
        assert!(sweeping.contains_key(&digest), "the sweep sees what it saw");
        drop(sweeping);
        for _ in 0..1_000 {
            if bundles.held.lock().await.is_empty() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("it is held for ever");
    }
}
