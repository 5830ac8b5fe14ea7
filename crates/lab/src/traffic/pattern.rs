//! Bytes that both ends can compute: a counter through a mixing function (SplitMix64).

/// An endless stream of bytes from a seed, which fills or checks one buffer after the other.
#[derive(Clone, Debug)]
pub struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Pattern {
        Pattern { state: seed, word: [0; 8], used: 8 }
    }

    /// Writes the next bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill_with(|| self.next());
    }

    /// Compares with the next bytes and tells the place of the first that differs.
    pub fn find_difference(&mut self, buffer: &[u8]) -> Option<usize> {
        buffer.iter().position(|&byte| byte != self.next())
    }

    fn next(&mut self) -> u8 {
        if self.used == 8 {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            self.word = (z ^ (z >> 31)).to_le_bytes();
            self.used = 0;
        }
        let byte = self.word[self.used];
        self.used += 1;
        byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_however_it_is_cut() {
        let mut whole = [0; 100];
        Pattern::new(7).fill(&mut whole);
        let mut pattern = Pattern::new(7);
        for chunk in whole.chunks(13) {
            assert_eq!(pattern.find_difference(chunk), None);
        }
        assert_ne!(Pattern::new(8).find_difference(&whole), None);
    }

    #[test]
    fn finds_one_wrong_byte() {
        let mut bytes = [0; 64];
        Pattern::new(1).fill(&mut bytes);
        bytes[41] ^= 1;
        assert_eq!(Pattern::new(1).find_difference(&bytes), Some(41));
    }
}
