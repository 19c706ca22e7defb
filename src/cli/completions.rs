//! `completions` and `man`: shell completion scripts and the manual page.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use super::{Failure, command, output};

const PROGRAM: &str = "rocket-monitor";
/// The program name passed to the bash generator. clap_complete replaces a hyphen in two different
/// ways in that script, so that nothing after a subcommand would be completed.
const BASH_NAME: &str = "rocket_monitor";

/// Print a script that completes commands and options in a shell
///
/// bash: rocket-monitor completions bash >
/// ~/.local/share/bash-completion/completions/rocket-monitor
///
/// zsh: rocket-monitor completions zsh > _rocket-monitor, in a folder of $fpath
///
/// fish: rocket-monitor completions fish > ~/.config/fish/completions/rocket-monitor.fish
///
/// Exit status: 0 if the script was printed, 1 if not.
#[derive(Clone, Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let name = if args.shell == Shell::Bash { BASH_NAME } else { PROGRAM };
    // Buffered, because the generator panics if the reader closes the pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command().bin_name(name), name, &mut script);
    if args.shell == Shell::Bash {
        script = String::from_utf8(script)?
            .replace(&format!(" {BASH_NAME}\n"), &format!(" {PROGRAM}\n"))
            .into_bytes();
    }
    output::print(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the manual page, with every command.
pub(super) fn manual() -> Result<ExitCode, Failure> {
    let mut page = Vec::new();
    let mut command = command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        let section = clap_mangen::Man::new(subcommand.clone());
        section.render_name_section(&mut page)?;
        section.render_synopsis_section(&mut page)?;
        section.render_description_section(&mut page)?;
        section.render_options_section(&mut page)?;
    }
    output::print(&page)?;
    Ok(ExitCode::SUCCESS)
}
