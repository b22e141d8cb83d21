//! What would be lost if these containers were removed now?
//!
//! Facts about a Docker host are handed in ([`facts`]), rules are a data file ([`Rules`]), findings come out ([`Report`]).
//! Pure: no clock, no file system, no network, no runtime. It does not know how facts are gathered, and it changes
//! nothing.

mod case;
mod checks;
mod examine;
pub mod facts;
mod glob;
mod html;
mod recognise;
pub mod report;
mod rules;
pub mod tally;
#[cfg(test)]
mod tests;
mod text;
mod words;

pub use examine::examine;
pub use html::html;
pub use report::{Finding, Report, Severity};
pub use rules::{Rules, RulesError};
pub use tally::{Change, Kind, Layer, Tally};
pub use text::{Line, text};
