//! Messages from real servers. One executable, which is linked once.

#![allow(clippy::unwrap_used)]

mod amqp;
mod nats;
mod server;
