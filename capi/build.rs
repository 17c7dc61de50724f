//! Names the shared library, and lays the header and the pkg-config file beside it.
//!
//! Owns nothing at run time. Where the build folder is not laid out as cargo does it today, the two
//! files are left out and the libraries are built all the same.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=include/flagstone.h");
    println!("cargo::rerun-if-changed=flagstone.pc.in");
    // Another package builds the same source as a library for Rust, without this.
    println!("cargo::rustc-cfg=flagstone_exported");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libflagstone.so");
    // Threads and forks keep addresses of its functions: once loaded by `dlopen`, it stays.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    if let Err(error) = lay_beside() {
        println!("cargo::warning=flagstone.h and flagstone.pc are not beside the library: {error}");
    }
}

fn lay_beside() -> Result<(), Box<dyn std::error::Error>> {
    let package = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    // OUT_DIR is PROFILE/build/flagstone-capi-HASH/out.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let folder = out.ancestors().nth(3).ok_or("unknown layout of the build folder")?;
    let version = env::var("CARGO_PKG_VERSION")?;
    let template = fs::read_to_string(package.join("flagstone.pc.in"))?;
    write_if_changed(&folder.join("flagstone.pc"), &template.replace("@VERSION@", &version))?;
    let header = fs::read_to_string(package.join("include/flagstone.h"))?;
    write_if_changed(&folder.join("flagstone.h"), &header)?;
    Ok(())
}

fn write_if_changed(path: &Path, text: &str) -> std::io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text)
}
