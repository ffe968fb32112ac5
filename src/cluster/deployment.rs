//! What a Deployment says of the pods that it makes: the containers and annotations that a decision needs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The spec of a Deployment.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct DeploymentSpec {
    pub template: PodTemplate,
}

/// The template of a Deployment's pods.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct PodTemplate {
    pub metadata: TemplateMetadata,
    pub spec: TemplateSpec,
}

/// The metadata of a Deployment's pods.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct TemplateMetadata {
    pub annotations: BTreeMap<String, String>,
}

/// What a template says of its pods.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct TemplateSpec {
    pub init_containers: Vec<TemplateContainer>,
}

/// A container of a template.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct TemplateContainer {
    pub name: String,
    pub image: String,
}

impl DeploymentSpec {
    /// An annotation of the pods.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.template.metadata.annotations.get(key).map(String::as_str)
    }

    /// The container of this name among those that start first.
    pub fn init_container(&self, name: &str) -> Option<&TemplateContainer> {
        self.template.spec.init_containers.iter().find(|container| container.name == name)
    }
}
