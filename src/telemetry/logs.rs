//! The log on standard error, whose filter can change while the process runs.

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

const DEFAULT: &str = "info";

/// The filter of the log.
pub struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    /// The filter that the process started with.
    first: String,
}

/// Starts the log on standard error; `RUST_LOG` sets its filter, and `LOG_FORMAT=json` makes each line an object.
pub fn start() -> LogFilter {
    let wanted = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let (first, filter) = wanted
        .and_then(|text| EnvFilter::try_new(&text).ok().map(|filter| (text, filter)))
        .unwrap_or_else(|| (DEFAULT.to_owned(), EnvFilter::new(DEFAULT)));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_ansi(false).with_writer(std::io::stderr);
    let is_json = std::env::var("LOG_FORMAT").is_ok_and(|format| format == "json");
    let lines = if is_json { lines.json().flatten_event(true).boxed() } else { lines.boxed() };
    tracing_subscriber::registry().with(filter).with(lines).init();
    LogFilter { handle, first }
}

impl LogFilter {
    /// Changes the filter; `None` for the one that the process started with. One that is not understood changes
    /// nothing.
    pub fn change(&self, wanted: Option<&str>) {
        let text = wanted.unwrap_or(&self.first);
        let changed = EnvFilter::try_new(text).map_err(|error| error.to_string());
        let changed = changed.and_then(|filter| self.handle.reload(filter).map_err(|error| error.to_string()));
        match changed {
            Ok(()) => tracing::info!(filter = text, "the log filter has changed"),
            Err(error) => {
                tracing::warn!(filter = text, error, "this log filter is not understood, so the filter stays")
            }
        }
    }
}
