//! When a daemon is killed, which, and for how long there is none: different each time, and the same in each run.

use std::time::Duration;

/// A message of a handshake, which is on its way when the daemon is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Moment {
    /// 1 an initiation, 2 a response.
    pub kind: u8,
    /// Whether it is one by the daemon that is killed.
    pub by_killed: bool,
}

/// One kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// So long after the last one, or the start.
    pub after: Duration,
    /// And then at this message of a handshake, if at any.
    pub at: Option<Moment>,
    /// Whether it is the left daemon, unless that moment says which.
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
        let moments =
            [(2, true), (1, true), (2, false), (1, false)].map(|(kind, by_killed)| Moment { kind, by_killed });
        let at = (number % 3 == 2).then(|| moments[(number / 3 % moments.len() as u64) as usize]);
        Kill { after, at, left: number.is_multiple_of(2), pause }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_end_is_killed_in_each_way() {
        let kills: Vec<_> = (0..250).map(Kill::number).collect();
        let plain: HashSet<_> =
            kills.iter().filter(|kill| kill.at.is_none()).map(|kill| (kill.left, kill.pause)).collect();
        let struck: HashSet<_> = kills.iter().filter_map(|kill| Some((kill.at?, kill.pause))).collect();
        assert_eq!((plain.len(), struck.len()), (2 * 4, 4 * 4));
        let bounds = Duration::from_secs(3)..Duration::from_secs(7);
        assert!(kills.iter().all(|kill| bounds.contains(&kill.after)));
        let times: HashSet<_> = kills.iter().map(|kill| kill.after).collect();
        assert_eq!(times.len(), kills.len(), "no two at the same time of a session");
        // The short form has the worst: a response is the last that it says.
        let worst = Moment { kind: 2, by_killed: true };
        assert!(kills[..12].iter().any(|kill| kill.at == Some(worst)));
    }
}
