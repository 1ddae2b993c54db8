//! Limits of one invocation.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::{Code, Counters, PriceOverflow, Prices, Rejection};

/// Limits of one invocation; each is enforced by every sandbox, on the cold and on the warm path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Limits {
    /// Wall time of the handler.
    pub timeout_ms: u32,
    pub memory_bytes: u64,
    /// Processes and threads together.
    pub processes: u32,
    /// Scratch space below /tmp.
    pub disk_bytes: u64,
    pub output_bytes: u64,
    /// Standard output and error together; more is cut with a marker.
    pub log_bytes: u64,
    /// Bytes to and from the network together; zero where the network is off. In a ticket also what the job may stream: see
    /// [`Self::with_stream`].
    #[serde(default)]
    pub egress_bytes: u64,
}

impl Limits {
    pub const DEFAULT: Self = Self {
        timeout_ms: 5_000,
        memory_bytes: 128 << 20,
        processes: 32,
        disk_bytes: 64 << 20,
        output_bytes: 6 << 20,
        log_bytes: 256 << 10,
        egress_bytes: 0,
    };
    /// What a function with an allow list gets unless it says otherwise.
    pub const EGRESS_BYTES_DEFAULT: u64 = 64 << 20;
    /// 16 GiB: what a run of 15 minutes moves on a fast line is no function any more.
    pub const EGRESS_BYTES_MAX: u64 = 16 << 30;
    /// 16 GiB, as for the network: a streamed answer costs its bytes, so that this bounds a mistake and not a use.
    pub const STREAM_BYTES_MAX: u64 = 16 << 30;
    /// Below 32 MiB no interpreter starts.
    pub const MEMORY_BYTES_MIN: u64 = 32 << 20;
    /// 4 GiB: what one 32-bit wasm memory can address.
    pub const MEMORY_BYTES_MAX: u64 = 4 << 30;
    /// 15 minutes: a synchronous caller rarely waits longer.
    pub const TIMEOUT_MS_MAX: u32 = 900_000;
    /// What a run's slot counts as at least among its memory, whatever the run needs of it: a run that only waits displaces
    /// another. Half of what a function has unless it says otherwise.
    pub const SLOT_BYTES: u64 = Self::DEFAULT.memory_bytes / 2;
    /// What a run may stream unless its function says otherwise: an answer of a gigabyte passes.
    pub const STREAM_BYTES_DEFAULT: u64 = 1 << 30;

    /// The most that a machine gives any run, whoever orders it: a controller that asks for more is at fault, or not one's own.
    pub const RUN_MAX: Self = Self {
        timeout_ms: Self::TIMEOUT_MS_MAX,
        memory_bytes: Self::MEMORY_BYTES_MAX,
        processes: 256,
        disk_bytes: 1 << 30,
        // Held in memory on its way.
        output_bytes: 64 << 20,
        log_bytes: 4 << 20,
        egress_bytes: Self::EGRESS_BYTES_MAX + Self::STREAM_BYTES_MAX,
    };

    /// Whether none of them is above `most`.
    pub fn within(&self, most: &Self) -> bool {
        self.timeout_ms <= most.timeout_ms
            && self.memory_bytes <= most.memory_bytes
            && self.processes <= most.processes
            && self.disk_bytes <= most.disk_bytes
            && self.output_bytes <= most.output_bytes
            && self.log_bytes <= most.log_bytes
            && self.egress_bytes <= most.egress_bytes
    }

    /// Rejects with `function.bad_timeout`, `function.bad_memory`, `function.bad_processes`, `function.bad_disk` or
    /// `egress.bad_limit`.
    pub fn check(&self) -> Result<(), Rejection> {
        if self.timeout_ms == 0 || self.timeout_ms > Self::TIMEOUT_MS_MAX {
            return Err(Rejection::new(
                Code::FunctionBadTimeout,
                format!("the timeout must be between 1 and {} ms", Self::TIMEOUT_MS_MAX),
            )
            .field("timeout_ms"));
        }
        if !(Self::MEMORY_BYTES_MIN..=Self::MEMORY_BYTES_MAX).contains(&self.memory_bytes) {
            return Err(Rejection::new(
                Code::FunctionBadMemory,
                "the memory limit must be between 32 and 4096 MiB",
            )
            .field("memory_limit_mb"));
        }
        if !(1..=Self::RUN_MAX.processes).contains(&self.processes) {
            return Err(Rejection::new(
                Code::FunctionBadProcesses,
                "the limit of processes and threads must be between 1 and 256",
            )
            .field("process_limit"));
        }
        if !(1 << 20..=Self::RUN_MAX.disk_bytes).contains(&self.disk_bytes) {
            return Err(Rejection::new(
                Code::FunctionBadDisk,
                "the limit of `/tmp` must be between 1 and 1024 MiB",
            )
            .field("disk_limit_mb"));
        }
        if self.egress_bytes > Self::EGRESS_BYTES_MAX {
            return Err(Rejection::new(
                Code::EgressBadLimit,
                "the limit on network traffic must be at most 16384 MiB per run",
            )
            .field("egress_limit_mb"));
        }
        Ok(())
    }

    /// What an answer that is streamed may have in all. `output_bytes` bounds an answer that is held in memory; a stream
    /// never is, so it may be far longer.
    pub fn stream_bytes(&self) -> u64 {
        self.output_bytes.max(Self::STREAM_BYTES_MAX)
    }

    /// What an instance costs its machine beyond its limit, which holds the interpreter too: an event and an output of 6 MiB on
    /// their way through the platform, buffers of logs and streams, tables of the kernel.
    pub const OVERHEAD_BYTES: u64 = 16 << 20;

    /// Memory that a machine sets aside for an instance under these limits.
    pub fn footprint_bytes(&self) -> u64 {
        self.memory_bytes.saturating_add(Self::OVERHEAD_BYTES)
    }

    /// The most that a job under these limits can use on `cores` cores.
    pub fn counters_max(&self, cores: u32) -> Counters {
        Counters {
            cpu_us: u64::from(self.timeout_ms) * 1_000 * u64::from(cores),
            memory_byte_ms: self.memory_bytes.saturating_mul(u64::from(self.timeout_ms)),
            egress_bytes: self.egress_bytes,
        }
    }

    /// Maximum cost of a job under these limits; this amount is reserved before it runs.
    pub fn price_max(&self, prices: &Prices, cores: u32) -> Result<u64, PriceOverflow> {
        prices.price(&self.counters_max(cores))
    }

    /// As a ticket carries them for a run that may stream `bytes`, its answer and the body of its request together. Streamed
    /// bytes are counted and billed like those of the network, so the ticket's maximum price covers them too.
    pub fn with_stream(self, bytes: u64) -> Self {
        Self {
            egress_bytes: self.egress_bytes.saturating_add(bytes),
            ..self
        }
    }

    /// What a ticket's limits allow to be streamed beyond these limits, those of its function; `None` where they differ in
    /// anything else, or allow less.
    pub fn streamable(&self, ticket: &Self) -> Option<u64> {
        let bytes = ticket.egress_bytes.checked_sub(self.egress_bytes)?;
        (self.with_stream(bytes) == *ticket).then_some(bytes)
    }
}
