//! The suite over workers without root: no cgroups, limits of the process in their place.
piecework_sandbox_conformance::conformance_tests!(crate::subject::rootless);
