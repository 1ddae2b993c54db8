//! Keeps bundles by digest.
