//! Completions for shells, and the manual page.

use std::process::Command;

use testkit::process::{COMMANDS, run, stdout};

#[test]
fn completions_and_the_manual_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&run(&["completions", shell])).contains("database"), "{shell}");
    }
    let manual = stdout(&run(&["man"]));
    for command in COMMANDS {
        assert!(manual.contains(command), "{command}");
    }
}

/// What bash completes for the last of these words.
fn completed_by_bash(script: &str, words: &[&str]) -> Vec<String> {
    let program = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        function=$(complete -p rocket-monitor | sed 's/.*-F \([^ ]*\).*/\1/')
        "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let output = Command::new("bash")
        .args(["--norc", "-c", program, "bash", script])
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    stdout(&output).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_their_values() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("rocket-monitor.bash");
    std::fs::write(&script, run(&["completions", "bash"]).stdout).unwrap();
    for (words, offered) in [
        (&["rocket-monitor", "mig"][..], &["migrate"][..]),
        (&["rocket-monitor", "serve", "--l"], &["--listen", "--log-level"]),
        (&["/usr/local/bin/rocket-monitor", "serve", "--l"], &["--listen", "--log-level"]),
        (&["rocket-monitor", "serve", "--log-level", "w"], &["warn"]),
        (&["rocket-monitor", "report", "mi"], &["missions"]),
        (&["rocket-monitor", "report", "missions", "--format", ""], &["table", "json", "csv"]),
        (&["rocket-monitor", "launch", "http://127.0.0.1:8088", "--verif"], &["--verify"]),
        (&["rocket-monitor", "completions", "z"], &["zsh"]),
        // The old program's switch is answered, but not offered.
        (&["rocket-monitor", "-r"], &[]),
    ] {
        let mut completed = completed_by_bash(script.to_str().unwrap(), words);
        completed.retain(|word| !word.is_empty());
        assert_eq!(completed, offered, "{words:?}");
    }
}

#[test]
fn zsh_and_fish_complete_commands_and_options() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, shell: &str| {
        std::fs::write(directory.path().join(name), run(&["completions", shell]).stdout).unwrap();
    };
    write("_rocket-monitor", "zsh");
    write("rocket-monitor.fish", "fish");
    let shell = |shell: &str, program: &str| {
        let mut command = Command::new(shell);
        // Neither reads what the user has set up, nor writes there.
        command.args(["-c", program]).current_dir(directory.path()).env("HOME", directory.path());
        let output = command.output();
        let output = output.unwrap_or_else(|error| panic!("{shell}: {error}; ./run installs it"));
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        stdout(&output)
    };
    let loaded = "fpath=($PWD $fpath); autoload -U compinit; compinit -u -D; \
                  autoload +X _rocket-monitor; echo $_comps[rocket-monitor]";
    shell("zsh", "zsh -n _rocket-monitor");
    assert_eq!(shell("zsh", loaded), "_rocket-monitor\n");
    let offered =
        shell("fish", "source rocket-monitor.fish; complete -C 'rocket-monitor serve --lo'");
    assert!(offered.starts_with("--log-level\t"), "{offered}");
    let offered = shell("fish", "source rocket-monitor.fish; complete -C 'rocket-monitor -'");
    assert!(offered.contains("--listen\t") && !offered.contains("-r\t"), "{offered}");
}
