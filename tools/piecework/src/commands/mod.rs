//! One file per command.

pub mod account;
pub mod alerts;
pub mod audit;
pub mod call;
pub mod cancel;
pub mod code;
pub mod completions;
pub mod delete;
pub mod deploy;
pub mod deposits;
pub mod dev;
pub mod forward;
pub mod function;
pub mod functions;
pub mod held;
mod image;
pub mod invite;
pub mod job;
pub mod jobs;
pub mod leases;
pub mod ledger;
pub mod lend;
pub mod limits;
pub mod login;
pub mod logout;
pub mod logs;
pub mod man;
pub mod metrics;
pub mod new;
pub mod offers;
pub mod open;
pub mod quote;
pub mod restore;
pub mod rollback;
pub mod routes;
pub mod run;
pub mod secrets;
mod signed;
pub mod statement;
pub mod tokens;
pub mod traffic;
pub mod transfer;
pub mod triggers;
pub mod verify;
pub mod versions;
pub mod whoami;
pub mod withdrawals;

// What serves, and what looks into it: where the sandboxes and the ledger's engine work.
#[cfg(target_os = "linux")]
pub mod bench;
#[cfg(target_os = "linux")]
pub mod controller;
#[cfg(target_os = "linux")]
pub mod devnet;
#[cfg(target_os = "linux")]
pub mod doctor;
#[cfg(target_os = "linux")]
pub mod openapi;
#[cfg(target_os = "linux")]
pub mod peer;
#[cfg(target_os = "linux")]
pub mod provide;
#[cfg(target_os = "linux")]
pub mod provider;
#[cfg(target_os = "linux")]
pub mod service;
#[cfg(target_os = "linux")]
pub mod up;

use piecework_api::PageQuery;

/// Which page of a list.
#[derive(Debug, clap::Args)]
pub struct Page {
    /// Items per page, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Start of the page, as printed by the page before
    #[arg(long, value_name = "C")]
    cursor: Option<String>,
}

impl Page {
    fn query(&self) -> PageQuery {
        PageQuery {
            limit: Some(self.limit),
            cursor: self.cursor.clone(),
        }
    }
}

/// Says that a list goes on.
fn more(next: Option<&str>) {
    if let Some(next) = next {
        eprintln!("more: --cursor {next}");
    }
}
