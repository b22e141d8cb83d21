//! The format: golden files, a second reader, damage of every kind, and parsers that are given anything.
#![expect(clippy::unwrap_used, reason = "test code: a surprise ends the test")]

mod bundles;
mod damage;
mod golden;
mod inventories;
mod parsers;
mod properties;
mod raw;
mod second_reader;
