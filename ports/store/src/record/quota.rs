//! What an account keeps here, by kind, and the most it may.

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kept {
    /// Bytes of outputs, but for those of up to 512 bytes with their logs, which are in the records.
    Outputs = 1,
    /// Bytes of logs, likewise.
    Logs = 2,
    /// Bytes of the records of jobs.
    Records = 3,
    /// Bytes of the inputs of asynchronous jobs that have not ended.
    Inputs = 4,
    /// Bytes on disk of the bundles of all versions, each bundle once; those of deleted functions until they are gone.
    Bundles = 5,
    /// Versions of all functions, deleted ones included.
    Versions = 6,
    /// Functions, those included that are deleted and can be restored.
    Functions = 7,
}

impl Kept {
    pub const ALL: [Self; 7] = [
        Self::Outputs,
        Self::Logs,
        Self::Records,
        Self::Inputs,
        Self::Bundles,
        Self::Versions,
        Self::Functions,
    ];

    pub(crate) fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kept| i64::from(*kept as u8) == code)
    }
}

/// An amount of each kind, in bytes or, of versions and functions, in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts([u64; Kept::ALL.len()]);

impl Amounts {
    pub fn get(&self, kept: Kept) -> u64 {
        self.0[kept as usize - 1]
    }

    pub fn set(&mut self, kept: Kept, amount: u64) {
        self.0[kept as usize - 1] = amount;
    }

    pub fn with(mut self, kept: Kept, amount: u64) -> Self {
        self.set(kept, amount);
        self
    }
}

/// What a community's machine has room for, for some dozens of accounts that use all of it.
pub const QUOTAS_DEFAULT: Amounts = Amounts([
    // Outputs: a week of large ones, or 65,000 of 16 KiB.
    1 << 30,
    // Logs.
    256 << 20,
    // Records: about a million jobs in the week that they are kept.
    1 << 30,
    // Inputs: 40 of the largest.
    256 << 20,
    // Bundles: sixteen of the largest uploads, or a dozen with large packages.
    512 << 20,
    // Versions.
    2_000,
    // Functions.
    300,
]);
