//! The random numbers of every workload: SplitMix64, seeded, the same on every machine for ever.
//!
//! Written here instead of taken from a library because the sequence is part of a workload's
//! definition: a crate's new version may change its sequence, and old results would no longer
//! compare. The generator is Steele, Lea and Flood's, "Fast splittable pseudorandom number
//! generators" (OOPSLA 2014): one addition and a mix of the state.

/// A seeded generator. Cheap enough (about a nanosecond) to be called once per allocation.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose sequence depends on `seed` alone.
    pub const fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// The generator of part `part` (a thread, a round) of a workload seeded with `seed`.
    pub fn part(seed: u64, part: u64) -> Self {
        let mut mixed = Rng(seed ^ part.wrapping_mul(0xd134_2543_de82_ef95));
        Rng(mixed.next())
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)] // an endless sequence, and never an Option
    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`. The bias (below `bound / 2^32`) does not matter to a benchmark.
    ///
    /// # Panics
    /// Panics in debug builds when `bound` is zero or above `2^32`.
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        debug_assert!(bound > 0 && bound as u64 <= 1 << 32);
        (((self.next() >> 32) * bound as u64) >> 32) as usize
    }

    /// A number in `min..=max`, every value equally likely.
    #[inline]
    pub fn range(&mut self, min: usize, max: usize) -> usize {
        min + self.below(max - min + 1)
    }

    /// A size in `min..=max` as programs ask for them: small ones often, large ones seldom.
    ///
    /// The octave is the least of two draws over the octaves between `min` and `max`; within it
    /// every size is equally likely.
    #[inline]
    pub fn skewed(&mut self, min: usize, max: usize) -> usize {
        let octaves = (max / min.max(1)).ilog2() as usize + 1;
        let octave = self.below(octaves).min(self.below(octaves));
        let base = min.max(1) << octave;
        (base + self.below(base)).min(max)
    }

    /// Whether an event of probability `1 / n` happens.
    #[inline]
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn the_sequence_is_splitmix64() {
        // Reference values of SplitMix64 from seed 1234567, as published with the generator.
        let mut rng = Rng::new(1_234_567);
        let got: Vec<u64> = (0..3).map(|_| rng.next()).collect();
        assert_eq!(
            got,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn bounds_hold_and_are_reached() {
        let mut rng = Rng::new(7);
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[rng.range(5, 14) - 5] += 1;
        }
        assert!(seen.iter().all(|&n| n > 800 && n < 1200), "{seen:?}");
    }

    #[test]
    fn skewed_sizes_stay_in_range_and_favour_the_small() {
        let mut rng = Rng::new(7);
        let sizes: Vec<usize> = (0..10_000).map(|_| rng.skewed(16, 65_536)).collect();
        assert!(sizes.iter().all(|s| (16..=65_536).contains(s)));
        let small = sizes.iter().filter(|&&s| s <= 1024).count();
        assert!((6_500..9_000).contains(&small), "{small} of 10,000 at most 1 KiB");
        assert!(sizes.iter().any(|&s| s > 32_768));
        let one = Rng::new(7).skewed(64, 64);
        assert_eq!(one, 64);
    }

    #[test]
    fn parts_differ() {
        assert_ne!(Rng::part(1, 0).next(), Rng::part(1, 1).next());
    }
}
