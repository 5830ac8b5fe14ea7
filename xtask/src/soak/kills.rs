//! When a daemon is killed, which, and for how long there is none: different each time, and the same in each run.

use std::time::Duration;

/// One kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// So long after the last one, or the start.
    pub after: Duration,
    /// And then as soon as a message of a handshake passes.
    pub at_handshake: bool,
    /// Whether it is the left daemon.
    pub left: bool,
    /// How long nobody starts another one.
    pub pause: Duration,
}

impl Kill {
    /// The kill of this number.
    pub fn number(number: u64) -> Kill {
        // It falls on another time of a session each time, and the four pauses on both ends.
        let after = Duration::from_millis(3000 + number * 1618 % 4000);
        let pauses = [0, 500, 0, 2000, 100];
        let pause = Duration::from_millis(pauses[(number % pauses.len() as u64) as usize]);
        Kill { after, at_handshake: number % 3 == 2, left: number.is_multiple_of(2), pause }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_end_is_killed_in_each_way() {
        let kills: Vec<_> = (0..30).map(Kill::number).collect();
        let ways: HashSet<_> = kills.iter().map(|kill| (kill.left, kill.at_handshake, kill.pause)).collect();
        assert_eq!(ways.len(), 2 * 2 * 4);
        let bounds = Duration::from_secs(3)..Duration::from_secs(7);
        assert!(kills.iter().all(|kill| bounds.contains(&kill.after)));
        let times: HashSet<_> = kills.iter().map(|kill| kill.after).collect();
        assert_eq!(times.len(), kills.len(), "no two at the same time of a session");
    }
}
