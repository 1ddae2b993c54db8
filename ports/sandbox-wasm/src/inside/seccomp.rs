//! The system calls of a worker: those that the engine, its threads and its streams make. Any other does not exist.
//!
//! Code is mapped before the filter stands: nothing can be made executable after it.

use std::{collections::BTreeMap, io};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Whatever their arguments.
const ALLOWED: &[i64] = &[
    // streams, errands and wakers
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_close,
    // the bundle, of which everything is read-only
    libc::SYS_openat2,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_fcntl,
    libc::SYS_fadvise64,
    libc::SYS_getcwd,
    // memory
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // threads, signals of this process, time, chance
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[i64] = &[
    libc::SYS_poll,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = &[libc::SYS_nanosleep];

/// `PAGEMAP_SCAN` of the kernel's `fs.h`: which pages of its own an instance has written.
const PAGEMAP_SCAN: u64 = 0xc060_6610;

/// Installs the filter for this thread and those that it makes. Needs `no_new_privs`.
pub(super) fn enter() -> io::Result<()> {
    let program: BpfProgram = filter()?.try_into().map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}

fn filter() -> io::Result<SeccompFilter> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED
        .iter()
        .chain(ALLOWED_HERE)
        .map(|number| (*number, Vec::new()))
        .collect();
    let executable = libc::PROT_EXEC as u64;
    rules.insert(libc::SYS_mmap, vec![rule(bits(2, executable, 0))]);
    rules.insert(libc::SYS_mprotect, vec![rule(bits(2, executable, 0))]);
    let writes = (libc::O_ACCMODE | libc::O_CREAT) as u64;
    rules.insert(libc::SYS_openat, vec![rule(bits(2, writes, 0))]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, vec![rule(bits(1, writes, 0))]);
    rules.insert(libc::SYS_clone, vec![rule(thread())]);
    rules.insert(libc::SYS_ioctl, vec![rule(is(1, PAGEMAP_SCAN))]);
    rules.insert(libc::SYS_prctl, vec![rule(is(0, libc::PR_SET_NAME as u64))]);
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![rule(is(0, own))]);
    // As if this kernel did not have it: the C library then does without.
    let absent = SeccompAction::Errno(libc::ENOSYS as u32);
    SeccompFilter::new(rules, absent, SeccompAction::Allow, arch()).map_err(io::Error::other)
}

/// What makes a thread, and nothing that makes a process or a namespace.
fn thread() -> SeccompCondition {
    const THREAD: libc::c_int =
        libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    bits(0, (THREAD | NAMESPACES) as u32 as u64, THREAD as u64)
}

fn rule(condition: SeccompCondition) -> SeccompRule {
    SeccompRule::new(vec![condition]).expect("one condition")
}

/// Of these bits of an argument, exactly those of `value` are set.
fn bits(argument: u8, mask: u64, value: u64) -> SeccompCondition {
    condition(argument, SeccompCmpOp::MaskedEq(mask), value)
}

fn is(argument: u8, value: u64) -> SeccompCondition {
    condition(argument, SeccompCmpOp::Eq, value)
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
