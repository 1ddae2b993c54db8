//! Tries from inside a worker what its walls must refuse. A wall that is only said to stand is none.

use std::{ffi::CStr, io};

use crate::words::Proof;

/// Files of which none may be in sight.
const FILES: [&CStr; 6] = [
    c"/etc/passwd",
    c"/proc/self/status",
    c"/.host/etc/passwd",
    c"/b/../../etc/passwd",
    c"/dev/null",
    c"/usr/bin/env",
];

/// Runs in the thread of errands, whose walls are every thread's.
pub(super) fn prove(landlock: bool) -> Proof {
    let mut open: Vec<String> = calls()
        .into_iter()
        .filter(|(_, exists)| *exists)
        .map(|(name, _)| name.to_owned())
        .collect();
    let seen = FILES.iter().filter(|path| opens(path, libc::O_RDONLY));
    open.extend(seen.map(|path| path.to_string_lossy().into_owned()));
    if opens(c"/b/new", libc::O_WRONLY | libc::O_CREAT) {
        open.push("writing".to_owned());
    }
    Proof { open, landlock }
}

fn opens(path: &CStr, flags: libc::c_int) -> bool {
    // SAFETY: a NUL-terminated path and numbers; what is opened is left open, in a worker that is not used.
    unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) >= 0 }
}

/// Each call by its name, and whether the kernel knows it here.
fn calls() -> Vec<(&'static str, bool)> {
    let call = |number: libc::c_long, arguments: [libc::c_long; 4]| {
        let [a, b, c, d] = arguments;
        // SAFETY: with these arguments a call that went through would do no harm but to this worker.
        let result = unsafe { libc::syscall(number, a, b, c, d) };
        if number == libc::SYS_clone && result == 0 {
            // SAFETY: the child that must not be ends at once.
            unsafe { libc::_exit(0) };
        }
        result >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
    };
    let inet = libc::AF_INET.into();
    let unix = libc::AF_UNIX.into();
    let stream = libc::SOCK_STREAM.into();
    let execute = (libc::PROT_READ | libc::PROT_EXEC).into();
    let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).into();
    // Without a path nothing is executed, where the call is known.
    vec![
        ("socket (internet)", call(libc::SYS_socket, [inet, stream, 0, 0])),
        ("socket (unix)", call(libc::SYS_socket, [unix, stream, 0, 0])),
        ("socketpair", call(libc::SYS_socketpair, [unix, stream, 0, 0])),
        ("connect", call(libc::SYS_connect, [-1, 0, 0, 0])),
        ("execve", call(libc::SYS_execve, [0, 0, 0, 0])),
        ("fork", call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0])),
        ("clone3", call(libc::SYS_clone3, [0, 0, 0, 0])),
        ("kill", call(libc::SYS_kill, [1, 0, 0, 0])),
        ("ptrace", call(libc::SYS_ptrace, [-1, 0, 0, 0])),
        ("process_vm_readv", call(libc::SYS_process_vm_readv, [1, 0, 0, 0])),
        (
            "unshare",
            call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0]),
        ),
        ("setns", call(libc::SYS_setns, [-1, 0, 0, 0])),
        ("mount", call(libc::SYS_mount, [0, 0, 0, 0])),
        ("setuid", call(libc::SYS_setuid, [0, 0, 0, 0])),
        ("keyctl", call(libc::SYS_keyctl, [-1, 0, 0, 0])),
        ("bpf", call(libc::SYS_bpf, [-1, 0, 0, 0])),
        ("io_uring_setup", call(libc::SYS_io_uring_setup, [0, 0, 0, 0])),
        ("memfd_create", call(libc::SYS_memfd_create, [0, 0, 0, 0])),
        ("prlimit", call(libc::SYS_prlimit64, [0, 0, 0, 0])),
        ("executable memory", call(libc::SYS_mmap, [0, 4_096, execute, private])),
    ]
}
