//! What a file's symbols say about the allocator of the program.
//!
//! Owns the reading, by the `object` crate: ELF, Mach-O and PE. A file cannot prove what happens at
//! run time: a yes means that Flagstone is built in, or asked for, as the allocator.

use std::collections::HashSet;
use std::error::Error;
use std::path::Path;

use object::{Object as _, ObjectSymbol as _};

use super::Answer;

/// What was seen in the symbol tables.
#[derive(Debug, Default)]
struct Seen {
    /// Defined here, by these exact names.
    defined: HashSet<&'static str>,
    /// Wanted from elsewhere.
    imported: HashSet<&'static str>,
    /// The Rust allocator's entry, which every Rust program with symbols has.
    rust_alloc: bool,
    /// The standard library's default behind it.
    rust_default: bool,
    /// Flagstone's path of an allocation, in a Rust program.
    flagstone_alloc: bool,
    /// Whether there is a full symbol table and not only what the loader needs.
    full: bool,
}

/// Names that are looked for as they are.
const EXACT: [&str; 6] =
    ["malloc", "free", "flagstone_verify", "flagstone_alloc", "mi_malloc", "_rjem_malloc"];

/// Reads the file and answers.
pub(super) fn ask(path: &Path) -> Result<(Answer, String), Box<dyn Error>> {
    let complain = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let data = std::fs::read(path).map_err(|error| complain(&error))?;
    let file = object::File::parse(&*data).map_err(|error| complain(&error))?;
    let mut seen = Seen { full: file.symbols().next().is_some(), ..Seen::default() };
    for symbol in file.symbols().chain(file.dynamic_symbols()) {
        if let Ok(name) = symbol.name() {
            seen.note(name, symbol.is_undefined());
        }
    }
    let (answer, why) = seen.judge();
    Ok((answer, why.to_owned()))
}

impl Seen {
    fn note(&mut self, name: &str, undefined: bool) {
        // Mach-O puts an underscore before every name; ELF may put a version after it.
        let plain = name.split('@').next().unwrap_or(name);
        let bare = plain.strip_prefix('_').unwrap_or(plain);
        for exact in EXACT {
            if plain == exact || (bare == exact && cfg!(target_os = "macos")) {
                if undefined {
                    self.imported.insert(exact);
                } else {
                    self.defined.insert(exact);
                }
            }
        }
        self.rust_alloc |= plain.ends_with("___rust_alloc") || plain == "__rust_alloc";
        self.rust_default |= plain.ends_with("___rdl_alloc") || plain == "__rdl_alloc";
        self.flagstone_alloc |= plain.contains("flagstone_slab") && plain.contains("alloc_slow");
    }

    fn judge(&self) -> (Answer, &'static str) {
        let defined = |name| self.defined.contains(name);
        if defined("flagstone_verify") && defined("malloc") {
            return (Answer::Yes, "its malloc is Flagstone's, linked in");
        }
        if self.imported.contains("flagstone_alloc") || self.imported.contains("flagstone_verify") {
            return (
                Answer::Yes,
                "it asks the loader for libflagstone, whose malloc comes with it",
            );
        }
        if self.rust_alloc {
            let another = defined("mi_malloc") || defined("_rjem_malloc");
            return match (self.rust_default, self.flagstone_alloc) {
                (true, _) => (Answer::No, "a Rust program on the system's allocator"),
                (false, true) if another => {
                    (Answer::Unknown, "a Rust program with Flagstone and another allocator in it")
                }
                (false, true) => {
                    (Answer::Yes, "a Rust program whose global allocator is Flagstone")
                }
                (false, false) => {
                    (Answer::No, "a Rust program on an allocator that is not Flagstone")
                }
            };
        }
        if self.imported.contains("malloc") {
            let why =
                "it takes malloc from another library; preloading Flagstone would change that";
            return (Answer::No, why);
        }
        if defined("malloc") {
            return (Answer::No, "it has a malloc of its own, which is not Flagstone's");
        }
        if self.full {
            (Answer::No, "it neither has nor asks for an allocator by name")
        } else {
            (Answer::Unknown, "it is stripped of its symbols")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(full: bool, symbols: &[(&str, bool)]) -> Answer {
        let mut seen = Seen { full, ..Seen::default() };
        symbols.iter().for_each(|(name, undefined)| seen.note(name, *undefined));
        seen.judge().0
    }

    // requirement: P2
    #[test]
    fn symbols_say_yes_no_and_unknown() {
        let rust = "_RNvCsfLfy6EI15iL_7___rustc12___rust_alloc";
        let default = "_RNvCsfLfy6EI15iL_7___rustc11___rdl_alloc";
        let slow = "_RNvMNtNtCs1_14flagstone_slab4heap6refillNtB4_4Heap10alloc_slow";
        assert_eq!(judge(true, &[("malloc", false), ("flagstone_verify", false)]), Answer::Yes);
        assert_eq!(judge(false, &[("flagstone_alloc", true), ("malloc", true)]), Answer::Yes);
        assert_eq!(judge(true, &[("malloc@GLIBC_2.2.5", true)]), Answer::No);
        assert_eq!(judge(true, &[("malloc", false)]), Answer::No);
        assert_eq!(judge(true, &[(rust, false), (slow, false)]), Answer::Yes);
        assert_eq!(judge(true, &[(rust, false), (default, false), (slow, false)]), Answer::No);
        assert_eq!(judge(true, &[(rust, false), ("malloc", true)]), Answer::No);
        let both = [(rust, false), (slow, false), ("mi_malloc", false)];
        assert_eq!(judge(true, &both), Answer::Unknown);
        assert_eq!(judge(true, &[("main", false)]), Answer::No);
        assert_eq!(judge(false, &[]), Answer::Unknown);
    }

    #[test]
    fn a_real_file_is_read_and_what_is_none_is_refused() {
        // This very test: a Rust program on the system's allocator.
        let own = std::env::current_exe().expect("a running test has a path");
        assert_eq!(ask(&own).expect("an object file").0, Answer::No);
        assert!(ask(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))).is_err());
        assert!(ask(Path::new("/no/such/file")).is_err());
    }
}
