//! Container images: read from a registry, a folder or a file, kept in parts, and unpacked by a confined process.
//!
//! ```text
//! developer's machine: Source (registry | OCI layout | archive) -> manifest, configuration, layers; every digest checked
//!                      layers cut into parts -> uploaded by their digests; a small bundle describes the image
//! controller:          Description::read(bundle) -> checked, kept like any bundle
//! provider:            Description::read(bundle) -> Layers::get(layer): parts -> confined process -> a directory
//! ```
//! Nobody but the developer's own machine talks to a registry. The bundle of an image holds its manifest and configuration byte by
//! byte, so the image's digest vouches for all of it, wherever it is.

#[cfg(target_os = "linux")]
mod account;
#[cfg(target_os = "linux")]
mod confined;
mod description;
mod digest;
#[cfg(all(test, target_os = "linux"))]
mod fuzz;
#[cfg(target_os = "linux")]
mod layers;
#[cfg(target_os = "linux")]
mod seccomp;
pub mod source;
#[cfg(all(test, target_os = "linux"))]
mod tests;
#[cfg(target_os = "linux")]
mod turns;
#[cfg(target_os = "linux")]
mod unpack;

#[cfg(target_os = "linux")]
pub use account::Account;
#[cfg(target_os = "linux")]
pub use confined::{UNPACK_ARGUMENT, unpack_main};
pub use description::{
    CONFIG, Description, Entry, Layer, MANIFEST, PART_BYTES, Parts, SETTINGS, Settings, bundle_of, parts_of_bundle,
};
pub use digest::{Sha256, Sha256Stream};
#[cfg(target_os = "linux")]
pub use layers::{Layers, LayersInUse, Unpacker};

use piecework_model::{Code, Rejection};

/// Layers of one image. Docker itself stops at 127.
pub const LAYERS_MAX: usize = 128;
/// Compressed bytes of all layers of an image together. An account's quota comes before it.
pub const IMAGE_BYTES_MAX: u64 = 2 << 30;
/// What a layer may take on disk once it is unpacked: a zip bomb ends here.
pub const UNPACKED_BYTES_MAX: u64 = 4 << 30;
/// Files, directories and links of one layer.
pub const ENTRIES_MAX: u64 = 200_000;
/// A manifest or a configuration. Those of large images have some tens of KiB.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;

pub(crate) fn bad(message: impl Into<String>) -> Rejection {
    Rejection::new(Code::ImageBad, message.into())
}

pub(crate) fn bad_layer(message: impl Into<String>) -> Rejection {
    Rejection::new(Code::ImageBadLayer, message.into())
}

pub(crate) fn too_large(message: impl Into<String>) -> Rejection {
    Rejection::new(Code::ImageTooLarge, message.into())
}
