//! A paused resource: the operator changes nothing of the cluster, and only reports. Gateways are not affected:
//! JobManagers fail over as always.
//!
//! A deletion waits too, because its steps cannot be taken back: they end JobManagers and may remove HA data.

use super::cause::Cause;
use crate::api::FlinkHaCluster;
use crate::api::names::{
    DROP_JOB_ANNOTATION, RECONCILE_ANNOTATION, SWITCHOVER_ANNOTATION, UPGRADE_GATEWAYS_ANNOTATION,
};

const ENABLED: &str = "enabled";
const DISABLED: &str = "disabled";

/// Why the operator changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Somebody asks for it.
    Disabled,
    /// The annotation has this value, which is neither `disabled` nor `enabled`. Whoever wrote it may rely on a pause.
    Unknown(String),
}

impl Pause {
    /// Returns the pause that the resource asks for; `None` if the operator works on it.
    pub fn of(resource: &FlinkHaCluster) -> Option<Self> {
        match resource.annotation(RECONCILE_ANNOTATION)? {
            ENABLED => None,
            DISABLED => Some(Self::Disabled),
            other => Some(Self::Unknown(other.to_owned())),
        }
    }

    /// The reason of the condition `Paused`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Disabled => "ReconcileDisabled",
            Self::Unknown(_) => "InvalidAnnotation",
        }
    }

    /// What the condition `Paused` says: why, what waits, and how to go on.
    pub fn message(&self, resource: &FlinkHaCluster) -> String {
        let why = match self {
            Self::Disabled => format!("{RECONCILE_ANNOTATION} is {DISABLED}"),
            Self::Unknown(value) => {
                format!("{RECONCILE_ANNOTATION} is {value:?}, which is neither {DISABLED} nor {ENABLED}")
            }
        };
        let deletion = resource.metadata.deletion_timestamp.as_ref().map(|_| "its deletion waits");
        let switchover = resource.annotation(SWITCHOVER_ANNOTATION).map(|_| "the requested switchover waits");
        let upgrade =
            resource.annotation(UPGRADE_GATEWAYS_ANNOTATION).map(|_| "the requested upgrade of gateways waits");
        let dropped = resource.annotation(DROP_JOB_ANNOTATION).map(|_| "the requested removal of a job waits");
        let waits = deletion.into_iter().chain(switchover).chain(dropped).chain(upgrade);
        let waits: String = waits.map(|waits| format!("; {waits}")).collect();
        format!(
            "the operator changes nothing of this cluster, because the annotation {why}; JobManagers fail over as \
             always{waits}; to go on: {}",
            remedy(resource)
        )
    }

    /// What is wrong: a value that is not known, or a deletion that waits.
    pub fn causes(&self, resource: &FlinkHaCluster) -> impl Iterator<Item = Cause> {
        let unknown = match self {
            Self::Disabled => None,
            Self::Unknown(value) => Some(format!(
                "metadata.annotations: {RECONCILE_ANNOTATION} is {value:?} and must be {DISABLED} or {ENABLED}; until \
                 then nothing of this cluster is changed"
            )),
        };
        let unknown = unknown.map(|message| Cause { reason: self.reason(), message });
        let deletion = resource.metadata.deletion_timestamp.as_ref().map(|_| Cause {
            reason: "DeletionWaits",
            message: format!(
                "deletion waits, because the resource is paused, and nothing of the cluster is removed; to let it go \
                 on: {}",
                remedy(resource)
            ),
        });
        unknown.into_iter().chain(deletion)
    }
}

fn remedy(resource: &FlinkHaCluster) -> String {
    let (name, namespace) = (resource.metadata.name.as_deref(), resource.metadata.namespace.as_deref());
    format!(
        "kubectl annotate fhc {} --namespace {} {RECONCILE_ANNOTATION}-",
        name.unwrap_or_default(),
        namespace.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests as fixture;

    fn annotated(value: &str) -> FlinkHaCluster {
        let mut resource = fixture::resource();
        resource.metadata.annotations = Some([(RECONCILE_ANNOTATION.to_owned(), value.to_owned())].into());
        resource
    }

    #[test]
    fn only_enabled_and_no_annotation_let_the_operator_work() {
        assert_eq!((Pause::of(&fixture::resource()), Pause::of(&annotated("enabled"))), (None, None));
        assert_eq!(Pause::of(&annotated("disabled")), Some(Pause::Disabled));
        for value in ["", "true", "Disabled", "off"] {
            let (resource, pause) = (annotated(value), Pause::Unknown(value.to_owned()));
            assert_eq!(Pause::of(&resource), Some(pause.clone()));
            let causes: Vec<Cause> = pause.causes(&resource).collect();
            assert_eq!((causes.len(), causes[0].reason), (1, "InvalidAnnotation"));
            assert!(causes[0].message.contains("must be disabled or enabled"), "{}", causes[0].message);
        }
    }

    #[test]
    fn what_waits_is_told_with_the_way_out() {
        let mut resource = annotated("disabled");
        let told = Pause::Disabled.message(&resource);
        let remedy = "kubectl annotate fhc demo --namespace flink flinkha.dev/reconcile-";
        assert!(told.ends_with(remedy) && !told.contains("waits"), "{told}");
        assert_eq!(Pause::Disabled.causes(&resource).count(), 0, "a pause is no problem");
        resource.metadata.deletion_timestamp = serde_json::from_value("2026-01-01T00:00:00Z".into()).ok();
        let annotations = resource.metadata.annotations.as_mut();
        annotations.map(|all| all.insert(SWITCHOVER_ANNOTATION.to_owned(), "any".to_owned()));
        let told = Pause::Disabled.message(&resource);
        assert!(told.contains("its deletion waits; the requested switchover waits"), "{told}");
        let causes: Vec<Cause> = Pause::Disabled.causes(&resource).collect();
        assert_eq!((causes.len(), causes[0].reason), (1, "DeletionWaits"));
        assert!(causes[0].message.ends_with(remedy), "{}", causes[0].message);
    }
}
