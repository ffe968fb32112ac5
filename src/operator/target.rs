//! Identifies a built object for requests: its kind, namespace and name.

use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use kube::{Api, Client};
use serde_json::Value;

use super::error::Error;
use crate::api::names;
use crate::cluster::rejection::Rejection;

/// A built object and its identity in the API.
pub struct Target<'a> {
    pub object: &'a Value,
    pub kind: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl<'a> Target<'a> {
    pub fn of(object: &'a Value) -> Self {
        let text = |value: &'a Value| value.as_str().unwrap_or_default();
        Self {
            object,
            kind: text(&object["kind"]),
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
        }
    }

    /// Returns a key that is unique over all kinds and namespaces.
    pub fn key(&self) -> String {
        key(self.namespace, self.kind, self.name)
    }

    /// UID of the resource that the object belongs to; empty when it names none.
    pub fn owner(&self) -> &'a str {
        self.object["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap_or_default()
    }

    pub fn api(&self, client: &Client) -> Api<DynamicObject> {
        let types = TypeMeta {
            api_version: self.object["apiVersion"].as_str().unwrap_or_default().to_owned(),
            kind: self.kind.to_owned(),
        };
        // This module builds the kind itself; if it were malformed, the API server would not know it.
        let kind = GroupVersionKind::try_from(types).unwrap_or_else(|_| GroupVersionKind::gvk("", "", self.kind));
        Api::namespaced_with(client.clone(), self.namespace, &ApiResource::from_gvk(&kind))
    }

    pub fn failed(&self, action: &'static str) -> impl FnOnce(kube::Error) -> Error + use<> {
        let object = format!("{} {}", self.kind, self.name);
        move |source| Error::Request { action, object, source }
    }

    /// Returns the error of a request: what the API server does not take of a Deployment is told as an error of the pod
    /// template.
    pub fn refused(&self, action: &'static str, error: kube::Error) -> Error {
        match error {
            kube::Error::Api(status) if self.kind == "Deployment" && is_refusal(status.code, &status.message) => {
                let component = &self.object["spec"]["selector"]["matchLabels"][names::COMPONENT_LABEL];
                let is_job_manager = component == names::JOB_MANAGER;
                let field = if is_job_manager { "spec.jobManager.podTemplate" } else { "spec.taskManager.podTemplate" };
                Rejection::invalid_template(field, &status.message).into()
            }
            error => self.failed(action)(error),
        }
    }
}

/// Whether an answer means that the object is wrong, and not that the API server could not do it now. A field that the
/// schema does not know is reported by server-side apply as an internal error.
fn is_refusal(code: u16, message: &str) -> bool {
    matches!(code, 400 | 422)
        || message.contains("field not declared in schema")
        || message.contains("failed to create typed patch object")
}

/// The key of an object that has not been built here.
pub fn key(namespace: &str, kind: &str, name: &str) -> String {
    format!("{namespace}/{kind}/{name}")
}
