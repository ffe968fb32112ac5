//! The definitions of a job that the status remembers: what its pods are made from, and what to go back to.
//!
//! Values of keys that look like credentials are not written down: they are `null` there. They come from the present
//! spec, and nobody makes pods from a definition whose values are not known.

use serde_json::{Value, json};

use super::decision::has_no_pods;
use super::versions::{is_of_one_component, version};
use crate::api::FlinkHaClusterSpec;
use crate::api::application::{Application, Phase};
use crate::api::status::FlinkHaClusterStatus;
use crate::api::v1alpha1::Scalar;
use crate::cluster::cause::Cause;
use crate::flink::sensitive::is_sensitive;

const UNREADABLE: &str = "DefinitionUnreadable";
const INCOMPLETE: &str = "DefinitionIncomplete";

/// Returns the text of a definition, as the status remembers it.
pub fn text(spec: &FlinkHaClusterSpec) -> String {
    // Serialising a spec cannot fail: its keys are strings.
    let text = || serde_json::to_string(spec).unwrap_or_default();
    if !spec.flink_configuration.keys().any(|key| is_sensitive(key)) {
        return text();
    }
    redacted_text(&json!(spec)).unwrap_or_else(text)
}

/// Returns the status without values that look like credentials. Earlier versions have written them.
pub fn redacted(mut status: FlinkHaClusterStatus) -> FlinkHaClusterStatus {
    let texts = status
        .application
        .iter_mut()
        .flat_map(|application| std::iter::once(&mut application.deployed).chain(application.stable.as_mut()));
    for text in texts {
        let definition: Option<Value> = serde_json::from_str(text).ok();
        if let Some(redacted) = definition.and_then(|definition| redacted_text(&definition)) {
            *text = redacted;
        }
    }
    status
}

/// The text of a definition without these values; `None` if it has none.
fn redacted_text(definition: &Value) -> Option<String> {
    let mut definition = definition.clone();
    let values = definition.get_mut("flinkConfiguration")?.as_object_mut()?.iter_mut();
    let clear: Vec<_> = values.filter(|(key, value)| is_sensitive(key) && !value.is_null()).collect();
    if clear.is_empty() {
        return None;
    }
    clear.into_iter().for_each(|(_, value)| *value = Value::Null);
    Some(definition.to_string())
}

/// A definition that was read from the status.
pub struct Definition {
    /// With values of the present spec where none were written down.
    pub spec: FlinkHaClusterSpec,
    /// Keys whose values were not written down.
    redacted: Vec<String>,
    /// Those of them that have no value in the present spec either.
    missing: Vec<String>,
}

/// Why a definition cannot be read. The parser's own words would repeat values.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableDefinition {
    #[error("it is no JSON from line {0}, column {1} on")]
    Syntax(usize, usize),
    #[error("it is JSON, but no spec")]
    Form,
}

impl From<serde_json::Error> for UnreadableDefinition {
    fn from(error: serde_json::Error) -> Self {
        if error.is_data() { Self::Form } else { Self::Syntax(error.line(), error.column()) }
    }
}

impl Definition {
    /// Reads a definition, with what it lacks from the `present` spec: the values of its keys, or the Secrets that hold
    /// them now.
    ///
    /// # Errors
    /// When the text is none of a definition.
    pub fn read(text: &str, present: &FlinkHaClusterSpec) -> Result<Self, UnreadableDefinition> {
        let mut definition: Value = serde_json::from_str(text)?;
        let mut redacted = Vec::new();
        // Not by its index, which would write `null` where the key is not there.
        if let Some(values) = definition.get_mut("flinkConfiguration").and_then(Value::as_object_mut) {
            values.retain(|key, value| {
                let is_redacted = value.is_null();
                redacted.extend(is_redacted.then(|| key.clone()));
                !is_redacted
            });
        }
        let mut spec: FlinkHaClusterSpec = serde_json::from_value(definition)?;
        let mut missing = Vec::new();
        for key in &redacted {
            match present.flink_configuration.get(key) {
                Some(value) => drop(spec.flink_configuration.insert(key.clone(), Scalar::clone(value))),
                None => missing.push(key.clone()),
            }
        }
        if !missing.is_empty() && !present.flink_configuration_from.is_empty() {
            spec.flink_configuration_from.clone_from(&present.flink_configuration_from);
            missing.clear();
        }
        Ok(Self { spec, redacted, missing })
    }

    /// The spec, if nothing of it is missing.
    pub fn complete(self) -> Option<FlinkHaClusterSpec> {
        self.missing.is_empty().then_some(self.spec)
    }

    /// Whether it is known to be the very definition that pods were made from. `deployed` is the version of that one.
    pub fn is_that_of_pods(&self, deployed: &str, present: &FlinkHaClusterSpec) -> bool {
        let of_one_component = || self.redacted.iter().any(|key| is_of_one_component(key));
        self.redacted.is_empty()
            || version(present) == deployed
            || (version(&self.spec) == deployed && !of_one_component())
    }
}

/// Why nothing may be changed: it is not known what the pods are made from, and it is not what is asked for; or what is
/// to come back cannot be read, or not completed.
pub fn refusal(wanted: &FlinkHaClusterSpec, application: &Application) -> Option<Cause> {
    let phase = application.phase;
    if phase == Phase::RollingBack {
        return unusable_stable(application, wanted);
    }
    let error = Definition::read(&application.deployed, wanted).err().filter(|_| !has_no_pods(phase))?;
    // Nothing was noted yet; or it is the same definition, which is known after all.
    if application.version.is_empty() || version(wanted) == application.version {
        return None;
    }
    let message = format!(
        "status.application.deployed cannot be read ({error}), so it is not known what the pods are made from, and \
         nothing of the application is changed: apply the definition that runs once more (status.application.version \
         {}), and then the change",
        application.version
    );
    Some(Cause { reason: UNREADABLE, message })
}

/// Why there is no way back, although one is written down.
pub fn unusable_stable(application: &Application, wanted: &FlinkHaClusterSpec) -> Option<Cause> {
    let missing = match Definition::read(application.stable.as_ref()?, wanted) {
        Err(error) => {
            let message = format!(
                "status.application.stable cannot be read ({error}): an upgrade that fails cannot be taken back before a \
                 definition has come up"
            );
            return Some(Cause { reason: UNREADABLE, message });
        }
        Ok(definition) => definition.missing,
    };
    let is_needed = matches!(application.phase, Phase::Upgrading | Phase::Starting | Phase::RollingBack);
    if missing.is_empty() || !is_needed {
        return None;
    }
    let message = format!(
        "if this upgrade fails, the last definition that worked cannot be restored: it has the key {}, whose value is not \
         kept in the status; to make that possible, put the key back into spec.flinkConfiguration, or into a Secret of \
         spec.flinkConfigurationFrom, until the upgrade has come up",
        missing.join(" and the key ")
    );
    Some(Cause { reason: INCOMPLETE, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests as fixture;

    const HIDDEN: &str = "hidden value";

    fn with_key(key: &str, value: &str) -> FlinkHaClusterSpec {
        let mut spec = fixture::application().spec().clone();
        spec.flink_configuration.insert(key.to_owned(), Scalar::Text(value.to_owned()));
        spec
    }

    #[test]
    fn what_cannot_be_read_stops_a_change_and_nothing_else() {
        let (cluster, mut other) = (fixture::application(), fixture::application().spec().clone());
        other.image = "flink:next".to_owned();
        let spec = cluster.spec();
        let application = |phase, deployed: &str| Application {
            phase,
            version: version(spec),
            deployed: deployed.to_owned(),
            stable: Some(text(spec)),
            ..Application::default()
        };
        let refused = |wanted, application: &Application| refusal(wanted, application).map(|cause| cause.message);
        for phase in [Phase::Starting, Phase::Running, Phase::Savepointing, Phase::Halted] {
            assert_eq!(refused(&other, &application(phase, &text(spec))), None);
            assert_eq!(refused(spec, &application(phase, "{")), None, "it is what is asked for");
            let message = refused(&other, &application(phase, "{")).unwrap_or_default();
            assert!(message.contains("apply the definition that runs once more"), "{phase:?}: {message}");
        }
        assert_eq!(refused(&other, &application(Phase::Upgrading, "{")), None, "no pods are made from it");
        let mut lost = application(Phase::RollingBack, &text(spec));
        assert_eq!(refused(&other, &lost), None);
        lost.stable = Some("{".to_owned());
        assert!(refused(&other, &lost).is_some_and(|message| message.contains("status.application.stable")));
    }

    #[test]
    fn a_definition_is_written_without_credentials_and_read_with_those_of_the_present_spec() {
        let spec = with_key("s3.secret-key", HIDDEN);
        let written = text(&spec);
        assert!(!written.contains(HIDDEN) && written.contains("\"s3.secret-key\":null"), "{written}");
        let read = Definition::read(&written, &spec).expect("a definition");
        assert!(read.is_that_of_pods(&version(&spec), &spec));
        assert_eq!(read.complete().as_ref(), Some(&spec));
        let rotated = with_key("s3.secret-key", "another");
        let read = Definition::read(&written, &rotated).expect("a definition");
        assert!(!read.is_that_of_pods(&version(&spec), &rotated), "pods have another value");
        assert_eq!(read.complete().as_ref(), Some(&rotated));
        let without = fixture::application().spec().clone();
        assert_eq!(text(&without), serde_json::to_string(&without).expect("JSON"), "what has no key stays as it was");
    }

    #[test]
    fn a_definition_without_a_configuration_is_read_as_it_was_written() {
        let mut spec = fixture::application().spec().clone();
        spec.flink_configuration.clear();
        let read = Definition::read(&text(&spec), &spec).expect("a definition");
        assert_eq!(json!(read.spec), json!(spec));
        assert!(read.is_that_of_pods("another", &spec));
    }

    #[test]
    fn a_key_of_one_component_is_in_no_version_and_counts_as_unknown() {
        let spec = with_key("jobmanager.some.password", HIDDEN);
        let mut other = spec.clone();
        other.image = "flink:next".to_owned();
        let read = Definition::read(&text(&spec), &other).expect("a definition");
        assert!(!read.is_that_of_pods(&version(&spec), &other));
        assert!(read.is_that_of_pods(&version(&spec), &spec));
    }

    #[test]
    fn what_an_earlier_version_has_written_is_read_and_redacted() {
        let spec = with_key("s3.secret-key", HIDDEN);
        let clear = serde_json::to_string(&spec).expect("JSON");
        let read = Definition::read(&clear, fixture::application().spec()).expect("a definition");
        assert!(read.is_that_of_pods(&version(&spec), fixture::application().spec()));
        assert_eq!(read.complete().as_ref(), Some(&spec));
        let application = Application {
            deployed: clear.clone(),
            stable: Some(clear),
            version: version(&spec),
            ..Application::default()
        };
        let status = FlinkHaClusterStatus { application: Some(application), ..FlinkHaClusterStatus::default() };
        let redacted = redacted(status);
        let application = redacted.application.clone().expect("an application");
        assert_eq!((application.deployed, application.stable), (text(&spec), Some(text(&spec))));
        assert_eq!(application.version, version(&spec), "digests stay");
        assert_eq!(super::redacted(redacted.clone()), redacted);
    }

    #[test]
    fn what_the_present_spec_lacks_is_told_and_comes_from_its_secrets_if_it_has_some() {
        let (stable, mut present) = (with_key("s3.secret-key", HIDDEN), fixture::application().spec().clone());
        let application = |phase| Application {
            phase,
            stable: Some(text(&stable)),
            deployed: text(&present),
            ..Application::default()
        };
        for phase in [Phase::Starting, Phase::RollingBack] {
            let cause = unusable_stable(&application(phase), &present).expect("a cause");
            assert!(cause.reason == INCOMPLETE && cause.message.contains("the key s3.secret-key"), "{}", cause.message);
        }
        assert_eq!(unusable_stable(&application(Phase::Running), &present), None);
        assert!(refusal(&present, &application(Phase::RollingBack)).is_some());
        let application = application(Phase::RollingBack);
        present.flink_configuration_from =
            serde_json::from_value(json!([{ "secretRef": { "name": "s3" } }])).expect("one");
        assert_eq!(refusal(&present, &application), None);
        let read = Definition::read(&text(&stable), &present).expect("a definition").complete().expect("complete");
        assert_eq!(read.flink_configuration_from, present.flink_configuration_from);
        assert!(!read.flink_configuration.contains_key("s3.secret-key"));
    }

    #[test]
    fn an_error_says_nothing_of_what_was_read() {
        let error = |text: &str| Definition::read(text, fixture::application().spec()).err();
        assert_eq!(error("{\"image\":\n\"hidden"), Some(UnreadableDefinition::Syntax(2, 7)));
        assert_eq!(error("{\"image\": [\"hidden\"]}"), Some(UnreadableDefinition::Form));
    }
}
