//! The `adquill` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    adquill::cli::run()
}
