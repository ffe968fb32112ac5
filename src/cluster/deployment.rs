//! What a Deployment says of the pods that it makes: the containers and annotations that a decision needs; and whether
//! what a watch shows of it is enough to delete it.

use std::collections::BTreeMap;

use kube::core::ObjectMeta;
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

/// What a watch shows of the Deployment of a resource that is being deleted. It never proves that the Deployment is
/// gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchedDeployment {
    /// It is being deleted, and its pods end.
    Ends,
    /// It is this resource's, and is to be deleted as long as it is this version.
    Own { uid: String, version: String },
    /// Only the API server itself can tell.
    Unknown,
}

/// `owner`: the resource's UID; a resource of the same name may have been created anew, and have taken the Deployment.
pub fn watched(owner: Option<&str>, deployment: Option<&ObjectMeta>) -> WatchedDeployment {
    let Some(deployment) = deployment else { return WatchedDeployment::Unknown };
    let owns = |uid: &str| deployment.owner_references.iter().flatten().any(|found| found.uid == uid);
    if !owner.is_some_and(owns) {
        return WatchedDeployment::Unknown;
    }
    if deployment.deletion_timestamp.is_some() {
        return WatchedDeployment::Ends;
    }
    match (&deployment.uid, &deployment.resource_version) {
        (Some(uid), Some(version)) => WatchedDeployment::Own { uid: uid.clone(), version: version.clone() },
        _ => WatchedDeployment::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_the_resources_own_deployment_is_deleted_as_a_watch_shows_it() {
        let deployment = |change: Value| {
            let owner = json!({ "apiVersion": "v1", "kind": "FlinkHaCluster", "name": "demo", "uid": "ours" });
            let mut metadata =
                json!({ "name": "demo-jobmanager", "uid": "d", "resourceVersion": "7", "ownerReferences": [owner] });
            change.as_object().into_iter().flatten().for_each(|(key, value)| metadata[key] = value.clone());
            serde_json::from_value::<ObjectMeta>(metadata).unwrap_or_else(|error| panic!("{error}"))
        };
        let shown = |change| watched(Some("ours"), Some(&deployment(change)));
        assert_eq!(shown(json!({})), WatchedDeployment::Own { uid: "d".to_owned(), version: "7".to_owned() });
        assert_eq!(shown(json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" })), WatchedDeployment::Ends);
        assert_eq!(shown(json!({ "ownerReferences": null })), WatchedDeployment::Unknown);
        assert_eq!(shown(json!({ "resourceVersion": null })), WatchedDeployment::Unknown);
        for owner in [Some("another"), None] {
            assert_eq!(super::watched(owner, Some(&deployment(json!({})))), WatchedDeployment::Unknown);
        }
        assert_eq!(super::watched(Some("ours"), None), WatchedDeployment::Unknown, "a watch may be late");
    }
}
