//! What all jails together weigh beside the other processes of this machine.
//!
//! Much while any of them serves a short call: its caller waits. As one process while all that run have computed for long: then a
//! process that wakes up, the platform's or anybody else's, need not wait for a turn of each of them. Never so little that long
//! calls stand still beside others' work.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

use parking_lot::Mutex;

use super::Version;

/// In processes of the usual priority.
const SHORT_CALLS: u32 = 8;
const LONG_CALLS: u32 = 1;

/// What a jail does at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Class {
    #[default]
    Idle,
    /// In a call that has not computed for long.
    Short,
    Long,
}

/// Follows what the jails do.
pub(super) struct Weight {
    file: Option<File>,
    /// What one process weighs.
    unit: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    short: u32,
    long: u32,
    is_light: bool,
}

impl State {
    fn change(&mut self, from: Class, to: Class) {
        match from {
            Class::Idle => {}
            Class::Short => self.short -= 1,
            Class::Long => self.long -= 1,
        }
        match to {
            Class::Idle => {}
            Class::Short => self.short += 1,
            Class::Long => self.long += 1,
        }
    }

    /// What to write, if anything.
    fn next(&mut self) -> Option<u32> {
        let is_light = self.long > 0 && self.short == 0;
        let changes = std::mem::replace(&mut self.is_light, is_light) != is_light;
        changes.then_some(if is_light { LONG_CALLS } else { SHORT_CALLS })
    }
}

impl Weight {
    /// Best effort: it is no wall.
    pub(super) fn new(version: Version, directory: &Path) -> Self {
        let (name, unit) = match version {
            Version::One => ("cpu.shares", 1_024),
            Version::Two => ("cpu.weight", 100),
        };
        let file = OpenOptions::new().write(true).open(directory.join(name));
        let weight = Self {
            file: file.ok(),
            unit,
            state: Mutex::default(),
        };
        if weight.write(SHORT_CALLS).is_err() {
            tracing::debug!("the jails keep the default cpu weight");
        }
        weight
    }

    pub(super) fn change(&self, from: Class, to: Class) {
        let mut state = self.state.lock();
        state.change(from, to);
        if let Some(processes) = state.next() {
            // The weight before stays: jails are slower or others are.
            let _ = self.write(processes);
        }
    }

    fn write(&self, processes: u32) -> io::Result<()> {
        match &self.file {
            Some(file) => file
                .write_at((processes * self.unit).to_string().as_bytes(), 0)
                .map(drop),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jails_weigh_little_while_only_long_calls_run() {
        let mut state = State::default();
        let mut happens = |from, to| {
            state.change(from, to);
            state.next()
        };
        assert_eq!(happens(Class::Idle, Class::Short), None, "as at the start");
        assert_eq!(happens(Class::Short, Class::Long), Some(LONG_CALLS));
        assert_eq!(happens(Class::Idle, Class::Short), Some(SHORT_CALLS));
        assert_eq!(happens(Class::Short, Class::Idle), Some(LONG_CALLS));
        assert_eq!(happens(Class::Long, Class::Idle), Some(SHORT_CALLS));
        assert_eq!((state.short, state.long), (0, 0));
    }
}
