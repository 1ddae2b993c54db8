//! The platform as its users meet it: `piecework up` as a process, HTTP, kill -9.

mod bad_input;
mod claims;
mod command_line;
mod computer;
mod crash;
mod damage;
mod fairness;
mod leases;
mod lending;
mod links;
mod logs;
mod machine;
mod main_job;
mod network;
mod oversight;
mod own;
mod owner;
mod peers;
mod placement;
mod proofs;
mod providers;
mod refusals;
mod results;
mod rogue;
mod threats;
