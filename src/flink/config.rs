//! Defines Flink's configuration: the keys that high availability needs, and the format of `config.yaml`.
//!
//! [`crate::cluster::build`] decides which values a cluster gets, and [`crate::api::owned`] which keys users may not
//! set.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Name of Flink's configuration file, in the format of Flink 1.19 and later.
pub const FILE: &str = "config.yaml";

/// Flink's configuration: values by key.
pub type Configuration = BTreeMap<String, String>;

/// Writes a configuration as flat YAML, one key per line. Flink flattens nested keys in the order of the file, and the
/// last occurrence of a key wins. So these lines may follow a nested file (`YamlParserUtils` and `GlobalConfiguration`;
/// tested with 1.20.5 and 2.3.0).
pub fn render(configuration: &Configuration) -> String {
    configuration.iter().fold(String::new(), |mut yaml, (key, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(yaml, "{}: {}", render_key(key), render_value(value));
        yaml
    })
}

/// Reads the output of [`render`].
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

/// Time for which Flink tolerates a suspended connection, in percent of the session time-out
/// (`HighAvailabilityOptions`, Flink 1.16 to 2.3).
pub const SIMULATED_EXPIRATION: &str = "high-availability.zookeeper.client.simulated-session-expiration-percent";

/// Value of [`SIMULATED_EXPIRATION`] for TaskManagers. A TaskManager leads nothing, and drops its job when the time is
/// over. Its client may first try a silent server, out of three, for a third of the session time-out
/// (`ClientCnxn.connectTimeout`, ZooKeeper 3.5 to 3.9), before it reaches one that answers.
pub const TASK_MANAGERS_EXPIRATION: &str = "100";

/// Returns the settings of Flink's ZooKeeper client beside a gateway, for JobManagers and TaskManagers alike
/// (`HighAvailabilityOptions`, Flink 1.20 to 2.3).
///
/// A leader need not stop when one server fails: its client reaches the next one within a second. So Flink tolerates a
/// suspended connection, and leadership ends when it has been suspended for a third of the session time-out. The client
/// notices a silent server after half of the time-out, so the leader stops before the quorum expires the session.
pub fn zookeeper<'a>(session_timeout: &'a str, connection_timeout: &'a str) -> [(&'static str, &'a str); 5] {
    [
        ("high-availability.zookeeper.client.session-timeout", session_timeout),
        ("high-availability.zookeeper.client.connection-timeout", connection_timeout),
        ("high-availability.zookeeper.client.tolerate-suspended-connections", "true"),
        (SIMULATED_EXPIRATION, "33"),
        // Otherwise the client learns the servers' own addresses from the quorum and bypasses the gateway.
        ("high-availability.zookeeper.client.ensemble-tracker", "false"),
    ]
}

fn render_key(key: &str) -> String {
    let plain = key.starts_with(|first: char| first.is_ascii_alphanumeric())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-$".contains(&byte));
    if plain { key.to_owned() } else { quoted(key) }
}

/// Quotes a value, so that `1.10` stays text. Whole numbers and booleans stay unquoted, because Flink's shell scripts
/// expect them so.
fn render_value(value: &str) -> String {
    let is_number = value.parse::<i64>().is_ok_and(|number| number.to_string() == value);
    if is_number || value == "true" || value == "false" { value.to_owned() } else { quoted(value) }
}

/// A JSON string is a double-quoted YAML string, once the characters are escaped that YAML takes for the end of a
/// line or does not allow.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.chars().fold(String::with_capacity(json.len()), |mut yaml, character| {
        if matches!(character, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') {
            let _ = write!(yaml, "\\u{:04x}", u32::from(character));
        } else {
            yaml.push(character);
        }
        yaml
    })
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
            // What YAML takes for the end of a line, for a mark of the byte order, or does not allow at all.
            ("separators", "a\u{85}b\u{2028}c\u{2029}d"),
            ("controls", "a\u{7f}b\u{9f}c\u{feff}d\u{ffff}e\u{0}"),
            ("others", "\u{a0}\u{e9}\u{1f600}"),
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
