//! A copy of the ledger's state for checking an export.

use std::path::Path;

use anyhow::{Context as _, Result};
use piecework_proof::StateRoots;

/// Works in an empty folder, which is of no use afterwards.
pub fn replica(folder: &Path) -> Result<impl StateRoots> {
    piecework_chain_node::replica(folder.to_owned()).context("cannot replay the state")
}
