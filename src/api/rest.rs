//! `spec.rest` and `spec.ingress`: how clients outside of the Kubernetes cluster reach Flink's REST interface and web
//! interface. `kubectl explain` prints the comments of the fields.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metadata::is_default;
use super::schema;
use super::secret::SecretReference;

/// The Service `<name>-rest`, which leads to the leader.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RestService {
    /// Type of the Service.
    #[serde(default, skip_serializing_if = "is_default")]
    pub service_type: ServiceType,
    /// Annotations of the Service, for example those by which a cloud makes a load balancer. They come after those of
    /// `commonMetadata`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
}

/// Type of a Service.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
pub enum ServiceType {
    /// An address in the Kubernetes cluster.
    #[default]
    ClusterIP,
    /// A port of each node too.
    NodePort,
    /// A load balancer of the cloud too.
    LoadBalancer,
}

/// The Ingress `<name>-rest`, which leads to the leader.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// Host name of the rule, for example `flink.example.org`. Default: all hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Path of the rule, and everything below it. Flink knows no prefix: an Ingress controller has to remove another
    /// path than `/` from requests, by annotations of its own.
    #[serde(default = "root", skip_serializing_if = "is_root")]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
        "self.startsWith('/')",
        "spec.ingress.path must begin with '/', for example /",
    )])), length(max = 1024))]
    pub path: String,
    /// Name of the IngressClass. Default: the Kubernetes cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// Annotations of the Ingress, for example those of its controller. They come after those of `commonMetadata`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Secret with the certificate that the Ingress controller shows for the host. It has nothing to do with
    /// `spec.tls`, by which Flink itself encrypts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SecretReference>,
}

fn root() -> String {
    "/".to_owned()
}

fn is_root(path: &str) -> bool {
    path == "/"
}
