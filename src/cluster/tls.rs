//! Decides whether `spec.tls` and Flink's own keys for TLS fit together.

use crate::api::FlinkHaClusterSpec;
use crate::flink::tls::{self, INTERNAL, REST};

/// Returns what is wrong: the field, and the problem with its remedy.
pub fn problems(spec: &FlinkHaClusterSpec) -> Vec<(String, String)> {
    let of = spec.tls.clone().unwrap_or_default();
    let configuration: Vec<(&str, String)> =
        spec.flink_configuration.iter().map(|(key, value)| (key.as_str(), value.to_string())).collect();
    let mut problems = Vec::new();
    for (is_used, keys, field) in [(of.internal.is_some(), INTERNAL, "internal"), (of.rest.is_some(), REST, "rest")] {
        let owned = tls::owned(keys);
        let found = configuration.iter().filter(|(key, _)| is_used && owned.iter().any(|owned| owned == key));
        problems.extend(found.map(|(key, _)| format!("the key {key} follows spec.tls.{field}; remove it")));
    }
    let value = |key: &str| configuration.iter().find(|(own, _)| *own == key).map(|(_, value)| value.as_str());
    if of.rest.is_none() && tls::rest_authenticates(value) {
        problems.push(
            "with the key security.ssl.rest.authentication-enabled Flink rejects its gateway, which has no certificate; use spec.tls.rest with \
             clientAuthentication: true instead of the keys security.ssl.rest.*"
                .to_owned(),
        );
    }
    problems.into_iter().map(|problem| ("spec.flinkConfiguration".to_owned(), problem)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::tests as fixture;

    fn found(tls: Value, configuration: Value) -> Vec<String> {
        let mut spec = fixture::resource().spec;
        spec.tls = serde_json::from_value(tls).unwrap_or_else(|error| panic!("{error}"));
        spec.flink_configuration = serde_json::from_value(configuration).unwrap_or_else(|error| panic!("{error}"));
        problems(&spec).into_iter().map(|(_, problem)| problem).collect()
    }

    #[test]
    fn what_follows_the_field_is_refused_beside_it_and_nothing_else() {
        let both = json!({ "internal": { "name": "a" }, "rest": { "name": "b" } });
        let keys = json!({
            "security.ssl.internal.keystore": "x",
            "security.ssl.internal.handshake-timeout": 1000,
            "security.ssl.rest.authentication-enabled": "true",
            "security.ssl.rest.cert.fingerprint": "00",
            "security.ssl.algorithms": "TLS_AES_128_GCM_SHA256",
        });
        assert_eq!(
            found(both, keys.clone()),
            [
                "the key security.ssl.internal.keystore follows spec.tls.internal; remove it",
                "the key security.ssl.rest.authentication-enabled follows spec.tls.rest; remove it",
            ]
        );
        assert_eq!(found(Value::Null, keys), Vec::<String>::new(), "without TLS for REST nobody authenticates");
    }

    #[test]
    fn clients_are_not_authenticated_by_hand_because_the_gateway_would_be_locked_out() {
        let keys = json!({ "security.ssl.rest.enabled": "true", "security.ssl.rest.keystore": "/mine" });
        assert_eq!(found(Value::Null, keys), Vec::<String>::new(), "the gateway speaks TLS then");
        let keys = json!({ "security.ssl.enabled": "true", "security.ssl.rest.authentication-enabled": "true" });
        let found = found(Value::Null, keys);
        assert!(found.len() == 1 && found[0].contains("use spec.tls.rest with clientAuthentication"), "{found:?}");
    }
}
