//! The command line, as users call it.

mod command_line;
mod completions;
mod forget;
mod launch;
mod output;
