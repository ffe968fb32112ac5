//! Defines the versions of Kubernetes on which a cluster can run.

use k8s_openapi::apimachinery::pkg::version::Info;

/// The oldest minor version; the chart's `kubeVersion` is the same.
const OLDEST: (u32, u32) = (1, 29);

/// Why an earlier version is too old, for people.
pub const WHY_TOO_OLD: &str =
    "the gateway is a native sidecar, and before 1.29 Flink's container waits for such a one to end";

/// Returns the version of an API server that is too old; `None` if it is new enough, or says no version.
pub fn too_old(server: &Info) -> Option<&str> {
    let version = (number(&server.major)?, number(&server.minor)?);
    (version < OLDEST).then_some(server.git_version.as_str())
}

/// Clouds add a sign to the number, such as `29+`.
fn number(text: &str) -> Option<u32> {
    text.trim_end_matches(|one: char| !one.is_ascii_digit()).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_before_the_oldest_are_too_old_and_what_is_no_version_is_not() {
        let cases = [
            ("1", "28", true),
            ("1", "28+", true),
            ("1", "9", true),
            ("1", "29", false),
            ("1", "29+", false),
            ("1", "137", false),
            ("2", "0", false),
            ("", "", false),
            ("1", "x", false),
        ];
        for (major, minor, expected) in cases {
            let git_version = format!("v{major}.{minor}.0");
            let server = Info { major: major.into(), minor: minor.into(), git_version, ..Info::default() };
            assert_eq!(too_old(&server), expected.then_some(server.git_version.as_str()), "{major}.{minor}");
        }
    }

    #[test]
    fn the_chart_refuses_the_same_versions() {
        let chart = include_str!("../../charts/flinkha/Chart.yaml");
        let (major, minor) = OLDEST;
        assert!(chart.contains(&format!("kubeVersion: \">={major}.{minor}.0-0\"")), "{chart}");
    }
}
