//! The conformance suite over the full jail: root, cgroups, both languages.
#![allow(clippy::unwrap_used)]

mod subject;

piecework_sandbox::conformance_tests!(crate::subject::full);
