//! Puts the roles together from concrete parts: the only place that names a backend, a store or an engine.

mod acme;
mod agent;
mod background;
mod backup;
mod collecting;
mod containers;
pub mod control;
mod controller;
mod cores;
mod descriptors;
mod devnet;
mod disk;
mod files;
mod first;
mod formats;
mod interpreters;
pub mod invite;
mod ledger;
mod listen;
mod machine;
mod peer;
mod portal;
mod provider;
mod replica;
mod sandboxes;

pub use agent::{OwnersWord, Provision, provide};
pub use backup::{back_up, restore};
pub use collecting::{CLAIM_AFTER_S, Caution, WINDOW_BLOCKS_MIN};
pub use containers::{Probing, container_engine, microvm};
pub use controller::{ControllerKeys, controller};
pub use descriptors::raise_descriptor_limit;
pub use devnet::{Answers, Wanted, devnet};
pub use files::make_private;
pub use ledger::{PARAMS, now_ms};
pub use machine::{Settings, machine};
pub use peer::peer;
pub use provider::Terms;
pub use replica::replica;
pub use sandboxes::backends;

/// The HTTP interface of a controller, with the ledger's explorer that is served beside it.
pub fn openapi_document() -> utoipa::openapi::OpenApi {
    piecework_controller::openapi_document(piecework_peer::http::description())
}
