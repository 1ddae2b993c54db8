//! Doubles of what is outside, for tests of the rooms in one process: the ledger's own rules without consensus, a store in
//! memory that fails when it is told to, providers that do as they are told, a clock that is turned; and a whole
//! controller of them behind its HTTP API, on the real store in a directory of its own.

pub(crate) mod answer;
pub(crate) mod ledger;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod nothing;
pub(crate) mod provider;
pub(crate) mod sink;
pub(crate) mod turned;
pub(crate) mod world;
