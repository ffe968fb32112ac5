//! Decides whether a change would leave stored jobs behind: of `spec.highAvailability`, because Flink looks for them
//! only where its configuration says, and a JobManager that finds a pointer to a file in another directory ends its
//! process; or of the version of Flink, if the resource declares one that does not see them.

use super::cause::Cause;
use super::observed::Observed;
use crate::api::FlinkHaClusterSpec;
use crate::flink::job_id::listed;
use crate::flink::version::FlinkVersion;
use crate::ha_data::versions::unseen_jobs;
use crate::ledger::jobs::Job;
use crate::ledger::place::HaDataPlace;
use crate::ledger::refusal::JOBS_OF_ANOTHER_FLINK;

/// Returns why this spec cannot be applied while jobs are stored elsewhere; `None` if it can. The ledger says where
/// jobs are stored. If a ledger of an earlier version does not, `deployed` counts, which is known for an application.
pub fn left_behind(
    wanted: &FlinkHaClusterSpec,
    deployed: Option<&FlinkHaClusterSpec>,
    observed: &Observed,
) -> Option<Cause> {
    let jobs: Vec<&Job> = observed.jobs().iter().filter(|job| job.is_stored()).collect();
    let noted = observed.ha_data().and_then(|ha_data| ha_data.place.clone());
    let stored_in = noted.or_else(|| deployed.map(|spec| HaDataPlace::of(&spec.high_availability)))?;
    let (field, from, to) = stored_in.differs(&HaDataPlace::of(&wanted.high_availability))?;
    let first = jobs.first()?;
    let named = listed(jobs.iter().map(|job| job.id.as_str()));
    let stop = if wanted.job.is_some() {
        "stop the job with a savepoint (spec.job.upgradeMode: savepoint, then spec.job.state: suspended), change it, and let it run again"
            .to_owned()
    } else {
        format!(
            "stop the jobs with savepoints (flink stop {}), change it, and start them from the savepoints",
            first.id
        )
    };
    let message = format!(
        "spec.highAvailability.{field}: it cannot change from {from} to {to} while jobs have their HA data there, because no JobManager would find \
         them: {named}; the cluster runs on as it was; set it back, or {stop}"
    );
    Some(Cause { reason: "JobsStoredElsewhere", message })
}

/// Returns why a session cluster cannot have the declared version of Flink while jobs of the present one are stored. If
/// none is declared, the gateways of the new version find out.
pub fn unseen(wanted: &FlinkHaClusterSpec, observed: &Observed) -> Option<Cause> {
    let declared = wanted.flink_version.as_deref().filter(|_| wanted.job.is_none())?;
    let (to, from) = (FlinkVersion::of(declared)?, observed.ha_data()?.led_by()?);
    let jobs: Vec<&str> = observed.jobs().iter().filter(|job| job.is_stored()).map(|job| job.id.as_str()).collect();
    let is_seen = jobs.is_empty() || from.stored_form() == to.stored_form();
    let message = || unseen_jobs("spec.flinkVersion declares", from.as_str(), declared, jobs.iter().copied());
    (!is_seen).then(|| Cause { reason: JOBS_OF_ANOTHER_FLINK, message: message() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::api::v1alpha1::HighAvailability;
    use crate::cluster::tests as fixture;

    const JOB: &str = "00000000000000000000000000000001";

    fn observed(ha_data: Value, jobs: Value) -> Observed {
        let ledger = json!({ "metadata": {}, "data": { "haData": ha_data.to_string(), "jobs": jobs.to_string() } });
        let ledger = serde_json::from_value(ledger).unwrap_or_else(|error| panic!("{error}"));
        Observed { ledger: Some(Arc::new(ledger)), ..Observed::default() }
    }

    fn running() -> Value {
        json!([{ "id": JOB, "state": "Running" }])
    }

    fn in_directory(uri: &str) -> Value {
        json!({ "state": "Collectable", "place": { "storageDir": uri } })
    }

    fn spec(change: impl FnOnce(&mut HighAvailability)) -> FlinkHaClusterSpec {
        let mut spec = fixture::cluster().spec().clone();
        change(&mut spec.high_availability);
        spec
    }

    #[test]
    fn another_directory_is_refused_while_jobs_are_stored_and_only_then() {
        let moved = spec(|one| one.storage_dir = "file:///flink/other".to_owned());
        let refused = |jobs| left_behind(&moved, None, &observed(in_directory("file:///flink/ha"), jobs));
        let cause = refused(running()).unwrap_or_else(|| panic!("refused"));
        assert_eq!(cause.reason, "JobsStoredElsewhere");
        for expected in [
            "spec.highAvailability.storageDir",
            "file:///flink/ha",
            "file:///flink/other",
            JOB,
            "set it back",
            "flink stop",
        ] {
            assert!(cause.message.contains(expected), "{expected} not in {}", cause.message);
        }
        assert_eq!(refused(json!([])), None);
        assert_eq!(refused(json!([{ "id": JOB, "state": "Finished", "ended": "2026-01-01T00:00:00Z" }])), None);
        assert_eq!(
            refused(json!([{ "id": JOB, "state": "Unknown" }])),
            None,
            "it is stored nowhere, and this would never end"
        );
        let same = spec(|one| one.storage_dir = "file:///flink/ha/".to_owned());
        assert_eq!(left_behind(&same, None, &observed(in_directory("file:///flink/ha"), running())), None);
    }

    #[test]
    fn a_session_keeps_its_version_while_another_would_not_see_its_jobs() {
        let told = |declared: Option<&str>, led_by: Option<&str>, jobs: Value| {
            let mut spec = fixture::cluster().spec().clone();
            spec.flink_version = declared.map(str::to_owned);
            unseen(&spec, &observed(json!({ "flinkVersion": led_by }), jobs))
        };
        let cause = told(Some("2.3"), Some("1.20.5"), running()).unwrap_or_else(|| panic!("refused"));
        assert_eq!(cause.reason, "JobsOfAnotherFlink");
        for expected in ["spec.flinkVersion declares Flink 2.3,", "Flink 1.20.5", JOB, "spec.image back"] {
            assert!(cause.message.contains(expected), "{expected} not in {}", cause.message);
        }
        assert!(told(Some("1.20.5"), Some("2.3.0"), running()).is_some(), "the way back");
        assert_eq!(told(Some("2.3.0"), Some("1.20.5"), json!([])), None);
        for (declared, led_by) in [
            (Some("2.3.0"), Some("2.2.1")),
            (Some("1.20.5"), Some("1.20.1")),
            (None, Some("1.20.5")),
            (Some("2.3.0"), None),
        ] {
            assert_eq!(told(declared, led_by, running()), None, "{declared:?} after {led_by:?}");
        }
        let mut application = fixture::application().spec().clone();
        application.flink_version = Some("2.3.0".to_owned());
        assert_eq!(unseen(&application, &observed(json!({ "flinkVersion": "1.20.5" }), running())), None);
    }

    #[test]
    fn a_ledger_of_an_earlier_version_is_helped_out_by_what_is_deployed() {
        let (moved, before) =
            (spec(|one| one.storage_dir = "file:///flink/other".to_owned()), fixture::cluster().spec().clone());
        let old = observed(json!({ "state": "Collectable" }), running());
        assert_eq!(left_behind(&moved, None, &old), None);
        assert!(left_behind(&moved, Some(&before), &old).is_some());
        assert_eq!(left_behind(&before, Some(&before), &old), None);
    }

    #[test]
    fn an_application_is_told_its_own_way_out() {
        let mut moved = fixture::application().spec().clone();
        moved.high_availability.storage_dir = "file:///flink/other".to_owned();
        let cause = left_behind(&moved, None, &observed(in_directory("file:///flink/ha"), running()));
        assert!(cause.is_some_and(|cause| cause.message.contains("spec.job.state: suspended")));
    }

    #[test]
    fn the_place_of_pointers_counts_like_the_directory() {
        let on_zookeeper = fixture::on_zookeeper().spec().clone();
        let at = |place: Value| left_behind(&on_zookeeper, None, &observed(json!({ "place": place }), running()));
        let place =
            |quorum: &str, root: &str| json!({ "storageDir": "file:///flink/ha", "quorum": quorum, "rootPath": root });
        assert_eq!(at(place("zk-0,zk-1:2181", "/flink")), None, "a server has come");
        let told = |place| at(place).map(|cause| cause.message).unwrap_or_default();
        assert!(
            told(json!({ "storageDir": "file:///flink/ha" }))
                .contains("provider: it cannot change from Kubernetes to ZooKeeper")
        );
        assert!(told(place("other:2181", "/flink")).contains("zookeeper.quorum"));
        assert!(told(place("zk-0:2181", "/elsewhere")).contains("zookeeper.rootPath"));
        let on_kubernetes = left_behind(
            fixture::cluster().spec(),
            None,
            &observed(json!({ "place": place("zk-0", "/flink") }), running()),
        );
        assert!(on_kubernetes.is_some_and(|cause| cause.message.contains("from ZooKeeper to Kubernetes")));
    }
}
