//! Name servers of a tunnel, with each of those who may look after name resolution: Debian's resolvconf, openresolv, systemd-resolved with and without its own
//! `resolvconf`, and nobody. All of them are the real programs, unpacked and not installed; where wg-quick knows them, it is the reference.

use lab::{Process, Unpacked, wait_until};

use crate::bed::{Bed, INTERFACE, State, succeeded};
use crate::common::LIMIT;

/// A tunnel for everything, and one for a network, without search domains and with.
fn files() -> [String; 4] {
    let file = |dns: &str, allowed: &str| {
        format!(
            "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\nListenPort = 51820\n\
             Address = 10.9.0.1/24\nDNS = {dns}\n\
             [Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nAllowedIPs = {allowed}\n\
             Endpoint = 192.0.2.1:51821\n"
        )
    };
    let (some, named) = ("10.9.0.53, fd09::53", "10.9.0.53,fd09::53, corp.example, lab.example");
    [file(some, "0.0.0.0/0"), file(named, "0.0.0.0/0"), file(some, "10.9.0.0/16"), file(named, "10.9.0.0/16")]
}

/// Name resolution on the host: what programs read, and what stands behind it.
fn names(bed: &Bed) -> String {
    bed.sh("ls -l /etc/resolv.conf | cut -d' ' -f1,10-; cat /etc/resolv.conf; grep -rs . /run/resolvconf | sort; \
         if [ -S /run/systemd/resolve/io.systemd.Resolve ]; then resolvectl dns; resolvectl domain; fi")
}

/// Brings each file up by both, compares, and takes it down by the other.
fn compare(beds: &[Bed; 2]) -> Vec<String> {
    let [theirs, ours] = beds;
    let up = |bed: &Bed| bed.wireloom(&["up", "--engine", "auto", INTERFACE]);
    let mut seen = Vec::new();
    for text in files() {
        let before = names(ours);
        assert_eq!(names(theirs), before);
        beds.iter().for_each(|bed| bed.configure(&text));
        succeeded(theirs.wg_quick("up"));
        let said = succeeded(up(ours));
        assert!(said.contains("resolvconf -a "), "{said}");
        assert_eq!(names(theirs), names(ours), "{text}");
        assert!(names(ours).contains("10.9.0.53"), "{}", names(ours));
        seen.push(names(ours));
        succeeded(theirs.wireloom(&["down", INTERFACE]));
        succeeded(ours.wg_quick("down"));
        for bed in beds {
            bed.wait_until_idle_but_for(&["systemd-resolved", "dbus-daemon"]).unwrap();
            assert_eq!(names(bed), before);
        }
        // What wg-quick took down, but for the rest that it leaves.
        succeeded(ours.wireloom(&["down", INTERFACE]));
    }
    seen
}

#[test]
fn debians_resolvconf_is_told_as_wg_quick_tells_it() {
    let beds = [Bed::new(), Bed::new()];
    for bed in &beds {
        bed.install(Unpacked::Resolvconf);
        bed.sh("mkdir -p /run/resolvconf/interface; touch /run/resolvconf/enable-updates; \
            ln -sf ../run/resolvconf/resolv.conf /etc/resolv.conf; \
            echo 'nameserver 192.0.2.1' | resolvconf -a eth0.inet");
    }
    let seen = compare(&beds);
    assert!(seen.iter().all(|names| names.contains("interface/tun.wg0:nameserver 10.9.0.53")), "{seen:?}");
    assert!(seen[1].contains("search corp.example lab.example"), "{seen:?}");
}

#[test]
fn openresolv_is_told_as_wg_quick_tells_it() {
    let beds = [Bed::new(), Bed::new()];
    for bed in &beds {
        bed.install(Unpacked::Openresolv);
        bed.sh("echo 'nameserver 192.0.2.1' | resolvconf -a eth0");
    }
    let seen = compare(&beds);
    // Ours alone: it was told to be exclusive.
    assert!(seen.iter().all(|names| !names.contains("\nnameserver 192.0.2.1\n")), "{seen:?}");
}

/// Runs the real systemd-resolved on the host, which /etc/resolv.conf leads to.
fn resolved(bed: &Bed) -> [Process; 2] {
    const BUS: &str = "<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>\
        <policy context='default'><allow user='*'/><allow own='*'/><allow send_type='method_call'/><allow send_type='signal'/>\
        <allow send_requested_reply='true'/><allow receive_requested_reply='true'/></policy></busconfig>";
    bed.install(Unpacked::Resolved);
    bed.write("/mnt/bus.conf", 0o644, BUS);
    bed.sh("grep -q ^systemd-resolve: /etc/passwd || { echo 'systemd-resolve:x:990:990::/:/usr/sbin/nologin' >> /etc/passwd; \
        echo 'systemd-resolve:x:990:' >> /etc/group; }; \
        mkdir -p /run/dbus /run/systemd/resolve; chown systemd-resolve: /run/systemd/resolve; \
        ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf");
    let start = |words: &[&str], socket: &str| {
        let process = Process::spawn(bed.command(words[0]).args(&words[1..])).unwrap();
        wait_until(socket, LIMIT, || bed.sh(&format!("test -S {socket} && echo there || true")) == "there\n").unwrap();
        process
    };
    let bus = start(&["dbus-daemon", "--config-file=/mnt/bus.conf", "--nofork"], "/run/dbus/system_bus_socket");
    let resolved = start(&["/lib/systemd/systemd-resolved"], "/run/systemd/resolve/io.systemd.Resolve");
    bed.sh("resolvectl dns eth0 192.0.2.1");
    [resolved, bus]
}

#[test]
fn the_resolvconf_of_systemd_is_told_as_wg_quick_tells_it() {
    let beds = [Bed::new(), Bed::new()];
    let _running = beds.each_ref().map(resolved);
    let seen = compare(&beds);
    assert!(seen.iter().all(|names| names.contains("(wg0): 10.9.0.53 fd09::53")), "{seen:?}");
}

#[test]
fn systemd_resolved_is_told_itself_where_there_is_no_resolvconf() {
    let bed = Bed::new();
    let running = resolved(&bed);
    bed.hide(&["resolvconf"]);
    let before = names(&bed);
    let domains = ["~.", "corp.example lab.example ~.", "~.", "corp.example lab.example"];
    for (text, expected) in files().iter().zip(domains) {
        bed.configure(text);
        let said = succeeded(bed.wireloom(&["up", INTERFACE]));
        assert!(said.contains("resolvectl dns wg0 10.9.0.53 fd09::53 && resolvectl domain wg0"), "{said}");
        let now = names(&bed);
        assert!(now.contains("(wg0): 10.9.0.53 fd09::53\n"), "{now}");
        let line = now.lines().rfind(|line| line.contains("(wg0):")).unwrap();
        let mut words: Vec<&str> = line.split_once(": ").unwrap().1.split(' ').collect();
        words.sort_unstable();
        assert_eq!(words.join(" "), expected);
        succeeded(bed.wireloom(&["down", INTERFACE]));
        assert_eq!(names(&bed), before);
    }
    // One that does not run is as good as none.
    drop(running);
    let said = succeeded(bed.wireloom(&["up", INTERFACE]));
    assert!(said.contains("> /etc/resolv.conf  # nobody else looks after it"), "{said}");
    succeeded(bed.wireloom(&["down", INTERFACE]));
    assert!(bed.sh("ls -l /etc/resolv.conf").contains("-> ../run/systemd/resolve/stub-resolv.conf"));
}

/// Brings the tunnel up and down on a host where nobody looks after name resolution; what `down` said, and the states before and after.
fn with_file(bed: &Bed, meanwhile: &str) -> (String, State, State) {
    bed.configure(&files()[1]);
    let before = bed.state();
    succeeded(bed.wireloom(&["up", INTERFACE]));
    let text = bed.sh("cat /etc/resolv.conf");
    assert!(text.ends_with("\nnameserver 10.9.0.53\nnameserver fd09::53\nsearch corp.example lab.example\n"), "{text}");
    bed.sh(meanwhile);
    let said = succeeded(bed.wireloom(&["down", INTERFACE]));
    bed.wait_until_idle().unwrap();
    (said, before, bed.state())
}

#[test]
fn resolv_conf_comes_back_as_it_was() {
    let bed = Bed::new();
    for set_up in [
        "true",
        "mkdir /run/manager; mv /etc/resolv.conf /run/manager; ln -s ../run/manager/resolv.conf /etc",
        "rm /run/manager/resolv.conf",
        "rm /etc/resolv.conf",
        "echo 'nameserver 192.0.2.9' > /mnt/resolv.conf; touch /etc/resolv.conf; mount --bind /mnt/resolv.conf /etc/resolv.conf",
    ] {
        bed.sh(set_up);
        let (said, before, after) = with_file(&bed, "true");
        assert!(!said.contains("changed by somebody else"), "{said}");
        match set_up.contains("mount") {
            // It was written to, there and back.
            true => before.comparable().assert_same(&after.comparable(), set_up),
            false => before.assert_same(&after, set_up),
        }
    }
}

#[test]
fn name_servers_that_a_power_cut_has_left_are_not_asked() {
    let bed = Bed::new();
    bed.configure(&files()[1]);
    let before = bed.sh("cat /etc/resolv.conf");
    succeeded(bed.wireloom(&["up", INTERFACE]));
    bed.sh("rm -r /run/wireloom; ip link delete wg0; nft flush ruleset; ip rule flush; ip rule add pref 32766 table main; ip rule add pref 32767 table default");
    bed.wait_until_idle().unwrap();
    assert!(bed.sh("cat /etc/resolv.conf").contains("10.9.0.53"));
    // PreUp is run where the endpoint's name would be resolved.
    let seen = "PreUp = cat /etc/resolv.conf > /mnt/seen\n[Peer]";
    bed.configure(&files()[1].replace("[Peer]", seen));
    let said = succeeded(bed.wireloom(&["up", INTERFACE]));
    assert!(said.contains("wg0 has left its name servers in /etc/resolv.conf"), "{said}");
    assert_eq!(bed.sh("cat /mnt/seen"), before);
    succeeded(bed.wireloom(&["down", INTERFACE]));
    assert_eq!(bed.sh("cat /etc/resolv.conf; ls /etc | grep before || true"), before);
}

#[test]
fn who_changes_resolv_conf_meanwhile_wins_and_that_is_told() {
    let bed = Bed::new();
    for change in [
        "echo 'nameserver 192.0.2.8' > /etc/resolv.conf",
        "ln -sf /run/nowhere /etc/resolv.conf",
        "rm /etc/resolv.conf",
    ] {
        bed.sh("rm -f /etc/resolv.conf; echo 'nameserver 192.0.2.1' > /etc/resolv.conf");
        let (said, ..) = with_file(&bed, change);
        let told = "wireloom: /etc/resolv.conf was changed by somebody else meanwhile, and stays as it is";
        assert_eq!(said.lines().filter(|line| *line == told).count(), 1, "{said}");
        let now = bed.sh("ls -l /etc/resolv.conf* 2>&1 || true; cat /etc/resolv.conf 2>/dev/null || true");
        assert!(!now.contains("before-wg0") && !now.contains("192.0.2.1\n"), "{now}");
    }
}
