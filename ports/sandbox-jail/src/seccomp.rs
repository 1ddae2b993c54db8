//! Two seccomp filters: what widens a sandbox is refused, what this list does not know does not exist.
//!
//! The keyring and `unshare` are stopped by nothing else, so a jail without these filters is none.

use std::{collections::BTreeMap, sync::OnceLock};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// The last system call that this list was checked against (`mseal`, Linux 6.10); later ones do not exist inside.
const KNOWN_MAX: i64 = 462;

/// Refused with EPERM whatever their arguments.
const REFUSED: &[i64] = &[
    // keys, namespaces and mounts
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    // other processes and the kernel's inside
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_personality,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_lookup_dcookie,
    libc::SYS_syslog,
    // the machine
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_quotactl_fd,
    // of every disk of the machine, whoever wrote to it: a loop of them holds up the ledger's own
    libc::SYS_sync,
    libc::SYS_syncfs,
    // by other names what `/proc` does not tell
    CACHESTAT,
    STATMOUNT,
    LISTMOUNT,
];

/// Calls of the last years have one number everywhere; the C library's names lag behind.
const CACHESTAT: i64 = 451;
const STATMOUNT: i64 = 457;
const LISTMOUNT: i64 = 458;

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_kexec_file_load,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
    libc::SYS_modify_ldt,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

const NEW_NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// The filters in the order of their installation, as raw instructions of 8 bytes.
pub(crate) fn filters(egress: bool) -> [(&'static str, Vec<u8>); 2] {
    // Compiling takes some 100 us, and each jail has a plan of its own.
    static COMPILED: [OnceLock<Vec<u8>>; 2] = [const { OnceLock::new() }; 2];
    let refusals = COMPILED[usize::from(egress)].get_or_init(|| bytes(&compiled(refusals(egress))));
    [
        ("seccomp refusals", refusals.clone()),
        ("seccomp list of known calls", bytes(&known_calls())),
    ]
}

#[allow(
    clippy::unnecessary_cast,
    reason = "a request has another type with another C library"
)]
fn refusals(egress: bool) -> SeccompFilter {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED
        .iter()
        .chain(REFUSED_HERE)
        .map(|number| (*number, Vec::new()))
        .collect();
    rules.insert(libc::SYS_clone, NEW_NAMESPACES.map(|flag| when_flag(0, flag)).to_vec());
    rules.insert(
        libc::SYS_socket,
        if egress { but_for_tcp_and_udp() } else { but_for_unix() },
    );
    // A pair of any other family is made first and refused later: its module is loaded by then.
    rules.insert(libc::SYS_socketpair, but_for_unix());
    // Huge pages are a pool of the whole machine, which no control group of ours counts.
    rules.insert(libc::SYS_mmap, vec![when_flag(3, libc::MAP_HUGETLB)]);
    rules.insert(libc::SYS_shmget, vec![when_flag(2, libc::SHM_HUGETLB)]);
    let terminals =
        [libc::TIOCSTI, libc::TIOCLINUX].map(|request| rule(condition(1, SeccompCmpOp::Eq, request as u64)));
    rules.insert(libc::SYS_ioctl, terminals.to_vec());
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch()).expect("two different actions")
}

/// Unknown numbers, the x32 table among them, and `clone3`, whose flags a filter cannot see: the C library falls back to
/// `clone`. Five instructions by hand, since a list of all known numbers takes the kernel a millisecond to compile; the
/// architecture was checked by the filter before.
fn known_calls() -> BpfProgram {
    let instruction = |code: u32, jt, jf, k| sock_filter {
        code: u16::try_from(code).expect("codes have 16 bits"),
        jt,
        jf,
        k,
    };
    let compare = |test: u32, jt, jf, number: i64| {
        let k = u32::try_from(number).expect("a system call's number");
        instruction(libc::BPF_JMP | test | libc::BPF_K, jt, jf, k)
    };
    let number_offset = 0;
    let answer = |action: u32| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    vec![
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, number_offset),
        compare(libc::BPF_JGT, 2, 0, KNOWN_MAX),
        compare(libc::BPF_JEQ, 1, 0, libc::SYS_clone3),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ]
}

/// Only unix sockets: the rest of the network is not there anyway.
fn but_for_unix() -> Vec<SeccompRule> {
    vec![rule(condition(0, SeccompCmpOp::Ne, libc::AF_UNIX as u64))]
}

/// Unix sockets, and of IPv4 only TCP and UDP: nothing raw, none of the kernel's rarer protocols.
fn but_for_tcp_and_udp() -> Vec<SeccompRule> {
    /// Of a socket's type, without its flags.
    const TYPE_BITS: u64 = 0xf;
    /// Packets of a device, as they were asked for before there was a family of its own.
    const SOCK_PACKET: i32 = 10;
    let differs = |argument, value: i32| condition(argument, SeccompCmpOp::Ne, value as u64);
    let all = |conditions| SeccompRule::new(conditions).expect("some conditions");
    let others = [
        libc::SOCK_RAW,
        libc::SOCK_RDM,
        libc::SOCK_SEQPACKET,
        libc::SOCK_DCCP,
        SOCK_PACKET,
    ];
    let mut rules = vec![
        all(vec![differs(0, libc::AF_UNIX), differs(0, libc::AF_INET)]),
        all(vec![
            differs(0, libc::AF_UNIX),
            differs(2, 0),
            differs(2, libc::IPPROTO_TCP),
            differs(2, libc::IPPROTO_UDP),
        ]),
    ];
    rules.extend(others.map(|kind| {
        let is_kind = condition(1, SeccompCmpOp::MaskedEq(TYPE_BITS), kind as u64);
        all(vec![differs(0, libc::AF_UNIX), is_kind])
    }));
    rules
}

fn when_flag(argument: u8, flag: i32) -> SeccompRule {
    let flag = u64::from(flag as u32);
    rule(condition(argument, SeccompCmpOp::MaskedEq(flag), flag))
}

fn rule(condition: SeccompCondition) -> SeccompRule {
    SeccompRule::new(vec![condition]).expect("one condition")
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> SeccompCondition {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value).expect("one of six arguments")
}

fn arch() -> TargetArch {
    #[cfg(target_arch = "x86_64")]
    return TargetArch::x86_64;
    #[cfg(target_arch = "aarch64")]
    return TargetArch::aarch64;
}

fn compiled(filter: SeccompFilter) -> BpfProgram {
    filter
        .try_into()
        .expect("far below the 4096 instructions that a filter may have")
}

fn bytes(program: &BpfProgram) -> Vec<u8> {
    program
        .iter()
        .flat_map(|instruction| {
            let mut bytes = instruction.code.to_ne_bytes().to_vec();
            bytes.extend([instruction.jt, instruction.jf]);
            bytes.extend(instruction.k.to_ne_bytes());
            bytes
        })
        .collect()
}
