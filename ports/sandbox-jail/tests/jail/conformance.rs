//! The conformance suite over the full jail: root, cgroups, both languages.
piecework_sandbox_conformance::conformance_tests!(crate::subject::full);
