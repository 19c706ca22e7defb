//! The program; everything it does is in the library.

use std::process::ExitCode;

/// Messages are allocated by the threads that read requests and freed by the one that commits, which the C library's
/// allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rocket_monitor::cli::run()
}
