//! The program. The library has all of its code.

use std::process::ExitCode;

/// Messages are allocated by request threads and freed by the committing thread, which the C
/// library's allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rocket_monitor::cli::run()
}
