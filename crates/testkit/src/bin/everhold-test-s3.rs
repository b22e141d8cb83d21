//! The S3 server of the tests as a program, for benchmarks: prints its endpoint and keys as shell assignments, and serves until
//! its standard input ends.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a tool for benchmarks")]

use everhold_testkit::{S3_BUCKET, S3Server};
use std::io::{Read, Write};

fn main() {
    let server = S3Server::start();
    println!("endpoint={} bucket={S3_BUCKET}", server.endpoint());
    for (key, value) in server.environment() {
        println!("export {key}={value}");
    }
    println!();
    std::io::stdout().flush().expect("someone reads");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("standard input");
}
