//! Flink's settings for TLS (`SecurityOptions` and `SSLUtils`, Flink 1.20 to 2.3).
//!
//! Internal traffic always authenticates both sides. REST presents a certificate and, if it is told to, requires one of
//! its clients. Neither compares names, except that clients of 2.3 may (`security.ssl.rest.verify-hostname`, off).

use super::config::Configuration;

/// Keys with this beginning concern internal traffic.
pub const INTERNAL: &str = "security.ssl.internal.";
/// Keys with this beginning concern REST.
pub const REST: &str = "security.ssl.rest.";

const REST_ENABLED: &str = "security.ssl.rest.enabled";
/// Of Flink 1.x: the default of both.
const ALL_ENABLED: &str = "security.ssl.enabled";
const REST_AUTHENTICATION: &str = "security.ssl.rest.authentication-enabled";

/// Key for the permitted algorithms.
pub const ALGORITHMS: &str = "security.ssl.algorithms";

/// Value of [`ALGORITHMS`] for keys of either kind. Flink's default depends on its version; it has none for keys of
/// elliptic curves.
pub const FOR_ALL_KEYS: &str = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,\
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";

/// Key for the version of TLS.
pub const PROTOCOL: &str = "security.ssl.protocol";
/// Value of [`PROTOCOL`] with algorithms of its own.
pub const TLS_1_3: &str = "TLSv1.3";
/// Value of [`ALGORITHMS`] for [`TLS_1_3`].
pub const FOR_TLS_1_3: &str = "TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384";

/// Names of the key stores in a directory.
pub const KEY_STORE: &str = "keystore.jks";
pub const TRUST_STORE: &str = "truststore.jks";

/// The password of the key stores. Java demands one. It is no secret: the stores are readable only inside the pod, in
/// the container that would read the password too.
pub const PASSWORD: &str = "changeit";

/// Returns the settings for the key stores in this directory. `prefix`: [`INTERNAL`] or [`REST`].
pub fn stores(prefix: &str, directory: &str) -> Configuration {
    let settings = [
        ("enabled", "true".to_owned()),
        ("keystore", format!("{directory}/{KEY_STORE}")),
        ("keystore-type", "JKS".to_owned()),
        ("keystore-password", PASSWORD.to_owned()),
        ("key-password", PASSWORD.to_owned()),
        ("truststore", format!("{directory}/{TRUST_STORE}")),
        ("truststore-type", "JKS".to_owned()),
        ("truststore-password", PASSWORD.to_owned()),
    ];
    settings.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)).collect()
}

/// Returns the keys that [`stores`] and [`client_authentication`] set.
pub fn owned(prefix: &str) -> Vec<String> {
    stores(prefix, "").into_keys().chain((prefix == REST).then(|| REST_AUTHENTICATION.to_owned())).collect()
}

/// Returns the setting by which REST requires a certificate of its clients.
pub fn client_authentication(required: bool) -> (String, String) {
    (REST_AUTHENTICATION.to_owned(), required.to_string())
}

/// Does Flink's REST endpoint speak TLS?
pub fn rest_is_encrypted<'a>(value: impl Fn(&str) -> Option<&'a str>) -> bool {
    value(REST_ENABLED).or_else(|| value(ALL_ENABLED)).is_some_and(is_true)
}

/// Does Flink's REST endpoint require a certificate of its clients?
pub fn rest_authenticates<'a>(value: impl Fn(&str) -> Option<&'a str>) -> bool {
    rest_is_encrypted(&value) && value(REST_AUTHENTICATION).is_some_and(is_true)
}

fn is_true(value: &str) -> bool {
    value.trim().eq_ignore_ascii_case("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_encrypted_by_its_own_key_or_else_by_that_of_flink_1() {
        let asked = |settings: &[(&str, &str)]| {
            let value = |key: &str| settings.iter().find(|(own, _)| *own == key).map(|(_, value)| *value);
            (rest_is_encrypted(value), rest_authenticates(value))
        };
        assert_eq!(asked(&[]), (false, false));
        assert_eq!(asked(&[(REST_AUTHENTICATION, "true")]), (false, false));
        assert_eq!(asked(&[(ALL_ENABLED, "true"), (REST_AUTHENTICATION, " True")]), (true, true));
        assert_eq!(asked(&[(ALL_ENABLED, "true"), (REST_ENABLED, "false")]), (false, false));
        assert_eq!(asked(&[(REST_ENABLED, "true"), (REST_AUTHENTICATION, "false")]), (true, false));
    }
}
