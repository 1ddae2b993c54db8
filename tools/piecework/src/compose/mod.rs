//! Puts the roles together from concrete parts: the only place that names a backend, a store or an engine.

mod files;
mod ledger;
mod machine;
mod provider;
mod sandboxes;

pub use machine::machine;

/// The HTTP interface of a controller, with the ledger's explorer that is served beside it.
pub fn openapi_document() -> utoipa::openapi::OpenApi {
    piecework_controller::openapi_document(piecework_peer::http::description())
}
pub use sandboxes::backends;
