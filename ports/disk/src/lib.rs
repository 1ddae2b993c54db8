//! Whether the disks with the data have room, and a reserve for what must be written in any case.
//!
//! ```text
//!            free < low                free < reserve
//!   Ample ---------------> Low ------------------------> Reserved
//!     ^-- low and 1/8 more --'^-- reserve and 1/4 more ------'
//! ```
//! Above `reserve` everything is written. Below it, tenants' data and new work are refused, so that what is left is for the
//! ledger, the journal and settlement. A file holds part of the disk besides; it goes when somebody else has taken the rest.

mod ballast;
mod watched;

use async_trait::async_trait;

pub use watched::Watched;

/// How much room there is, for those who write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    #[default]
    Ample,
    /// Everything is written still, and an operator is warned.
    Low,
    /// What is left is for the ledger, the journal and settlement.
    Reserved,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ample => "ample",
            Self::Low => "low",
            Self::Reserved => "reserved",
        }
    }
}

/// Where the levels begin, in free bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Marks {
    pub low_bytes: u64,
    pub reserve_bytes: u64,
}

/// Half a gigabyte takes what is under way when the refusals begin: the store holds 256 MiB that wait for its tables, and
/// SQLite's own log grows to some 32 MiB.
const RESERVE_BYTES_MAX: u64 = 512 << 20;
/// Warned of hours before, at a usual pace.
const LOW_BYTES_MAX: u64 = 2 << 30;
/// On smaller disks these parts of the whole.
const RESERVE_SHARE: u64 = 16;
const LOW_SHARE: u64 = 8;

impl Marks {
    /// Of a disk of this size.
    pub fn of(total_bytes: u64) -> Self {
        Self {
            low_bytes: (total_bytes / LOW_SHARE).min(LOW_BYTES_MAX),
            reserve_bytes: (total_bytes / RESERVE_SHARE).min(RESERVE_BYTES_MAX),
        }
    }

    /// What follows from `free` bytes after `before`. A level is left with some room to spare, so that it does not flutter.
    pub fn level(&self, before: Level, free: u64) -> Level {
        let back_to_low = self.reserve_bytes + self.reserve_bytes / 4;
        let back_to_ample = self.low_bytes + self.low_bytes / 8;
        match before {
            _ if free < self.reserve_bytes => Level::Reserved,
            Level::Reserved if free < back_to_low => Level::Reserved,
            _ if free < self.low_bytes => Level::Low,
            Level::Low | Level::Reserved if free < back_to_ample => Level::Low,
            Level::Ample | Level::Low | Level::Reserved => Level::Ample,
        }
    }
}

/// A look at the fullest of the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Reading {
    pub level: Level,
    pub free_bytes: u64,
    pub marks: Marks,
}

/// What is known of the room on the disks. Nothing here blocks.
#[async_trait]
pub trait Room: Send + Sync {
    fn reading(&self) -> Reading;

    /// Resolves when tenants' data and new work are taken, at once where they are now. Cancel safe.
    async fn taking(&self);

    /// Resolves when the level has changed since the last call to this. For one task alone.
    async fn changed(&self);
}

/// Room without end, for what writes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unlimited;

#[async_trait]
impl Room for Unlimited {
    fn reading(&self) -> Reading {
        Reading {
            free_bytes: u64::MAX,
            ..Reading::default()
        }
    }

    async fn taking(&self) {}

    async fn changed(&self) {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_level_is_left_with_room_to_spare() {
        let marks = Marks {
            low_bytes: 80,
            reserve_bytes: 40,
        };
        let steps = [
            (100, Level::Ample),
            (79, Level::Low),
            (89, Level::Low),
            (90, Level::Ample),
            (39, Level::Reserved),
            (49, Level::Reserved),
            (50, Level::Low),
            (0, Level::Reserved),
            (100, Level::Ample),
        ];
        let mut level = Level::Ample;
        for (free, due) in steps {
            level = marks.level(level, free);
            assert_eq!(level, due, "{free}");
        }
    }

    #[test]
    fn a_small_disk_has_a_small_reserve() {
        let small = Marks::of(64 * MIB);
        assert_eq!((small.low_bytes, small.reserve_bytes), (8 * MIB, 4 * MIB));
        let large = Marks::of(1 << 40);
        assert_eq!((large.low_bytes, large.reserve_bytes), (2_048 * MIB, 512 * MIB));
    }
}
