//! `piecework logout`: forgets the login.

use crate::{failure::Failure, session};

/// Forget the login
#[derive(Debug, clap::Args)]
pub struct Logout {}

impl Logout {
    pub fn run(self) -> Result<(), Failure> {
        let said = if session::forget()? {
            "logged out"
        } else {
            "not logged in"
        };
        eprintln!("{said}");
        Ok(())
    }
}
