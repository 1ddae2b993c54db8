//! Runs a ledger peer: keys, genesis, chain.
