//! The answers where there is no operating system.
//!
//! Owns nothing. The program's panic handler stands in for standard error and `abort`.

use core::fmt;

/// What ranges of a backing are multiples of.
pub(crate) fn page_size() -> usize {
    4096
}

/// A number that differs between heaps, but that nobody has to guess: addresses are all there is. Links
/// made with it give stray writes away; against an attacker they are no hurdle.
pub(crate) fn entropy() -> usize {
    let here = 0u8;
    let mut word = (&raw const here).addr() as u64 ^ 0x9e37_79b9_7f4a_7c15;
    // The finaliser of splitmix64: every bit of the address moves every bit of the word.
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ (word >> 31)) as usize
}

/// Hands `flagstone: MESSAGE` to the panic handler. Allocators must not unwind: where panics do, leaving
/// this function ends the program.
#[cold]
#[inline(never)]
pub(crate) fn fatal(message: fmt::Arguments<'_>) -> ! {
    // A function of this ABI is one that nothing unwinds out of.
    extern "C" fn no_unwind(message: &fmt::Arguments<'_>) -> ! {
        panic!("flagstone: {message}")
    }
    no_unwind(&message)
}
