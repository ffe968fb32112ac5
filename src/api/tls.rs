//! `spec.tls`: certificates with which Flink encrypts its own traffic. `kubectl explain` prints the comments of the
//! fields.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::SecretReference;

/// Flink's own TLS. Each Secret has the keys of type `kubernetes.io/tls`, in PEM, as cert-manager writes them:
/// `tls.crt`, `tls.key` and `ca.crt`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Encrypts traffic between JobManagers and TaskManagers: RPC, blobs and data (Flink's
    /// `security.ssl.internal.enabled`). All pods present the certificate of this Secret and trust only its `ca.crt`,
    /// or without `ca.crt` only this certificate. Names in the certificate do not matter. If it limits its usages, they
    /// must include both client and server authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal: Option<SecretReference>,

    /// Encrypts Flink's REST endpoint and web interface (Flink's `security.ssl.rest.enabled`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<RestTls>,
}

/// TLS of Flink's REST endpoint.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RestTls {
    /// Name of the Secret. Its certificate must name the hosts that clients use, such as `<name>-rest` and
    /// `<name>-rest.<namespace>.svc`. The gateway does not compare names: it knows the certificate.
    #[schemars(length(min = 1))]
    pub name: String,

    /// Rejects clients without a certificate that `ca.crt` has signed (Flink's
    /// `security.ssl.rest.authentication-enabled`). The gateway presents the certificate of this Secret; so if the
    /// certificate limits its usages, they must include client authentication.
    #[serde(default)]
    pub client_authentication: bool,
}
