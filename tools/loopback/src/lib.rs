//! Free ports of the loopback address, for whoever must name them before anybody listens there: a local network, and tests.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    ops::Range,
};

/// The smallest port that is given.
const FIRST: u16 = 10_000;
/// Tries for each port: most of the range is free on any machine.
const TRIES_PER_PORT: usize = 1_000;

/// `count` different addresses at which nobody listens. The ports lie below those that the system gives to outgoing
/// connections: one of those may be lent to somebody by the time a server starts, or starts again. All are held until all
/// are known; whoever takes one after that makes its server fail to listen.
///
/// # Errors
/// Where the range has no room for as many.
pub fn free_addresses(count: usize) -> io::Result<Vec<SocketAddr>> {
    let range = lent_to_nobody();
    let tried = (0..count * TRIES_PER_PORT).map(|_| rand::random_range(range.clone()));
    let free = tried.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    let held: Vec<_> = free.take(count).collect();
    if held.len() < count {
        return Err(io::Error::other(format!("no {count} free ports in {range:?}")));
    }
    held.iter().map(TcpListener::local_addr).collect()
}

/// Up to the first port for outgoing connections, by the system's setting; Linux's default where that cannot be read or leaves
/// no room below.
fn lent_to_nobody() -> Range<u16> {
    let lent = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = lent.split_whitespace().next().and_then(|first| first.parse().ok());
    FIRST..first.filter(|first| *first >= 2 * FIRST).unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_or_is_one_that_the_system_lends_to_others() {
        let given = free_addresses(33).expect("free ports");
        let ports: BTreeSet<u16> = given.iter().map(SocketAddr::port).collect();
        assert_eq!(ports.len(), 33);
        assert!(ports.iter().all(|port| lent_to_nobody().contains(port)), "{ports:?}");
    }
}
