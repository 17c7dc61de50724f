//! The header keeps its ownership protocol (requirement G5), and says what the library has.

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use common::{has, run, shared};

/// A function of the header.
struct Prototype {
    name: String,
    result: String,
    parameters: String,
    /// The comment before it.
    comment: String,
}

/// The header's functions. It is written by rules, so this need not know C.
fn prototypes() -> Vec<Prototype> {
    let header = include_str!("../include/flagstone.h");
    let (_, header) = header.split_once("extern \"C\" {\n#endif").expect("its beginning");
    // In comments a semicolon ends no declaration, nor does a bracket open parameters.
    let plain = |comment: &str| comment.replace(';', ",").replace(['(', ')'], " ");
    let mut pieces = header.split("/*");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (comment, code) = piece.split_once("*/").expect("comments end");
        text.push_str(&format!("/*{}*/{code}", plain(comment)));
    }
    let mut found = Vec::new();
    for part in text.split(';') {
        // Members of structs and typedefs are no functions.
        let Some(open) = part.find("flagstone_").and_then(|_| part.rfind('(')) else { continue };
        let (before, parameters) = part.split_at(open);
        let Some(at) = before.rfind(|c: char| !c.is_alphanumeric() && c != '_') else { continue };
        let name = &before[at + 1..];
        let Some((comment, result)) = before[..=at].rsplit_once("*/") else { continue };
        if !name.starts_with("flagstone_") || result.contains("typedef") {
            continue;
        }
        found.push(Prototype {
            name: name.to_owned(),
            result: result.trim().to_owned(),
            parameters: parameters.trim_matches(['(', ')']).to_owned(),
            comment: comment.rsplit_once("/*").map_or("", |(_, comment)| comment).to_owned(),
        });
    }
    found
}

// requirement: G5
#[test]
fn whoever_hands_out_a_pointer_says_whose_it_is() {
    let functions = prototypes();
    let names: BTreeSet<_> = functions.iter().map(|function| function.name.as_str()).collect();
    assert!(names.len() > 15, "the test reads the header wrongly: {names:?}");
    for function in &functions {
        let Prototype { name, result, parameters, .. } = function;
        let by_output = ["**", "flagstone_result_ptr *", "flagstone_port *"];
        let hands_out = result.contains('*')
            || by_output.iter().any(|kind| parameters.replace("const ", "").contains(kind));
        let block = ["_alloc", "_realloc"].iter().any(|end| name.ends_with(end));
        let suffix = ["_owned", "_borrowed", "_view"].iter().find(|end| name.ends_with(**end));
        if !hands_out {
            assert!(suffix.is_none(), "{name} hands nothing out");
            continue;
        }
        if block {
            let stem = name.trim_end_matches("_realloc").trim_end_matches("_alloc");
            let back = [format!("{stem}_dealloc"), format!("{stem}_free")];
            assert!(
                back.iter().any(|back| names.contains(back.as_str())),
                "{name} has no way back"
            );
            continue;
        }
        let suffix = suffix.unwrap_or_else(|| panic!("{name} does not say whose the result is"));
        if *suffix == "_owned" && !parameters.contains("flagstone_result_ptr") {
            let free = name.replace("_owned", "_free");
            assert!(names.contains(free.as_str()), "{name} has no {free}");
        }
    }
}

#[test]
fn every_function_documents_ownership_and_errors() {
    for function in prototypes() {
        for wanted in ["Ownership: ", "Errors: "] {
            assert!(function.comment.contains(wanted), "{} lacks '{wanted}'", function.name);
        }
    }
}

#[test]
fn header_and_library_have_the_same_functions() {
    if !has("nm") {
        return;
    }
    let output = run(Command::new("nm").args(["-D", "--defined-only"]).arg(shared()));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let exported: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .filter(|name| name.starts_with("flagstone_"))
        .map(str::to_owned)
        .collect();
    let declared: BTreeSet<_> = prototypes().into_iter().map(|function| function.name).collect();
    assert_eq!(exported, declared);
}
