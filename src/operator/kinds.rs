//! The kinds that the operator watches, and what it reads of each beside the metadata.

use std::marker::PhantomData;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::core::{DynamicObject, ObjectMeta, PartialObjectMeta};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::api::FlinkHaCluster;
use crate::api::status::FlinkHaClusterStatus;
use crate::api::v1alpha1::FlinkHaClusterSpec;
use crate::cluster::deployment::DeploymentSpec;
use crate::cluster::ledger_data::LedgerData;
use crate::cluster::observed::{
    DeploymentStatus, Endpoint, ObservedConfigMap, ObservedDeployment, ObservedEndpointSlice, ObservedPod, PodSpec,
    PodStatus,
};

/// A kind that the operator watches.
pub trait Observable: Resource + Sized {
    /// What is read of an object beside its metadata.
    type Body: DeserializeOwned;

    /// Bytes and commas of an object's JSON that are read at most: the commas tell of the memory that it needs.
    const LIMITS: (usize, usize) = (usize::MAX, usize::MAX);

    fn assemble(metadata: ObjectMeta, body: Self::Body) -> Self;
}

/// Objects of which only the metadata is read.
pub type Metadata = PartialObjectMeta<DynamicObject>;

impl Observable for Metadata {
    type Body = serde::de::IgnoredAny;

    fn assemble(metadata: ObjectMeta, _: Self::Body) -> Self {
        Self { types: None, metadata, _phantom: PhantomData }
    }
}

/// What is read of a resource.
#[derive(Deserialize)]
pub struct ResourceBody {
    #[serde(default)]
    metadata: Finalizers,
    spec: FlinkHaClusterSpec,
    #[serde(default)]
    status: Option<FlinkHaClusterStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Finalizers {
    finalizers: Option<Vec<String>>,
}

impl Observable for FlinkHaCluster {
    type Body = ResourceBody;

    /// All of a resource is kept, podTemplates as they are. A value takes some hundred bytes.
    const LIMITS: (usize, usize) = (1 << 20, 50_000);

    fn assemble(metadata: ObjectMeta, body: ResourceBody) -> Self {
        let metadata = ObjectMeta { finalizers: body.metadata.finalizers, ..metadata };
        Self { metadata, spec: body.spec, status: body.status }
    }
}

/// What is read of a Lease.
#[derive(Deserialize)]
pub struct LeaseBody {
    #[serde(default)]
    spec: Option<LeaseSpec>,
}

impl Observable for Lease {
    type Body = LeaseBody;

    fn assemble(metadata: ObjectMeta, LeaseBody { spec }: LeaseBody) -> Self {
        Self { metadata, spec }
    }
}

/// What is read of a pod.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct PodBody {
    spec: PodSpec,
    status: PodStatus,
}

impl Observable for ObservedPod {
    type Body = PodBody;

    fn assemble(metadata: ObjectMeta, PodBody { spec, status }: PodBody) -> Self {
        Self { metadata, spec, status }
    }
}

/// A pod, of which it only matters whose it is.
#[derive(Clone, Debug, Resource)]
#[resource(inherit = "Pod")]
pub struct PodOwners {
    pub metadata: ObjectMeta,
}

/// What is read of the owners of a pod.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct PodOwnersBody {
    metadata: OwnerReferences,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OwnerReferences {
    owner_references: Option<Vec<OwnerReference>>,
}

impl Observable for PodOwners {
    type Body = PodOwnersBody;

    fn assemble(metadata: ObjectMeta, body: PodOwnersBody) -> Self {
        Self { metadata: ObjectMeta { owner_references: body.metadata.owner_references, ..metadata } }
    }
}

/// What is read of a Deployment.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct DeploymentBody {
    spec: DeploymentSpec,
    status: DeploymentStatus,
}

impl Observable for ObservedDeployment {
    type Body = DeploymentBody;

    fn assemble(metadata: ObjectMeta, DeploymentBody { spec, status }: DeploymentBody) -> Self {
        Self { metadata, spec, status }
    }
}

/// What is read of a ConfigMap.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct ConfigMapBody {
    data: LedgerData,
}

impl Observable for ObservedConfigMap {
    type Body = ConfigMapBody;

    fn assemble(metadata: ObjectMeta, ConfigMapBody { data }: ConfigMapBody) -> Self {
        Self { metadata, data }
    }
}

/// What is read of an EndpointSlice.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct EndpointSliceBody {
    endpoints: Option<Vec<Endpoint>>,
}

impl Observable for ObservedEndpointSlice {
    type Body = EndpointSliceBody;

    fn assemble(metadata: ObjectMeta, EndpointSliceBody { endpoints }: EndpointSliceBody) -> Self {
        Self { metadata, endpoints: endpoints.unwrap_or_default() }
    }
}
