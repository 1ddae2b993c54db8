//! Bundles: reading, keeping and unpacking them. One executable, which is linked once.

mod bundle;
mod files;
mod fuzz;
mod unpacked;
mod zip;
