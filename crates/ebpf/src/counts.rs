//! What became of packets, as the programs count it (`enum wl_count` in `bpf/counts.h`, in the same order).

/// What is counted, and what is dropped by which reason of `docs/drops.md`.
pub const COUNTS: [&str; 26] = [
    "sealed",
    "sealed-super",
    "opened",
    "keepalive",
    "left-busy",
    "left-inner",
    "left-route",
    "left-path",
    "left-session",
    "left-size",
    "left-super",
    "left-checksum",
    "left-policy",
    "left-handshake",
    "left-malformed",
    "left-index",
    "left-expired",
    "left-roamed",
    "left-coalesced",
    "left-opened",
    "policy",
    "not-authentic",
    "replayed",
    "source-not-allowed",
    "content-malformed",
    "send-failed",
];

/// The first in [`COUNTS`] that stands for packets that are dropped.
pub const FIRST_DROP: usize = 20;

/// What the programs took and what they left, by name.
pub fn programs(counts: &[u64]) -> Vec<(&'static str, u64)> {
    COUNTS.into_iter().zip(counts.iter().copied()).take(FIRST_DROP).collect()
}

/// Adds what the programs dropped to what userspace did, by the reasons' names.
pub fn add_drops(drops: &mut Vec<(&'static str, u64)>, counts: &[u64]) {
    for (name, count) in COUNTS.iter().zip(counts).skip(FIRST_DROP) {
        match drops.iter_mut().find(|(reason, _)| reason == name) {
            Some((_, sum)) => *sum += count,
            None => drops.push((name, *count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_those_of_the_programs() {
        // Nothing has the type of that enum, and so no BTF tells of it.
        let list =
            include_str!("../bpf/counts.h").split("enum wl_count {").nth(1).unwrap().split("WL_COUNTS").next().unwrap();
        let named: Vec<&str> =
            list.lines().filter_map(|line| line.trim().strip_prefix("WL_")?.split(',').next()).collect();
        assert_eq!(named.len(), COUNTS.len(), "{named:?}");
        for (name, ours) in named.iter().zip(COUNTS) {
            let theirs = name.trim_start_matches("DROP_").to_lowercase().replace('_', "-");
            let same = match ours {
                "not-authentic" => "forged",
                "source-not-allowed" => "source",
                "content-malformed" => "content",
                "send-failed" => "memory",
                ours => ours,
            };
            assert_eq!(theirs, same);
        }
        assert_eq!(COUNTS[FIRST_DROP], "policy");
    }

    #[test]
    fn what_is_told_of_packets_is_in_the_manual() {
        let page = include_str!("../../../docs/ebpf.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let rows: Vec<&str> = rows.map(|row| row.0).collect();
        let told: Vec<&str> = programs(&[0; COUNTS.len()]).iter().map(|(name, _)| *name).collect();
        assert_eq!(rows, told);
    }

    #[test]
    fn drops_are_added_by_name() {
        let mut drops = vec![("replayed", 1), ("no-route", 2)];
        let mut counts = [0; COUNTS.len()];
        counts[22] = 5;
        counts[0] = 100;
        add_drops(&mut drops, &counts);
        assert_eq!(drops[..3], [("replayed", 6), ("no-route", 2), ("policy", 0)]);
    }
}
