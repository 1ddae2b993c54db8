//! A process that must not outlive the one that started it.

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Hidden option: the process id of the parent.
pub const OPTION: &str = "--tethered-to";

/// What a child gets before its command.
pub fn arguments() -> [String; 2] {
    [OPTION.to_owned(), std::process::id().to_string()]
}

/// From now on the kernel kills this process when its parent dies. Fails if that has happened already. To be called
/// before anything starts.
///
/// The signal is sent when the parent's *thread* ends that started this one: it must be one that lasts, as the main
/// one.
pub fn tie(parent: u32) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("the kernel does not take a parent death signal")?;
    let expected = i32::try_from(parent).ok().and_then(Pid::from_raw);
    if expected.is_none() || getppid() != expected {
        bail!("the parent process has exited");
    }
    Ok(())
}
