//! Replaces pods whose ServiceAccount was deleted and made again: the API server no longer takes their tokens, and
//! kubelets renew them only after most of an hour. The template of their Deployment names the account from then on, so
//! that Kubernetes replaces them as for any other change, the leader last.

use serde_json::Value;

use super::account::Account;
use super::build::Objects;
use super::observed::{Observed, ObservedDeployment, ObservedPod};
use crate::api::names::ACCOUNT_ANNOTATION;

/// Names the accounts in the templates, where pods are older than theirs or the template names one already.
pub fn name_accounts(objects: &mut Objects, observed: &Observed) {
    let job_managers = observed.job_manager_pods.iter().map(AsRef::as_ref);
    let named = named(&observed.job_manager_account, observed.job_manager_deployment.as_deref(), job_managers);
    name_account(&mut objects.job_managers, named);
    let task_managers = observed.task_manager_pods.iter().map(AsRef::as_ref);
    let named = self::named(&observed.task_manager_account, observed.task_manager_deployment.as_deref(), task_managers);
    name_account(&mut objects.task_managers, named);
}

fn name_account(deployment: &mut Value, named: Option<String>) {
    if let Some(uid) = named {
        deployment["spec"]["template"]["metadata"]["annotations"][ACCOUNT_ANNOTATION] = uid.into();
    }
}

/// The account that a template names; `None` in most clusters.
fn named<'a>(
    account: &Option<Account>,
    live: Option<&ObservedDeployment>,
    mut pods: impl Iterator<Item = &'a ObservedPod>,
) -> Option<String> {
    let before = live.and_then(|live| live.spec.annotation(ACCOUNT_ANNOTATION)).map(str::to_owned);
    let Some(account) = account else { return before };
    let is_older = |pod: &ObservedPod| {
        let created = pod.metadata.creation_timestamp.as_ref();
        pod.is_live() && created.is_some_and(|created| created.0 < account.created)
    };
    if live.is_some() && pods.any(is_older) { Some(account.uid.clone()) } else { before }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_names_the_account_once_a_pod_is_older_and_keeps_it() {
        let account = Account { uid: "new".to_owned(), created: "2026-01-01T00:01:00Z".parse().expect("a time") };
        let live = |annotations: Value| -> ObservedDeployment {
            let template = json!({ "metadata": { "annotations": annotations }, "spec": {} });
            serde_json::from_value(json!({ "metadata": {}, "spec": { "template": template } })).expect("a Deployment")
        };
        let pod = |created: &str, phase: &str| -> ObservedPod {
            let pod = json!({ "metadata": { "creationTimestamp": created }, "status": { "phase": phase } });
            serde_json::from_value(pod).expect("a pod")
        };
        let (old, young) = (pod("2026-01-01T00:00:00Z", "Running"), pod("2026-01-01T00:02:00Z", "Running"));
        let named = |annotations: Value, pods: &[&ObservedPod]| {
            named(&Some(account.clone()), Some(&live(annotations)), pods.iter().copied())
        };
        assert_eq!(named(json!({}), &[&young]), None);
        assert_eq!(named(json!({}), &[&young, &old]).as_deref(), Some("new"));
        assert_eq!(named(json!({ ACCOUNT_ANNOTATION: "new" }), &[&young]).as_deref(), Some("new"), "it stays");
        assert_eq!(named(json!({ ACCOUNT_ANNOTATION: "former" }), &[&old]).as_deref(), Some("new"));
        assert_eq!(named(json!({}), &[&pod("2026-01-01T00:00:00Z", "Failed")]), None, "its containers have ended");
    }
}
