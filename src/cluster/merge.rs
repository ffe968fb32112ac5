//! Merges a user's pod template into ours strategically, as `kubectl patch` does: objects field by field, lists of
//! named elements element by element.
//!
//! It works on JSON and not on typed structs, so it keeps fields of newer Kubernetes versions than the one of this
//! build.

use serde_json::Value;

/// Returns the merge keys of a list that the API server merges by key; it replaces all other lists as a whole.
/// (`x-kubernetes-patch-merge-key` in the schema of `PodSpec`, with the second key where a list may contain the first
/// one twice.)
fn keys_of(list: &str) -> &'static [&'static str] {
    match list {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "resourceClaims" => &["name"],
        "volumeMounts" => &["mountPath"],
        "volumeDevices" => &["devicePath"],
        "ports" => &["containerPort", "protocol"],
        "hostAliases" => &["ip"],
        "topologySpreadConstraints" => &["topologyKey"],
        _ => &[],
    }
}

/// Merges `patch` into `base`. Where both have a value, that of `patch` wins.
pub fn merge(base: &mut Value, patch: Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (field, value) in patch {
                match (base.get_mut(&field), value) {
                    (_, Value::Null) => drop(base.remove(&field)),
                    (Some(Value::Array(existing)), Value::Array(elements)) if !keys_of(&field).is_empty() => {
                        merge_list(keys_of(&field), existing, elements);
                    }
                    (Some(existing), value) => merge(existing, value),
                    (None, value) => drop(base.insert(field, value)),
                }
            }
        }
        (base, patch) => *base = patch,
    }
}

fn merge_list(keys: &[&str], existing: &mut Vec<Value>, elements: Vec<Value>) {
    for element in elements {
        let same = |other: &Value| keys.iter().all(|key| identity(key, other) == identity(key, &element));
        match existing.iter().position(same) {
            Some(position) => merge(&mut existing[position], element),
            None => existing.push(element),
        }
    }
}

fn identity<'a>(key: &str, element: &'a Value) -> Option<&'a Value> {
    static TCP: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| Value::from("TCP"));
    element.get(key).or_else(|| (key == "protocol").then(|| &*TCP))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn named_things_are_merged_and_new_ones_added() {
        let mut base = json!({
            "metadata": { "labels": { "a": "1" } },
            "spec": {
                "containers": [{ "name": "flink", "image": "ours", "env": [{ "name": "A", "value": "1" }], "ports": [{ "containerPort": 80, "name": "x" }] }],
                "volumes": [{ "name": "ours" }],
            },
        });
        let patch = json!({
            "metadata": { "labels": { "b": "2" } },
            "spec": {
                "priority": 7,
                "containers": [
                    { "name": "flink", "env": [{ "name": "A", "value": "2" }, { "name": "B", "value": "3" }], "ports": [{ "containerPort": 80, "protocol": "TCP", "name": "y" }] },
                    { "name": "side", "image": "theirs" },
                ],
                "volumes": [{ "name": "theirs" }],
                "tolerations": [{ "key": "k" }],
            },
        });
        merge(&mut base, patch);
        assert_eq!(
            base,
            json!({
                "metadata": { "labels": { "a": "1", "b": "2" } },
                "spec": {
                    "priority": 7,
                    "containers": [
                        {
                            "name": "flink",
                            "image": "ours",
                            "env": [{ "name": "A", "value": "2" }, { "name": "B", "value": "3" }],
                            "ports": [{ "containerPort": 80, "protocol": "TCP", "name": "y" }],
                        },
                        { "name": "side", "image": "theirs" },
                    ],
                    "volumes": [{ "name": "ours" }, { "name": "theirs" }],
                    "tolerations": [{ "key": "k" }],
                },
            })
        );
    }

    #[test]
    fn null_removes_a_default_and_a_plain_list_is_replaced() {
        let mut base = json!({ "spec": { "a": 1, "dnsSearches": ["x"] } });
        merge(&mut base, json!({ "spec": { "a": null, "dnsSearches": ["y"] } }));
        assert_eq!(base, json!({ "spec": { "dnsSearches": ["y"] } }));
    }
}
