//! Huge pages: whether the heap asks the system for them.
//!
//! Owns the policy and its names. Where the system leaves the choice to programs (`madvise` in
//! `/sys/kernel/mm/transparent_hugepage/enabled`), asking makes one fault of 512 and spares most of
//! the time that filling fresh memory takes; memory of which little is touched costs up to 2 MiB
//! for each part touched.

use std::str::FromStr;

use super::Heap;
use crate::os;

/// Whether a heap asks for huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugePages {
    /// Not at all: the heap's memory is advised against them, whatever the system's setting.
    Never,
    /// For blocks of 4 MiB and more that were not asked for zeroed (those are often meant to stay
    /// mostly untouched). For the rest the system's setting holds.
    Madvise,
    /// For all memory.
    Always,
}

impl HugePages {
    /// The name, as [`FLAGSTONE_HUGE_PAGES`](Heap::huge_pages) takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Madvise => "madvise",
            Self::Always => "always",
        }
    }

    /// What to advise for a fresh mapping, if anything; `large` for one made for a block that huge
    /// pages suit.
    pub(crate) fn advice(self, large: bool) -> Option<bool> {
        match self {
            Self::Never => Some(false),
            Self::Madvise => large.then_some(true),
            Self::Always => Some(true),
        }
    }
}

/// The name of a policy was none of `never`, `madvise` and `always`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownHugePages;

impl std::fmt::Display for UnknownHugePages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("expected never, madvise or always")
    }
}

impl std::error::Error for UnknownHugePages {}

impl FromStr for HugePages {
    type Err = UnknownHugePages;

    fn from_str(name: &str) -> Result<Self, UnknownHugePages> {
        [Self::Never, Self::Madvise, Self::Always]
            .into_iter()
            .find(|policy| policy.as_str() == name)
            .ok_or(UnknownHugePages)
    }
}

/// Measured: see ADR 8.
const DEFAULT: HugePages = HugePages::Madvise;

impl Heap {
    /// Sets whether memory mapped from now on asks for huge pages.
    pub fn set_huge_pages(&self, policy: HugePages) {
        self.huge_pages.set(stored(policy));
    }

    /// Whether the heap asks for huge pages: what was set, else what the environment variable
    /// `FLAGSTONE_HUGE_PAGES` says (`never`, `madvise` or `always`), else `madvise`.
    pub fn huge_pages(&self) -> HugePages {
        match self.huge_pages.get() {
            1 => HugePages::Never,
            2 => HugePages::Madvise,
            3 => HugePages::Always,
            _ => self.ask_environment(),
        }
    }

    #[cold]
    fn ask_environment(&self) -> HugePages {
        let read = |value: &str| {
            value.parse().unwrap_or_else(|error| {
                os::complain(format_args!("FLAGSTONE_HUGE_PAGES={value}: {error}"));
                DEFAULT
            })
        };
        let policy = os::environment(c"FLAGSTONE_HUGE_PAGES", read).unwrap_or(DEFAULT);
        self.set_huge_pages(policy);
        policy
    }
}

/// Zero is "not asked yet", so that the heap can live in a zeroed static.
fn stored(policy: HugePages) -> u64 {
    match policy {
        HugePages::Never => 1,
        HugePages::Madvise => 2,
        HugePages::Always => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for policy in [HugePages::Never, HugePages::Madvise, HugePages::Always] {
            assert_eq!(policy.as_str().parse(), Ok(policy));
        }
        assert_eq!("Always".parse::<HugePages>(), Err(UnknownHugePages));
        assert_eq!("".parse::<HugePages>(), Err(UnknownHugePages));
    }

    #[test]
    fn only_large_blocks_ask_by_default() {
        assert_eq!(HugePages::Madvise.advice(true), Some(true));
        assert_eq!(HugePages::Madvise.advice(false), None);
        assert_eq!(HugePages::Never.advice(true), Some(false));
        assert_eq!(HugePages::Always.advice(false), Some(true));
    }
}
