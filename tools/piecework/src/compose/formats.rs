//! Whether this program knows the formats of all that a data directory holds: asked before anything is written there, so that
//! a newer program's directory stays as it is.

use std::path::Path;

use anyhow::Result;

/// Of a directory in which the controller's store, a peer's ledger and a provider's journal lie, or some of them, or none yet.
pub(super) fn check(directory: &Path) -> Result<()> {
    piecework_store::check_format(&directory.join("store"))?;
    for ledger in ["peer/ledger", "ledger"] {
        piecework_chain_node::check_format(&directory.join(ledger))?;
    }
    let file = |name| directory.join(name);
    piecework_provider::check_formats(&file("begun"), &file("papers"), &file("earned"))?;
    Ok(())
}
