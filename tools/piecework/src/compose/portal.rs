//! The portal that this executable carries, as `build.rs` packed it; no file where `portal/build.sh` had not run.

include!(concat!(env!("OUT_DIR"), "/portal.rs"));
