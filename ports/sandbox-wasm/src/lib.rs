//! The wasm backend: QuickJS and CPython components in wasmtime.
