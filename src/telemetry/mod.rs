//! Sets up logs, metrics and probes.

pub mod probes;

use tracing_subscriber::EnvFilter;

/// Starts the log on standard error; `RUST_LOG` sets its level.
pub fn start_logs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
}
