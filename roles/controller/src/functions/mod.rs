//! Functions and their versions: deploying, loading, keeping them ready, splitting traffic, and watching for failures.

pub(crate) mod budget;
pub(crate) mod bundles;
pub(crate) mod deploy;
pub(crate) mod keeping;
mod live;
pub(crate) mod loading;
pub(crate) mod placement;
pub(crate) mod sinks;
pub(crate) mod traffic;
pub(crate) mod watch;

pub(crate) use live::*;
