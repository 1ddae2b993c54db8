//! `piecework openapi`: the HTTP interface as a document.

use crate::{compose, failure::Failure, show};

/// Print the OpenAPI document of the HTTP interface
#[derive(Debug, clap::Args)]
pub struct Openapi {}

impl Openapi {
    pub fn run(self) -> Result<(), Failure> {
        show::json(&compose::openapi_document())
    }
}
