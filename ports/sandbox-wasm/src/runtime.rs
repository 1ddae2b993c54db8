//! One language's engine and compiled component: makes guests.

use std::{path::Path, sync::Arc};

use piecework_model::Language;
use wasmtime::{
    Engine, Store,
    component::{InstancePre, Linker},
};

use crate::{
    WasmError, engine,
    exports::{self, Indexes, JavaScript, Python},
    host::{self, Files, Host, Memory},
    logs::Logs,
    ticker::Ticker,
};

/// An epoch may end right after a call began; two give it a whole tick.
const FIRST_TICKS: u64 = 2;

pub(crate) struct Runtime {
    pub(crate) ticker: Arc<Ticker>,
    engine: Engine,
    component: InstancePre<Host>,
    exports: ExportsOf,
}

enum ExportsOf {
    Python(Indexes<3>),
    JavaScript(Indexes<4>),
}

pub(crate) struct Guest {
    pub(crate) store: Store<Host>,
    pub(crate) functions: Functions,
}

pub(crate) enum Functions {
    Python(Python),
    JavaScript(JavaScript),
}

impl Runtime {
    /// Compiles the component unless the cache has it: seconds, blocking.
    pub(crate) fn new(
        language: Language,
        wasm: &Path,
        cache: &Path,
        instances_max: u32,
        ticker: &Arc<Ticker>,
    ) -> Result<Self, WasmError> {
        let engine = engine::engine_for(language, instances_max).map_err(WasmError::engine)?;
        let component = engine::component_of(&engine, wasm, cache)?;
        let mut linker = Linker::new(&engine);
        host::link_wasi(&mut linker).map_err(WasmError::engine)?;
        let exports = match language {
            Language::Python => {
                host::link_python(&mut linker).map_err(WasmError::engine)?;
                ExportsOf::Python(Indexes::of(&component, exports::PYTHON).map_err(WasmError::engine)?)
            }
            Language::JavaScript => {
                host::link_javascript(&mut linker).map_err(WasmError::engine)?;
                ExportsOf::JavaScript(Indexes::of(&component, exports::JAVASCRIPT).map_err(WasmError::engine)?)
            }
        };
        let component = linker.instantiate_pre(&component).map_err(WasmError::engine)?;
        ticker.drive(&engine);
        Ok(Self {
            ticker: Arc::clone(ticker),
            engine,
            component,
            exports,
        })
    }

    /// A store for one guest, which does not run yet.
    pub(crate) fn store(&self, logs: Logs, files: Files<'_>) -> wasmtime::Result<Store<Host>> {
        // What the component begins with is not the program's; its limit is set once it is known.
        let host = Host::new(Arc::clone(&self.ticker), Memory::new(u64::MAX), logs, files)?;
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| &mut host.memory);
        store.epoch_deadline_async_yield_and_update(1);
        renew_epoch(&mut store);
        Ok(store)
    }

    pub(crate) async fn guest(&self, mut store: Store<Host>) -> wasmtime::Result<Guest> {
        let instance = self.component.instantiate_async(&mut store).await?;
        let functions = match &self.exports {
            ExportsOf::Python(indexes) => Functions::Python(indexes.python(&mut store, &instance)?),
            ExportsOf::JavaScript(indexes) => Functions::JavaScript(indexes.javascript(&mut store, &instance)?),
        };
        Ok(Guest { store, functions })
    }
}

/// To be called before each entry: the store's deadline lies in the past when the guest has rested.
pub(crate) fn renew_epoch(store: &mut Store<Host>) {
    store.set_epoch_deadline(FIRST_TICKS);
}
