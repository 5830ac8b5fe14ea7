//! The lists, and how they become filters.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::Role;
use crate::bpf;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Of use to nobody but an intruder. Those that a role needs are allowed it by its list.
const FATAL: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_capset,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
];

/// What each program does: memory, waiting, signals, its end.
const COMMON: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_bind,
];

const DAEMON: &[c_long] = &[
    libc::SYS_readv,
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_settime,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_uname,
    libc::SYS_membarrier,
    // Threads come and go with the clients of the configuration socket.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
];

/// What newer architectures have dropped for a more general call.
#[cfg(target_arch = "x86_64")]
const DAEMON_OLD: &[c_long] = &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_stat, libc::SYS_lstat];
#[cfg(not(target_arch = "x86_64"))]
const DAEMON_OLD: &[c_long] = &[];

const STEWARD: &[c_long] = &[libc::SYS_unlinkat, libc::SYS_recvfrom];

/// A steward that may have to keep what the daemon leaves, and waits for a successor.
const KEEPER: &[c_long] = &[
    libc::SYS_unlinkat,
    // The socket at which that asks gets its name.
    libc::SYS_renameat2,
    libc::SYS_recvfrom,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_timerfd_settime,
    libc::SYS_accept4,
    libc::SYS_getsockopt,
];

#[cfg(target_arch = "x86_64")]
const STEWARD_OLD: &[c_long] = &[libc::SYS_unlink, libc::SYS_lstat, libc::SYS_epoll_wait];
#[cfg(not(target_arch = "x86_64"))]
const STEWARD_OLD: &[c_long] = &[];

/// A rule for the argument at this place: it is this number, where the mask has ones.
fn argument(place: u8, mask: u64, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(place, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)
}

/// Of an argument that is an `int`, of which the kernel leaves the upper half alone.
const INT: u64 = 0xffff_ffff;

/// The commands of bpf(2) that a role has use for.
fn commands(role: Role) -> &'static [i32] {
    match role {
        Role::Daemon { maps: true } => &bpf::UNPRIVILEGED,
        // Also to see how old sessions are, and to overwrite their keys, when the daemon has died.
        Role::Steward { programs: true } => &[bpf::LINK_CREATE, bpf::MAP_LOOKUP, bpf::MAP_UPDATE, bpf::INFO_BY_FD],
        _ => &[],
    }
}

/// The list of a role.
#[allow(clippy::unnecessary_cast, reason = "requests of ioctls have another type in other C libraries")]
fn allowed(role: Role) -> Result<Rules, seccompiler::BackendError> {
    let mut rules = Rules::new();
    let own: [&[c_long]; 2] = match role {
        Role::Daemon { .. } => [DAEMON, DAEMON_OLD],
        Role::Steward { programs: false } => [STEWARD, STEWARD_OLD],
        Role::Steward { programs: true } => [KEEPER, STEWARD_OLD],
        Role::Attendant => [&[], &[]],
    };
    rules.extend([COMMON, own[0], own[1]].concat().into_iter().map(|call| (call, Vec::new())));
    let mut allow = |call: c_long, conditions: &[(u8, u64, u64)]| {
        let conditions = conditions.iter().map(|(place, mask, value)| argument(*place, *mask, *value));
        let rule = SeccompRule::new(conditions.collect::<Result<_, _>>()?)?;
        rules.entry(call).or_default().push(rule);
        Ok::<_, seccompiler::BackendError>(())
    };
    // No memory that is written to may be run.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        allow(call, &[(2, libc::PROT_EXEC as u64, 0)])?;
    }
    // An abort, but no signal to anybody else.
    allow(libc::SYS_tgkill, &[(0, INT, std::process::id().into())])?;
    let socket = |family: i32, kind: i32| [(0, INT, family as u64), (1, 0xf, kind as u64)];
    let ioctl = |request: u64| [(1, INT, request & INT)];
    for command in commands(role) {
        allow(libc::SYS_bpf, &[(0, INT, *command as u64)])?;
    }
    match role {
        Role::Daemon { .. } => {
            for family in [libc::AF_INET, libc::AF_INET6] {
                allow(libc::SYS_socket, &socket(family, libc::SOCK_DGRAM))?;
            }
            for request in
                [libc::TUNGETIFF as u64, libc::SIOCGIFINDEX as u64, libc::SIOCGIFNAME as u64, libc::FIONBIO as u64]
            {
                allow(libc::SYS_ioctl, &ioctl(request))?;
            }
            // Threads, no processes. (`clone3`, whose arguments a filter cannot see, is not on the list.)
            allow(libc::SYS_clone, &[(0, libc::CLONE_THREAD as u64, libc::CLONE_THREAD as u64)])?;
            allow(libc::SYS_prctl, &[(0, INT, libc::PR_SET_NAME as u64)])?;
        }
        Role::Steward { .. } => {
            allow(libc::SYS_socket, &socket(libc::AF_NETLINK, libc::SOCK_RAW))?;
            for family in [libc::AF_INET, libc::AF_INET6] {
                allow(libc::SYS_socket, &socket(family, libc::SOCK_RAW))?;
            }
            for option in [libc::SO_MARK, libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
                let conditions = [(1, INT, libc::SOL_SOCKET as u64), (2, INT, option as u64)];
                allow(libc::SYS_setsockopt, &conditions)?;
            }
            let conditions = [(1, INT, libc::IPPROTO_ICMPV6 as u64), (2, INT, crate::icmp::ICMP6_FILTER as u64)];
            allow(libc::SYS_setsockopt, &conditions)?;
            let conditions = [(1, INT, libc::SOL_NETLINK as u64), (2, INT, libc::NETLINK_LISTEN_ALL_NSID as u64)];
            allow(libc::SYS_setsockopt, &conditions)?;
            allow(libc::SYS_ioctl, &ioctl(libc::TUNGETDEVNETNS as u64))?;
            // Whether the interface is still there, and which it is.
            allow(libc::SYS_ioctl, &ioctl(libc::TUNGETIFF as u64))?;
            allow(libc::SYS_ioctl, &ioctl(libc::SIOCGIFINDEX as u64))?;
            allow(libc::SYS_setns, &[(1, INT, libc::CLONE_NEWNET as u64)])?;
        }
        Role::Attendant => {}
    }
    Ok(rules)
}

/// The filters of a role, in the order in which they are to be set: two, or the first where there is no list.
pub(super) fn filters(role: Role) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let compile = |rules: Rules, other: SeccompAction, listed: SeccompAction| {
        SeccompFilter::new(rules, other, listed, std::env::consts::ARCH.try_into()?)?.try_into()
    };
    let mut fatal: Rules = FATAL.iter().map(|call| (*call, Vec::new())).collect();
    if !matches!(role, Role::Steward { .. }) {
        fatal.insert(libc::SYS_setns, Vec::new());
    }
    if !commands(role).is_empty() {
        // All of these at once: it is another command than the first, and than the second, and so on.
        let other =
            |command: &i32| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *command as u64);
        let others = commands(role).iter().map(other).collect::<Result<_, _>>()?;
        fatal.insert(libc::SYS_bpf, vec![SeccompRule::new(others)?]);
    }
    let mut filters = vec![compile(fatal, SeccompAction::Allow, SeccompAction::KillProcess)?];
    if role != Role::Attendant {
        filters.push(compile(allowed(role)?, SeccompAction::Errno(libc::ENOSYS as u32), SeccompAction::Allow)?);
    }
    Ok(filters)
}
