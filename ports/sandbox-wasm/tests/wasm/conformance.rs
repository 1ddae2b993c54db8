//! The suite that every backend passes, over the built components, with workers as root makes them.
piecework_sandbox_conformance::conformance_tests!(crate::subject::full);
