//! The HTTP contract: the client, and that each code has a test. One executable, which is linked once.

mod client;
mod codes;
mod fuzz;
