//! A function's network allow list, and which addresses are public.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use borsh::{BorshDeserialize, BorshSerialize, io};
use serde::{Deserialize, Serialize};

use crate::{Code, Rejection};

/// Destinations that a function declared. Empty, as it is by default: the network is off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct EgressList(Vec<Destination>);

/// One entry: `api.example.com:443`, `*.example.org:443` or `10.1.2.3:5432`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    pub host: Host,
    pub port: u16,
}

impl BorshSerialize for EgressList {
    /// As its entries' texts.
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        BorshSerialize::serialize(&Vec::<String>::from(self.clone()), writer)
    }
}

impl BorshDeserialize for EgressList {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        Self::try_from(Vec::<String>::deserialize_reader(reader)?).map_err(unreadable)
    }
}

fn unreadable(rejection: Rejection) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, rejection.message)
}

/// Whom an entry means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Name(String),
    /// Every name below this one, at any depth, but not the name itself.
    Below(String),
    Address(Ipv4Addr),
}

impl EgressList {
    /// More entries than one function needs; each is compared at each connection.
    pub const ENTRIES_MAX: usize = 64;
    /// Different ports: each is a listening socket of every instance.
    pub const PORTS_MAX: usize = 12;

    /// Rejects `egress.bad_destination` and `egress.too_many`.
    pub fn parse(entries: &[String]) -> Result<Self, Rejection> {
        if entries.len() > Self::ENTRIES_MAX {
            return Err(too_many(format!("at most {} destinations", Self::ENTRIES_MAX)));
        }
        let mut list = Vec::with_capacity(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            let destination: Destination = entry
                .parse()
                .map_err(|rejection: Rejection| rejection.field(format!("egress[{at}]")))?;
            if !list.contains(&destination) {
                list.push(destination);
            }
        }
        let list = Self(list);
        if list.ports().len() > Self::PORTS_MAX {
            return Err(too_many(format!("at most {} different ports", Self::PORTS_MAX)));
        }
        Ok(list)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn ports(&self) -> BTreeSet<u16> {
        self.0.iter().map(|destination| destination.port).collect()
    }

    /// Addresses that stand on the list as such.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.0.iter().filter_map(|destination| match &destination.host {
            Host::Address(address) => Some(*address),
            Host::Name(_) | Host::Below(_) => None,
        })
    }

    /// Whether the name is on the list with any port. `name` in lower case, without a dot at its end.
    pub fn knows(&self, name: &str) -> bool {
        self.0.iter().any(|destination| destination.host.is(name))
    }

    /// `name` in lower case, without a dot at its end.
    pub fn allows_name(&self, name: &str, port: u16) -> bool {
        self.0
            .iter()
            .any(|destination| destination.port == port && destination.host.is(name))
    }

    pub fn allows_address(&self, address: Ipv4Addr, port: u16) -> bool {
        self.0
            .iter()
            .any(|destination| destination.port == port && destination.host == Host::Address(address))
    }
}

fn too_many(message: String) -> Rejection {
    Rejection::new(Code::EgressTooMany, format!("an allow list may have {message}"))
        .hint("use fewer entries, or a wildcard like *.example.org:443")
        .field("egress")
}

impl TryFrom<Vec<String>> for EgressList {
    type Error = Rejection;

    fn try_from(entries: Vec<String>) -> Result<Self, Rejection> {
        Self::parse(&entries)
    }
}

impl From<EgressList> for Vec<String> {
    fn from(list: EgressList) -> Self {
        list.0.iter().map(Destination::to_string).collect()
    }
}

impl Host {
    fn is(&self, name: &str) -> bool {
        match self {
            Self::Name(known) => known == name,
            Self::Below(parent) => name
                .strip_suffix(parent.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            Self::Address(_) => false,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Below(parent) => write!(f, "*.{parent}:{}", self.port),
            Host::Address(address) => write!(f, "{address}:{}", self.port),
        }
    }
}

impl FromStr for Destination {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Rejection> {
        let bad = |why: &str| {
            Rejection::new(Code::EgressBadDestination, format!("`{text}` is not HOST:PORT: {why}"))
                .hint("use the form api.example.com:443, *.example.org:443 or 203.0.113.7:5432")
                .field("egress")
        };
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(bad("the port is missing"));
        };
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port.parse::<u16>() {
            Ok(port) if port > 0 && digits => port,
            Ok(_) | Err(_) => return Err(bad("the port must be a number from 1 to 65535")),
        };
        let host = parse_host(host).map_err(bad)?;
        Ok(Self { host, port })
    }
}

fn parse_host(host: &str) -> Result<Host, &'static str> {
    let host = host.to_ascii_lowercase();
    if host.contains(':') || host.starts_with('[') {
        return Err("IPv6 addresses are not supported; use a name");
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return if INSIDE.contains(IpAddr::V4(address)) {
            Err("198.18.0.0/15 is reserved for names inside a sandbox")
        } else {
            Ok(Host::Address(address))
        };
    }
    match host.strip_prefix("*.") {
        Some(parent) if is_name(parent) => Ok(Host::Below(parent.to_owned())),
        Some(_) => Err("a wildcard must come before a name of at least two labels, like *.example.org"),
        None if is_name(&host) => Ok(Host::Name(host)),
        None => Err("the host must be a full name with a dot, a wildcard *.NAME or an IPv4 address"),
    }
}

/// A DNS name of at least two labels; the last is not a number, because some would read that as an address.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with(|first: char| first.is_ascii_digit());
    name.len() <= 253 && name.contains('.') && name.split('.').all(label) && !numeric && last != "localhost"
}

/// A block of addresses, as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl BorshSerialize for Network {
    /// As its text.
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        BorshSerialize::serialize(&self.to_string(), writer)
    }
}

impl BorshDeserialize for Network {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        Self::try_from(String::deserialize_reader(reader)?).map_err(unreadable)
    }
}

/// The addresses that stand for names inside a sandbox: the block for benchmarks, which is not routed (RFC 2544).
const INSIDE: Network = v4(198, 18, 0, 15);

const fn v4(a: u8, b: u8, c: u8, prefix: u8) -> Network {
    Network {
        address: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)),
        prefix,
    }
}

const fn v6(a: u16, b: u16, prefix: u8) -> Network {
    Network {
        address: IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0)),
        prefix,
    }
}

/// What the registry of special-purpose IPv4 addresses does not call globally reachable, and multicast.
const NOT_PUBLIC_V4: [Network; 15] = [
    v4(0, 0, 0, 8),
    v4(10, 0, 0, 8),
    v4(100, 64, 0, 10),
    v4(127, 0, 0, 8),
    LINK_LOCAL_V4,
    v4(172, 16, 0, 12),
    v4(192, 0, 0, 24),
    v4(192, 0, 2, 24),
    v4(192, 88, 99, 24),
    v4(192, 168, 0, 16),
    INSIDE,
    v4(198, 51, 100, 24),
    v4(203, 0, 113, 24),
    v4(224, 0, 0, 4),
    v4(240, 0, 0, 4),
];
/// Holds the metadata services of clouds.
const LINK_LOCAL_V4: Network = v4(169, 254, 0, 16);
const LINK_LOCAL_V6: Network = v6(0xfe80, 0, 10);
/// The metadata service of one cloud on IPv6.
const METADATA_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254));
const UNICAST_V6: Network = v6(0x2000, 0, 3);
/// Within global unicast: protocol assignments with Teredo, documentation (two blocks), and 6to4, which wraps any IPv4
/// address.
const NOT_PUBLIC_V6: [Network; 4] = [
    v6(0x2001, 0, 23),
    v6(0x2001, 0xdb8, 32),
    v6(0x2002, 0, 16),
    v6(0x3fff, 0, 20),
];

impl Network {
    /// Whether the address is in this network. An IPv4 address written as IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |bits: u32| bits.saturating_sub(u32::from(self.prefix));
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(shift(128)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Network {
    type Err = Rejection;

    /// An address alone is a block of one.
    fn from_str(text: &str) -> Result<Self, Rejection> {
        let bad = || {
            Rejection::new(
                Code::NetworkMalformed,
                format!("`{text}` is not a network; use the form 10.0.0.0/8"),
            )
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| bad())?;
        if prefix > bits {
            Err(bad())
        } else {
            Ok(Self { address, prefix })
        }
    }
}

impl TryFrom<String> for Network {
    type Error = Rejection;

    fn try_from(text: String) -> Result<Self, Rejection> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

/// Which addresses a provider lets functions reach: whatever is public, and private networks that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressPolicy {
    pub private: Vec<Network>,
}

impl EgressPolicy {
    /// Link-local addresses are never permitted, whatever networks are named: clouds hand out machine credentials
    /// there.
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let never = LINK_LOCAL_V4.contains(address) || LINK_LOCAL_V6.contains(address) || address == METADATA_V6;
        !never && (is_public(address) || self.names(address))
    }

    /// Whether a network that the provider names holds the address.
    pub fn names(&self, address: IpAddr) -> bool {
        self.private.iter().any(|network| network.contains(address))
    }

    /// The first address on the list that functions may not reach here.
    pub fn forbidden(&self, list: &EgressList) -> Option<Ipv4Addr> {
        list.addresses().find(|address| !self.permits(IpAddr::V4(*address)))
    }
}

/// Whether an address is reachable from anywhere, by the registries of special-purpose addresses (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    let among = |networks: &[Network]| networks.iter().any(|network| network.contains(address));
    match address {
        IpAddr::V4(_) => !among(&NOT_PUBLIC_V4),
        IpAddr::V6(_) => UNICAST_V6.contains(address) && !among(&NOT_PUBLIC_V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Result<EgressList, Rejection> {
        EgressList::parse(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>())
    }

    fn good(entries: &[&str]) -> EgressList {
        list(entries).expect("a good list")
    }

    #[test]
    fn a_name_is_that_name_at_that_port() {
        let list = good(&["API.example.com:443", "10.1.2.3:5432"]);
        assert!(list.allows_name("api.example.com", 443));
        for (name, port) in [
            ("api.example.com", 80),
            ("example.com", 443),
            ("x.api.example.com", 443),
            ("10.1.2.3", 5432),
            ("evilapi.example.com", 443),
        ] {
            assert!(!list.allows_name(name, port), "{name}:{port}");
        }
        assert!(list.allows_address(Ipv4Addr::new(10, 1, 2, 3), 5432));
        assert!(!list.allows_address(Ipv4Addr::new(10, 1, 2, 3), 443));
    }

    #[test]
    fn a_wildcard_is_whole_labels_and_not_the_name_itself() {
        let list = good(&["*.example.org:443"]);
        assert!(list.allows_name("a.example.org", 443) && list.allows_name("b.a.example.org", 443));
        for name in ["example.org", ".example.org", "evilexample.org", "example.org.evil.com"] {
            assert!(!list.allows_name(name, 443), "{name}");
        }
    }

    #[test]
    fn what_is_no_destination_is_refused_with_its_place() {
        for entry in [
            "",
            "example.com",
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:+443",
            "example.com:https",
            "*:443",
            "*.com:443",
            "a.*.com:443",
            "ex*.example.com:443",
            "localhost:80",
            "a.localhost:80",
            "http://example.com:80",
            "exa mple.com:80",
            "-a.example.com:80",
            "example..com:80",
            "1.2.3:80",
            "0x7f.1:80",
            "[::1]:80",
            "::1:80",
            "198.18.0.1:80",
            "example.com.:80",
            "bücher.example:80",
        ] {
            let refused = list(&["example.com:443", entry]).expect_err(entry);
            assert_eq!(refused.code, Code::EgressBadDestination, "{entry}");
            assert_eq!(refused.field.as_deref(), Some("egress[1]"), "{entry}");
        }
    }

    #[test]
    fn a_list_is_bounded() {
        let many: Vec<String> = (0..=EgressList::ENTRIES_MAX)
            .map(|n| format!("h{n}.example.com:443"))
            .collect();
        assert_eq!(
            EgressList::parse(&many).expect_err("too many").code,
            Code::EgressTooMany
        );
        assert!(EgressList::parse(&many[1..]).is_ok());
        let ports: Vec<String> = (0..=EgressList::PORTS_MAX)
            .map(|n| format!("example.com:{}", n + 1))
            .collect();
        assert_eq!(
            EgressList::parse(&ports).expect_err("too many").code,
            Code::EgressTooMany
        );
        assert!(EgressList::parse(&ports[1..]).is_ok());
    }

    #[test]
    fn a_list_is_written_as_it_is_read() {
        let list = good(&[
            "api.example.com:443",
            "*.example.org:443",
            "10.1.2.3:5432",
            "api.example.com:443",
        ]);
        let json = serde_json::to_string(&list).expect("strings");
        assert_eq!(json, r#"["api.example.com:443","*.example.org:443","10.1.2.3:5432"]"#);
        assert_eq!(serde_json::from_str::<EgressList>(&json).expect("reads"), list);
    }

    #[test]
    fn only_public_addresses_are_anybodys() {
        let policy = EgressPolicy::default();
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2a00::1",
        ] {
            assert!(policy.permits(public.parse().expect(public)), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.1.1",
            "198.19.255.255",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!policy.permits(private.parse().expect(private)), "{private}");
        }
    }

    #[test]
    fn a_provider_names_private_networks_but_never_link_local_ones() {
        let policy = EgressPolicy {
            private: ["10.1.0.0/16", "127.0.0.1", "169.254.0.0/16", "fe80::/10", "fd00::/8"]
                .map(|text| text.parse().expect(text))
                .into(),
        };
        for (address, permitted) in [
            ("10.1.2.3", true),
            ("10.2.0.1", false),
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("127.0.0.2", false),
            ("169.254.169.254", false),
            ("fe80::1", false),
            ("fd00::1", true),
            ("fd00:ec2::254", false),
        ] {
            assert_eq!(policy.permits(address.parse().expect(address)), permitted, "{address}");
        }
        let all: Network = "0.0.0.0/0".parse().expect("everything");
        assert!(all.contains("203.0.113.9".parse().expect("an address")));
        for bad in ["10.0.0.0/33", "10.0.0/8", "10.0.0.0/", ""] {
            assert_eq!(bad.parse::<Network>().expect_err(bad).code, Code::NetworkMalformed);
        }
        let entry = good(&["10.9.9.9:80"]);
        assert_eq!(policy.forbidden(&entry), Some(Ipv4Addr::new(10, 9, 9, 9)));
    }
}
