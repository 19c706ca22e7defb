//! Lets the program need the C library and nothing else, so that deployment is one file.
//!
//! Rust's standard library asks the linker for `libgcc_s`, a shared library that unwinds stacks. A
//! linker script of that name, found before the real one, answers with the compiler's static
//! libraries, which hold the same.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=migrations");
    let glibc = env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux")
        && env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu");
    if let Some(directory) = env::var_os("OUT_DIR").map(PathBuf::from).filter(|_| glibc) {
        fs::write(directory.join("libgcc_s.so"), "GROUP ( -lgcc_eh -lgcc )\n")?;
        println!("cargo::rustc-link-arg-bins=-L{}", directory.display());
    }
    Ok(())
}
