//! The functions that the components export: runtimes/wasm-*/world.wit.

use wasmtime::{
    Store,
    component::{Component, ComponentExportIndex, ComponentNamedList, Instance, Lift, Lower, TypedFunc},
};

use crate::host::Host;

/// A code of [`crate::answer::Answer`] and its text.
pub(crate) type Reply = ((u8, String),);

/// Says nothing: what becomes of a JavaScript handler is told by `host-answer`.
pub(crate) type Ran = (u32,);

pub(crate) struct Python {
    pub(crate) load: TypedFunc<(String, Vec<u8>), Reply>,
    pub(crate) compiled: TypedFunc<(), (Vec<u8>,)>,
    pub(crate) call: TypedFunc<(String, String, u64, String, bool), Reply>,
}

pub(crate) struct JavaScript {
    pub(crate) load: TypedFunc<(String,), Ran>,
    pub(crate) start: TypedFunc<(String, String, f64, String, bool), Ran>,
    pub(crate) soonest: TypedFunc<(), (f64,)>,
    pub(crate) tick: TypedFunc<(), Ran>,
}

/// Where the exports are, looked up once per component.
pub(crate) struct Indexes<const N: usize>([ComponentExportIndex; N]);

impl<const N: usize> Indexes<N> {
    pub(crate) fn of(component: &Component, names: [&str; N]) -> wasmtime::Result<Self> {
        let missing = |name: &str| wasmtime::Error::msg(format!("the component does not export `{name}`"));
        let found: Result<Vec<_>, _> = names
            .iter()
            .map(|name| component.get_export_index(None, name).ok_or_else(|| missing(name)))
            .collect();
        let found = found?.try_into().map_err(|_| missing("every name"))?;
        Ok(Self(found))
    }

    fn get<P, R>(&self, at: usize, store: &mut Store<Host>, instance: &Instance) -> wasmtime::Result<TypedFunc<P, R>>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        instance.get_typed_func(store, self.0[at])
    }
}

pub(crate) const PYTHON: [&str; 3] = ["load", "compiled", "call"];
pub(crate) const JAVASCRIPT: [&str; 4] = ["load", "start", "soonest", "tick"];

impl Indexes<3> {
    pub(crate) fn python(&self, store: &mut Store<Host>, instance: &Instance) -> wasmtime::Result<Python> {
        Ok(Python {
            load: self.get(0, store, instance)?,
            compiled: self.get(1, store, instance)?,
            call: self.get(2, store, instance)?,
        })
    }
}

impl Indexes<4> {
    pub(crate) fn javascript(&self, store: &mut Store<Host>, instance: &Instance) -> wasmtime::Result<JavaScript> {
        Ok(JavaScript {
            load: self.get(0, store, instance)?,
            start: self.get(1, store, instance)?,
            soonest: self.get(2, store, instance)?,
            tick: self.get(3, store, instance)?,
        })
    }
}
