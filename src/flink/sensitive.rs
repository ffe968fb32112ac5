//! Which keys of Flink's configuration hold credentials, by Flink's own list.

/// Parts of such keys, in lower case (`GlobalConfiguration.SENSITIVE_KEYS` of Flink 2.3.0, which are those of 1.20.5
/// and `api-key`).
pub const PARTS: [&str; 11] = [
    "password",
    "secret",
    "fs.azure.account.key",
    "apikey",
    "api-key",
    "auth-params",
    "service-key",
    "token",
    "basic-auth",
    "jaas.config",
    "http-headers",
];

/// Whether Flink hides the value of this key in its log and in its web interface (`GlobalConfiguration.isSensitive`).
pub fn is_sensitive(key: &str) -> bool {
    let key = key.to_lowercase();
    PARTS.iter().any(|part| key.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sensitive_as_flink_says() {
        for key in [
            "s3.secret-key",
            "fs.s3a.secret.key",
            "presto.s3.session.TOKEN",
            "fs.azure.account.key.demo.dfs.core.windows.net",
            "metrics.reporter.dghttp.apikey",
            "security.ssl.rest.keystore-password",
            "kafka.sasl.jaas.config",
        ] {
            assert!(is_sensitive(key), "{key}");
        }
        for key in ["s3.access-key", "s3.endpoint", "parallelism.default", "taskmanager.numberOfTaskSlots"] {
            assert!(!is_sensitive(key), "{key}");
        }
    }
}
