//! The two engines' settings.

use piecework_model::{Language, Limits};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// CPython's deepest recursion and QuickJS's both fit; only touched pages are held.
const WASM_STACK_BYTES: usize = 4 << 20;
/// Room for the host's own frames below the guest's.
const ASYNC_STACK_BYTES: usize = WASM_STACK_BYTES + (1 << 20);
/// A CPython component is linked from about a dozen core modules; each counts.
const CORE_INSTANCES_PER_COMPONENT: u32 = 48;
const TABLES_PER_COMPONENT: u32 = 8;
/// CPython's table of functions has some 15,000 entries.
const TABLE_ELEMENTS: usize = 40_000;
const COMPONENT_INSTANCE_BYTES: usize = 1 << 20;
const CORE_INSTANCE_BYTES: usize = 1 << 20;
/// What a freed slot keeps instead of giving it back to the kernel: page faults are dearer than copying. About what a start
/// and one call write.
const KEPT_JAVASCRIPT_BYTES: usize = 512 << 10;
const KEPT_PYTHON_BYTES: usize = 2 << 20;
const KEPT_STACK_BYTES: usize = 64 << 10;
/// Freed slots that keep it: a worker serves one owner, whose memory this is.
const KEPT_SLOTS_MAX: u32 = 8;

/// An engine for one language with room for `instances_max` live instances. Reserves address space, not memory.
pub(crate) fn engine_for(language: Language, instances_max: u32) -> wasmtime::Result<Engine> {
    let kept_bytes = match language {
        Language::Python => KEPT_PYTHON_BYTES,
        Language::JavaScript => KEPT_JAVASCRIPT_BYTES,
        Language::Image => unreachable!("no image is loaded here"),
    };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances_max)
        .total_core_instances(instances_max.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(instances_max)
        .total_tables(instances_max.saturating_mul(TABLES_PER_COMPONENT))
        .total_stacks(instances_max.saturating_mul(2))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_memories_per_component(1)
        .max_component_instance_size(COMPONENT_INSTANCE_BYTES)
        .max_core_instance_size(CORE_INSTANCE_BYTES)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(usize::try_from(Limits::MEMORY_BYTES_MAX).unwrap_or(usize::MAX))
        .linear_memory_keep_resident(kept_bytes)
        .async_stack_keep_resident(KEPT_STACK_BYTES)
        .max_unused_warm_slots(KEPT_SLOTS_MAX)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_init_cow(true)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(ASYNC_STACK_BYTES)
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        .wasm_component_model(true)
        // All exports are plain, and plain calls are cheaper without it.
        .wasm_component_model_async(false)
        .concurrency_support(false);
    Engine::new(&config)
}
