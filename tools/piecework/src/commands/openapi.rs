//! `piecework openapi`: the HTTP interface as a document.

use crate::failure::Failure;

/// Print the OpenAPI document of the HTTP interface
#[derive(Debug, clap::Args)]
pub struct Openapi {}

impl Openapi {
    pub fn run(self) -> Result<(), Failure> {
        let document = piecework_controller::openapi_document()
            .to_pretty_json()
            .map_err(|error| Failure::Local(error.into()))?;
        println!("{document}");
        Ok(())
    }
}
