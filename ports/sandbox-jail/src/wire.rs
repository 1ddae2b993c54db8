//! Messages with descriptors between the agent, the launcher and the zygotes: one JSON text a packet.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use serde::{Deserialize, Serialize};

use crate::plan::Step;

/// More than the filters of one jail take, twice over.
pub(crate) const PACKET_BYTES_MAX: usize = 128 << 10;
/// Channel, logs, and a few cgroups; or the doors of a jail.
const DESCRIPTORS_MAX: usize = 16;

/// What the agent asks of the launcher.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Start a zygote, unjailed, with its control socket as the one descriptor.
    Zygote { arguments: Vec<String> },
    /// Make a jail by the steps and execute a program in it.
    Execute {
        arguments: Vec<String>,
        flags: u64,
        steps: Vec<Step>,
    },
    /// Open the doors of the standing jail whose first process's pidfd comes along.
    Listen { ports: Vec<u16> },
    /// Bind a bundle of the host into the standing jail whose first process's pidfd comes along.
    Bind { bundle: Vec<u8> },
}

/// What the agent asks of a zygote.
#[derive(Debug, Serialize)]
pub(crate) struct Fork<'a> {
    pub(crate) flags: u64,
    pub(crate) steps: &'a [Step],
}

/// What launcher and zygotes say.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// A process of this number, as the launcher counts; its pidfd comes along.
    Started(i32),
    /// The doors are open: the socket for names comes along, then one for each port.
    Listening,
    /// The bundle is bound.
    Bound,
    /// The order failed.
    Failed(String),
    /// A process of the launcher ended: its exit code, or its signal as a negative number.
    Exited { pid: i32, status: i32 },
}

/// A connected pair of packet sockets, closed on exec.
pub fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for the two descriptors that the call writes.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so both are open and ours alone.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

#[repr(align(8))]
struct ControlBuffer([u8; 128]);

/// Sends one packet with descriptors; does not wait beyond what the socket's own mode says.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    assert!(
        fds.len() <= DESCRIPTORS_MAX,
        "an order carries a handful of descriptors"
    );
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut control = ControlBuffer([0; 128]);
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: all zero is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    if !raw.is_empty() {
        let length = u32::try_from(size_of_val(&raw[..])).expect("a handful");
        header.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: the buffer holds CMSG_SPACE of at most 16 descriptors (80 bytes); the first header lies at its start.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(length) as _;
            let first = libc::CMSG_FIRSTHDR(&header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(length) as _;
            std::ptr::copy_nonoverlapping(raw.as_ptr(), libc::CMSG_DATA(first).cast(), raw.len());
        }
    }
    // SAFETY: the header points at live buffers of the lengths it says.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &header, libc::MSG_NOSIGNAL) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Receives one packet and its descriptors; an empty packet means that the other side is gone.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let mut control = ControlBuffer([0; 128]);
    // SAFETY: all zero is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    // SAFETY: the header points at live, writable buffers of the lengths it says.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    let fds = descriptors(&header);
    if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::Error::other("a packet was cut"));
    }
    bytes.truncate(got);
    Ok((bytes, fds))
}

fn descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel wrote well-formed control messages into the header's buffer; each descriptor in an SCM_RIGHTS
    // message is open and given to us alone.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while !at.is_null() {
            if (*at).cmsg_level == libc::SOL_SOCKET && (*at).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*at).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let first: *const RawFd = libc::CMSG_DATA(at).cast();
                for index in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(first.add(index).read_unaligned()));
                }
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    fds
}
