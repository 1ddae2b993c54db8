//! The container backends: the suite over crun, runc, gVisor and Docker, and their probes.

#![allow(clippy::unwrap_used)]

mod docker;
mod dockerd;
mod probe;
mod subject;
mod suites;
mod table;
