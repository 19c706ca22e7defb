//! `completions` and `man`: what shells and readers of manuals get.

use std::io::{Write, stdout};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure, Finished};

const PROGRAM: &str = "rocket-monitor";

/// Print a script that completes commands and options in a shell
///
/// For bash: rocket-monitor completions bash > ~/.local/share/bash-completion/completions/rocket-monitor
#[derive(Clone, Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<Finished, Failure> {
    // Written at once: the generator would panic if the reader went away.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), PROGRAM, &mut script);
    stdout().write_all(&script)?;
    Ok(Finished::Well)
}

/// Prints the manual page, with every command.
pub(super) fn manual() -> Result<Finished, Failure> {
    let mut output = stdout().lock();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut output)?;
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        let page = clap_mangen::Man::new(subcommand.clone());
        page.render_name_section(&mut output)?;
        page.render_synopsis_section(&mut output)?;
        page.render_description_section(&mut output)?;
        page.render_options_section(&mut output)?;
    }
    Ok(Finished::Well)
}
