//! Proxies in front of a server, which say for whom they ask: limits are for those.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The addresses of proxies that are believed. Nobody else's `X-Forwarded-For` is read.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Arc<[IpAddr]>);

impl FromIterator<IpAddr> for Proxies {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        Self(addresses.into_iter().map(|address| address.to_canonical()).collect())
    }
}

impl Proxies {
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Where a request comes from that came over this connection. Each proxy adds at the end of the list whom it heard: the last
    /// that is no proxy's is the caller, and whatever stands before it is the caller's own invention.
    pub(crate) fn caller(&self, headers: &HeaderMap, connection: SocketAddr) -> SocketAddr {
        if self.0.is_empty() || !self.has(connection.ip()) {
            return connection;
        }
        let lists = headers.get_all(FORWARDED_FOR).iter().rev();
        let heard = lists.flat_map(|list| list.as_bytes().rsplit(|byte| *byte == b','));
        for address in heard {
            match parsed(address) {
                Some(address) if self.has(address) => {}
                Some(address) => return SocketAddr::new(address, 0),
                None => return connection,
            }
        }
        connection
    }
}

/// With or without a port.
fn parsed(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?.trim();
    text.parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_proxies_heard_is_believed() {
        let proxies: Proxies = ["10.0.0.1", "10.0.0.2"]
            .map(|text| text.parse().expect("an address"))
            .into_iter()
            .collect();
        let caller = |from: &str, lists: &[&str]| {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(FORWARDED_FOR, list.parse().expect("a value"));
            }
            let from = SocketAddr::new(from.parse().expect("an address"), 9);
            proxies.caller(&headers, from).ip().to_string()
        };
        let table: [(&str, &[&str], &str); 9] = [
            ("10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
            ("::ffff:10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
            ("192.0.2.9", &["192.0.2.7"], "192.0.2.9"),
            ("10.0.0.1", &["1.2.3.4, 192.0.2.7"], "192.0.2.7"),
            ("10.0.0.1", &["1.2.3.4", "192.0.2.7 , 10.0.0.2"], "192.0.2.7"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("10.0.0.1", &["192.0.2.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
        ];
        for (from, lists, due) in table {
            assert_eq!(caller(from, lists), due, "{from} {lists:?}");
        }
        let none = Proxies::default();
        let from = SocketAddr::from(([10, 0, 0, 1], 9));
        let headers = HeaderMap::from_iter([(
            FORWARDED_FOR.parse().expect("a name"),
            "1.2.3.4".parse().expect("a value"),
        )]);
        assert_eq!(none.caller(&headers, from), from);
    }
}
