//! Takes credentials out of what a report holds: values of keys that Flink takes for sensitive, values of environment
//! variables, credentials in URIs, and whatever else repeats one of these values.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::uri_credentials::credential;
use crate::flink::sensitive::is_sensitive;

/// What stands in place of a value.
pub const HIDDEN: &str = "(hidden)";
/// A shorter value is hidden where it stands, and not wherever else the same letters stand.
const SHORTEST: usize = 6;
/// Environment variables of this product, which are no secret and say much.
const KNOWN: [&str; 15] = [
    "RUST_LOG",
    "GATEWAY_IMAGE",
    "GATEWAY_LOG",
    "WATCH_NAMESPACE",
    "ROLLOUT_MAX_CONCURRENT",
    "ROLLOUT_DELAY",
    "LEASE_NAME",
    "LOG_FORMAT",
    "FLINK_CONF_DIR",
    "FLINKHA_CONFIGURATION",
    "KUBERNETES_MASTER",
    "POD_NAME",
    "POD_IP",
    "POD_IPS",
    "POD_UID",
];
/// Keys that name a Secret and hold none.
const NAMES: [&str; 4] = ["secretname", "secretkeyref", "secretref", "flinkconfigurationfrom"];
/// Keys with credentials that Flink does not take for sensitive.
const FURTHER: [&str; 4] = ["access-key", "access.key", "accesskey", "credential"];

/// Whether the value of this key is hidden.
fn hides(key: &str) -> bool {
    let lower = key.to_lowercase();
    !NAMES.contains(&lower.as_str()) && (is_sensitive(key) || FURTHER.iter().any(|part| lower.contains(part)))
}

/// An address of Flink's RPC, such as `pekko.tcp://flink@10.0.0.1:6123/user/rpc/dispatcher_1`: its user is the name of
/// an actor system.
fn is_rpc_address(text: &str) -> bool {
    ["pekko", "akka"].iter().any(|scheme| text.starts_with(scheme))
        && text
            .split_once("://")
            .is_some_and(|(_, rest)| rest.starts_with("flink@") || rest.starts_with("flink-metrics@"))
}

/// Takes values out, and remembers them.
#[derive(Debug, Default)]
pub struct Redaction {
    values: BTreeSet<String>,
}

impl Redaction {
    fn hide(&mut self, text: &mut String) {
        if text == HIDDEN {
            return;
        }
        if text.trim().len() >= SHORTEST {
            self.values.insert(text.trim().to_owned());
        }
        HIDDEN.clone_into(text);
    }

    /// Takes credentials out of an object.
    pub fn object(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => self.string(text),
            Value::Array(values) => self.list(values),
            Value::Object(fields) => {
                let is_variable = fields.contains_key("name") && fields.get("value").is_some_and(Value::is_string);
                let name = fields.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
                for (key, value) in fields.iter_mut() {
                    match value {
                        Value::String(text) if hides(key) => self.hide(text),
                        Value::Number(_) if hides(key) => *value = HIDDEN.into(),
                        Value::String(text) if is_variable && key == "value" && !KNOWN.contains(&name.as_str()) => {
                            self.hide(text);
                        }
                        value => self.object(value),
                    }
                }
            }
            _ => {}
        }
    }

    /// A list of words may be a command line, in which the value of a flag is the next word.
    fn list(&mut self, values: &mut [Value]) {
        let mut hides_next = false;
        for value in values {
            match value {
                Value::String(word) if hides_next && !word.starts_with('-') => {
                    self.hide(word);
                    hides_next = false;
                }
                Value::String(word) => {
                    hides_next = word.starts_with('-') && !word.contains('=') && hides(word);
                    self.string(word);
                }
                value => self.object(value),
            }
        }
    }

    /// Text in an object: JSON, such as the annotation of `kubectl apply`, or anything else.
    fn string(&mut self, text: &mut String) {
        let is_json = text.starts_with(['{', '[']);
        if let Some(mut value) = is_json.then(|| serde_json::from_str::<Value>(text).ok()).flatten() {
            self.object(&mut value);
            *text = value.to_string();
            return;
        }
        *text = self.text(text);
    }

    /// Text, such as a log.
    pub fn text(&mut self, text: &str) -> String {
        let lines: Vec<String> = text.split('\n').map(|line| self.line(line)).collect();
        lines.join("\n")
    }

    /// A line: `key=value` and `key: value` with a key that is hidden, `Bearer …`, and URIs.
    fn line(&mut self, line: &str) -> String {
        let mut shown = String::with_capacity(line.len());
        let mut hides_next = false;
        for word in line.split_inclusive(|c: char| c.is_whitespace() || "\"',".contains(c)) {
            let end = word.trim_end_matches(|c: char| c.is_whitespace() || "\"',".contains(c));
            let (mut text, after) = (end.to_owned(), &word[end.len()..]);
            if text.is_empty() {
                shown.push_str(word);
                continue;
            }
            if hides_next && ![":", "=", "is", "->"].contains(&text.as_str()) {
                self.hide(&mut text);
                hides_next = false;
            } else if let Some(at) = text.find('=').filter(|at| hides(&text[..*at])) {
                let mut value = text.split_off(at + 1);
                hides_next = value.is_empty();
                if !value.is_empty() {
                    self.hide(&mut value);
                }
                text.push_str(&value);
            } else if text.contains("://") && !is_rpc_address(&text) && credential(&text).is_some() {
                self.hide(&mut text);
            } else if text.eq_ignore_ascii_case("bearer")
                || hides(&text) && (text.ends_with(':') || after.starts_with('"'))
            {
                hides_next = true;
            }
            shown.push_str(&text);
            shown.push_str(after);
        }
        shown
    }

    /// Takes out whatever else repeats a value that was taken out anywhere.
    pub fn repeated(&self, text: &str) -> String {
        // The longest first: one value may contain another.
        let mut values: Vec<&String> = self.values.iter().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.into_iter().fold(text.to_owned(), |text, value| text.replace(value.as_str(), HIDDEN))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_credential_of_a_resource_is_left_and_the_rest_is() {
        let applied = json!({ "spec": { "flinkConfiguration": { "s3.secret-key": "hunter2-applied" } } });
        let mut object = json!({
            "metadata": {
                "name": "demo",
                "annotations": { "kubectl.kubernetes.io/last-applied-configuration": applied.to_string() },
            },
            "spec": {
                "flinkConfiguration": { "s3.secret-key": "hunter2-key", "s3.access-key": "hunter2-id", "parallelism.default": 2 },
                "job": {
                    "jarURI": "https://me:hunter2-uri@example.org/app.jar",
                    "args": ["--db-password", "hunter2-next", "--token=hunter2-word", "--input", "a b"],
                },
                "podTemplate": { "env": [
                    { "name": "AWS_X", "value": "hunter2-env" },
                    { "name": "RUST_LOG", "value": "debug" },
                    { "name": "FROM", "valueFrom": { "secretKeyRef": { "name": "s3", "key": "k" } } },
                ] },
                "volumes": [{ "secret": { "secretName": "peers" } }],
                "script": "export PASSWORD=hunter2-script\nAuthorization: Bearer hunter2-bearer",
            },
        });
        let mut redaction = Redaction::default();
        redaction.object(&mut object);
        let text = object.to_string();
        assert!(!text.contains("hunter2"), "{text}");
        for kept in
            ["\"demo\"", "\"debug\"", "secretKeyRef", "\"peers\"", "parallelism.default\":2", "--input\",\"a b\""]
        {
            assert!(text.contains(kept), "{kept}\n{text}");
        }
        let log = "connects with hunter2-env to b\nfs.s3a.secret.key: hunter2-log, retries=3\nhttps://x.y/?sig=hunter2-sig {\"password\": \"hunter2-json\"}";
        let leader = "Leader of dispatcher: pekko.tcp://flink@10.0.0.1:6123/user/rpc/dispatcher_1";
        assert_eq!(redaction.text(leader), leader);
        let log = redaction.text(log);
        let log = redaction.repeated(&log);
        assert!(
            !log.contains("hunter2") && log.contains("connects with (hidden) to b") && log.contains("retries=3"),
            "{log}"
        );
    }
}
