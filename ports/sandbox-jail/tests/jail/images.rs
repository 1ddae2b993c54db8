//! Container images, with and without root.

use std::sync::Arc;

use piecework_sandbox_conformance::{ImageSuite, check_images};

use crate::subject;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_hold() {
    check_images(Arc::new(subject::jail(false)), ImageSuite::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_hold_without_root() {
    /// Whom a jail without root becomes in tests; its agent would have unpacked the layers.
    const SOMEBODY: u32 = 61_907;
    let suite = ImageSuite {
        unpacked_by: Some(SOMEBODY),
        ..ImageSuite::default()
    };
    check_images(Arc::new(subject::jail(true)), suite).await;
}
