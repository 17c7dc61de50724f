//! A program that names Flagstone as its global allocator can prove it.

use flagstone::verify::Mode;

#[global_allocator]
static ALLOCATOR: flagstone::Flagstone = flagstone::Flagstone::new();

// requirement: P2
#[test]
fn a_program_on_flagstone_is_told_so() {
    let found = flagstone::verify();
    assert!(found.verified);
    assert_eq!(found.mode, Mode::GlobalAllocator);
    assert!(found.to_string().starts_with("yes: Flagstone "));
    let elsewhere = std::thread::spawn(flagstone::verify).join().expect("it does not panic");
    assert_eq!(elsewhere, found);
}
