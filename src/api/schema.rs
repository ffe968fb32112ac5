//! Parts of the CRD's schema that Rust types cannot express: free-form maps, pod templates, and validation rules whose
//! messages name the field and the remedy.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::durations::{self, AtLeast};
use super::names::{CLUSTER_LABEL, COMPONENT_LABEL, MANAGED_BY_LABEL};
use super::owned::{self, OwnedKeys};

/// CEL rules with their messages. A message names the field and the remedy, because it is all that a user sees.
pub fn rules(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(rule, message)| json!({ "rule": rule, "message": message })).collect()
}

/// A duration such as `15s`, `1500ms` or `1m30s`: the format that both CEL and the gateway parse.
pub fn duration(_: &mut SchemaGenerator) -> Schema {
    duration_that(None)
}

/// `spec.highAvailability.jvmTimeout`.
pub fn jvm_timeout(_: &mut SchemaGenerator) -> Schema {
    duration_that(Some(&durations::JVM_TIMEOUT))
}

/// `spec.highAvailability.lease.retryPeriod`.
pub fn retry_period(_: &mut SchemaGenerator) -> Schema {
    duration_that(Some(&durations::RETRY_PERIOD))
}

/// `spec.job.upgradeDeadline`.
pub fn upgrade_deadline(_: &mut SchemaGenerator) -> Schema {
    duration_that(Some(&durations::UPGRADE_DEADLINE))
}

/// `spec.job.savepoints.interval`.
pub fn savepoint_interval(_: &mut SchemaGenerator) -> Schema {
    hours_that(&durations::SAVEPOINT_INTERVAL)
}

/// `spec.job.savepoints.retain.age`.
pub fn savepoint_age(_: &mut SchemaGenerator) -> Schema {
    hours_that(&durations::SAVEPOINT_AGE)
}

/// `spec.job.savepoints.onDeleteDeadline`.
pub fn savepoint_on_delete_deadline(_: &mut SchemaGenerator) -> Schema {
    hours_that(&durations::SAVEPOINT_ON_DELETE_DEADLINE)
}

fn duration_that(limit: Option<&AtLeast>) -> Schema {
    duration_of((durations::FORMAT, durations::FORMAT_PROBLEM), limit)
}

/// A duration that may have hours, such as `24h`.
fn hours_that(limit: &AtLeast) -> Schema {
    duration_of((durations::FORMAT_WITH_HOURS, durations::FORMAT_WITH_HOURS_PROBLEM), Some(limit))
}

fn duration_of((format, problem): (&str, &str), limit: Option<&AtLeast>) -> Schema {
    let is_at_least =
        |limit: &AtLeast| format!("!self.matches('{format}') || duration(self) >= duration('{}')", limit.least);
    let limit = limit.map(|limit| (is_at_least(limit), limit.problem()));
    let has_format = (format!("self.matches('{format}')"), problem.to_owned());
    let all: Vec<(String, String)> = std::iter::once(has_format).chain(limit).collect();
    let all: Vec<(&str, &str)> = all.iter().map(|(rule, message)| (rule.as_str(), message.as_str())).collect();
    json_schema!({ "type": "string", "maxLength": 16, "x-kubernetes-validations": rules(&all) })
}

/// `spec.gateway.log`: a filter of `tracing_subscriber`, without spans and fields. It takes a misspelt level for the
/// name of a module, and shows nothing else then.
pub fn log_filter(_: &mut SchemaGenerator) -> Schema {
    let directive = "([a-zA-Z0-9_]+(::[a-zA-Z0-9_]+)*=)?(off|error|warn|info|debug|trace)";
    let rule = format!("self.matches('^{directive}(,{directive})*$')");
    json_schema!({
        "type": "string",
        "maxLength": 256,
        "x-kubernetes-validations": rules(&[(
            rule.as_str(),
            "spec.gateway.log must be off, error, warn, info, debug or trace, or levels of modules such as info,flinkha=debug",
        )]),
    })
}

/// `spec.flinkVersion`.
pub fn flink_version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 64,
        "x-kubernetes-validations": rules(&[(
            "self.matches('^[0-9]+[.][0-9]+([-._][A-Za-z0-9]+)*$')",
            "spec.flinkVersion must be a version of Flink such as 2.3.0, or a line of versions such as 2.3",
        )]),
    })
}

/// `spec.taskManager.maxUnavailable`.
pub fn max_unavailable(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 4,
        "x-kubernetes-validations": rules(&[(
            "type(self) == int ? self >= 1 : self.matches('^([1-9][0-9]?|100)%$')",
            "spec.taskManager.maxUnavailable must be a number of at least 1, or a percentage such as 25%",
        )]),
    })
}

/// `spec.haData.orphanAge`.
pub fn orphan_age(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 16,
        "x-kubernetes-validations": rules(&[(
            "self.matches('^([0-9]{1,6}(h|m|s))+$') && duration(self) >= duration('1h')",
            durations::ORPHAN_AGE_PROBLEM,
        )]),
    })
}

/// `spec.flinkConfiguration`: any key, except those that we own.
pub fn flink_configuration(_: &mut SchemaGenerator) -> Schema {
    let refusals: Vec<Value> = owned::FLINK_CONFIGURATION.iter().map(refusal).collect();
    json_schema!({
        "type": "object",
        "maxProperties": 1024,
        "additionalProperties": { "x-kubernetes-int-or-string": true },
        "x-kubernetes-validations": refusals,
    })
}

/// Rejects keys that we own, and names the first one found. (Naming all of them would exceed CEL's cost limit.)
fn refusal(group: &OwnedKeys) -> Value {
    let quoted = |keys: &[&str]| keys.iter().map(|key| format!("'{key}'")).collect::<Vec<_>>().join(", ");
    let mut tests = Vec::new();
    if !group.keys.is_empty() {
        tests.push(format!("key in [{}]", quoted(group.keys)));
    }
    tests.extend(group.prefixes.iter().map(|prefix| format!("key.startsWith('{prefix}')")));
    tests.extend(group.suffixes.iter().map(|suffix| format!("key.endsWith('{suffix}')")));
    let owned = tests.join(" || ");
    json!({
        "rule": format!("!self.exists(key, {owned})"),
        "messageExpression": format!("'the key ' + self.filter(key, {owned})[0] + ' {}'", group.reason.replace('\'', "\\'")),
        "message": format!("a key of spec.flinkConfiguration {}", group.reason),
        "reason": "FieldValueForbidden",
    })
}

/// `spec.logConfiguration`: contents by file name.
pub fn log_configuration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": { "type": "string" },
        "x-kubernetes-validations": rules(&[(
            "self.all(name, name.matches('^(log4j|logback)[-a-zA-Z0-9]*[.](properties|xml|yaml)$'))",
            "spec.logConfiguration holds log configuration files by name, such as log4j-console.properties or logback-console.xml; \
             Flink's own options belong in spec.flinkConfiguration",
        )]),
    })
}

/// Annotations by key. Those of the operator are not for users.
pub fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 4096 },
        "x-kubernetes-validations": metadata_rules("an annotation"),
    })
}

/// Labels by key. Those of the operator are not for users.
pub fn labels(_: &mut SchemaGenerator) -> Schema {
    let value = json!({
        "rule": "self.all(key, self[key].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))",
        "message": "the value of a label has at most 63 letters, digits, '-', '_' and '.', and begins and ends with a letter or a digit",
    });
    let rules: Vec<Value> = metadata_rules("a label").into_iter().chain([value]).collect();
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 63 },
        "x-kubernetes-validations": rules,
    })
}

fn metadata_rules(what: &str) -> [Value; 2] {
    let ours = format!("'{MANAGED_BY_LABEL}', '{CLUSTER_LABEL}', '{COMPONENT_LABEL}'");
    let is_ours = format!("key.startsWith('flinkha.dev/') || key.contains('.flinkha.dev/') || key in [{ours}]");
    let name = "([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?";
    [
        json!({
            "rule": format!("!self.exists(key, {is_ours})"),
            "message": format!("{what} with a key of flinkha.dev, or {ours}, is the operator's own: choose another key"),
        }),
        json!({
            "rule": format!("self.all(key, key.matches('^{name}$'))"),
            "message": format!("the key of {what} is a name such as team, with a domain before it if it has one: example.org/team"),
        }),
    ]
}

/// Names of namespaces.
pub fn namespaces(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "maxLength": 63,
            "x-kubernetes-validations": rules(&[(
                "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
                "must be the name of a namespace, such as monitoring; for other selections write a NetworkPolicy of your own, which adds to the operator's",
            )]),
        },
    })
}

/// Amounts of resources by name: `cpu: 2`, `memory: 4Gi`.
pub fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
        },
    })
}

/// A pod template. Its full schema would make the CRD too big for `kubectl apply`, so the schema spells out only the
/// fields that we own, in order to reject them. The operator checks the rest against the API server's own schema and
/// reports errors in a condition.
pub fn pod_template(_: &mut SchemaGenerator) -> Schema {
    let properties: serde_json::Map<String, Value> = owned::POD_SPEC
        .iter()
        .map(|owned| {
            (
                owned.field.to_owned(),
                json!({ "type": owned.kind, "description": format!("Must not be set: it {}.", owned.reason) }),
            )
        })
        .collect();
    let refusals: Vec<Value> = owned::POD_SPEC
        .iter()
        .map(|owned| {
            let message = format!("{} {}", owned.field, owned.reason);
            json!({ "rule": format!("!has(self.{})", owned.field), "message": message, "reason": "FieldValueForbidden" })
        })
        .collect();
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "spec": {
                "type": "object",
                "description": "The pod's spec, as in a Deployment.",
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": properties,
                "x-kubernetes-validations": refusals,
            },
        },
    })
}
