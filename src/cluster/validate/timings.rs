//! Decides whether the durations of a resource can work. The CRD's rules say the same of a resource that is applied;
//! one that an earlier definition let through is refused here.

use std::time::Duration;

use super::Problems;
use crate::api::FlinkHaClusterSpec;
use crate::api::durations::{
    AtLeast, CONNECTION_TIMEOUT_PROBLEM, FORMAT_PROBLEM, JVM_TIMEOUT, LONGEST_LEASE, LONGEST_LEASE_PROBLEM, ORPHAN_AGE,
    ORPHAN_AGE_PROBLEM, RENEW_DEADLINE_PROBLEM, RETRY_PERIOD, RETRY_PERIOD_PROBLEM, SAVEPOINT_AGE, SAVEPOINT_INTERVAL,
    SAVEPOINT_ON_DELETE_DEADLINE, SESSION_TIMEOUT, SESSION_TIMEOUT_PROBLEM, UPGRADE_DEADLINE,
};
use crate::api::zookeeper::ZooKeeper;

impl Problems {
    pub(super) fn timings(&mut self, spec: &FlinkHaClusterSpec) {
        let high_availability = &spec.high_availability;
        match &high_availability.zookeeper {
            Some(zookeeper) => self.of_zookeeper(zookeeper),
            None => self.of_lease(spec),
        }
        let age = humantime::parse_duration(&spec.ha_data.orphan_age).ok();
        self.unless(age.is_some_and(|age| age >= of(ORPHAN_AGE)), ORPHAN_AGE_PROBLEM);
        if let Some(job) = &spec.job {
            self.at_least("spec.job.upgradeDeadline", &job.upgrade_deadline, &UPGRADE_DEADLINE);
            let (field, savepoints) = (|field: &str| format!("spec.job.savepoints.{field}"), &job.savepoints);
            self.at_least(&field("onDeleteDeadline"), &savepoints.on_delete_deadline, &SAVEPOINT_ON_DELETE_DEADLINE);
            if let Some(interval) = &savepoints.interval {
                self.at_least(&field("interval"), interval, &SAVEPOINT_INTERVAL);
            }
            if let Some(age) = savepoints.retain.as_ref().and_then(|retain| retain.age.as_ref()) {
                self.at_least(&field("retain.age"), age, &SAVEPOINT_AGE);
            }
        }
    }

    fn of_zookeeper(&mut self, zookeeper: &ZooKeeper) {
        let field = |field: &str| format!("spec.highAvailability.zookeeper.{field}");
        let session = self.duration(field("sessionTimeout"), &zookeeper.session_timeout);
        let connection = self.duration(field("connectionTimeout"), &zookeeper.connection_timeout);
        match (session, connection) {
            (Some(session), _) if session < of(SESSION_TIMEOUT) => self.unless(false, SESSION_TIMEOUT_PROBLEM),
            (Some(session), Some(connection)) => {
                self.unless(!connection.is_zero() && connection < session, CONNECTION_TIMEOUT_PROBLEM);
            }
            _ => {}
        }
    }

    fn of_lease(&mut self, spec: &FlinkHaClusterSpec) {
        let lease = &spec.high_availability.lease;
        let field = |field: &str| format!("spec.highAvailability.lease.{field}");
        let duration = self.duration(field("duration"), &lease.duration);
        let deadline = self.duration(field("renewDeadline"), &lease.renew_deadline);
        let period = self.at_least(&field("retryPeriod"), &lease.retry_period, &RETRY_PERIOD);
        self.at_least("spec.highAvailability.jvmTimeout", &spec.high_availability.jvm_timeout, &JVM_TIMEOUT);
        let (Some(duration), Some(deadline), Some(period)) = (duration, deadline, period) else { return };
        self.unless(duration <= of(LONGEST_LEASE), LONGEST_LEASE_PROBLEM);
        self.unless(deadline < duration, RENEW_DEADLINE_PROBLEM);
        self.unless(period < deadline, RETRY_PERIOD_PROBLEM);
    }

    /// Returns the duration that a field says.
    fn duration(&mut self, field: String, text: &str) -> Option<Duration> {
        let duration = humantime::parse_duration(text).ok();
        if duration.is_none() {
            self.add(field, FORMAT_PROBLEM.to_owned());
        }
        duration
    }

    fn at_least(&mut self, field: &str, text: &str, limit: &AtLeast) -> Option<Duration> {
        let duration = self.duration(field.to_owned(), text)?;
        if duration < of(limit.least) {
            self.add(field.to_owned(), limit.problem());
        }
        Some(duration)
    }

    /// Adds a sentence that begins with its field.
    fn unless(&mut self, holds: bool, sentence: &str) {
        if !holds {
            let (field, problem) = sentence.split_once(' ').unwrap_or_default();
            self.add(field.to_owned(), problem.to_owned());
        }
    }
}

/// The duration that a limit says.
fn of(limit: &str) -> Duration {
    humantime::parse_duration(limit).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::cluster::tests as fixture;
    use crate::cluster::validate::problems;

    fn found(field: &str, value: Value) -> Vec<String> {
        let mut resource = json!(fixture::application_resource());
        if field.contains("zookeeper") {
            resource["spec"]["highAvailability"]["provider"] = "ZooKeeper".into();
            resource["spec"]["highAvailability"]["zookeeper"] = json!({ "quorum": "zk:2181" });
        }
        resource["spec"]["flinkConfiguration"]["execution.checkpointing.savepoint-dir"] = "s3://b/s".into();
        *field.split('.').fold(&mut resource["spec"], |parent, name| &mut parent[name]) = value;
        let resource = serde_json::from_value(resource).unwrap_or_else(|error| panic!("{error}"));
        problems(&resource).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn durations_that_cannot_work_are_refused_with_their_field_and_an_example() {
        for (field, value, expected) in [
            ("highAvailability.jvmTimeout", "5s", "jvmTimeout: must be at least 6s, because a standby's JVM"),
            ("highAvailability.jvmTimeout", "soon", "jvmTimeout: must be a duration such as 15s"),
            ("highAvailability.lease.retryPeriod", "20ms", "retryPeriod: must be at least 500ms"),
            ("highAvailability.lease.retryPeriod", "10s", "retryPeriod: must be shorter than lease.renewDeadline"),
            ("highAvailability.lease.renewDeadline", "15s", "renewDeadline: must be shorter than lease.duration"),
            ("highAvailability.lease.duration", "1441m", "duration: must be at most 1440m, a day"),
            ("highAvailability.lease.duration", "99999999999999m", "duration: must be"),
            ("highAvailability.zookeeper.sessionTimeout", "3900ms", "sessionTimeout: must be at least 4s"),
            ("highAvailability.zookeeper.connectionTimeout", "0s", "connectionTimeout: must be longer than zero"),
            ("highAvailability.zookeeper.connectionTimeout", "20s", "and shorter than zookeeper.sessionTimeout"),
            ("haData.orphanAge", "59m", "spec.haData.orphanAge: must be a duration of at least an hour"),
            ("haData.orphanAge", "?", "spec.haData.orphanAge: must be a duration of at least an hour"),
            ("job.upgradeDeadline", "0s", "spec.job.upgradeDeadline: must be at least 10s, because no job comes up"),
            ("job.savepoints.interval", "9s", "spec.job.savepoints.interval: must be at least 10s, because each"),
            ("job.savepoints.onDeleteDeadline", "x", "spec.job.savepoints.onDeleteDeadline: must be a duration"),
        ] {
            let found = found(field, value.into());
            assert!(found.len() == 1 && found[0].contains(expected), "{field} {value}: {found:?}");
        }
    }

    #[test]
    fn durations_that_can_work_are_not_refused() {
        for (field, value) in [
            ("highAvailability.jvmTimeout", "6s"),
            ("highAvailability.lease.retryPeriod", "500ms"),
            ("highAvailability.lease.renewDeadline", "14999ms"),
            ("highAvailability.lease.duration", "1440m"),
            ("highAvailability.zookeeper.sessionTimeout", "6s"),
            ("highAvailability.zookeeper.connectionTimeout", "19999ms"),
            ("haData.orphanAge", "1h"),
            ("job.upgradeDeadline", "10s"),
            ("job.savepoints.interval", "24h"),
            ("job.savepoints.onDeleteDeadline", "1h30m"),
        ] {
            let found = found(field, value.into());
            assert_eq!(found, Vec::<String>::new(), "{field} {value}");
        }
    }
}
