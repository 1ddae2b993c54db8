//! The HTTP API on a whole controller in one process.

mod pages;
mod portal;
mod private;
mod routing;
