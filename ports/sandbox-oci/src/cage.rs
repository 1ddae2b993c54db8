//! What holds a container's processes together on the host: their meters, their freezer, their end.

use std::time::Duration;

use piecework_sandbox_jail::walls::Slot;

/// How long the kernel may take to end a killed container before its meters are read anyway.
pub(crate) const END_WAIT: Duration = Duration::from_millis(900);

/// The processes of one container, seen from outside.
pub(crate) trait Cage: Send + Sync {
    /// CPU time since the container began.
    fn cpu_us(&self) -> u64;
    /// The most memory held since [`Cage::forget_peak`].
    fn peak_bytes(&self) -> u64;
    fn forget_peak(&self);
    fn memory_bytes(&self) -> u64;
    /// Whether the kernel killed something of it for its memory.
    fn hit_memory_limit(&self) -> bool;
    fn processes(&self) -> usize;
    /// How long after its end may pass until whoever runs it tells how it ended.
    fn is_told_within(&self) -> Duration {
        END_WAIT
    }
    /// The container stands: from now on the limits are those of its own.
    fn settle(&self) {}
    /// Whether stopping its first process leaves others running that do nothing but its work.
    fn is_many_at_rest(&self) -> bool {
        false
    }
    /// Stops everything where it is, or lets it go on. Whether that was done.
    fn freeze(&self, frozen: bool) -> bool;
    /// Others go first, or not. Each time another value than before.
    fn let_others_first(&self, yields: bool);
    /// Kills everything that is in it now, frozen or not; does not wait.
    fn kill(&self);
}

/// A control group of the agent's own.
pub(crate) struct SlotCage {
    slot: Slot,
    /// What the runtime itself holds while a container stands: of its kernel, if that is its own.
    own_bytes: u64,
    /// What a call may hold at most, whatever the runtime holds beside it.
    limit_bytes: u64,
    /// Processes and threads once the runtime is gone.
    tasks: u64,
    is_many_at_rest: bool,
}

impl SlotCage {
    pub(crate) fn new(slot: Slot, (own_bytes, limit_bytes): (u64, u64), tasks: u64, is_many_at_rest: bool) -> Self {
        Self {
            slot,
            own_bytes,
            limit_bytes,
            tasks,
            is_many_at_rest,
        }
    }

    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }
}

impl Cage for SlotCage {
    fn cpu_us(&self) -> u64 {
        self.slot.cpu_us()
    }

    fn peak_bytes(&self) -> u64 {
        let peak = self.slot.peak_bytes().saturating_sub(self.own_bytes);
        peak.min(self.limit_bytes)
    }

    fn forget_peak(&self) {
        self.slot.forget_peak();
    }

    fn memory_bytes(&self) -> u64 {
        self.slot.memory_bytes()
    }

    fn hit_memory_limit(&self) -> bool {
        self.slot.hit_memory_limit()
    }

    fn processes(&self) -> usize {
        self.slot.processes()
    }

    fn settle(&self) {
        if let Err(error) = self.slot.limit_tasks(self.tasks) {
            tracing::warn!(%error, "the number of a container's processes cannot be limited");
        }
    }

    fn is_many_at_rest(&self) -> bool {
        self.is_many_at_rest
    }

    fn freeze(&self, frozen: bool) -> bool {
        match self.slot.freeze(frozen) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, frozen, "a container's control group cannot be frozen or thawed");
                false
            }
        }
    }

    fn let_others_first(&self, yields: bool) {
        self.slot.let_others_first(yields);
    }

    fn kill(&self) {
        self.slot.kill();
    }
}
