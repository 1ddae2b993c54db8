//! The jail: the suite with and without root, its probe, its way out. One executable, which is linked once.

#![allow(clippy::unwrap_used)]

mod conformance;
mod egress;
mod host;
mod images;
mod packages;
mod probe;
mod rootless;
mod subject;
