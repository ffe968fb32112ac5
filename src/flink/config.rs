//! Flink's configuration: the keys that high availability needs, and how a `config.yaml` is written.
//!
//! Not here: which values a cluster gets ([`crate::cluster::build`]) and which keys users may not set
//! ([`crate::api::owned`]).

use std::collections::BTreeMap;
use std::fmt::Write;

/// Flink's configuration file, in the format of Flink 1.19 and later.
pub const FILE: &str = "config.yaml";

/// Flink's configuration, key by key.
pub type Configuration = BTreeMap<String, String>;

/// Writes a configuration as flat YAML, one key a line. Flink flattens nested keys in the order of the file and lets
/// the last one win, so that these lines may follow a nested file (`YamlParserUtils` and `GlobalConfiguration`; tried
/// with 1.20.5 and 2.3.0).
pub fn render(configuration: &Configuration) -> String {
    configuration.iter().fold(String::new(), |mut yaml, (key, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(yaml, "{}: {}", render_key(key), render_value(value));
        yaml
    })
}

/// Reads what [`render`] wrote.
///
/// # Errors
/// When the text is not a flat YAML mapping of scalars.
pub fn parse(text: &str) -> Result<Configuration, serde_yaml::Error> {
    let values: BTreeMap<String, serde_yaml::Value> = serde_yaml::from_str(text)?;
    let text = |value: serde_yaml::Value| match value {
        serde_yaml::Value::String(text) => Ok::<_, serde_yaml::Error>(text),
        other => Ok(serde_yaml::to_string(&other)?.trim_end().to_owned()),
    };
    values.into_iter().map(|(key, value)| Ok((key, text(value)?))).collect()
}

/// How long a suspended connection is tolerated, in per cent of the session's time-out (`HighAvailabilityOptions`,
/// Flink 1.16 to 2.3).
pub const SIMULATED_EXPIRATION: &str = "high-availability.zookeeper.client.simulated-session-expiration-percent";

/// The same of a TaskManager. It leads nothing, and drops its job when the time is over. Of three servers its client
/// may try one that is silent, for a third of the session's time-out (`ClientCnxn.connectTimeout`, ZooKeeper 3.5 to
/// 3.9), before it comes to one that answers.
pub const TASK_MANAGERS_EXPIRATION: &str = "100";

/// Flink's ZooKeeper client as a gateway stands beside it: what goes for JobManagers and TaskManagers alike
/// (`HighAvailabilityOptions`, Flink 1.20 to 2.3).
///
/// A lost server is no reason to stop leading: the client reaches the next one within a second. So a suspended
/// connection is tolerated, and leadership ends when it has been suspended for a third of the session's time-out: a
/// server that falls silent is noticed after half of it, so the leader stops before the quorum lets the session expire.
pub fn zookeeper<'a>(session_timeout: &'a str, connection_timeout: &'a str) -> [(&'static str, &'a str); 5] {
    [
        ("high-availability.zookeeper.client.session-timeout", session_timeout),
        ("high-availability.zookeeper.client.connection-timeout", connection_timeout),
        ("high-availability.zookeeper.client.tolerate-suspended-connections", "true"),
        (SIMULATED_EXPIRATION, "33"),
        // Otherwise the client learns the servers' own addresses from the quorum, and goes there past the gateway.
        ("high-availability.zookeeper.client.ensemble-tracker", "false"),
    ]
}

fn render_key(key: &str) -> String {
    let plain = key.starts_with(|first: char| first.is_ascii_alphanumeric())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-$".contains(&byte));
    if plain { key.to_owned() } else { quoted(key) }
}

/// Quoted, so that `1.10` stays text; except whole numbers and booleans, which Flink's shell scripts want to see bare.
fn render_value(value: &str) -> String {
    let is_number = value.parse::<i64>().is_ok_and(|number| number.to_string() == value);
    if is_number || value == "true" || value == "false" { value.to_owned() } else { quoted(value) }
}

/// A JSON string, which is a double-quoted YAML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_what_they_were() {
        let configuration = [
            ("parallelism.default", "4"),
            ("state.backend.incremental", "true"),
            ("version", "1.10"),
            ("env.java.opts.jobmanager", "-Da=\"b\" -Dc='d'"),
            ("multi.line", "a\nb: c"),
            ("odd: key", "#"),
        ];
        let written =
            render(&configuration.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
        let read = parse(&written).expect("YAML");
        for (key, value) in configuration {
            assert_eq!(read[key], value, "{key}");
        }
        assert!(written.contains("parallelism.default: 4\n"));
    }
}
