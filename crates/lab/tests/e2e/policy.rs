//! The rules that say what may pass a tunnel: whatever they name is stopped there and nowhere else, counted, and changed at run time.

use std::fs;
use std::path::PathBuf;

use lab::traffic::{Service, UdpPlan, exchange_tcp, exchange_udp};
use lab::{End, ping};
use serde_json::Value;

use crate::common::{LIMIT, check_pings, our_tunnel, spec, wireloom};
use crate::engines::each_engine;

each_engine!(
    what_a_rule_names_is_stopped_and_all_else_passes,
    a_limit_lets_through_as_much_as_it_says,
    a_daemon_has_its_rules_from_the_start,
);

/// A file of rules, in a folder that goes with it.
struct Rules {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Rules {
    fn new(text: &str) -> Rules {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy");
        fs::write(&path, text).unwrap();
        Rules { _folder: folder, path }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

#[track_caller]
fn policy(end: &End, words: &[&str]) -> String {
    let program = wireloom().program().unwrap().display().to_string();
    let all: Vec<&str> = ["policy", &end.daemon.interface].iter().chain(words).copied().collect();
    end.namespace().run(&program, &all).unwrap()
}

#[track_caller]
fn set(end: &End, text: &str) {
    let rules = Rules::new(text);
    assert_eq!(policy(end, &[rules.path()]), "");
}

/// What each rule has taken: packets, bytes, dropped.
#[track_caller]
fn counts(end: &End) -> Vec<[u64; 3]> {
    let shown = policy(end, &[]);
    let count = |line: &str| {
        let words: Vec<u64> = line.split('\t').take(3).map(|word| word.parse().unwrap()).collect();
        words.try_into().unwrap()
    };
    shown.lines().map(count).collect()
}

#[track_caller]
fn silent(from: &End, to: &End) {
    let lost = ping::once(from.namespace(), to.v4.into(), &["-W", "1"]).unwrap();
    assert!(!lost.status.success(), "{}", lost.log());
}

/// Pings of the usual size, all dropped. There may be more than one: where the eBPF engine drops, the kernel tells `ping` so, which tries again.
#[track_caller]
fn check_dropped([packets, bytes, dropped]: [u64; 3]) {
    assert!(packets >= 1 && (bytes, dropped) == (84 * packets, packets), "{packets} {bytes} {dropped}");
}

fn drops(end: &End) -> u64 {
    let told = wireloom().program().unwrap().display().to_string();
    let text = end.namespace().run(&told, &["show", &end.daemon.interface, "drops"]).unwrap();
    text.lines().find_map(|line| line.strip_prefix("policy\t")).unwrap().parse().unwrap()
}

fn what_a_rule_names_is_stopped_and_all_else_passes() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let key = &right.keys.public;
    // Super-packets of TCP go out, and are many packets to the rule that takes them.
    set(
        left,
        &format!("pass out peer={key} proto=tcp\ndrop proto=icmp dst={}/32\ndrop peer={key} proto=icmpv6 in", right.v4),
    );
    let _service = Service::start(right.namespace()).unwrap();
    exchange_tcp(left.namespace(), right.v4.into(), 1_000_000, LIMIT).unwrap();
    let [tcp, icmp, icmpv6] = counts(left)[..] else { panic!("three rules") };
    assert!(tcp[0] > 500 && (1_000_000..1_300_000).contains(&tcp[1]) && tcp[2] == 0, "{tcp:?}");
    // Segments of at most 1420 bytes, counted as they travel.
    assert!(tcp[1] / tcp[0] <= 1420, "{tcp:?}");
    assert_eq!(icmp, [0; 3]);

    silent(left, right);
    let [_, icmp, _] = counts(left)[..] else { panic!("three rules") };
    check_dropped(icmp);
    // Neighbours are not looked for on such a link, but multicast may be: what is no echo is not ours to count.
    let before = icmpv6[2];
    let lost = ping::once(left.namespace(), right.v6.into(), &["-W", "1"]).unwrap();
    assert!(!lost.status.success(), "the answer is dropped as it comes in");
    assert!(counts(left)[2][2] > before);
    assert_eq!(drops(left), counts(left).iter().map(|count| count[2]).sum::<u64>());

    // Others' rules begin at nothing, and none are none.
    set(left, "drop in proto=tcp # only inwards\n");
    assert_eq!(counts(left), [[0; 3]]);
    check_pings(left, right);
    set(left, "");
    assert_eq!(policy(left, &["--show"]), "");
    exchange_tcp(left.namespace(), right.v4.into(), 1_000_000, LIMIT).unwrap();

    // `wg` sees nothing of it, and what is wrong in a file is told with its line, and changes nothing.
    set(left, "drop out proto=tcp dport=25\n");
    let file = Rules::new("pass\ndrop out dport=25\n");
    let program = wireloom().program().unwrap();
    let mut command = left.namespace().command(program);
    let refused = lab::run(command.args(["policy", &left.daemon.interface, file.path()]), LIMIT).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let expected = format!("wireloom: {}:2: sport and dport are of protocols that have ports", file.path());
    assert!(refused.stderr.starts_with(&expected) && refused.stderr.lines().count() == 1, "{}", refused.stderr);
    assert_eq!(policy(left, &[]), "0\t0\t0\tdrop out proto=tcp dport=25\n");
    assert!(!left.namespace().run("wg", &["showconf", &left.daemon.interface]).unwrap().contains("rule"));
    check_pings(left, right);
}

fn a_limit_lets_through_as_much_as_it_says() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    // Half of what is sent: 200 datagrams each second for five seconds.
    set(right, "limit 100pps in proto=udp dst=10.77.0.0/24");
    let _service = Service::start(right.namespace()).unwrap();
    let plan = UdpPlan { flows: 1, count: 1000, size: 500, gap: std::time::Duration::from_millis(5), echo: false };
    let start = std::time::Instant::now();
    let outcome = exchange_udp(left.namespace(), right.v4.into(), &plan, LIMIT).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let [count] = counts(right)[..] else { panic!("one rule") };
    let passed = (count[0] - count[2]) as f64;
    assert!(count[0] >= 900 && count[2] > 100, "{count:?}");
    // No more than the rate and its burst give in this time; and at least a good part of it, since the packets came in five seconds or more.
    assert!(passed <= 100.0 * seconds + 20.0, "{passed} in {seconds} s");
    assert!(passed >= 250.0, "{passed} in {seconds} s, {outcome:?}");
    check_pings(left, right);
}

fn a_daemon_has_its_rules_from_the_start() {
    let rules = Rules::new("drop out proto=icmp\n");
    let path: &'static str = Box::leak(rules.path().to_owned().into_boxed_str());
    let tunnel = lab::TunnelSpec { arguments: vec!["--policy", path], ..spec() }.build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    silent(left, right);
    check_dropped(counts(left)[0]);
    let v6 = ping::start_patiently(left.namespace(), right.v6.into(), 3, "0.2").unwrap();
    assert_eq!(ping::collect(v6, LIMIT).unwrap().received, 3);
    // A handshake is not begun for what may not leave.
    let told = wireloom().program().unwrap().display().to_string();
    let text = left.namespace().run(&told, &["show", &left.daemon.interface, "--json"]).unwrap();
    let told: Value = serde_json::from_str(&text).unwrap();
    let rule = &told["interfaces"][0]["policy"][0];
    assert_eq!(
        (rule["rule"].as_str(), rule["dropped"].as_u64()),
        (Some("drop out proto=icmp"), Some(counts(left)[0][2]))
    );

    // A file that is wrong starts nothing.
    let wrong = Rules::new("drop everything");
    let namespace = lab::Namespace::new().unwrap();
    let mut command = namespace.command(wireloom().program().unwrap());
    let refused = lab::run(command.args(["run", "--policy", wrong.path(), "wlpolicy"]), LIMIT).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains(":1: 'everything' means nothing in a rule"), "{}", refused.stderr);
    assert!(!namespace.ip(&["-o", "link"]).unwrap().contains("wlpolicy"));
}
