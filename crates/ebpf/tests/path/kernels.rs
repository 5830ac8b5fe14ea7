//! The programs load on the oldest kernel that they are for, and on one in between: what this machine's verifier knows, others may not.

use lab::{GuestSpec, Kernel, Namespace};

#[test]
fn the_programs_load_on_older_kernels() {
    for kernel in Kernel::ALL {
        let namespace = Namespace::new().unwrap();
        let guest = GuestSpec::new(kernel).program("/usr/sbin/bpftool").boot(&namespace).unwrap();
        guest.write("/tmp/object", &crate::bed::object()).unwrap();
        let script = "mkdir -p /tmp/fs && mount -t bpf bpf /tmp/fs && bpftool prog loadall /tmp/object /tmp/fs/p 2>&1 | tail -n 30; ls /tmp/fs/p";
        let said = guest.run(script).unwrap();
        for program in crate::bed::PROGRAMS {
            assert!(said.lines().any(|line| line == *program), "{kernel:?}: {program}: {said}");
        }
    }
}
