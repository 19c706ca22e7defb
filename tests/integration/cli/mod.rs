//! The command line, as users call it.

mod command_line;
mod completions;
mod forget;
mod give_up;
mod launch;
mod merge;
mod output;
mod resend;
mod sync;
