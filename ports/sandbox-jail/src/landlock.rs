//! Landlock: reading anywhere in the jail's small root, writing below /tmp only, no TCP, no signals to the outside.

/// Rights of the kernel's `landlock.h`, ABI 1.
const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_BLOCK: u64 = 1 << 11;
const ALL_OF_ABI_1: u64 = (1 << 13) - 1;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Binding and connecting TCP sockets, ABI 4.
const BIND_TCP: u64 = 1 << 0;
const CONNECT_TCP: u64 = 1 << 1;
/// Abstract unix sockets and signals, ABI 6.
const SCOPES: u64 = 0b11;

fn handled(abi: u32) -> u64 {
    let since = |first, right| if abi >= first { right } else { 0 };
    ALL_OF_ABI_1 | since(2, REFER) | since(3, TRUNCATE) | since(5, IOCTL_DEV)
}

/// What is allowed with TCP sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    None,
    Connects,
    /// A server, in a network namespace where nothing but itself is.
    Open,
}

/// `struct landlock_ruleset_attr` for this kernel, or `None` where it has no Landlock.
pub(crate) fn ruleset(abi: u32, network: Network) -> Option<Vec<u8>> {
    let tcp = match network {
        Network::None => BIND_TCP | CONNECT_TCP,
        Network::Connects => BIND_TCP,
        Network::Open => 0,
    };
    let fields: &[u64] = match abi {
        0 => return None,
        1..=3 => &[handled(abi)],
        4..=5 => &[handled(abi), tcp],
        _ => &[handled(abi), tcp, SCOPES],
    };
    Some(fields.iter().flat_map(|field| field.to_ne_bytes()).collect())
}

/// What is allowed below which directory; network and scopes have no exceptions.
pub(crate) fn rules(abi: u32) -> [(&'static str, u64); 3] {
    let read = EXECUTE | READ_FILE | READ_DIR;
    [
        ("/", read),
        ("/tmp", handled(abi) & !(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV)),
        ("/dev", (read | WRITE_FILE | TRUNCATE) & handled(abi)),
    ]
}

/// An image writes into its own layer wherever it may; only devices are never made.
pub(crate) fn rules_of_images(abi: u32) -> [(&'static str, u64); 3] {
    let [_, (_, write), (_, device)] = rules(abi);
    [("/", write), ("/tmp", write), ("/dev", device)]
}

/// Lets this thread and those that it makes read files and list directories, and nothing else that Landlock knows; whether
/// this kernel has it. Needs no privilege but `no_new_privs`.
#[allow(unsafe_code)]
pub fn read_only() -> std::io::Result<bool> {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    let abi = abi();
    let Some(ruleset) = ruleset(abi, Network::None) else {
        return Ok(false);
    };
    let checked = |result: i64| match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        Ok(_) | Err(_) => Err(std::io::Error::last_os_error()),
    };
    let root = std::fs::File::open("/")?;
    // SAFETY: structures of the sizes that are said, which live across the calls; the descriptor that is made is ours alone.
    unsafe {
        let made = libc::syscall(libc::SYS_landlock_create_ruleset, ruleset.as_ptr(), ruleset.len(), 0);
        let made = OwnedFd::from_raw_fd(checked(made)?);
        let rights = READ_FILE | READ_DIR;
        let rule = [&rights.to_ne_bytes()[..], &root.as_raw_fd().to_ne_bytes()].concat();
        const PATH_BENEATH: u32 = 1;
        checked(libc::syscall(
            libc::SYS_landlock_add_rule,
            made.as_raw_fd(),
            PATH_BENEATH,
            rule.as_ptr(),
            0,
        ))?;
        checked(libc::syscall(libc::SYS_landlock_restrict_self, made.as_raw_fd(), 0))?;
    }
    Ok(true)
}

/// The Landlock version of this kernel; 0 if it has none.
#[allow(unsafe_code)]
pub(crate) fn abi() -> u32 {
    const VERSION_FLAG: u32 = 1;
    // SAFETY: with the version flag the call takes no pointer and returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0usize,
            VERSION_FLAG,
        )
    };
    u32::try_from(version).unwrap_or(0)
}
