//! The few helpers that all the modules share: results of C calls as `io::Result`, socket options, ioctls.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The value of a C call, or the error in `errno` when it is negative.
pub(crate) fn check(value: libc::c_int) -> io::Result<libc::c_int> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Sets a socket option that the kernel reads as an `int`.
pub(crate) fn set_int(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    set_option(fd, level, option, &value)
}

/// Sets a socket option from a plain C struct.
pub(crate) fn set_option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: `value` is readable for its own size, which is the size passed.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    check(rc).map(drop)
}

/// Reads a socket option that is an `int`.
pub(crate) fn int_option(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> io::Result<libc::c_int> {
    int_options::<1>(fd, level, option).map(|[value]| value)
}

/// Reads a socket option that is an array of `int`; those that the kernel does not have are zero.
pub(crate) fn int_options<const N: usize>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
) -> io::Result<[libc::c_int; N]> {
    let mut value = MaybeUninit::<[libc::c_int; N]>::zeroed();
    let mut len = size_of::<[libc::c_int; N]>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, which has that size; all of its bit patterns are valid.
    let (rc, value) = unsafe {
        let rc = libc::getsockopt(fd.as_raw_fd(), level, option, value.as_mut_ptr().cast(), &mut len);
        (rc, value.assume_init())
    };
    check(rc).map(|_| value)
}

/// Whether the running kernel is at least `major.minor`. For bugs that no probe shows; an unreadable release is old.
pub(crate) fn kernel_at_least(major: u32, minor: u32) -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    parse_release(&release).is_some_and(|running| running >= (major, minor))
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_parsed_and_compared() {
        assert_eq!(parse_release("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(parse_release("5.12-rc1"), Some((5, 12)));
        assert_eq!(parse_release("nonsense"), None);
        assert!(kernel_at_least(4, 0));
        assert!(!kernel_at_least(400, 0));
    }
}
