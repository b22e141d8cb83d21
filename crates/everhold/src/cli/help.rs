//! The whole of the command line's help as one file, so that a change to it is seen in review.

use super::Cli;
use clap::{Command, CommandFactory};
use model::ErrorKind;
use std::path::{Path, PathBuf};

fn docs(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(file)
}

fn render(command: &mut Command, path: &str, text: &mut String) {
    text.push_str(&format!("$ {path} --help\n{}\n\n", command.render_long_help().to_string().trim_end()));
    for sub in command.get_subcommands_mut().filter(|sub| !sub.is_hide_set()) {
        let path = format!("{path} {}", sub.get_name());
        render(sub, &path, text);
    }
}

fn help() -> String {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut text = String::new();
    render(&mut command, "everhold", &mut text);
    // Trailing white space would be at the mercy of editors.
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>().trim_end().to_owned() + "\n"
}

#[test]
fn the_committed_help_is_this_one() {
    let path = docs("help.txt");
    let now = help();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == now,
        "{} is not what the commands say. If the change is wanted: UPDATE=1 cargo test -p everhold help",
        path.display()
    );
}

#[test]
fn the_definition_holds() {
    Cli::command().debug_assert();
}

#[test]
fn exit_codes_are_documented() {
    let page = std::fs::read_to_string(docs("cli.md")).unwrap();
    for kind in ErrorKind::all() {
        let row = format!("| {} | `{}` |", kind.exit_code(), kind.code());
        assert!(page.contains(&row), "docs/cli.md has no row {row}");
        assert!(super::exit_codes().contains(kind.code()));
    }
}
