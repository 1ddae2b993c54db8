//! The wasm backend: functions in QuickJS and CPython components, in wasmtime, in worker processes. Linux only.
//!
//! One generic component per language is compiled once per machine; a program is its source, handed to a fresh instance.
//! No guest runs in this process: each owner's instances live in a worker, a process behind walls of its own, so that what
//! breaks out of the engine, or breaks it, meets nothing of anybody else. A worker is forked by a zygote that has the engine
//! and the component at hand, and shares their pages.
//!
//! ```text
//! this process                     zygote, one for each language           worker, one for each owner
//! backend, crew --Order----------> zygote --------------fork-------------> errands
//! worker        --Errand----------------------------------------------------^  `--> a thread for each instance:
//! remote        <--Ask, Said-- one stream for each instance ------------------------> serve: runtime --> instance
//! ```
//!
//! Nothing of the host is granted to a guest but clocks, randomness and the bundle's own files, read-only: no network, no
//! processes. An instance yields at every tick of the [`ticker`], where its deadline is looked at.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

// This process.
mod backend;
mod component;
mod crew;
mod hatchery;
mod pace;
mod probe;
mod remote;
mod worker;
// Both ends.
mod line;
mod program;
mod words;
mod zygote;
// A worker.
mod answer;
mod clock;
mod commonjs;
mod engine;
mod exports;
mod flow;
mod host;
mod inside;
mod instance;
mod logs;
mod meter;
mod modules;
mod runtime;
mod ticker;

pub use backend::{Options, Wasm, WasmError};
pub use component::{Component, Tell};
pub use zygote::{ZYGOTE_ARGUMENT, zygote_main};
