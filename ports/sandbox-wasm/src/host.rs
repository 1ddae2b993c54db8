//! What one instance's store holds, and what the guest may call.

use std::{sync::Arc, time::Duration};

use rand::Rng;
use wasmtime::{
    ResourceLimiter, StoreContextMut,
    component::{Linker, LinkerInstance, ResourceTable},
};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, p2::bindings::clocks};

use crate::{
    clock::{self, Clock, ClockView},
    flow::{self, Flow},
    logs::Logs,
    meter::Deadline,
    modules::{self, Modules, NAME_BYTES_MAX},
    ticker::Ticker,
};

/// The most random bytes of one request; the runner asks for no more.
const RANDOM_BYTES_MAX: usize = 64 << 10;
/// Open files, streams and timers of one guest: each costs its worker some hundred bytes, and a file a descriptor.
const RESOURCES_MAX: usize = 1_024;

pub(crate) struct Host {
    wasi: WasiCtx,
    table: ResourceTable,
    ticker: Arc<Ticker>,
    pub(crate) memory: Memory,
    pub(crate) logs: Logs,
    /// When the present load or call ends, at the latest.
    pub(crate) deadline: Deadline,
    /// What a JavaScript runner said last; Python's answers are return values.
    pub(crate) answer: Option<(u8, String)>,
    pub(crate) flow: Flow,
    modules: Option<Arc<Modules>>,
    /// Whether the program's own code has run: what is imported from now on, a call imports.
    pub(crate) has_loaded: bool,
    /// The last import that the bundle could not satisfy, while loading.
    pub(crate) missing: Option<String>,
}

/// The guest called `process.exit`.
#[derive(Debug, thiserror::Error)]
#[error("the function exited with code {0}")]
pub(crate) struct Exited(pub(crate) i32);

/// The guest touched what the component lacks.
#[derive(Debug, thiserror::Error)]
#[error("touched {0}")]
pub(crate) struct Touched(pub(crate) String);

/// A longer name of what was touched is cut.
const TOUCHED_BYTES_MAX: usize = 256;

/// Ends the guest where it stands: it cannot catch that.
fn touch(_: StoreContextMut<'_, Host>, (what,): (String,)) -> wasmtime::Result<()> {
    Err(touched(what))
}

fn touched(mut what: String) -> wasmtime::Error {
    what.truncate(what.floor_char_boundary(TOUCHED_BYTES_MAX));
    wasmtime::Error::new(Touched(what))
}

/// Linear memory against its limit. A refused growth is remembered: the guest may report it in its own way, or die.
pub(crate) struct Memory {
    pub(crate) bytes: u64,
    bytes_max: u64,
    pub(crate) refused: bool,
}

impl Memory {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self {
            bytes: 0,
            bytes_max,
            refused: false,
        }
    }

    pub(crate) fn limit(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes - (current as u64).min(self.bytes) + desired as u64;
        if bytes > self.bytes_max {
            self.refused = true;
            return Ok(false);
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, _desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        // The pool's slots bound tables.
        Ok(true)
    }
}

impl Host {
    pub(crate) fn new(ticker: Arc<Ticker>, memory: Memory, logs: Logs, files: Files<'_>) -> wasmtime::Result<Self> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(logs.clone())
            .stderr(logs.at(piecework_sandbox::LogLevel::Error));
        wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        // Reads of the bundle come from the page cache; handing each to another thread would cost more, and needs tokio.
        wasi.allow_blocking_current_thread(true);
        let modules = match files {
            Files::Directory(path) => {
                wasi.preopened_dir(path, "/", FsPerms::ReadOnly)?;
                None
            }
            Files::Modules(modules) => Some(modules),
        };
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Ok(Self {
            wasi: wasi.build(),
            table,
            deadline: Deadline::after(Duration::ZERO, &ticker.freeze),
            ticker,
            memory,
            logs,
            answer: None,
            flow: Flow::default(),
            modules,
            has_loaded: false,
            missing: None,
        })
    }

    fn clock(&mut self) -> ClockView<'_> {
        ClockView {
            table: &mut self.table,
            ticker: &self.ticker,
            deadline: self.deadline,
        }
    }
}

/// How an instance sees its bundle.
pub(crate) enum Files<'a> {
    Directory(&'a std::path::Path),
    Modules(Arc<Modules>),
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// WASI, of which nothing is granted but clocks, randomness, the logs and the bundle's directory.
pub(crate) fn link_wasi(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    clocks::monotonic_clock::add_to_linker::<Host, Clock>(linker, Host::clock)
}

/// The imports of runtimes/wasm-python/world.wit.
pub(crate) fn link_python(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut root = linker.root();
    root.func_wrap("touch", touch)?;
    flow::link_head(&mut root, "send-head")?;
    flow::link_chunk(&mut root, "send-chunk")?;
    flow::link_body(&mut root, "next-part")
}

/// The imports of runtimes/wasm-javascript/world.wit, and the engine's module loader.
pub(crate) fn link_javascript(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut root = linker.root();
    root.func_wrap("host-log", |store: StoreContextMut<'_, Host>, (text,): (String,)| {
        store.data().logs.append(text.as_bytes());
        Ok(())
    })?;
    root.func_wrap(
        "host-answer",
        |mut store: StoreContextMut<'_, Host>, (code, text): (u8, String)| {
            store.data_mut().answer = Some((code, text));
            Ok(())
        },
    )?;
    root.func_wrap("host-touch", touch)?;
    flow::link_head(&mut root, "host-head")?;
    flow::link_chunk(&mut root, "host-chunk")?;
    flow::link_text(&mut root, "host-text")?;
    flow::link_body(&mut root, "host-body")?;
    root.func_wrap("host-random", |_: StoreContextMut<'_, Host>, (length,): (u32,)| {
        Ok((random(length as usize),))
    })?;
    root.func_wrap("host-now", |_: StoreContextMut<'_, Host>, (): ()| {
        Ok((clock::now_ns() as f64 / 1e6,))
    })?;
    root.func_wrap(
        "host-exit",
        |_: StoreContextMut<'_, Host>, (code,): (i32,)| -> wasmtime::Result<()> {
            Err(wasmtime::Error::new(Exited(code)))
        },
    )?;
    link_reserved(&mut root)?;
    link_modules(linker)
}

/// What runtimes/wasm-javascript/plain.mjs puts where only async calls would lead.
fn link_reserved(root: &mut LinkerInstance<'_, Host>) -> wasmtime::Result<()> {
    fn refuse<R>() -> wasmtime::Result<R> {
        Err(wasmtime::Error::msg("the runner made an async call"))
    }
    root.func_wrap("reserved-none", |_: StoreContextMut<'_, Host>, (): ()| refuse::<()>())?;
    root.func_wrap("reserved-take", |_: StoreContextMut<'_, Host>, _: (u32,)| {
        refuse::<()>()
    })?;
    root.func_wrap("reserved-pair", |_: StoreContextMut<'_, Host>, _: (u32, u32)| {
        refuse::<()>()
    })?;
    root.func_wrap("reserved-give", |_: StoreContextMut<'_, Host>, (): ()| {
        refuse::<(u32,)>()
    })?;
    root.func_wrap("reserved-swap", |_: StoreContextMut<'_, Host>, _: (u32,)| {
        refuse::<(u32,)>()
    })
}

type Told = (Result<String, String>,);

fn link_modules(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut loader = linker.instance("local:init/module-loader")?;
    loader.func_wrap(
        "resolve",
        |mut store: StoreContextMut<'_, Host>, (from, name): (String, String)| -> wasmtime::Result<Told> {
            let host = store.data_mut();
            let Some(modules) = host.modules.clone() else {
                return Ok((Err("there is no bundle".to_owned()),));
            };
            let resolved = modules.resolve(&from, &name);
            if resolved.is_err() && (host.has_loaded || modules::is_nodes(&name)) {
                // Node has it, or finds it by rules of its own, or says in its own words that it does not.
                return Err(touched(format!("the module `{name}`")));
            }
            if resolved.is_err() && !name.starts_with(['.', '/']) && name.len() <= NAME_BYTES_MAX {
                host.missing = Some(name);
            }
            Ok((resolved,))
        },
    )?;
    loader.func_wrap(
        "load",
        |store: StoreContextMut<'_, Host>, (path,): (String,)| -> wasmtime::Result<Told> {
            let source = store.data().modules.as_ref().map(|modules| modules.source(&path));
            Ok((source.unwrap_or_else(|| Err("there is no bundle".to_owned())),))
        },
    )?;
    Ok(())
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length.min(RANDOM_BYTES_MAX)];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}
