//! The wasm backend: functions in QuickJS and CPython components, in wasmtime.
//!
//! One generic component per language is compiled once per machine; a program is its source, handed to a fresh instance.
//! There is no process and no thread per instance: a call runs on the thread that polls it and yields at every tick of
//! the [`ticker`], which is also where its deadline is looked at.
//!
//! ```text
//! runtime (engine, component) --start--> instance --call--> instance --call--> ... --drop--> its slot of the pool is zeroed
//!         one per language        source is loaded   handler runs
//! ```
//!
//! Nothing of the host is granted but clocks, randomness and the bundle's own files, read-only: no network, no processes.

#![allow(unsafe_code)]

mod answer;
mod backend;
mod clock;
mod commonjs;
mod engine;
mod exports;
mod flow;
mod host;
mod instance;
mod logs;
mod meter;
mod modules;
mod program;
mod runtime;
mod ticker;

pub use backend::{Options, Wasm, WasmError};
