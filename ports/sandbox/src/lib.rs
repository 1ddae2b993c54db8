//! Runs untrusted functions in sandboxes: one trait, one module per backend, one conformance suite.
//!
//! A [`Backend`] loads a [`Program`] (one version of one owner's function) into a [`Loaded`] template; a template starts
//! [`Instance`]s; an instance answers calls, one at a time. An instance never serves another program, and whatever a
//! call did to it that could reach the next owner dies with it.
//!
//! ```text
//! Backend --load--> Loaded --start--> Instance --call--> Finished { reusable } --call--> ...
//!                                        `-- dropped: everything of it is gone
//! ```

mod contract;
mod depth;
mod freeze;
pub mod instances;
#[cfg(unix)]
pub mod look;
mod met;
mod printed;
pub mod runner;
mod stream;

pub use contract::*;
pub use depth::{LEVELS_MAX, is_deep, too_deep};
pub use freeze::{Freeze, OutOfTime, Stopwatch};
pub use printed::{LogLevel, LogLine, Logs, Printed};
pub use stream::*;
/// Of [`Call::stop`].
pub use tokio_util::sync::CancellationToken;
