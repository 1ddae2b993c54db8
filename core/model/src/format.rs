//! Which version a kept record has, and the refusal of one that this build does not know.
//!
//! Each kind of record that is kept on disk has a [`Format`]: its name and the newest version, which is what this build
//! writes. All versions up to it are read for ever. A record says its version in one of three ways:
//!
//! - bytes begin with [`MARK`] and the version ([`Format::prefix`], [`Format::split`]);
//! - a directory or a file has a mark with the number in it, which is checked before anything else is read or written;
//! - a frame has it in its header.
//!
//! Version 0 is what was written before a kind had versions.

/// Before the version of a record in bytes. No record from before versions begins so: not JSON, not text in UTF-8, not a
/// journal of begun jobs (0 or 1), not an id that begins with a time of this century.
pub const MARK: u8 = 0xFE;

/// A kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    name: &'static str,
    newest: u8,
}

/// The record is newer than this build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {name} has version {found}, this program reads up to {newest}; run the newer program, or restore a backup"
)]
pub struct UnknownVersion {
    /// What a person calls the kind of record.
    pub name: &'static str,
    pub found: u32,
    /// The newest version that this build reads.
    pub newest: u32,
}

impl Format {
    /// `name` is for people: `record of an accepted job`.
    pub const fn new(name: &'static str, newest: u8) -> Self {
        Self { name, newest }
    }

    /// What this build writes.
    pub const fn newest(&self) -> u8 {
        self.newest
    }

    pub fn check(&self, found: u32) -> Result<u32, UnknownVersion> {
        match found <= u32::from(self.newest) {
            true => Ok(found),
            false => Err(UnknownVersion {
                name: self.name,
                found,
                newest: self.newest.into(),
            }),
        }
    }

    /// What the bytes of a record written by this build begin with.
    pub const fn prefix(&self) -> [u8; 2] {
        [MARK, self.newest]
    }

    /// The version of a record in bytes and what follows it; 0 and all of it where there is no prefix.
    pub fn split<'a>(&self, bytes: &'a [u8]) -> Result<(u32, &'a [u8]), UnknownVersion> {
        match bytes {
            [MARK, version, body @ ..] => Ok((self.check(u32::from(*version))?, body)),
            _ => Ok((0, bytes)),
        }
    }
}
