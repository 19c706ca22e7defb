//! Prints the output of commands. A closed pipe is not an error; a full disk is.

use std::fmt::{Arguments, Display};
use std::io::{self, ErrorKind, Write, stderr, stdout};
use std::ops::ControlFlow;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::Failure;

/// Prints a line on standard output, as `println!` does.
macro_rules! print_line {
    ($($text:tt)*) => { $crate::cli::output::write_line(format_args!($($text)*)) };
}
pub(super) use print_line;

/// Implements [`print_line`].
pub(super) fn write_line(text: Arguments<'_>) -> Result<(), Failure> {
    print(format!("{text}\n").as_bytes())
}

/// Prints on standard output.
pub(super) fn print(bytes: &[u8]) -> Result<(), Failure> {
    ignore_closed_pipe(stdout().write_all(bytes))
}

/// Turns a closed pipe into a success. The reader has seen enough, as with `head`: the command
/// continues and keeps its exit status.
pub(super) fn ignore_closed_pipe(written: io::Result<()>) -> Result<(), Failure> {
    flush_written(written).map(|_| ())
}

/// Prints a part of a long output. Breaks if the reader has closed the pipe, so that the caller can
/// skip the rest.
pub(super) fn print_part(bytes: &[u8]) -> Result<ControlFlow<()>, Failure> {
    flush_written(stdout().write_all(bytes))
}

fn flush_written(written: io::Result<()>) -> Result<ControlFlow<()>, Failure> {
    match written.and_then(|()| stdout().flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(format!("standard output can't be written: {error}").into()),
    }
}

/// Prints a line on standard error. If that fails, only the exit status shows the error.
pub(super) fn print_error(text: impl Display) {
    let _ = stderr().write_all(format!("{text}\n").as_bytes());
}

/// Whether the user wants colours (<https://no-color.org>) and the terminal supports them.
pub(super) fn terminal_has_colours() -> bool {
    let set = |variable| std::env::var_os(variable).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_some_and(|terminal| terminal != "dumb")
}

/// A progress bar on standard error, drawn only on a terminal. The template may use `{rate}`, in
/// steps per second.
pub(super) fn progress_bar(length: Option<u64>, template: &str) -> ProgressBar {
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    #[expect(clippy::expect_used, reason = "the templates are constants of this crate")]
    let style = ProgressStyle::with_template(template)
        .expect("the callers' templates are well-formed constants");
    bar.with_style(style.with_key("rate", write_rate))
}

fn write_rate(state: &ProgressState, to: &mut dyn std::fmt::Write) {
    #[expect(clippy::expect_used, reason = "writing to a string never fails")]
    to.write_str(&rate(state.per_sec()))
        .expect("indicatif draws the bar into a string, and writing to it never fails");
}

/// Formats a rate as a whole number, or with one decimal if it is small.
pub(super) fn rate(per_second: f64) -> String {
    if per_second < 9.95 { format!("{per_second:.1}") } else { format!("{per_second:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_a_success_and_a_full_disk_a_failure() {
        assert!(ignore_closed_pipe(Err(ErrorKind::BrokenPipe.into())).is_ok());
        assert!(ignore_closed_pipe(Err(ErrorKind::StorageFull.into())).is_err());
        assert!(flush_written(Err(ErrorKind::BrokenPipe.into())).is_ok_and(|flow| flow.is_break()));
    }

    #[test]
    fn small_rates_have_one_decimal() {
        for (per_second, formatted) in
            [(0.0, "0.0"), (0.48, "0.5"), (9.94, "9.9"), (9.96, "10"), (12_345.678, "12346")]
        {
            assert_eq!(rate(per_second), formatted);
        }
    }
}
