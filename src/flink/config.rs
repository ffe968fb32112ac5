//! Flink's configuration: the keys that high availability needs, and how a `config.yaml` is written.
//!
//! Not here: which values a cluster gets ([`crate::cluster::build`]) and which keys users may not set ([`crate::api::owned`]).

use std::collections::BTreeMap;
use std::fmt::Write;

/// Flink's configuration file, in the format of Flink 1.19 and later.
pub const FILE: &str = "config.yaml";

/// Flink's configuration, key by key.
pub type Configuration = BTreeMap<String, String>;

/// Writes a configuration as flat YAML, one key a line. Flink flattens nested keys in the order of the file and lets the last one win, so that
/// these lines may follow a nested file (`YamlParserUtils` and `GlobalConfiguration`; tried with 1.20.5 and 2.3.0).
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
        let written = render(&configuration.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
        let read = parse(&written).expect("YAML");
        for (key, value) in configuration {
            assert_eq!(read[key], value, "{key}");
        }
        assert!(written.contains("parallelism.default: 4\n"));
    }
}
