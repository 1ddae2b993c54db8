//! Orders transactions among peers and executes the ledger's contracts; the only crate that names the consensus engine.
