//! The program needs the C library and nothing else, so that deployment is one file and its
//! database.

use std::process::Command;

#[test]
fn the_program_needs_the_c_library_and_nothing_else() {
    let output = Command::new("readelf")
        .args(["--dynamic", "--wide", env!("CARGO_BIN_EXE_rocket-monitor")])
        .output();
    let output = output.expect("readelf is there, for it comes with the linker (binutils)");
    assert!(output.status.success());
    let section = String::from_utf8(output.stdout).unwrap();
    let needed: Vec<&str> = section
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split(['[', ']']).nth(1))
        .collect();
    assert!(needed.contains(&"libc.so.6"), "{needed:?}");
    // The dynamic loader and the math library are parts of the C library.
    let part = |library: &&str| {
        ["libc.so.", "libm.so.", "ld-linux"].iter().any(|part| library.starts_with(part))
    };
    assert!(needed.iter().all(part), "{needed:?}");
}
