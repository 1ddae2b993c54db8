//! The system calls of the process that unpacks: those that decoders, tars and files take. Any other does not exist.
#![allow(unsafe_code)]

use std::{collections::BTreeMap, io};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Whatever their arguments.
const ALLOWED: &[i64] = &[
    // the layer that comes in, and what is said about it
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    // files, all of them below the directory: Landlock sees to that
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_fchmod,
    libc::SYS_ftruncate,
    libc::SYS_fsetxattr,
    libc::SYS_utimensat,
    // memory
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // this process: its locks, signals, time, chance and end
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Installs the filter for this thread and those that it makes. Needs `no_new_privs`. Fails where it does not stand.
pub(crate) fn enter() -> io::Result<()> {
    let program: BpfProgram = filter()?.try_into().map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    // SAFETY: plain numbers; a descriptor that is made against all expectation ends with the process.
    let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) };
    match (socket, io::Error::last_os_error().raw_os_error()) {
        (-1, Some(libc::ENOSYS)) => Ok(()),
        (_, _) => Err(io::Error::other("the filter of system calls does not stand")),
    }
}

fn filter() -> io::Result<SeccompFilter> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|number| (*number, Vec::new())).collect();
    let condition = |argument, operator, value| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
        SeccompRule::new(vec![condition.expect("one of six arguments")]).expect("one condition")
    };
    // Nothing becomes code.
    let no_code = || condition(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
    rules.insert(libc::SYS_mmap, vec![no_code()]);
    rules.insert(libc::SYS_mprotect, vec![no_code()]);
    // How a process ends itself.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![condition(0, SeccompCmpOp::Eq, own)]);
    // As if this kernel did not have it: the C library then does without.
    let absent = SeccompAction::Errno(libc::ENOSYS as u32);
    SeccompFilter::new(rules, absent, SeccompAction::Allow, arch()).map_err(io::Error::other)
}

fn arch() -> TargetArch {
    #[cfg(target_arch = "x86_64")]
    return TargetArch::x86_64;
    #[cfg(target_arch = "aarch64")]
    return TargetArch::aarch64;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(call: impl FnOnce() -> i64) -> Option<i32> {
        (call() < 0).then(|| io::Error::last_os_error().raw_os_error())?
    }

    /// On a thread of its own: filters are each thread's.
    #[test]
    fn what_unpacking_does_not_need_does_not_exist_behind_the_filter() {
        let answers = std::thread::spawn(|| {
            // SAFETY: plain numbers, or pointers to nothing that these calls get to see.
            unsafe {
                assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
                enter().expect("the filter stands");
                let none = std::ptr::null::<u8>();
                let code = libc::PROT_READ | libc::PROT_EXEC;
                let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                [
                    answer(|| libc::syscall(libc::SYS_execve, c"/bin/true".as_ptr(), none, none)),
                    answer(|| libc::syscall(libc::SYS_clone, libc::SIGCHLD, none, none, none, none)),
                    answer(|| libc::syscall(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, none, none)),
                    answer(|| libc::syscall(libc::SYS_mmap, none, 4096, code, private, -1, 0)),
                    answer(|| libc::syscall(libc::SYS_tgkill, 1, 1, 0)),
                    answer(|| libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER)),
                    answer(|| libc::syscall(libc::SYS_io_uring_setup, 1, none)),
                    answer(|| libc::syscall(libc::SYS_bpf, 0, none, 0)),
                ]
            }
        });
        let answers = answers.join().expect("it ends as threads do");
        assert_eq!(answers, [Some(libc::ENOSYS); 8]);
    }
}
