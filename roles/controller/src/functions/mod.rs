//! Functions and their versions: deployed, loaded, kept ready for the next call, given traffic, and watched.

pub(crate) mod deploy;
mod live;
pub(crate) mod loading;
pub(crate) mod placement;
pub(crate) mod traffic;
pub(crate) mod watch;

pub(crate) use live::*;
