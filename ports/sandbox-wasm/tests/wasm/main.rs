//! The wasm sandbox: the suite, and what is particular to it. One executable, which is linked once.

mod conformance;
mod likeness;
mod particular;
mod rootless;
mod subject;
mod typescript;
mod workers;
