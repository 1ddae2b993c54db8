//! Puts the roles together from concrete parts: the only place that names a backend, a store or an engine.

mod controller;
mod files;
mod ledger;
mod machine;
mod peer;
mod provider;
mod sandboxes;

pub use controller::{ControllerKeys, controller};
pub use files::make_private;
pub use ledger::{PARAMS, now_ms};
pub use machine::machine;
pub use peer::peer;

/// The HTTP interface of a controller, with the ledger's explorer that is served beside it.
pub fn openapi_document() -> utoipa::openapi::OpenApi {
    piecework_controller::openapi_document(piecework_peer::http::description())
}
pub use sandboxes::backends;
