//! The jail's list of refused system calls, by the names that OCI runtimes and Docker take.
//!
//! What is newer than this list is not refused here, as it is in the jail: a runtime's filter knows calls by name only.

use serde_json::{Value, json};

const EPERM: i32 = libc::EPERM;

/// Refused whatever their arguments; names that a runtime does not know are left out by it.
const REFUSED: &[&str] = &[
    // keys, namespaces and mounts
    "add_key",
    "request_key",
    "keyctl",
    "unshare",
    "setns",
    "mount",
    "umount",
    "umount2",
    "pivot_root",
    "chroot",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    // other processes and the kernel's inside
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "kcmp",
    "pidfd_getfd",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "memfd_create",
    "memfd_secret",
    "personality",
    "fanotify_init",
    "open_by_handle_at",
    "name_to_handle_at",
    "lookup_dcookie",
    "syslog",
    // the machine
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "reboot",
    "swapon",
    "swapoff",
    "acct",
    "quotactl",
    "quotactl_fd",
    "settimeofday",
    "clock_settime",
    "clock_adjtime",
    "adjtimex",
    "sethostname",
    "setdomainname",
    "vhangup",
    "nfsservctl",
    "migrate_pages",
    "move_pages",
    "iopl",
    "ioperm",
    "uselib",
    "ustat",
    "sysfs",
    "_sysctl",
    "modify_ldt",
    // of every disk of the machine, whoever wrote to it
    "sync",
    "syncfs",
];

const NEW_NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// As `linux.seccomp` of a container and as Docker's profile. A kernel of the container's own, gVisor's, does not know `clone3`; its runtime
/// refuses everything with one number, and the C library falls back to `clone` at another one only.
#[allow(
    clippy::unnecessary_cast,
    reason = "a request has another type with another C library"
)]
pub(crate) fn profile(is_host_kernel: bool) -> Value {
    let refuse = |names: Value, arguments: Value| json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM, "args": arguments});
    let when_flag = |name: &str, argument: u32, flag: i32| {
        let bits = flag as u32;
        refuse(
            json!([name]),
            json!([{"index": argument, "value": bits, "valueTwo": bits, "op": "SCMP_CMP_MASKED_EQ"}]),
        )
    };
    let but_for = |name: &str, argument: u32, value: u64| {
        refuse(
            json!([name]),
            json!([{"index": argument, "value": value, "op": "SCMP_CMP_NE"}]),
        )
    };
    let when = |name: &str, argument: u32, value: u64| {
        refuse(
            json!([name]),
            json!([{"index": argument, "value": value, "op": "SCMP_CMP_EQ"}]),
        )
    };
    let mut calls = vec![refuse(json!(REFUSED), json!([]))];
    calls.extend(NEW_NAMESPACES.map(|flag| when_flag("clone", 0, flag)));
    // A filter cannot see its flags; the C library falls back to `clone`.
    if is_host_kernel {
        calls.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS, "args": []}));
    }
    // Only unix sockets: the rest of the network is not there anyway.
    calls.push(but_for("socket", 0, libc::AF_UNIX as u64));
    calls.push(but_for("socketpair", 0, libc::AF_UNIX as u64));
    // Device nodes; gVisor's kernel makes them for anybody, though nothing is behind them.
    for (name, argument) in [("mknod", 1), ("mknodat", 2)] {
        for kind in [libc::S_IFBLK, libc::S_IFCHR] {
            let when =
                json!([{"index": argument, "value": libc::S_IFMT, "valueTwo": kind, "op": "SCMP_CMP_MASKED_EQ"}]);
            calls.push(refuse(json!([name]), when));
        }
    }
    // Huge pages are a pool of the whole machine, which no control group of ours counts.
    calls.push(when_flag("mmap", 3, libc::MAP_HUGETLB));
    calls.push(when_flag("shmget", 2, libc::SHM_HUGETLB));
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        calls.push(when("ioctl", 1, request as u64));
    }
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [architecture()], "syscalls": calls})
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "SCMP_ARCH_AARCH64",
        _ => "SCMP_ARCH_X86_64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_makes_a_namespace_or_a_key_is_allowed() {
        let text = profile(true).to_string();
        for name in [
            "unshare",
            "setns",
            "keyctl",
            "add_key",
            "clone3",
            "bpf",
            "io_uring_setup",
            "mount",
        ] {
            assert!(text.contains(&format!("\"{name}\"")), "{name}");
        }
        for flag in NEW_NAMESPACES {
            assert!(text.contains(&format!("\"valueTwo\":{}", flag as u32)), "{flag:#x}");
        }
        assert!(!profile(false).to_string().contains("clone3"));
    }
}
