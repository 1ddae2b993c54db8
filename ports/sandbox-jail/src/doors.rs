//! Makes the network namespace of a standing jail lead to listening sockets, and passes those out.
//!
//! The loopback device comes up, a local route takes every IPv4 address to it (as `ip route add local default dev lo` does),
//! and sockets are bound to any address: what the function connects to, wherever it means to go, arrives here, and the
//! accepted socket's own address is the one that was meant.
#![allow(unsafe_code)]

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use crate::wire::{self, Event, check};

/// Where every stub resolver asks.
const NAMES_PORT: u16 = 53;

/// Opens the doors of the jail whose first process's pidfd came along, and tells so with them. In a child of the launcher:
/// without root there is no way back from another network namespace.
pub(crate) fn open_into(jail: &[OwnedFd], ports: &[u16], control: BorrowedFd<'_>) -> io::Result<()> {
    let jail = jail.first().ok_or_else(|| io::Error::other("no jail came along"))?;
    // SAFETY: the launcher has one thread, so the child may do anything.
    let child = check(unsafe { libc::fork() })?;
    if child == 0 {
        let told = make(jail, ports).and_then(|sockets| tell(control, &sockets));
        // SAFETY: ends the child without the destructors of its parent's state.
        unsafe { libc::_exit(i32::from(told.is_err())) }
    }
    let mut status = 0;
    // SAFETY: `status` outlives the call; the child takes a millisecond.
    check(unsafe { libc::waitpid(child, &mut status, 0) })?;
    if status == 0 {
        return Ok(());
    }
    Err(io::Error::other("the jail's network cannot be made"))
}

fn tell(control: BorrowedFd<'_>, sockets: &[OwnedFd]) -> io::Result<()> {
    let bytes = serde_json::to_vec(&Event::Listening).map_err(io::Error::other)?;
    let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    wire::send(control, &bytes, &fds)
}

/// The socket for names, then one for each port.
fn make(jail: &OwnedFd, ports: &[u16]) -> io::Result<Vec<OwnedFd>> {
    // SAFETY: a descriptor that is open and a flag.
    check(unsafe { libc::setns(jail.as_raw_fd(), libc::CLONE_NEWNET) })?;
    let names = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, NAMES_PORT))?;
    raise_loopback(&names)?;
    route_everything_here()?;
    let mut sockets = vec![OwnedFd::from(names)];
    for port in ports {
        sockets.push(TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port))?.into());
    }
    Ok(sockets)
}

fn raise_loopback(any_socket: &UdpSocket) -> io::Result<()> {
    // SAFETY: zero is a valid ifreq; the name is shorter than its field and ends with zeros; it outlives the call.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::ioctl(any_socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request)).map(drop)
    }
}

/// `RTM_NEWROUTE` of rtnetlink(7): every IPv4 address is local, by the first device, which is the loopback.
fn route_everything_here() -> io::Result<()> {
    const LOOPBACK_INDEX: u32 = 1;
    const HEADER_BYTES: usize = 16;
    let mut body = vec![libc::AF_INET as u8, 0, 0, 0];
    body.extend([
        libc::RT_TABLE_LOCAL,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_HOST,
        libc::RTN_LOCAL,
    ]);
    body.extend(0u32.to_ne_bytes());
    body.extend(8u16.to_ne_bytes());
    body.extend(libc::RTA_OIF.to_ne_bytes());
    body.extend(LOOPBACK_INDEX.to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
    let length = u32::try_from(HEADER_BYTES + body.len()).expect("36");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(libc::RTM_NEWROUTE.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    let mut socket = netlink()?;
    socket.write_all(&message)?;
    let mut answer = [0; 512];
    let got = socket.read(&mut answer)?;
    let code: [u8; 4] = answer[..got]
        .get(HEADER_BYTES..HEADER_BYTES + 4)
        .and_then(|code| code.try_into().ok())
        .ok_or_else(|| io::Error::other("the kernel gave no answer about a route"))?;
    match i32::from_ne_bytes(code) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

fn netlink() -> io::Result<std::fs::File> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes numbers, and what it returns is ours alone.
    unsafe {
        let fd = check(libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE))?;
        Ok(std::fs::File::from_raw_fd(fd))
    }
}
