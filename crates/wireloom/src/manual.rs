//! The manual: what the help texts say after the options, and the same as man pages.
//!
//! What a command's examples, environment, files and exit codes are is said once, in [`PAGES`]. `--help` shows it as plain text, and
//! [`write`] makes a page of it for each command, whose other sections come from the same definitions as the help.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// What is said of a command beyond its arguments.
struct Page {
    /// Of its file, without the section.
    name: &'static str,
    /// Paragraphs about how it behaves.
    notes: &'static [&'static str],
    /// A command line, and what it does.
    examples: &'static [(&'static str, &'static str)],
    environment: &'static [(&'static str, &'static str)],
    files: &'static [(&'static str, &'static str)],
}

const SOCKETS: (&str, &str) = (
    "/var/run/wireguard/INTERFACE.sock",
    "the configuration socket of an interface that runs in user space; interfaces of the kernel are spoken to by netlink",
);
const QUICK_FILES: (&str, &str) = ("/etc/wireguard/NAME.conf", "the settings of the interface NAME");
const JOURNAL: (&str, &str) = ("/run/wireloom/NAME.json", "what was done to bring NAME up; no keys are in it");
const RETRIES: (&str, &str) = (
    "WG_ENDPOINT_RESOLUTION_RETRIES",
    "how often a name that cannot be resolved now is tried again: a number, or `infinity`; 15 if it is not set",
);
const NOTIFY_SOCKET: (&str, &str) = (
    "NOTIFY_SOCKET",
    "where a service manager hears that the interface is ready, if the command stays in the foreground",
);
const CONF_NOTE: &str = "The file has the sections [Interface] (PrivateKey, ListenPort, FwMark) and [Peer] (PublicKey, PresharedKey, \
    AllowedIPs, Endpoint, PersistentKeepalive), as in wg(8); what only wg-quick(8) knows is an error, and so is every line that makes no sense. \
    A comment starts with #. Nothing is changed unless the whole file could be read.";
const KEY_NOTE: &str =
    "Where standard output is a file that others may read, a warning is given: set the umask to 077 first.";

const PAGES: &[Page] = &[
    Page {
        name: "wireloom",
        notes: &[
            "Called as wireguard-go(8) is, `wireloom INTERFACE` or under another name, it runs that interface; called `wg` by a link, it takes the \
             words of wg(8).",
        ],
        examples: &[
            (
                "umask 077; wireloom genkey > private",
                "makes a key; send what `wireloom pubkey < private` prints to the other side",
            ),
            ("wireloom run wg0", "creates the interface, and goes on in the background"),
            (
                "wireloom set wg0 listen-port 51820 private-key private peer KEY endpoint vpn.example.com:51820 allowed-ips 10.0.0.2/32",
                "configures it; KEY is the public key of the other side",
            ),
            ("ip address add 10.0.0.1/24 dev wg0; ip link set wg0 up", "brings it up"),
            ("ip link delete wg0", "ends it"),
            (
                "WG_QUICK_USERSPACE_IMPLEMENTATION=wireloom wg-quick up wg0",
                "does all of it with wg-quick(8) and its files",
            ),
        ],
        environment: &[],
        files: &[SOCKETS],
    },
    Page {
        name: "wireloom-run",
        notes: &[
            "With --metrics, which can be given several times, another process serves what `wireloom show --json` tells but for keys, over HTTP, under the names that other \
             exporters have too. A port alone is that of 127.0.0.1 and ::1; another address has to be written out. A UNIX socket is open to its owner and group.",
            "The interface ends, and everything of it, on SIGINT or SIGTERM, when it is deleted (`ip link delete`), and when its socket is deleted.",
        ],
        examples: &[
            ("wireloom run wg0", "creates wg0, and returns once it is ready"),
            (
                "wireloom run --netns web wg0",
                "creates wg0 in the network namespace `web`; its encrypted datagrams leave by this one",
            ),
            ("wireloom run --metrics 9586 wg0", "serves metrics at http://localhost:9586/metrics"),
            ("LOG_LEVEL=verbose wireloom run -f wg0", "stays in the foreground and tells what happens"),
        ],
        environment: &[
            ("WG_PROCESS_FOREGROUND", "1 is as good as --foreground"),
            ("LOG_LEVEL", "`verbose` or `debug`, `error` (as if it is not set), or `silent`"),
            (
                "WIRELOOM_AEAD",
                "what seals and opens packets: `ring`, or `avx2` or `avx512` where the processor has it; the fastest one if it is not set",
            ),
            ("WIRELOOM_ENGINE", "what moves the packets where --engine does not say: `userspace` or `ebpf`"),
            ("WG_TUN_FD", "the number of an open descriptor of a TUN device, to be used instead of making one"),
            ("WG_UAPI_FD", "the number of an open descriptor of a listening socket, to be used instead of making one"),
            NOTIFY_SOCKET,
        ],
        files: &[SOCKETS, ("/dev/net/tun", "makes the interface")],
    },
    Page {
        name: "wireloom-up",
        notes: &[
            "The file is one of wg-quick(8): that of wg(8) with Address, MTU, DNS, Table, PreUp, PostUp, PreDown, PostDown and SaveConfig in [Interface]. \
             What is done, and in which order, is what wg-quick does; each step is told on standard error as a person would type it, though none of it is \
             typed: links, addresses, routes and rules go to the kernel directly. The routes, rules and marks are those of wg-quick, which can take \
             down what was brought up here, and the other way round.",
            "It is all or nothing: when a step fails, or somebody interrupts, those before it are taken back in reverse.",
            "An interface with --engine ebpf whose daemon was killed is still there, and carries packets for up to three minutes. `wireloom up` with the same file and options starts a \
             daemon that carries on in the same sessions, and then does what `wireloom reload` does; hooks are not run. Where nothing was left, what belonged to the \
             interface is taken back first.",
            "The packets are moved by Wireloom's own WireGuard, `wireloom run`, unless --engine says otherwise: `kernel` takes the kernel's or fails, `auto` takes \
             the kernel's where it has one, else our own, and `ebpf` has programs of our own in the kernel take what they can. The file may say so too, by the line \
             `# Engine = ebpf` under [Interface], a comment to others. One line tells which it is and why.",
            "With --netns the interface and all that belongs to it are put into that network namespace, hooks included; the encrypted datagrams \
             leave by the one in which the command is given, and endpoints are resolved there.",
            "Name servers are told to whoever looks after name resolution here: `resolvconf`, as wg-quick does; else systemd-resolved, if it runs and \
             /etc/resolv.conf leads to it, which gets all names, or only those in the tunnel's search domains where there are some and no default route; else \
             nobody, and then /etc/resolv.conf is replaced, and comes back as it was unless somebody else has changed it meanwhile.",
            "Hooks run by bash where there is one, otherwise by sh; $INTERFACE and $CONFIG_FILE are known to them.",
            "With --kill-switch nothing leaves this machine, sent here or forwarded, by any other interface than NAME and the loopback, in either family; but for the \
             tunnel's own datagrams, which are told by their mark, and what a link needs: DHCP, IPv6 neighbour discovery and multicast listener reports. So it stays when the \
             daemon dies, and when the tunnel is brought up again in vain, until `wireloom down`. Endpoints should be addresses then: while it stands alone, no name can be resolved. \
             Neither the local network nor bridges and containers are excepted. Programs that write frames by packet sockets are not held, as no firewall for packets holds them. It takes nft(8).",
            "With --foreground the command stays, as the service wireloom@NAME does it (service.md in the documents of the package): it tells a service manager \
             that the interface is up, and as often as that wants to hear it that the daemon answers; SIGHUP has the file read again, SIGINT and SIGTERM take the \
             interface down. The manager keeps the interface while a daemon that has crashed, or a restart, is replaced.",
            "Without an MTU in the file it is 80 less than the least that the ways to the endpoints take; with IPv6 in the tunnel at least 1280.",
        ],
        examples: &[
            ("wireloom up wg0", "brings wg0 up as /etc/wireguard/wg0.conf says"),
            ("wireloom up --dry-run ./office.conf", "prints what it would take to bring up `office`, and does nothing"),
            ("wireloom up --kill-switch wg0", "brings wg0 up, and lets nothing leave this machine past it"),
            (
                "wireloom up --netns web wg0",
                "puts wg0 into the network namespace `web`, which then has no other way out",
            ),
            (
                "wireloom up --engine ebpf wg0",
                "brings wg0 up with programs in the kernel that seal and open its packets",
            ),
            ("systemctl enable --now wireloom@wg0", "brings wg0 up now and at each boot, as a service"),
        ],
        environment: &[
            (
                "WIRELOOM_ENGINE",
                "the engine where neither --engine nor the file says: `auto`, `userspace`, `ebpf` or `kernel`",
            ),
            RETRIES,
            NOTIFY_SOCKET,
        ],
        files: &[QUICK_FILES, JOURNAL, SOCKETS],
    },
    Page {
        name: "wireloom-down",
        notes: &[
            "What `wireloom up` has noted is taken back, wherever the interface is. An interface that wg-quick(8) brought up is taken down as wg-quick does it. \
             Hooks and SaveConfig are as the file says now.",
        ],
        examples: &[("wireloom down wg0", "takes wg0 down")],
        environment: &[],
        files: &[QUICK_FILES, JOURNAL],
    },
    Page {
        name: "wireloom-attend",
        notes: &[
            "A process goes on in the background, which has no keys and no privileges (of an interface of the kernel: CAP_NET_ADMIN alone), and ends with the \
             interface. Each interface has one: another takes its place, and without an option there is none.",
            "With --file, the endpoints in the file that have names are looked after. A peer that has not answered three handshakes is tried at an address that its name \
             has now and did not have before, then at one of the other family (IPv4 or IPv6), then at the others; a peer that answers is left alone, wherever \
             it is. Names are looked up at most every 15 seconds, and ever less often, up to every five minutes. An interface of the kernel or of another \
             program does not tell, and is looked at every 30 seconds.",
            "It is the system's resolver that is asked. Where its name server is behind the very tunnel that does not work there is no answer, and the addresses \
             that the name had before are all that is tried: have a name server that is reached without the tunnel, or the name in /etc/hosts.",
            "With --wipe-on-suspend, which `wireloom run` has as well, the machine waits with its sleep (for five seconds at most, unless logind is configured otherwise) \
             until the session keys are wiped; then nobody who has the sleeping machine can read what was recorded of its traffic. The private key stays. Sessions begin \
             anew after it. The kernel's interfaces do so by themselves.",
        ],
        examples: &[
            (
                "wireloom attend wg0 --file /etc/wireguard/wg0.conf",
                "finds the peers of an interface of wg-quick(8) again by their names",
            ),
            (
                "PostUp = wireloom attend %i --file /etc/wireguard/%i.conf",
                "does so for each time that it is brought up, in the file itself",
            ),
            ("wireloom attend wg0 --wipe-on-suspend", "wipes its session keys before the machine sleeps, instead"),
            ("wireloom attend wg0", "ends it"),
        ],
        environment: &[
            ("LOG_LEVEL", "what is logged, as with wireloom-run(1)"),
            ("DBUS_SYSTEM_BUS_ADDRESS", "where logind is reached; /run/dbus/system_bus_socket if it is not set"),
        ],
        files: &[
            SOCKETS,
            ("/run/wireloom/INTERFACE.attendant", "the socket by which another attendant takes the place"),
        ],
    },
    Page {
        name: "wireloom-show",
        notes: &[
            "The form for people sorts peers by their latest handshake. A FIELD is printed for scripts: one line for each peer, its key first, then tabs; \
             with `all`, the interface's name stands first. `dump` prints all fields.",
            "With --json, all that is known is printed as one object: `schema` (1; fields may be added to it), and `interfaces`, one or `all`, each with `name`, `engine` \
             (wireloom, kernel or userspace, for other programs), `public_key`, `private_key`, `listen_port`, `fwmark` and `peers`: `public_key`, `preshared_key`, `endpoint`, \
             `allowed_ips` (a list), `latest_handshake` (seconds since 1970), `rx_bytes`, `tx_bytes` and `persistent_keepalive` (seconds). What is not set is null. Keys other than \
             public ones are `(hidden)`, unless WG_HIDE_KEYS is `never`.",
            "Interfaces of wireloom tell more: each peer's `rx_packets` and `rx_expected_packets` (data messages that arrived, and that it had sent by then, as its counters \
             tell), and `version`, `process`, `uptime_seconds`, `resident_bytes`, `handshakes` and `drops` (counts by name), and `workers`: `busy_seconds` of processor time, `wakeups`, \
             `helped` (steps for others), and `sent` and `received` with `packets`, `bytes` and `batches`, which counts batches by their number of packets: `up_to` so many, \
             and more than in the entry before. `policy` has the rules in force: `rule`, `packets` and `bytes` that it took, and how many packets it `dropped`; with the eBPF engine `programs` counts what became of packets there. As fields, `drops` and \
             `policy` are ours too: docs/drops.md, wireloom-policy(1).",
        ],
        examples: &[
            ("wireloom show", "shows all interfaces"),
            (
                "wireloom show wg0 latest-handshakes",
                "prints each peer's key and the time of its latest handshake, in seconds since 1970",
            ),
            ("wireloom show interfaces", "prints the names of all interfaces"),
            (
                "wireloom show all --json | jq '.interfaces[].peers[].endpoint'",
                "prints all endpoints, by the help of jq",
            ),
        ],
        environment: &[
            ("WG_COLOR_MODE", "`always` or `never`; otherwise there are colours on a terminal"),
            ("WG_HIDE_KEYS", "`never` shows private and preshared keys also in the form for people"),
        ],
        files: &[SOCKETS],
    },
    Page {
        name: "wireloom-top",
        notes: &[
            "Above are the workers, the threads that move packets, with a bar that is full where one takes all of a processor, and how many packets they move together; \
             below are the peers, with what moved within the last interval. LOSS is how much of the peer's data messages did not come, as the gaps in its counters \
             tell: what is late is taken for lost until it comes. Interfaces of the kernel and of other programs tell of their peers alone, and of no losses.",
            "q, Escape or Ctrl-C leave. s sorts by the next: traffic, handshake, loss, name. p or Space hold the picture. Up, Down, PageUp, PageDown, Home and End scroll, Tab goes to \
             the next interface, and h or ? tell all this. Where there is no terminal, --once is needed.",
        ],
        examples: &[
            ("wireloom top wg0", "watches wg0"),
            ("wireloom top --interval 10 --once", "prints what moved within ten seconds, on all interfaces"),
        ],
        environment: &[],
        files: &[SOCKETS],
    },
    Page {
        name: "wireloom-policy",
        notes: &[
            "A rule stands in a line: what is done (`pass`, `drop`, or `limit RATE`), `in` or `out` (both, if neither), and what the packet must be, in any order: `peer=KEY`, \
             `proto=` tcp, udp, icmp, icmpv6, sctp, dccp, udplite or a number, `src=` and `dst=` prefixes of the inner addresses, `sport=` and `dport=` a port or a range. \
             Behind # is comment. The first rule that takes a packet decides, and what none takes passes. There may be 64.",
            "RATE is bits each second (1mbit; kbit, gbit, bit) of inner packets with their headers, or packets (500pps). After a pause may pass at once what the rate gives in 100 ms, \
             or in what `burst=20ms` says, and one packet. What is too much is dropped.",
            "The rules are held against packets inside the tunnel, before they are sealed and after they have proved authentic. Whoever sent what is dropped is not told. Later \
             fragments have no ports. What the tunnel does not take at all is not for rules but for routes: `ip rule` lets it out unencrypted.",
            "The rules are replaced together: each packet meets the old ones or the new ones. Rules that are put in force so last as long as the daemon; `wireloom up --policy` and \
             `wireloom run --policy` have them from the start, before there is a key.",
            "Printed are, for each rule, with tabs between them: packets that it took, their bytes, how many of the packets it dropped, the rule.",
        ],
        examples: &[
            ("wireloom policy wg0 /etc/wireguard/wg0.policy", "puts the rules of the file in force"),
            ("wireloom policy wg0", "prints the rules in force and what each has taken"),
            ("wireloom policy wg0 /dev/null", "takes all rules away"),
            ("drop out proto=tcp dport=25", "in the file: nobody sends mail through the tunnel"),
            ("limit 1mbit in proto=icmp", "in the file: echoes take at most a megabit each second"),
        ],
        environment: &[],
        files: &[SOCKETS],
    },
    Page {
        name: "wireloom-showconf",
        notes: &[],
        examples: &[("umask 077; wireloom showconf wg0 > wg0.conf", "keeps the configuration of wg0")],
        environment: &[],
        files: &[SOCKETS],
    },
    Page {
        name: "wireloom-set",
        notes: &[
            "Keys are read from files, since other users can see a command line. An empty file, such as /dev/null, takes the key away. `fwmark off`, \
             `persistent-keepalive off` and `allowed-ips ''` do what they say.",
            "A port may be the name of a UDP service. Allowed IPs replace those that the peer had, unless one of them has a sign: with + it is added, \
             with - it is taken away, which interfaces of the kernel can do since Linux 6.16.",
        ],
        examples: &[
            ("wireloom set wg0 listen-port 51820 private-key private", "sets the port and the key"),
            (
                "wireloom set wg0 peer KEY endpoint vpn.example.com:51820 allowed-ips 10.0.0.0/24,fd00::/64",
                "adds a peer, or changes it",
            ),
            ("wireloom set wg0 peer KEY remove", "takes a peer away"),
        ],
        environment: &[RETRIES],
        files: &[SOCKETS, ("/etc/services", "the names of services")],
    },
    Page {
        name: "wireloom-setconf",
        notes: &[
            CONF_NOTE,
            "What the file does not say is taken away, and all peers start anew; see wireloom-syncconf(1).",
        ],
        examples: &[("wireloom setconf wg0 wg0.conf", "configures wg0 as the file says, and nothing else")],
        environment: &[RETRIES],
        files: &[SOCKETS],
    },
    Page {
        name: "wireloom-addconf",
        notes: &[CONF_NOTE, "What the file does not say stays as it is."],
        examples: &[("wireloom addconf wg0 new-peers.conf", "adds the peers of the file to wg0")],
        environment: &[RETRIES],
        files: &[SOCKETS],
    },
    Page {
        name: "wireloom-syncconf",
        notes: &[CONF_NOTE, "What the file does not say is taken away; peers that stay keep their sessions."],
        examples: &[
            ("wireloom syncconf wg0 wg0.conf", "makes wg0 what the file says"),
            ("wg-quick strip wg0 | wireloom syncconf wg0 /dev/stdin", "does so with a file of wg-quick(8)"),
        ],
        environment: &[RETRIES],
        files: &[SOCKETS],
    },
    Page {
        name: "wireloom-capture",
        notes: &[
            "The file is in the format pcapng, which Wireshark and tcpdump read. It is made for its owner only, and never in the place of another. \
             What ends it is whichever comes first: as many packets, as many seconds or as many bytes as were asked for, a signal, or \
             the interface being set down. How many packets the kernel had to drop meanwhile is told in the end.",
            "Packets begin with their IP header, and each says whether this host sent it. Super-packets are cut into the packets that are on the wire, but \
             before Linux 6.2 they appear whole. Of an outer datagram in fragments only the first is there. With --outer, a datagram that passes several \
             interfaces of this host appears once for each. Datagrams that this host forwards for others appear as well, if they are sent from the \
             same port number.",
            "With --plain the file holds what the tunnel protects, in the clear. It holds keys only with --include-keys: then those with which anybody can pass for this \
             interface, so that it has to be kept as they are, and never sent to anybody. The keys of sessions are not among them: data stays sealed.",
            "It must be called in the network namespace that the interface is in (`ip netns exec NAME wireloom capture …`). The sockets of an interface that runs in user space are \
             looked for where its daemon is, those of the kernel's here.",
        ],
        examples: &[
            ("wireloom capture wg0 --outer wg0.pcapng", "what wg0 sends and receives in the next minute"),
            (
                "wireloom capture wg0 --plain --seconds 10 --count 500 inside.pcapng",
                "what goes through it, in the clear",
            ),
            ("wireloom capture wg0 --plain - | tshark -r -", "looks at it at once"),
        ],
        environment: &[],
        files: &[SOCKETS],
    },
    Page {
        name: "wireloom-strip",
        notes: &["The same bytes as `wg-quick strip` prints."],
        examples: &[(
            "wireloom strip wg0 | wireloom syncconf wg0 /dev/stdin",
            "makes the peers of wg0 those of its file",
        )],
        environment: &[],
        files: &[QUICK_FILES],
    },
    Page {
        name: "wireloom-reload",
        notes: &[
            "Peers that are the same are not touched, and of others only what differs: sessions, counters and where a peer was last seen stay. An endpoint of the file is \
             set when the file's has changed since `up` or the last `reload`; a peer that has moved stays where it is otherwise. A port or a private key that the \
             file does not have stays what it is.",
            "The rules of `wireloom up --policy` are read anew, first of all, and put in force if others are.",
            "Addresses, MTU, routes, rules, names and firewall follow, as far as `wireloom up` made them; what somebody else added stays. Hooks are not run. An \
             interface that wg-quick(8) has brought up has its keys and peers reloaded, and no more.",
        ],
        examples: &[
            ("wireloom reload --dry-run wg0", "prints what differs"),
            ("wireloom reload wg0", "makes it what /etc/wireguard/wg0.conf says"),
        ],
        environment: &[RETRIES],
        files: &[QUICK_FILES, JOURNAL, SOCKETS],
    },
    Page {
        name: "wireloom-save",
        notes: &[
            "What the file has beyond the device (DNS, Table, hooks, SaveConfig) stays; addresses, the MTU if it has one, keys and peers are those that \
             run. Addresses that the kernel made itself (fe80::/10) are left out unless the file has them.",
            "Comments stay with the setting or the section below them, or on whose line they are; those of peers that are gone go with them, which is told. \
             The file is replaced as a whole, readable by its owner only; when anything fails it stays what it was.",
        ],
        examples: &[("wireloom save wg0", "writes what runs into /etc/wireguard/wg0.conf")],
        environment: &[],
        files: &[QUICK_FILES, SOCKETS],
    },
    Page {
        name: "wireloom-export",
        notes: &[
            "What the other program has no words for (hooks, SaveConfig, the table of nftables against leaks) is told on standard error, one line each. Files with \
             keys are made for their owner only, those for systemd-networkd also for the group systemd-network where there is one; a file that is there \
             already is left alone unless --force is given.",
            "A PostUp that only runs `wg set %i private-key FILE` becomes PrivateKeyFile=, `wg set %i peer KEY preshared-key FILE` PresharedKeyFile=.",
        ],
        examples: &[
            (
                "wireloom export --format networkd wg0 --output /etc/systemd/network",
                "writes 50-wg0.netdev and 50-wg0.network",
            ),
            (
                "wireloom export --format networkmanager wg0 --output /etc/NetworkManager/system-connections",
                "writes wg0.nmconnection",
            ),
        ],
        environment: &[],
        files: &[QUICK_FILES],
    },
    Page {
        name: "wireloom-import",
        notes: &["What wg-quick has no words for is told on standard error, one line each, with where it stands."],
        examples: &[
            (
                "wireloom import /etc/systemd/network/50-wg0.netdev /etc/systemd/network/50-wg0.network --output /etc/wireguard",
                "writes /etc/wireguard/wg0.conf",
            ),
            ("wireloom import /etc/NetworkManager/system-connections/wg0.nmconnection", "prints the file"),
        ],
        environment: &[],
        files: &[],
    },
    Page {
        name: "wireloom-genkey",
        notes: &[KEY_NOTE],
        examples: &[(
            "umask 077; wireloom genkey | tee private | wireloom pubkey > public",
            "makes both keys of a new interface",
        )],
        environment: &[],
        files: &[],
    },
    Page {
        name: "wireloom-genpsk",
        notes: &[KEY_NOTE],
        examples: &[("umask 077; wireloom genpsk > psk", "makes a key that both ends of a tunnel are given")],
        environment: &[],
        files: &[],
    },
    Page {
        name: "wireloom-doctor",
        notes: &[
            "Each finding has a level (ok, note, warning, fault), a name that scripts can rely on, a sentence on what it is, and below it one on what to do. \
             docs/doctor.md tells of all of them.",
            "Nothing is changed. What is sent is one byte to each endpoint, and pings through the tunnel, which find out how large a packet may be that gets through: \
             that takes a minute at most. An ordinary user sees a part of it, and is told so.",
        ],
        examples: &[
            ("wireloom doctor", "looks at this machine"),
            ("wireloom doctor wg0", "also at wg0, which runs here, and at the path inside the tunnel"),
            ("wireloom doctor ./wg0.conf", "also at a file, before it is used"),
            (
                "wireloom doctor --json wg0 | jq '.findings[] | select(.level == \"fault\")'",
                "the faults, for a program",
            ),
        ],
        environment: &[("WG_COLOR_MODE", "`always` or `never`; otherwise there are colours on a terminal")],
        files: &[SOCKETS, ("/etc/wireguard/NAME.conf", "the file of an interface that does not run")],
    },
    #[cfg(feature = "lab")]
    Page {
        name: "wireloom-lab",
        notes: &[
            "Systems are set up in network namespaces of this machine, joined by virtual cables; nothing else on it is touched, and all of it is taken away at the end, after \
             Ctrl-C, too. Processors are shared by both ends and by what makes the traffic, so that figures are for comparing and not for promising. In each round every \
             system is measured once; it takes 5 rounds for a difference to be claimed.",
            "What has been measured is kept at once. A run that was interrupted goes on with `wireloom lab run --resume`, in the same folder; one that has all of its rounds gets more \
             of them by a higher --rounds. A measurement that fails is kept with its reason, and the next one goes on; --resume --again measures it again. A run never goes on with another \
             version of a system.",
            "What is not installed is left out, and `lab list` names the command that installs it. Which experiment asks what, and how it is measured, docs/lab.md tells.",
        ],
        examples: &[
            ("wireloom lab list", "what can be compared here, and in what"),
            ("wireloom lab run --quick", "compares all that is here, within ten minutes"),
            (
                "wireloom lab run --systems wireloom,wireguard-go --experiments streams,latency --rounds 5 --out mine",
                "two systems by two experiments, into the folder `mine`",
            ),
            ("wireloom lab run --resume", "goes on with what was interrupted"),
            ("wireloom lab code --out wireloom-lab", "counts the code of each system, and enters the numbers in a run"),
            ("wireloom lab compare before after", "what became better or worse, of two folders"),
            ("wireloom lab merge monday tuesday -o both.json", "several runs of one machine as one"),
        ],
        environment: &[
            ("WIRELOOM_BIN", "the program that `wireloom` is, among the systems; this one if it is not set"),
            ("WIRELOOM_PEERS", "where boringtun and gotatun are, in a folder `bin`"),
        ],
        files: &[
            ("FOLDER/run.json", "all measurements, as JSON in base units"),
            ("FOLDER/report.html", "the report, one page with nothing from elsewhere"),
        ],
    },
    Page {
        name: "wireloom-pubkey",
        notes: &[],
        examples: &[("wireloom pubkey < private", "prints the public key of the private key in the file")],
        environment: &[],
        files: &[],
    },
    Page {
        name: "wireloom-completions",
        notes: &["Interfaces, peers and settings are completed as they are at that moment."],
        examples: &[
            ("wireloom completions bash > /usr/share/bash-completion/completions/wireloom", "for all users of bash"),
            ("source <(wireloom completions bash)", "for this shell"),
            ("wireloom completions zsh > /usr/share/zsh/site-functions/_wireloom", "for all users of zsh"),
            ("wireloom completions fish > ~/.config/fish/completions/wireloom.fish", "for a user of fish"),
        ],
        environment: &[],
        files: &[],
    },
];

const DESCRIPTION: &str = "Wireloom runs WireGuard interfaces and configures them, those of the kernel, too. It speaks the stock protocol, \
    and its commands are those of wg(8).";

/// When the text was last gone over: the same source makes the same pages.
const DATE: &str = "2026-11-21";

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "all went well"),
    ("1", "it did not; one line on standard error says what, where, and what would be right"),
];

const EXIT_STATUS_OF_DOCTOR: &[(&str, &str)] = &[
    ("0", "there is no fault"),
    ("1", "there is one, or there are several"),
    ("2", "it could not look; one line on standard error says why"),
];

/// A section of lists, by its title.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

impl Page {
    fn of(command: &str) -> Option<&'static Page> {
        PAGES.iter().find(|page| page.command() == command)
    }

    fn command(&self) -> &'static str {
        self.name.strip_prefix("wireloom-").unwrap_or(self.name)
    }

    /// The sections that have something in them.
    fn sections(&self) -> impl Iterator<Item = Section> + use<> {
        let all: [Section; 4] = [
            ("Examples", self.examples),
            ("Environment", self.environment),
            ("Files", self.files),
            ("Exit status", if self.command() == "doctor" { EXIT_STATUS_OF_DOCTOR } else { EXIT_STATUS }),
        ];
        all.into_iter().filter(|(_, entries)| !entries.is_empty())
    }

    /// As plain text, for `--help`.
    fn help(&self) -> String {
        let mut text = String::new();
        for note in self.notes {
            text += &format!("{}\n\n", note.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        for (title, entries) in self.sections() {
            text += &format!("{title}:\n");
            for (what, about) in entries {
                text += &format!("  {what}\n      {about}\n");
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn write_sections(&self, roff: &mut Roff) {
        if !self.notes.is_empty() {
            roff.control("SH", ["NOTES"]);
            for (at, note) in self.notes.iter().enumerate() {
                if at > 0 {
                    roff.control("PP", []);
                }
                roff.text([roman(note.split_whitespace().collect::<Vec<_>>().join(" "))]);
            }
        }
        for (title, entries) in self.sections() {
            roff.control("SH", [title.to_uppercase().as_str()]);
            for (what, about) in entries {
                roff.control("TP", []);
                roff.text([bold(*what)]);
                roff.text([roman(*about)]);
            }
        }
        let others = PAGES.iter().map(|page| page.name).filter(|&name| name != self.name);
        let mut names: Vec<String> = others.map(|name| format!("{name}(1)")).collect();
        names.extend(["wg(8)", "wg-quick(8)", "ip-link(8)"].map(str::to_owned));
        roff.control("SH", ["SEE ALSO"]);
        roff.text([roman(names.join(", "))]);
    }
}

/// Adds what is said here to the help of `command` and of those below it.
pub fn with_help(mut command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in names {
        if let Some(page) = Page::of(&name) {
            command = command.mut_subcommand(&name, |command| command.after_long_help(page.help()));
        }
    }
    command
}

/// Writes a page for the command and one for each below it into `folder`, which is made.
pub fn write(command: &Command, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut whole = command.clone();
    whole.build();
    for page in PAGES {
        let one = match whole.find_subcommand(page.command()) {
            Some(found) => found.clone().bin_name(format!("wireloom {}", page.command())),
            // Its long description is examples, laid out for a terminal; the page has them below.
            None => command.clone().long_about(DESCRIPTION),
        };
        // Pages stand for themselves: `help` is no command of theirs.
        let one = one.name(page.name).display_name(page.name).disable_help_subcommand(true);
        let one = one.mut_args(tell_values);
        fs::write(folder.join(format!("{}.1", page.name)), render(one, page)?)?;
    }
    Ok(())
}

/// Says in a line what an argument may be, which is laid out badly otherwise.
fn tell_values(arg: Arg) -> Arg {
    let values: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if values.is_empty() {
        return arg;
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    arg.help(format!("{help}: {}", values.join(", "))).hide_possible_values(true)
}

fn render(command: Command, page: &Page) -> io::Result<Vec<u8>> {
    let has_options = command.get_arguments().next().is_some();
    let has_commands = command.has_subcommands() && page.name == "wireloom";
    // Those of `wireloom` itself have pages of their own.
    let below = if has_commands { Vec::new() } else { commands_below(&command) };
    let version = format!("wireloom {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command).manual("Wireloom").source(version).date(DATE);
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if has_options {
        man.render_options_section(&mut text)?;
    }
    if has_commands {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::new();
    write_commands(&below, &mut roff);
    page.write_sections(&mut roff);
    roff.to_writer(&mut text)?;
    Ok(text)
}

/// A command of a command, as its page has it: how it is typed, what it does, and its arguments.
struct Below {
    usage: String,
    about: String,
    arguments: Vec<(String, String)>,
}

fn commands_below(command: &Command) -> Vec<Below> {
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help");
    shown
        .map(|it| {
            let usage = it.clone().render_usage().to_string();
            let arguments = it.get_arguments().filter(|arg| arg.get_id() != "help").cloned().map(tell_values);
            let text = |it: Option<&clap::builder::StyledStr>| it.map(ToString::to_string).unwrap_or_default();
            Below {
                usage: usage.trim_start_matches("Usage: ").to_owned(),
                about: text(it.get_about()),
                arguments: arguments.map(|arg| (arg.to_string(), text(arg.get_help()))).collect(),
            }
        })
        .collect()
}

fn write_commands(below: &[Below], roff: &mut Roff) {
    if below.is_empty() {
        return;
    }
    roff.control("SH", ["COMMANDS"]);
    for it in below {
        roff.control("TP", []);
        roff.text([bold(it.usage.as_str())]);
        roff.text([roman(it.about.as_str())]);
        if it.arguments.is_empty() {
            continue;
        }
        roff.control("RS", []);
        for (argument, about) in &it.arguments {
            roff.control("TP", []);
            roff.text([bold(argument.as_str())]);
            roff.text([roman(about.as_str())]);
        }
        roff.control("RE", []);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_page_a_command() {
        let command = crate::cli::command();
        let mut commands: Vec<&str> = command
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(|command| command.get_name())
            .collect();
        commands.push("wireloom");
        commands.sort_unstable();
        let mut pages: Vec<&str> = PAGES.iter().map(Page::command).collect();
        pages.sort_unstable();
        assert_eq!(pages, commands);
        assert!(PAGES.iter().all(|page| !page.examples.is_empty()));
    }
}
