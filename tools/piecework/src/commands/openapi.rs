//! `piecework openapi`: the HTTP interface as a document.

use crate::{failure::Failure, show};

/// Print the OpenAPI document of the HTTP interface
#[derive(Debug, clap::Args)]
pub struct Openapi {}

impl Openapi {
    pub fn run(self) -> Result<(), Failure> {
        show::json(&piecework_controller::openapi_document())
    }
}
