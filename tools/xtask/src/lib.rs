//! Project chores: `tidy` holds the source tree to its rules, `openapi` keeps the API's document in step.

pub mod dist;
pub mod openapi;
pub mod tidy;

use std::path::PathBuf;

/// The root of the checkout that this program was built from.
pub fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest
        .ancestors()
        .nth(2)
        .expect("xtask lies two folders below the root")
        .to_owned()
}
