//! The interpreters of the wasm sandbox and the translator of TypeScript that this executable carries, as `build.rs` packed them; `None` where
//! `runtimes/build.sh` had not run.

include!(concat!(env!("OUT_DIR"), "/interpreters.rs"));
