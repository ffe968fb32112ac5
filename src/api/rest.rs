//! `spec.rest` and `spec.ingress`: how clients outside of the Kubernetes cluster reach Flink's REST interface and web
//! interface. `kubectl explain` prints the comments of the fields.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metadata::is_default;
use super::names;
use super::schema;
use super::secret::SecretReference;

/// The Service `<name>-rest`, which leads to the leader.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
    "!has(self.ipFamilies) || self.ipFamilies.size() < 2 || !has(self.ipFamilyPolicy) || self.ipFamilyPolicy != 'SingleStack'",
    "spec.rest.ipFamilies must name one family with ipFamilyPolicy SingleStack; remove the other, or use PreferDualStack",
)])))]
pub struct RestService {
    /// Type of the Service.
    #[serde(default, skip_serializing_if = "is_default")]
    pub service_type: ServiceType,
    /// Annotations of the Service, for example those by which a cloud makes a load balancer. They come after those of
    /// `commonMetadata`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Default: that of the Kubernetes cluster, one address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// `ipFamilies` of the same Services: `IPv4`, `IPv6`, or both in the order of preference. Default: the first family
    /// of the Kubernetes cluster. Kubernetes does not change the first family of a Service that exists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub ip_families: Vec<IpFamily>,
}

impl RestService {
    /// Returns the families of addresses by which clients may find the leader, as far as the resource names them. None:
    /// that of the pods.
    pub fn named_families(&self) -> Vec<IpFamily> {
        match self.ip_family_policy {
            Some(IpFamilyPolicy::PreferDualStack | IpFamilyPolicy::RequireDualStack) => IpFamily::ALL.to_vec(),
            Some(IpFamilyPolicy::SingleStack) | None => self.ip_families.clone(),
        }
    }
}

/// Family of IP addresses.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, clap::ValueEnum)]
pub enum IpFamily {
    #[value(name = "IPv4")]
    IPv4,
    #[value(name = "IPv6")]
    IPv6,
}

impl IpFamily {
    pub const ALL: [Self; 2] = [Self::IPv4, Self::IPv6];

    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::IPv4 } else { Self::IPv6 }
    }

    /// Returns the name of the EndpointSlice for addresses of this family by which clients find a cluster's leader.
    pub fn rest_slice(self, cluster: &str) -> String {
        match self {
            Self::IPv4 => names::rest(cluster),
            Self::IPv6 => names::rest_ipv6(cluster),
        }
    }

    /// As Kubernetes and the command line write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
        }
    }
}

/// `ipFamilyPolicy` of the Services `<name>-rest` and `<name>-jobmanagers`: whether they have an address of one family
/// or of both. Default: that of the Kubernetes cluster, which is one. To name it, or to stop naming it, replaces the
/// JobManagers' pods.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub enum IpFamilyPolicy {
    /// One.
    SingleStack,
    /// Both where the Kubernetes cluster has both, otherwise one.
    PreferDualStack,
    /// Both; the API server refuses the Services where the Kubernetes cluster has only one.
    RequireDualStack,
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
