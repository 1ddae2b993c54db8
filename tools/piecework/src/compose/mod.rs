//! Puts the roles together from concrete parts: the only place that names a backend, a store or an engine.

mod files;
mod ledger;
mod machine;
mod provider;
mod sandboxes;

pub use machine::machine;
pub use sandboxes::backends;
