//! What people and programs read: the only place that prints.

pub mod human;
pub mod progress;
mod table;

pub use table::Table;

use anstyle::{AnsiColor, Style};
use api::v1::Problem;
use serde::Serialize;
use std::cell::Cell;
use std::io::{self, IsTerminal, Write};

/// Where a command's words go, and in which form.
pub struct Output {
    json: bool,
    colour_out: bool,
    colour_err: bool,
    failed: Cell<bool>,
}

/// What a word means, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// A heading.
    Head,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warn => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Head => Style::new().bold(),
        }
    }
}

/// A text from elsewhere without what would steer the terminal.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn paint(text: &str, tone: Tone, colour: bool) -> String {
    if !colour {
        return text.to_owned();
    }
    let style = tone.style();
    format!("{style}{text}{style:#}")
}

impl Output {
    /// Colours only on a terminal, and not when `NO_COLOR` is set (<https://no-color.org>) or `no_colour` is asked for.
    pub fn new(json: bool, no_colour: bool) -> Self {
        let unwanted = no_colour || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = !json && !unwanted && !dumb;
        Self {
            json,
            colour_out: colour && io::stdout().is_terminal(),
            colour_err: colour && io::stderr().is_terminal(),
            failed: Cell::new(false),
        }
    }

    /// Writes to standard output. A reader that has gone (`| head`) is no failure; a full disk is.
    pub fn raw(&self, text: &str) {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                self.failed.set(true);
                self.note(&format!("everhold: standard output: {error}"));
            }
            _ => {}
        }
    }

    /// Whether something could not be written.
    pub fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// One line on standard output.
    pub fn line(&self, text: &str) {
        self.raw(&format!("{text}\n"));
    }

    /// One line on standard error, for people.
    pub fn note(&self, text: &str) {
        // There is nobody left to tell.
        writeln!(io::stderr().lock(), "{text}").unwrap_or_default();
    }

    /// One line on standard error for people only: who asks for JSON has it there.
    pub fn aside(&self, text: &str) {
        if !self.json {
            self.note(text);
        }
    }

    /// A word for standard output in the colour of its meaning.
    pub fn tone(&self, text: &str, tone: Tone) -> String {
        paint(text, tone, self.colour_out)
    }

    /// Prints `value` as JSON, or calls `human`.
    pub fn show<T: Serialize>(&self, value: &T, human: impl FnOnce(&Self)) -> Result<(), Problem> {
        if !self.json {
            human(self);
            return Ok(());
        }
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Problem::new(model::ErrorKind::Internal, error.to_string(), "report it"))?;
        self.line(&text);
        Ok(())
    }

    /// Prints a table, or `empty` if it has no rows.
    pub fn table(&self, table: &Table, empty: &str) {
        if table.is_empty() {
            self.note(empty);
            return;
        }
        let text = table.render();
        let (head, rows) = text.split_once('\n').unwrap_or((&text, ""));
        self.line(&self.tone(head, Tone::Head));
        self.raw(rows);
    }

    /// Says on standard error why a command failed: what, the state of the data, what to do next.
    pub fn problem(&self, problem: &Problem) {
        if self.json {
            match serde_json::to_string_pretty(problem) {
                Ok(text) => self.note(&text),
                Err(error) => self.note(&error.to_string()),
            }
            return;
        }
        let what = paint("everhold:", Tone::Bad, self.colour_err);
        let next = paint("Next:", Tone::Head, self.colour_err);
        let state = paint("Data:", Tone::Head, self.colour_err);
        self.note(&format!("{what} {}", problem.detail));
        self.note(&format!("{state} {}", problem.data_state));
        self.note(&format!("{next} {}", problem.next));
    }
}
