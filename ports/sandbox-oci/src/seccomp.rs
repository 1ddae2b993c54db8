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
/// An image talks to its own server over the loopback.
pub(crate) fn profile(is_host_kernel: bool, is_image: bool) -> Value {
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
    match is_image {
        // Only unix sockets: the rest of the network is not there anyway.
        false => calls.push(but_for("socket", 0, libc::AF_UNIX as u64)),
        true => calls.extend(but_for_tcp_and_udp()),
    }
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

/// Unix sockets, and of IPv4 only TCP and UDP: nothing raw, none of the kernel's rarer protocols. A runtime takes one condition for
/// each argument, so families and protocols go by their order.
fn but_for_tcp_and_udp() -> Vec<Value> {
    /// Of a socket's type, without its flags.
    const TYPE_BITS: u64 = 0xf;
    /// Packets of a device, as they were asked for before there was a family of its own.
    const SOCK_PACKET: i32 = 10;
    let refuse = |arguments: Value| json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM, "args": arguments});
    let family = |op: &str, value: i32| json!({"index": 0, "value": value, "op": op});
    let ipv4 = || family("SCMP_CMP_EQ", libc::AF_INET);
    let kinds = [
        libc::SOCK_RAW,
        libc::SOCK_RDM,
        libc::SOCK_SEQPACKET,
        libc::SOCK_DCCP,
        SOCK_PACKET,
    ];
    let kind = |kind: i32| json!({"index": 1, "value": TYPE_BITS, "valueTwo": kind, "op": "SCMP_CMP_MASKED_EQ"});
    let protocol = |op: &str, value: i32| json!({"index": 2, "value": value, "op": op});
    let mut all = vec![
        refuse(json!([family("SCMP_CMP_LT", libc::AF_UNIX)])),
        refuse(json!([family("SCMP_CMP_GT", libc::AF_INET)])),
        refuse(json!([ipv4(), protocol("SCMP_CMP_EQ", libc::IPPROTO_ICMP)])),
        refuse(json!([ipv4(), protocol("SCMP_CMP_GT", libc::IPPROTO_UDP)])),
    ];
    all.extend(kinds.map(|value| refuse(json!([ipv4(), kind(value)]))));
    all
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
        let text = profile(true, false).to_string();
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
        assert!(!profile(false, true).to_string().contains("clone3"));
    }

    #[test]
    fn an_image_gets_no_sockets_but_of_unix_and_ipv4() {
        let families: Vec<(Value, Value)> = profile(true, true)["syscalls"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|call| call["names"] == json!(["socket"]) && call["args"][0]["op"] != "SCMP_CMP_EQ")
            .map(|call| (call["args"][0]["op"].clone(), call["args"][0]["value"].clone()))
            .collect();
        let (below, above) = (json!(libc::AF_UNIX), json!(libc::AF_INET));
        assert_eq!(families, [(json!("SCMP_CMP_LT"), below), (json!("SCMP_CMP_GT"), above)]);
        assert_eq!(libc::AF_UNIX + 1, libc::AF_INET, "there is none between them");
    }
}
