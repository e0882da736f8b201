//! The program: listens for signals, dispatches, and turns the outcome into an exit code. The only place that
//! ends the process.

use std::process::ExitCode;

use alluvium::cli::{Failure, Signals, run};

fn main() -> ExitCode {
    // Whatever speaks TLS uses this one. Nothing has installed another before.
    let _first = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(_) => return ExitCode::from(1),
    };
    let outcome = runtime.block_on(async {
        // Before anything else: as process 1 a signal that nobody listens for is lost.
        let signals = Signals::new().map_err(|_| Failure::Failed)?;
        run(std::env::args_os(), signals).await
    });
    // Never dropped: that would stop the driver's tasks in the middle of what they do, and some of them
    // panic then. Nothing of ours runs any more.
    std::mem::forget(runtime);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failure.exit_code()),
    }
}
