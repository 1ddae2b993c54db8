//! The two engines' settings, and their compiled code on disk.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    path::{Path, PathBuf},
};

use piecework_model::{Digest, Language, Limits};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::WasmError;

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

/// The component at `wasm`, compiled: from `cache` if it was compiled before, else now, which takes seconds.
///
/// The cache must be writable by this user only: what lies there runs as native code. A file of another version or another
/// configuration has another name; a damaged one is refused when it is mapped.
pub(crate) fn compiled(language: Language, wasm: &Path, cache: &Path) -> Result<fs::File, WasmError> {
    let bytes = fs::read(wasm).map_err(|source| WasmError::Read {
        path: wasm.to_owned(),
        source,
    })?;
    let engine = engine_for(language, 1).map_err(WasmError::Engine)?;
    let compiled = cache.join(cached_name(&engine, wasm, &bytes));
    let failed = |source| WasmError::Cache {
        path: compiled.clone(),
        source,
    };
    if !compiled.is_file() {
        // Held until the file is there: several providers that start at once on one machine compile it once.
        let _turn = turn(&compiled).map_err(failed)?;
        if !compiled.is_file() {
            let code = engine.precompile_component(&bytes).map_err(WasmError::Compile)?;
            store(&compiled, &code).map_err(failed)?;
        }
    }
    fs::File::open(&compiled).map_err(failed)
}

/// Blocks while another process compiles the same.
fn turn(compiled: &Path) -> std::io::Result<fs::File> {
    create_private(compiled.parent().unwrap_or(Path::new(".")))?;
    let file = fs::File::create(compiled.with_extension("lock"))?;
    file.lock()?;
    Ok(file)
}

/// Named by what decides the machine code: the component, wasmtime's version and its settings.
fn cached_name(engine: &Engine, wasm: &Path, bytes: &[u8]) -> PathBuf {
    let mut settings = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut settings);
    let stem = wasm.file_stem().unwrap_or_default().to_string_lossy();
    let digest = Digest::of(bytes).to_string();
    format!("{stem}-{}-{:016x}.cwasm", &digest[..16], settings.finish()).into()
}

/// Whoever reads the file sees all of it or nothing.
fn store(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(code)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

fn create_private(directory: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}
