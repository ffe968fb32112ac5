//! The chart's alerts over time series: each fires in its case, after the time that it waits, and clears; no other one
//! fires; and nothing fires while all is well. `promtool` evaluates them.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/flinkha/files/alerts.yaml");

/// The labels of the series of two gateways.
const A: &str = r#"namespace="flink", name="demo", pod="a", node="one""#;
const B: &str = r#"namespace="flink", name="demo", pod="b", node="two""#;
const CLUSTER: &str = r#"namespace="flink", name="demo""#;

/// Samples are half a minute apart. What a case does to a cluster begins after 10 minutes, and ends after 60.
const BEGIN: usize = 20;
const END: usize = 120;
const ALL: usize = 240;

type Series = Vec<(String, String)>;

/// A cluster of which all is well, on a Lease.
fn healthy() -> Series {
    let series = [
        (r#"flinkha_operator_leader{pod="operator"}"#.to_owned(), "1x240"),
        (format!("flinkha_leader_term{{{CLUSTER}}}"), "3x240"),
        (format!("flinkha_cluster_job_managers{{{CLUSTER}, state=\"all\"}}"), "2x240"),
        (format!("flinkha_cluster_job_managers{{{CLUSTER}, state=\"ready\"}}"), "2x240"),
        (format!("flinkha_cluster_condition{{{CLUSTER}, type=\"Degraded\", reason=\"AsExpected\"}}"), "0x240"),
        (format!("flinkha_cluster_condition{{{CLUSTER}, type=\"Reconciling\", reason=\"RolledOut\"}}"), "0x240"),
        (format!("flinkha_gateway_leader{{{A}}}"), "1x240"),
        (format!("flinkha_gateway_leader{{{B}}}"), "0x240"),
        (format!("flinkha_gateway_ready{{{A}}}"), "1x240"),
        (format!("flinkha_gateway_ready{{{B}}}"), "1x240"),
        (format!("flinkha_gateway_storage_up{{{A}}}"), "1x240"),
        (format!("flinkha_gateway_quorum_session{{{A}}}"), "1x240"),
        (format!("flinkha_gateway_lease_last_renewed_timestamp_seconds{{{A}}}"), "0+30x240"),
        // A former leader, which has not written the Lease for long.
        (format!("flinkha_gateway_lease_last_renewed_timestamp_seconds{{{B}}}"), "0x240"),
        (format!("flinkha_gateway_lease_renew_seconds_bucket{{{A}, le=\"0.02\"}}"), "0+3x240"),
        (format!("flinkha_gateway_lease_renew_seconds_bucket{{{A}, le=\"2.56\"}}"), "0+3x240"),
        (format!("flinkha_gateway_lease_renew_seconds_bucket{{{A}, le=\"+Inf\"}}"), "0+3x240"),
        (format!("flinkha_gateway_leader_changes_total{{{A}, reason=\"JobManagerDied\"}}"), "0x240"),
        (format!("flinkha_gateway_leader_changes_total{{{A}, reason=\"Switchover\"}}"), "0+1x240"),
        (format!("flinkha_gateway_checkpoint_age_seconds{{{A}, job=\"j\"}}"), "40x240"),
        (format!("flinkha_gateway_ha_config_map_bytes{{{A}, configmap=\"c\"}}"), "5000x240"),
    ];
    series.map(|(name, values)| (name, values.to_owned())).into()
}

/// One value, another one during the case, and the first one again. `_`: there is no such series.
fn meanwhile(usual: &str, then: &str) -> String {
    let samples = |value: &str, count: usize| match value {
        "_" => format!("stale _x{}", count - 1),
        value => format!("{value}x{}", count - 1),
    };
    format!("{} {} {}", samples(usual, BEGIN), samples(then, END - BEGIN), samples(usual, ALL - END))
}

struct Case {
    alert: &'static str,
    /// Minutes from the beginning of the case until the alert fires.
    after: usize,
    /// Minutes from the end of the case until it is over, beyond one evaluation.
    lasts: usize,
    severity: &'static str,
    labels: Value,
    /// Series of the cluster that are otherwise.
    changed: Series,
}

fn case(alert: &'static str, after: usize, severity: &'static str, changed: Vec<(String, String)>) -> Case {
    Case { alert, after, lasts: 0, severity, labels: json!({ "namespace": "flink", "name": "demo" }), changed }
}

fn cases() -> Vec<Case> {
    let gateway = |metric: &str, labels: &str| format!("flinkha_gateway_{metric}{{{labels}}}");
    let condition = |kind: &str, reason: &str| {
        format!("flinkha_cluster_condition{{{CLUSTER}, type=\"{kind}\", reason=\"{reason}\"}}")
    };
    let bucket = format!("flinkha_gateway_lease_renew_seconds_bucket{{{A}, le=\"0.02\"}}");
    let died = format!("flinkha_gateway_leader_changes_total{{{A}, reason=\"JobManagerDied\"}}");
    let renewed = gateway("lease_last_renewed_timestamp_seconds", A);
    let not_renewed = format!("0+30x{BEGIN} 600x{} 3600+30x{}", END - BEGIN - 2, ALL - END);
    let ready = |value: &str| [A, B].map(|pod| (gateway("ready", pod), meanwhile("1", value)));
    let leads = |value: &str| (gateway("leader", A), meanwhile("1", value));
    // All gateways, with all of their series.
    let gone = || {
        let of_leader = [(gateway("leader", B), meanwhile("0", "_")), (gateway("storage_up", A), meanwhile("1", "_"))];
        ready("_").into_iter().chain([leads("_")]).chain(of_leader)
    };
    let no_leader = |changed| case("FlinkHaNoLeader", 1, "critical", changed);
    vec![
        no_leader(vec![leads("0")]),
        no_leader(
            gone()
                .chain([
                    (format!("flinkha_leader_term{{{CLUSTER}}}"), meanwhile("3", "0")),
                    (format!("flinkha_cluster_job_managers{{{CLUSTER}, state=\"ready\"}}"), meanwhile("2", "0")),
                ])
                .collect(),
        ),
        case("FlinkHaSingleCandidate", 5, "warning", vec![(gateway("ready", B), meanwhile("1", "0"))]),
        // Three failovers within five minutes; they are forgotten fifteen minutes later.
        Case {
            lasts: 15,
            ..case(
                "FlinkHaLeaderFlapping",
                5,
                "warning",
                vec![(died, format!("0x{} 1x4 2x4 3x{}", BEGIN - 1, ALL - BEGIN - 10))],
            )
        },
        Case {
            lasts: 10,
            ..case(
                "FlinkHaLeaseRenewalsSlow",
                12,
                "warning",
                vec![(bucket, format!("0+3x{} 60x{} 60+3x{}", BEGIN, END - BEGIN, ALL - END))],
            )
        },
        case("FlinkHaLeaseNotRenewed", 3, "critical", vec![(renewed.clone(), not_renewed.clone())]),
        // In an outage of the API server no operator works, and only the consequence for each cluster is told.
        case(
            "FlinkHaLeaseNotRenewed",
            3,
            "critical",
            vec![
                (renewed, not_renewed),
                (r#"flinkha_operator_leader{pod="operator"}"#.to_owned(), meanwhile("1", "0")),
                (format!("flinkha_leader_term{{{CLUSTER}}}"), meanwhile("3", "_")),
                (format!("flinkha_cluster_job_managers{{{CLUSTER}, state=\"all\"}}"), meanwhile("2", "_")),
                (format!("flinkha_cluster_job_managers{{{CLUSTER}, state=\"ready\"}}"), meanwhile("2", "_")),
                (condition("Degraded", "AsExpected"), meanwhile("0", "_")),
                (condition("Reconciling", "RolledOut"), meanwhile("0", "_")),
            ],
        ),
        Case {
            labels: json!({ "namespace": "flink", "name": "demo", "configmap": "c" }),
            ..case(
                "FlinkHaDataLarge",
                5,
                "warning",
                vec![(
                    format!("flinkha_gateway_ha_config_map_bytes{{{A}, configmap=\"c\"}}"),
                    meanwhile("5000", "900000"),
                )],
            )
        },
        case("FlinkHaStorageUnreachable", 5, "critical", vec![(gateway("storage_up", A), meanwhile("1", "0"))]),
        Case {
            labels: json!({ "namespace": "flink", "name": "demo", "job": "j" }),
            ..case(
                "FlinkHaCheckpointStale",
                5,
                "warning",
                vec![(format!("flinkha_gateway_checkpoint_age_seconds{{{A}, job=\"j\"}}"), meanwhile("40", "1900"))],
            )
        },
        case(
            "FlinkHaCandidatesOnOneNode",
            15,
            "warning",
            vec![
                (gateway("ready", B), meanwhile("1", "_")),
                (gateway("ready", &B.replace("two", "one")), meanwhile("_", "1")),
            ],
        ),
        case(
            "FlinkHaUpgradeStuck",
            30,
            "warning",
            vec![
                (condition("Reconciling", "RolledOut"), meanwhile("0", "_")),
                (condition("Reconciling", "JobManagersRollingOut"), meanwhile("_", "1")),
            ],
        ),
        Case {
            labels: json!({ "namespace": "flink", "name": "demo", "reason": "CrashLooping" }),
            ..case(
                "FlinkHaDegraded",
                5,
                "warning",
                vec![
                    (condition("Degraded", "AsExpected"), meanwhile("0", "_")),
                    (condition("Degraded", "CrashLooping"), meanwhile("_", "1")),
                ],
            )
        },
        case("FlinkHaQuorumSessionLost", 2, "critical", vec![(gateway("quorum_session", A), meanwhile("1", "0"))]),
        Case {
            labels: json!({}),
            ..case(
                "FlinkHaOperatorDown",
                5,
                "warning",
                vec![(r#"flinkha_operator_leader{pod="operator"}"#.to_owned(), meanwhile("1", "0"))],
            )
        },
        case("FlinkHaMetricsAbsent", 10, "warning", gone().collect()),
    ]
}

/// As `promtool test rules` reads it. That an alert fires is seen in the series ALERTS, which names all that do.
fn suite(case: &Case) -> Value {
    let mut series = healthy();
    for (name, values) in &case.changed {
        series.retain(|(known, _)| known != name);
        series.push((name.clone(), values.clone()));
    }
    let mut labels = case.labels.clone();
    labels["alertname"] = case.alert.into();
    labels["severity"] = case.severity.into();
    labels["alertstate"] = "firing".into();
    let pairs: Vec<String> =
        labels.as_object().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect();
    let firing = json!([{ "labels": format!("ALERTS{{{}}}", pairs.join(", ")), "value": 1 }]);
    let at = |minutes: f32, expected: Value| json!({ "expr": "ALERTS{alertstate=\"firing\"}", "eval_time": format!("{}s", minutes * 60.0), "exp_samples": expected });
    let (begin, end) = (BEGIN as f32 / 2.0, END as f32 / 2.0);
    let fires = begin + case.after as f32;
    // Series that have ended count for five minutes more where they are looked up, unless they end by a marker.
    let until = if case.alert == "FlinkHaLeaderFlapping" { fires } else { end };
    let tests = json!([
        at(begin - 0.5, json!([])),
        at(fires - 1.0, json!([])),
        at(fires + 1.0, firing.clone()),
        at((until - 1.0).max(fires + 1.0), firing),
        at(until + case.lasts as f32 + 2.0, json!([])),
        at(119.0, json!([])),
    ]);
    let series: Vec<Value> =
        series.into_iter().map(|(series, values)| json!({ "series": series, "values": values })).collect();
    json!({ "name": case.alert, "interval": "30s", "input_series": series, "promql_expr_test": tests })
}

fn promtool(arguments: &[&str]) {
    let program = std::env::var("PROMTOOL").expect("PROMTOOL is the path of promtool: run make test-chart");
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{text}");
}

#[test]
fn each_alert_fires_in_its_case_and_clears_and_no_other_one_fires() {
    let rules: Value = serde_yaml::from_str(&std::fs::read_to_string(RULES).unwrap()).unwrap();
    let alerts = rules["groups"][0]["rules"].as_array().unwrap().iter().map(|rule| rule["alert"].as_str().unwrap());
    let cases = cases();
    let shown: BTreeSet<&str> = cases.iter().map(|case| case.alert).collect();
    assert_eq!(alerts.collect::<BTreeSet<_>>(), shown, "an alert without a case");
    let tests: Vec<Value> = cases.iter().map(suite).collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts.test.yaml");
    let suites = json!({ "rule_files": [RULES], "evaluation_interval": "30s", "tests": tests });
    std::fs::write(&path, suites.to_string()).unwrap();
    promtool(&["check", "rules", RULES]);
    promtool(&["test", "rules", path.to_str().unwrap()]);
}
