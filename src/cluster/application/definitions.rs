//! The definitions of a job that the status remembers: what its pods are made from, and what to go back to.

use super::{has_no_pods, version};
use crate::api::FlinkHaClusterSpec;
use crate::api::application::{Application, Phase};
use crate::cluster::cause::Cause;

const REASON: &str = "DefinitionUnreadable";

/// Why nothing may be changed: it is not known what the pods are made from, and it is not what is asked for; or what is
/// to come back cannot be read.
pub fn refusal(wanted: &FlinkHaClusterSpec, application: &Application) -> Option<Cause> {
    let phase = application.phase;
    if phase == Phase::RollingBack {
        return unreadable_stable(application);
    }
    let error = error_of(&application.deployed).filter(|_| !has_no_pods(phase))?;
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
    Some(Cause { reason: REASON, message })
}

/// Why there is no way back, although one is written down.
pub fn unreadable_stable(application: &Application) -> Option<Cause> {
    let error = error_of(application.stable.as_ref()?)?;
    let message = format!(
        "status.application.stable cannot be read ({error}): an upgrade that fails cannot be taken back before a \
         definition has come up"
    );
    Some(Cause { reason: REASON, message })
}

fn error_of(definition: &str) -> Option<serde_json::Error> {
    serde_json::from_str::<FlinkHaClusterSpec>(definition).err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::application::lifecycle::json;
    use crate::cluster::tests as fixture;

    #[test]
    fn what_cannot_be_read_stops_a_change_and_nothing_else() {
        let (cluster, mut other) = (fixture::application(), fixture::application().spec().clone());
        other.image = "flink:next".to_owned();
        let spec = cluster.spec();
        let application = |phase, deployed: &str| Application {
            phase,
            version: version(spec),
            deployed: deployed.to_owned(),
            stable: Some(json(spec)),
            ..Application::default()
        };
        let refused = |wanted, application: &Application| refusal(wanted, application).map(|cause| cause.message);
        for phase in [Phase::Starting, Phase::Running, Phase::Savepointing, Phase::Halted] {
            assert_eq!(refused(&other, &application(phase, &json(spec))), None);
            assert_eq!(refused(spec, &application(phase, "{")), None, "it is what is asked for");
            let message = refused(&other, &application(phase, "{")).unwrap_or_default();
            assert!(message.contains("apply the definition that runs once more"), "{phase:?}: {message}");
        }
        assert_eq!(refused(&other, &application(Phase::Upgrading, "{")), None, "no pods are made from it");
        let mut lost = application(Phase::RollingBack, &json(spec));
        assert_eq!(refused(&other, &lost), None);
        lost.stable = Some("{".to_owned());
        assert!(refused(&other, &lost).is_some_and(|message| message.contains("status.application.stable")));
    }
}
