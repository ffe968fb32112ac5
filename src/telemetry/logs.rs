//! The log on standard error, whose filter can change while the process runs.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tracing::Subscriber;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::log_fields::{LogFields, WithFields};
use crate::api::log_format::LogFormat;

const DEFAULT: &str = "info";

/// The filter of the log, and what its lines say of this process.
pub struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    /// The filter that the process started with.
    first: String,
    /// Number of the term that lines name.
    pub term: Arc<AtomicU64>,
}

/// Starts the log on standard error; `RUST_LOG` sets its filter. Lines of text do not have the fields: whoever reads
/// them knows of which pod they are.
pub fn start(format: LogFormat, fields: LogFields) -> LogFilter {
    let term = Arc::clone(&fields.term);
    let wanted = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let (first, filter) = wanted
        .and_then(|text| EnvFilter::try_new(&text).ok().map(|filter| (text, filter)))
        .unwrap_or_else(|| (DEFAULT.to_owned(), EnvFilter::new(DEFAULT)));
    let (filter, handle) = reload::Layer::new(filter);
    tracing_subscriber::registry().with(filter).with(lines(format, fields, std::io::stderr)).init();
    LogFilter { handle, first, term }
}

fn lines<S, W>(format: LogFormat, fields: LogFields, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_ansi(false).with_writer(writer);
    match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).map_event_format(|format| WithFields { format, fields }).boxed()
        }
    }
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

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Mutex, PoisonError};

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat) -> String {
        let (written, term) = (Buffer::default(), Arc::new(AtomicU64::new(7)));
        let text = |text: &str| Some(text.to_owned());
        let fields = LogFields { cluster: text("demo"), namespace: text("flink"), pod: text("demo-0"), term };
        let writer = written.clone();
        let log = tracing_subscriber::registry().with(lines(format, fields, move || writer.clone()));
        tracing::subscriber::with_default(log, || tracing::warn!(pod = "demo-1", answer = 42, "a \"line\"\nof two"));
        let bytes = written.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn in_json_each_line_is_an_object_with_cluster_namespace_pod_and_term() {
        let text = logged(LogFormat::Json);
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).expect("an object");
        for (key, value) in [("cluster", "demo"), ("namespace", "flink"), ("pod", "demo-1"), ("level", "WARN")] {
            assert_eq!(line[key], value, "{text}");
        }
        assert_eq!((line["term"].as_u64(), line["answer"].as_u64()), (Some(7), Some(42)));
        assert_eq!(line["message"], "a \"line\"\nof two");
        assert!(line["timestamp"].is_string() && line["target"].is_string(), "{text}");
        assert!(logged(LogFormat::Text).contains("WARN"), "text is as it was");
    }
}
