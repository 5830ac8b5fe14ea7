//! The programs load on the oldest kernel that they are for, and on one in between: what this machine's verifier knows, others may not.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod bed;

use lab::{GuestSpec, Kernel, Namespace};

#[test]
fn the_programs_load_on_older_kernels() {
    for kernel in Kernel::ALL {
        let namespace = Namespace::new().unwrap();
        let guest = GuestSpec::new(kernel).program("/usr/sbin/bpftool").boot(&namespace).unwrap();
        guest.write("/tmp/object", &bed::object()).unwrap();
        let script = "mkdir -p /tmp/fs && mount -t bpf bpf /tmp/fs && bpftool prog loadall /tmp/object /tmp/fs/p 2>&1 | tail -n 30; ls /tmp/fs/p";
        let said = guest.run(script).unwrap();
        for program in bed::PROGRAMS {
            assert!(said.lines().any(|line| line == *program), "{kernel:?}: {program}: {said}");
        }
    }
}
