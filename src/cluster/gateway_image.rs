//! Decides which image of the gateway a cluster runs.
//!
//! It is the pinned one, with which its pods were made, as long as nothing else of the JobManagers' pods changes: an
//! upgrade of the operator does not restart them. They take the operator's own image when they are replaced anyway,
//! when somebody asks for it, and when the pinned one cannot be pulled.

use jiff::{SignedDuration, Timestamp};

use super::build::job_manager::{OURS, TEMPLATE_ANNOTATION};
use super::causes;
use super::crash;
use super::events::EventNote;
use super::observed::{Observed, ObservedDeployment, ObservedPod};
use crate::api::FlinkHaCluster;
use crate::api::names::{UPGRADE_GATEWAYS_ANNOTATION, UPGRADE_NOW};
use crate::api::status::FlinkHaClusterStatus;

/// An image that cannot be pulled for so long is replaced: a registry may be away for a moment.
const PULL_TIMEOUT: SignedDuration = SignedDuration::from_secs(60);

/// The image, and why it is not the pinned one although nothing else of the pods changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayImage {
    pub image: String,
    pub note: Option<EventNote>,
    /// The time until another one may be chosen. No watch tells of it.
    pub look_again: Option<SignedDuration>,
}

/// Chooses the image. `template_digest`: of the JobManagers' pods, without the gateway's image; `own`: the operator's
/// own.
pub fn choose(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    observed: &Observed,
    template_digest: &str,
    own: &str,
    now: Timestamp,
) -> GatewayImage {
    let chosen = |image: &str, note| GatewayImage { image: image.to_owned(), note, look_again: None };
    // Digest and image are of one object. A status may be older than the Deployment that was written before it: with
    // the image of then, a template of now would make pods that cannot start.
    let live = observed.job_manager_deployment.as_deref().filter(|live| is_unchanged(live, template_digest));
    let pinned = live.and_then(|live| live.gateway_image().or(before.gateway_image.as_deref()));
    let Some(pinned) = pinned.filter(|pinned| *pinned != own) else { return chosen(own, None) };
    let replaced = |why: String| {
        let message = format!(
            "{why}: gateway {pinned} is replaced with {own}; JobManagers are replaced one by one, the leader last"
        );
        Some(EventNote { warning: false, reason: "GatewayImageReplaced".to_owned(), message })
    };
    if resource.annotation(UPGRADE_GATEWAYS_ANNOTATION) == Some(UPGRADE_NOW) {
        return chosen(own, replaced(format!("{UPGRADE_GATEWAYS_ANNOTATION} asks for it")));
    }
    let Some(failure) = PullFailure::of(observed, pinned) else { return chosen(pinned, None) };
    let left = PULL_TIMEOUT - now.duration_since(failure.since);
    if left > SignedDuration::ZERO {
        return GatewayImage { look_again: Some(left + SignedDuration::from_secs(1)), ..chosen(pinned, None) };
    }
    chosen(own, replaced(failure.message))
}

/// Whether the pods' template is as it was built last, apart from the gateway's image.
fn is_unchanged(live: &ObservedDeployment, template_digest: &str) -> bool {
    let annotations = live.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(TEMPLATE_ANNOTATION))
        .is_some_and(|digest| digest == template_digest)
}

/// A pod that cannot pull the gateway's image.
struct PullFailure {
    /// When the pod last became unready; for one that never was ready, when it was made.
    since: Timestamp,
    message: String,
}

impl PullFailure {
    /// Returns the longest lasting one.
    fn of(observed: &Observed, image: &str) -> Option<Self> {
        let pods = observed.live_pods().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        pods.filter_map(|pod| Self::of_pod(pod, image)).min_by_key(|failure| failure.since)
    }

    fn of_pod(pod: &ObservedPod, image: &str) -> Option<Self> {
        let ours = |name: &str| OURS.contains(&name);
        let containers = pod.status.init_container_statuses.iter();
        let mut ours = containers.filter(|container| ours(&container.name) && container.image == image);
        let waiting = ours.find_map(|container| {
            container.state.waiting.as_ref().filter(|waiting| causes::is_pull_failure(&waiting.reason))
        })?;
        let created = pod.metadata.creation_timestamp.as_ref()?.0;
        let ready = pod.status.conditions.iter().find(|condition| condition.kind == "Ready");
        let unready = ready.and_then(|ready| ready.last_transition_time.as_ref()).map_or(created, |time| time.0);
        let since = created.max(unready);
        let message = format!("pod {} cannot pull it since {since:.0}: {}", pod.name(), crash::tail(&waiting.message));
        Some(Self { since, message })
    }
}

/// Returns the answer to [`UPGRADE_GATEWAYS_ANNOTATION`], with which it is removed after the status says which image
/// was `chosen`; `None` without a request.
pub fn answer(resource: &FlinkHaCluster, chosen: &str) -> Option<EventNote> {
    let asked = resource.annotation(UPGRADE_GATEWAYS_ANNOTATION)?;
    let (warning, reason, message) = if asked == UPGRADE_NOW {
        (false, "GatewayImageCurrent", format!("the gateway's image is {chosen}; pods with another one are replaced"))
    } else {
        let why = format!("{asked:?} is not understood, and nothing is replaced; write {UPGRADE_NOW}");
        (true, "UpgradeGatewaysRefused", why)
    };
    let message = format!("{UPGRADE_GATEWAYS_ANNOTATION}: {message}");
    Some(EventNote { warning, reason: reason.to_owned(), message })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::tests as fixture;

    fn deployment(digest: &str) -> Observed {
        let deployment = json!({ "metadata": { "annotations": { TEMPLATE_ANNOTATION: digest } } });
        let deployment = serde_json::from_value(deployment).ok().map(Arc::new);
        Observed { job_manager_deployment: deployment, ..Observed::default() }
    }

    fn pinned(image: &str) -> FlinkHaClusterStatus {
        FlinkHaClusterStatus { gateway_image: Some(image.to_owned()), ..FlinkHaClusterStatus::default() }
    }

    fn asked(value: &str) -> FlinkHaCluster {
        let mut resource = fixture::resource();
        resource.metadata.annotations = Some([(UPGRADE_GATEWAYS_ANNOTATION.to_owned(), value.to_owned())].into());
        resource
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    #[test]
    fn a_new_operator_brings_its_gateway_only_when_the_pods_are_replaced_anyway() {
        let resource = fixture::resource();
        let chosen = |before: &FlinkHaClusterStatus, observed: &Observed, digest: &str| {
            choose(&resource, before, observed, digest, "new", at(0)).image
        };
        assert_eq!(chosen(&pinned("old"), &deployment("same"), "same"), "old");
        assert_eq!(chosen(&pinned("old"), &deployment("same"), "different"), "new");
        assert_eq!(chosen(&pinned("old"), &Observed::default(), "same"), "new");
        assert_eq!(chosen(&FlinkHaClusterStatus::default(), &deployment("same"), "same"), "new");
    }

    /// The operator died, or found another version of the resource, between the Deployment and the status.
    #[test]
    fn pods_keep_the_image_with_which_their_template_was_written_whatever_the_status_says() {
        let image_of = |status: &str, image: &str, digest: &str| {
            let spec = json!({ "template": { "spec": { "initContainers": [
                { "name": "users", "image": "other" }, { "name": "gateway", "image": image },
            ] } } });
            let mut live = deployment("same");
            if let Some(deployment) = &mut live.job_manager_deployment {
                Arc::make_mut(deployment).spec = serde_json::from_value(spec).unwrap_or_default();
            }
            choose(&fixture::resource(), &pinned(status), &live, digest, "new", at(0)).image
        };
        assert_eq!(image_of("old", "new", "same"), "new");
        assert_eq!(image_of("new", "old", "same"), "old");
        assert_eq!(image_of("old", "old", "different"), "new");
    }

    #[test]
    fn it_is_brought_when_somebody_asks_and_the_request_is_answered() {
        let live = deployment("same");
        let chosen = choose(&asked("now"), &pinned("old"), &live, "same", "new", at(0));
        let note = chosen.note.expect("an event");
        assert_eq!((chosen.image.as_str(), note.reason.as_str()), ("new", "GatewayImageReplaced"));
        assert!(note.message.contains("gateway old is replaced with new"), "{}", note.message);
        let again = choose(&asked("now"), &pinned("new"), &live, "same", "new", at(0));
        assert_eq!((again.image.as_str(), again.note), ("new", None));
        let reason = |resource: &FlinkHaCluster| answer(resource, "new").map(|note| note.reason);
        assert_eq!(reason(&asked("now")).as_deref(), Some("GatewayImageCurrent"));
        assert_eq!(reason(&fixture::resource()), None);
        assert_eq!(choose(&asked("soon"), &pinned("old"), &live, "same", "new", at(0)).image, "old");
        assert_eq!(reason(&asked("soon")).as_deref(), Some("UpgradeGatewaysRefused"));
    }

    /// A JobManager of which this container waits, created at second 0 and unready since then.
    fn waiting(container: &str, image: &str, reason: &str, unready: i64) -> Observed {
        let waiting = json!({ "waiting": { "reason": reason, "message": "manifest unknown" } });
        let ready = json!({ "type": "Ready", "status": "False", "lastTransitionTime": at(unready).to_string() });
        let pod: Value = json!({
            "metadata": { "name": "a", "creationTimestamp": "1970-01-01T00:00:00Z" },
            "status": {
                "conditions": [ready],
                "initContainerStatuses": [{ "name": container, "image": image, "state": waiting }],
            },
        });
        let pod = serde_json::from_value(pod).unwrap_or_else(|error| panic!("{error}"));
        Observed { job_manager_pods: vec![Arc::new(pod)], ..deployment("same") }
    }

    #[test]
    fn a_pinned_image_that_cannot_be_pulled_for_a_minute_is_replaced_by_itself() {
        let resource = fixture::resource();
        let chosen =
            |observed: &Observed, second: i64| choose(&resource, &pinned("old"), observed, "same", "new", at(second));
        let failing = waiting("gateway", "old", "ImagePullBackOff", 0);
        let early = chosen(&failing, 59);
        assert_eq!((early.image.as_str(), early.look_again.map(|left| left.as_secs())), ("old", Some(2)));
        let late = chosen(&failing, 60);
        let message = late.note.map(|note| note.message).unwrap_or_default();
        assert!(late.image == "new" && message.starts_with("pod a cannot pull it since 1970"), "{message}");
        assert_eq!(chosen(&waiting("fetch-jar", "old", "ErrImagePull", 0), 60).image, "new");
        for (container, image, reason, unready) in [
            ("gateway", "old", "ContainerCreating", 0),
            ("gateway", "other", "ImagePullBackOff", 0),
            ("users", "old", "ImagePullBackOff", 0),
            // A sidecar of a pod that was ready until then.
            ("gateway", "old", "ImagePullBackOff", 30),
        ] {
            assert_eq!(chosen(&waiting(container, image, reason, unready), 60).image, "old", "{container} {reason}");
        }
        assert_eq!(choose(&resource, &pinned("old"), &failing, "same", "old", at(90)).note, None, "there is no other");
    }
}
