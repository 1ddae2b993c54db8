//! The conformance suite over a jail without root: no cgroups, rlimits in their place.
piecework_sandbox_conformance::conformance_tests!(crate::subject::rootless);
