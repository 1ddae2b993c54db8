//! One language's engine and compiled component: makes guests.
//!
//! What can be made before a zygote forks is [`Prepared`]: all of its workers share those pages.

use std::{path::Path, sync::Arc};

use piecework_model::Language;
use wasmtime::{
    Engine, Store,
    component::{Component, InstancePre, Linker},
};

use crate::{
    engine,
    exports::{self, Indexes, JavaScript, Python},
    host::{self, Files, Host, Memory},
    logs::Logs,
    ticker::Ticker,
};

/// An epoch may end right after a call began; two give it a whole tick.
const FIRST_TICKS: u64 = 2;

/// Starts no thread.
pub(crate) struct Prepared {
    language: Language,
    engine: Engine,
    component: InstancePre<Host>,
    exports: ExportsOf,
}

pub(crate) struct Runtime {
    pub(crate) ticker: Arc<Ticker>,
    prepared: Prepared,
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

impl Prepared {
    /// Maps a component that [`crate::component::compiled`] has compiled, with room for so many live instances.
    ///
    /// # Safety
    /// The file is executed as native code: nobody but this user may have written it.
    pub(crate) unsafe fn new(language: Language, compiled: &Path, instances_max: u32) -> wasmtime::Result<Self> {
        let engine = engine::engine_for(language, instances_max)?;
        // SAFETY: the caller vouches for the file; wasmtime checks its version and settings.
        let component = unsafe { Component::deserialize_file(&engine, compiled) }?;
        let mut linker = Linker::new(&engine);
        host::link_wasi(&mut linker)?;
        let exports = match language {
            Language::Python => {
                host::link_python(&mut linker)?;
                ExportsOf::Python(Indexes::of(&component, exports::PYTHON)?)
            }
            Language::Image => unreachable!("no image is loaded here"),
            Language::JavaScript => {
                host::link_javascript(&mut linker)?;
                ExportsOf::JavaScript(Indexes::of(&component, exports::JAVASCRIPT)?)
            }
        };
        let component = linker.instantiate_pre(&component)?;
        Ok(Self {
            language,
            engine,
            component,
            exports,
        })
    }
}

impl Runtime {
    /// Starts the ticker's thread.
    pub(crate) fn new(prepared: Prepared) -> std::io::Result<Self> {
        let ticker = Ticker::start()?;
        ticker.drive(&prepared.engine);
        Ok(Self { ticker, prepared })
    }

    pub(crate) fn language(&self) -> Language {
        self.prepared.language
    }

    /// A store for one guest, which does not run yet.
    pub(crate) fn store(&self, logs: Logs, files: Files<'_>) -> wasmtime::Result<Store<Host>> {
        // What the component begins with is not the program's; its limit is set once it is known.
        let host = Host::new(Arc::clone(&self.ticker), Memory::new(u64::MAX), logs, files)?;
        let mut store = Store::new(&self.prepared.engine, host);
        store.limiter(|host| &mut host.memory);
        store.epoch_deadline_async_yield_and_update(1);
        renew_epoch(&mut store);
        Ok(store)
    }

    pub(crate) async fn guest(&self, mut store: Store<Host>) -> wasmtime::Result<Guest> {
        let instance = self.prepared.component.instantiate_async(&mut store).await?;
        let functions = match &self.prepared.exports {
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
