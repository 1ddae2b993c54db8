//! A server on a free port, and strangers who mean it no good.

mod heads;
mod rooms;
mod served;
mod tls;
