//! The built-in adapter: the suite, SIGKILL, a full disk. One executable, which is linked once.

mod conformance;
mod copied;
mod crash;
mod disk_full;
mod suite;
