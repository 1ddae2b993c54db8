//! Tests of the rules, written from outside: worlds of a few accounts, blocks, and what came of them.
#![allow(clippy::unwrap_used)]

mod accounts;
mod cheats;
mod claims;
mod committee;
mod fuzz;
mod genesis;
mod jobs;
mod leases;
mod lending;
mod mismatches;
mod mutants;
mod offers;
mod oracle;
mod properties;
mod refusals;
mod rules;
mod settlement;
mod world;
