//! The program: parses, dispatches, and turns the outcome into an exit code. The only place that ends the process.

use std::process::ExitCode;

use alluvium::cli::{Failure, run};

#[tokio::main]
async fn main() -> ExitCode {
    match run(std::env::args_os()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed) => ExitCode::from(1),
        Err(Failure::Usage) => ExitCode::from(2),
        Err(Failure::Difference) => ExitCode::from(3),
    }
}
