//! Fields that each line of a JSON log has: of which cluster, namespace and pod it is, and of which term.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The fields of this process.
#[derive(Clone, Debug, Default)]
pub struct LogFields {
    /// Name of the FlinkHaCluster; `None` for the operator, whose lines name the one that they are about.
    pub cluster: Option<String>,
    pub namespace: Option<String>,
    pub pod: Option<String>,
    /// Number of the term that the gateway knows; 0 before it knows one.
    pub term: Arc<AtomicU64>,
}

impl LogFields {
    /// The line with these fields. What it says itself stands; a line that is no JSON object stays as it is.
    fn added_to(&self, line: &str) -> String {
        let Ok(mut object) = serde_json::from_str::<Map<String, Value>>(line) else { return line.to_owned() };
        let texts = [("cluster", &self.cluster), ("namespace", &self.namespace), ("pod", &self.pod)];
        for (key, text) in texts.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?))) {
            object.entry(key).or_insert_with(|| text.as_str().into());
        }
        let term = self.term.load(Ordering::Relaxed);
        if term > 0 {
            object.entry("term").or_insert_with(|| term.into());
        }
        format!("{}\n", Value::Object(object))
    }
}

/// Writes lines as another format does, with these fields.
pub struct WithFields<E> {
    pub format: E,
    pub fields: LogFields,
}

impl<S, N, E> FormatEvent<S, N> for WithFields<E>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    E: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&self.fields.added_to(&line))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_line_names_cluster_namespace_pod_and_term_and_keeps_what_it_says_itself() {
        let text = |text: &str| Some(text.to_owned());
        let fields = LogFields {
            cluster: text("demo"),
            namespace: text("flink"),
            pod: text("demo-0"),
            term: Arc::new(AtomicU64::new(0)),
        };
        let added = |line: &str| serde_json::from_str::<Value>(&fields.added_to(line)).expect("an object");
        let expected = json!({ "message": "x", "cluster": "demo", "namespace": "flink", "pod": "demo-0" });
        assert_eq!(added(r#"{"message":"x"}"#), expected);
        fields.term.store(7, Ordering::Relaxed);
        assert_eq!(added(r#"{"message":"x"}"#)["term"], 7);
        assert_eq!(added(r#"{"term":6,"pod":"other"}"#)["term"], 6);
        assert_eq!(added(r#"{"term":6,"pod":"other"}"#)["pod"], "other");
        assert!(fields.added_to(r#"{"a":1}"#).ends_with("}\n"), "one line");
        assert_eq!(fields.added_to("no object\n"), "no object\n");
    }
}
