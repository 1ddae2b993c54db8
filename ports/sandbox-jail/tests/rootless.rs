//! The conformance suite over a jail without root: no cgroups, rlimits in their place.
#![allow(clippy::unwrap_used)]

mod subject;

piecework_sandbox::conformance_tests!(crate::subject::rootless);
