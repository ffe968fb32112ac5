//! Each finding, made of a cluster that works and one thing that does not.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::facts::{DoctorFacts, RightFact, RightHolder, TimedAnswer};
use super::finding::{DoctorFinding, FindingState, problems, screen};
use super::findings;
use super::rights::wanted;
use crate::api::FlinkHaCluster;
use crate::ledger::asked::{ExaminedGateway, ReachedAddress, TimedResult};
use crate::plugin::view::candidates::PlacedPod;
use crate::plugin::view::cluster::{ClusterReport, ClusterSources};

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn now() -> Timestamp {
    at("2026-01-01T03:00:00Z")
}

fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object as the API server returns it")
}

fn resource() -> FlinkHaCluster {
    read(json!({
        "apiVersion": "flinkha.dev/v1alpha1", "kind": "FlinkHaCluster",
        "metadata": {
            "name": "demo", "namespace": "flink", "annotations": { "flinkha.dev/operator": "ops/flinkha-operator" },
        },
        "spec": {
            "image": "flink:2.3.0", "highAvailability": { "storageDir": "file:///flink/ha" }, "jobManager": { "replicas": 2 },
        },
        "status": { "conditions": [] },
    }))
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "uid": name,
            "labels": { "app.kubernetes.io/component": "jobmanager", "app.kubernetes.io/instance": "demo" },
        },
        "spec": {
            "nodeName": node, "serviceAccountName": "demo-jobmanager",
            "initContainers": [{ "name": "gateway", "image": "flinkha:1" }],
        },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

/// What is read before the report is made of it.
struct Read {
    resource: FlinkHaCluster,
    pods: Vec<Value>,
    lease: Value,
    operator_renewed: &'static str,
}

impl Default for Read {
    fn default() -> Self {
        let change = json!({ "term": 7, "from": "x", "to": "demo-a", "why": "Died", "leaderlessMillis": 24, "at": "2026-01-01T02:55:00Z" });
        let lease = json!({
            "metadata": {
                "name": "demo",
                "annotations": { "flinkha.dev/term": "7.demo-a.p.12-345", "flinkha.dev/last-change": change.to_string() },
            },
            "spec": { "holderIdentity": "demo-a" },
        });
        Self {
            resource: resource(),
            pods: vec![pod("demo-a", "one"), pod("demo-b", "two")],
            lease,
            operator_renewed: "2026-01-01T02:59:58.000000Z",
        }
    }
}

fn facts_of(read_objects: Read) -> DoctorFacts {
    let Read { resource, pods, lease, operator_renewed } = read_objects;
    let operator = json!({ "spec": { "holderIdentity": "operator-x", "renewTime": operator_renewed } });
    let sources = ClusterSources {
        resource: resource.clone(),
        lease: Ok(Some(read(lease))),
        ledger: Ok(None),
        pods: Ok(pods.iter().filter_map(PlacedPod::read).collect()),
        operator: Ok(Some(read(operator))),
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let address = |text: &str| text.parse().expect("an address");
    let reached = |text| ReachedAddress { address: address(text), result: TimedResult::default() };
    let labels = json!({ "app.kubernetes.io/version": version });
    let env = json!([{ "name": "GATEWAY_IMAGE", "value": "flinkha:1" }]);
    let (begin, end) = (at("2026-01-01T02:59:59.4Z"), at("2026-01-01T02:59:59.41Z"));
    let answer = TimedAnswer { begin, end, date: Some(at("2026-01-01T02:59:59Z")) };
    DoctorFacts {
        report: ClusterReport::of(&sources, now()),
        resource,
        server: Ok(Info { major: "1".into(), minor: "34".into(), git_version: "v1.34.4".into(), ..Info::default() }),
        pods: Ok(pods),
        definition: Ok(Some(json!(FlinkHaCluster::crd()))),
        operator_pod: Ok(Some(json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "env": env }] } }))),
        budget: Ok(Some(json!({ "status": { "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1 } }))),
        rights: wanted("demo", false, true).into_iter().map(|right| RightFact { right, allowed: Ok(true) }).collect(),
        gateway: Ok(ExaminedGateway {
            version,
            at: "2026-01-01T02:59:59.5Z".to_owned(),
            leads: true,
            addresses: vec![reached("10.0.0.2:6123"), reached("10.0.0.2:6181")],
            ..ExaminedGateway::default()
        }),
        gateway_asked: (at("2026-01-01T02:59:59.4Z"), at("2026-01-01T02:59:59.6Z")),
        answers: vec![Ok(answer); 3],
        flink_version: Some("2.3.0".to_owned()),
    }
}

/// The finding of a check after one thing has changed.
fn changed(check: &str, change: impl FnOnce(&mut DoctorFacts)) -> DoctorFinding {
    let mut facts = facts_of(Read::default());
    change(&mut facts);
    found(check, &facts)
}

fn found(check: &str, facts: &DoctorFacts) -> DoctorFinding {
    findings(facts).into_iter().find(|finding| finding.check == check).unwrap_or_else(|| panic!("no check {check}"))
}

fn gateway(facts: &mut DoctorFacts) -> &mut ExaminedGateway {
    facts.gateway.as_mut().expect("a gateway that answers")
}

#[test]
fn nothing_is_found_in_a_cluster_that_works() {
    let all = findings(&facts_of(Read::default()));
    let others: Vec<&DoctorFinding> = all.iter().filter(|finding| finding.state != FindingState::Good).collect();
    assert!(others.is_empty() && problems(&all) == 0, "{others:#?}");
    let text = screen(&all, false);
    assert!(text.ends_with("\nproblems: 0, warnings: 0, not checked: 0, ok: 19\n"), "{text}");
    assert!(!text.contains("remedy:"), "{text}");
}

#[test]
fn what_cannot_be_read_is_not_checked_and_no_problem() {
    let mut facts = facts_of(Read::default());
    let why = || "forbidden".to_owned();
    (facts.pods, facts.definition, facts.operator_pod) = (Err(why()), Err(why()), Err(why()));
    (facts.budget, facts.gateway, facts.server) = (Err(why()), Err(why()), Err(why()));
    facts.rights.iter_mut().for_each(|fact| fact.allowed = Err(why()));
    facts.answers.clear();
    facts.report.not_known.insert("pods", why());
    let all = findings(&facts);
    assert_eq!(problems(&all), 0, "{all:#?}");
    let unknown = all.iter().filter(|finding| finding.state == FindingState::NotChecked).count();
    assert_eq!(unknown, 15, "{all:#?}");
}

#[test]
fn each_problem_is_found_with_why_it_matters_and_what_to_do() {
    type Change = Box<dyn FnOnce(&mut DoctorFacts)>;
    let denied = |holder: RightHolder, resource: &'static str| -> Change {
        Box::new(move |facts| {
            let of = facts.rights.iter_mut().filter(|fact| fact.right.holder == holder);
            of.filter(|fact| fact.right.resource == resource).for_each(|fact| fact.allowed = Ok(false));
        })
    };
    let failed = |why: &str| TimedResult { milliseconds: 3, failed: Some(why.to_owned()) };
    let slow = |milliseconds| TimedResult { milliseconds, failed: None };
    let waiting =
        json!([{ "name": "gateway", "image": "x:9", "state": { "waiting": { "reason": "ImagePullBackOff" } } }]);
    let (problem, warning) = (FindingState::Problem, FindingState::Warning);
    let cases: Vec<(&str, FindingState, &str, Change)> = vec![
        ("Kubernetes", problem, "v1.28.15 is too old", {
            let old = Info { major: "1".into(), minor: "28".into(), git_version: "v1.28.15".into(), ..Info::default() };
            Box::new(move |facts| facts.server = Ok(old))
        }),
        ("CustomResourceDefinition", problem, "it is not installed", Box::new(|facts| facts.definition = Ok(None))),
        (
            "CustomResourceDefinition",
            warning,
            "the installed one lacks ",
            Box::new(|facts| {
                let versions = json!([{ "name": "v1alpha1", "schema": {} }]);
                facts.definition = Ok(Some(json!({ "spec": { "versions": versions } })));
            }),
        ),
        ("your rights", warning, "you may not get pods/log (logs, report)", denied(RightHolder::Person, "pods/log")),
        (
            "operator's rights",
            problem,
            "the operator may not create deployments.apps, patch",
            denied(RightHolder::Operator, "deployments"),
        ),
        (
            "gateways' rights",
            problem,
            "may not patch leases.coordination.k8s.io \"demo\"",
            denied(RightHolder::JobManagers, "leases"),
        ),
        ("disruption budget", warning, "the JobManagers have none", Box::new(|facts| facts.budget = Ok(None))),
        (
            "disruption budget",
            warning,
            "no JobManager may be evicted now: 1 are healthy, 2 must be",
            Box::new(|facts| {
                facts.budget = Ok(Some(
                    json!({ "status": { "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 2 } }),
                ));
            }),
        ),
        (
            "images",
            problem,
            "demo-b: ImagePullBackOff of x:9",
            Box::new(move |facts| {
                facts.pods.as_mut().expect("pods")[1]["status"]["initContainerStatuses"] = waiting;
            }),
        ),
        (
            "images",
            warning,
            "gateways run flinkha:0, and the operator has flinkha:1",
            Box::new(|facts| {
                facts.pods.as_mut().expect("pods")[1]["spec"]["initContainers"][0]["image"] = json!("flinkha:0");
            }),
        ),
        ("storage", problem, "the gateway fails to use file:///flink/ha: denied", {
            let failed = failed("denied");
            Box::new(move |facts| gateway(facts).storage = failed)
        }),
        ("storage", warning, "in 3000 ms", {
            let slow = slow(3000);
            Box::new(move |facts| gateway(facts).storage = slow)
        }),
        ("API server from the pod", problem, "fails to read HA data: 403", {
            let failed = failed("403");
            Box::new(move |facts| gateway(facts).ledger = failed)
        }),
        ("API server from the pod", warning, "pointers are read in 700 ms", {
            let slow = slow(700);
            Box::new(move |facts| gateway(facts).pointers = slow)
        }),
        ("API server from the pod", problem, "the ledger in 5000 ms", {
            let slow = slow(5000);
            Box::new(move |facts| gateway(facts).ledger = slow)
        }),
        ("peers", problem, "does not reach 10.0.0.2:6123: refused", {
            let failed = failed("refused");
            Box::new(move |facts| gateway(facts).addresses[0].result = failed)
        }),
        (
            "API server from here",
            problem,
            "a request failed: refused",
            Box::new(|facts| facts.answers.push(Err("refused".to_owned()))),
        ),
        (
            "API server from here",
            warning,
            "it answers in 6000 ms (median of 1)",
            Box::new(|facts| {
                let (begin, end) = (at("2026-01-01T02:59:50Z"), at("2026-01-01T02:59:56Z"));
                facts.answers = vec![Ok(TimedAnswer { begin, end, date: None })];
            }),
        ),
        (
            "your clock",
            warning,
            "the clock of this machine is 59.4 s ahead of",
            Box::new(|facts| {
                for answer in facts.answers.iter_mut().flatten() {
                    answer.date = Some(at("2026-01-01T02:58:59Z"));
                }
            }),
        ),
        (
            "the leading pod's clock",
            warning,
            "it is 10.0 s ahead of",
            Box::new(|facts| {
                gateway(facts).at = "2026-01-01T03:00:09.6Z".to_owned();
            }),
        ),
        (
            "the leading pod's clock",
            warning,
            "it is 9.4 s behind the",
            Box::new(|facts| {
                gateway(facts).at = "2026-01-01T02:59:50Z".to_owned();
            }),
        ),
        ("versions", warning, "gateway 0.0.1", Box::new(|facts| gateway(facts).version = "0.0.1".to_owned())),
    ];
    for (check, state, what, change) in cases {
        let finding = changed(check, change);
        assert!(finding.state == state && finding.what.contains(what), "{what}: {finding:#?}");
        assert!(!finding.why.is_empty() && !finding.remedy.is_empty(), "{finding:#?}");
    }
}

#[test]
fn a_cluster_without_leader_operator_or_second_node_says_so() {
    let of = |change: fn(&mut Read)| {
        let mut read = Read::default();
        change(&mut read);
        facts_of(read)
    };
    let gone = of(|read| read.operator_renewed = "2026-01-01T02:50:00.000000Z");
    let finding = found("operator", &gone);
    assert!(
        finding.state == FindingState::Problem && finding.what.contains("no operator has renewed Lease"),
        "{finding:?}"
    );
    let none = of(|read| read.resource.metadata.annotations = None);
    assert_eq!(found("operator", &none).what, "no operator has taken the resource");
    let leaderless = of(|read| read.lease["spec"]["holderIdentity"] = json!(""));
    assert_eq!(found("leader", &leaderless).state, FindingState::Problem);
    let elected = of(|read| read.lease["metadata"]["annotations"]["flinkha.dev/last-change"] = json!("{}"));
    assert_eq!(found("leader", &elected).state, FindingState::Warning);
    let together = of(|read| read.pods = vec![pod("demo-a", "one"), pod("demo-b", "one")]);
    assert_eq!(found("nodes", &together).what, "all 2 JobManagers run on node one");
    let alone = of(|read| read.pods.truncate(1));
    let finding = found("candidates", &alone);
    assert!(finding.state == FindingState::Warning && finding.what.starts_with("a single JobManager"), "{finding:?}");
    let unready = of(|read| {
        for pod in &mut read.pods {
            pod["status"]["conditions"] = json!([{ "type": "Ready", "status": "False" }]);
        }
    });
    let finding = found("candidates", &unready);
    assert!(
        finding.state == FindingState::Problem && finding.what.contains("demo-b: its containers run"),
        "{finding:?}"
    );
}

#[test]
fn each_condition_that_is_not_as_it_should_be_is_a_finding() {
    let condition = |kind: &str, reason: &str| {
        let at = "2026-01-01T02:57:00Z";
        json!({ "type": kind, "status": "True", "reason": reason, "message": "because", "lastTransitionTime": at })
    };
    let mut read_objects = Read::default();
    let status = json!({ "conditions": [condition("Degraded", "StorageUnreachable"), {
        "type": "Paused", "status": "True", "reason": "ReconcileDisabled", "message": "asked for",
        "lastTransitionTime": "2026-01-01T02:57:00Z",
    }] });
    read_objects.resource.status = Some(read(status));
    let all = findings(&facts_of(read_objects));
    let conditions: Vec<&DoctorFinding> = all.iter().filter(|finding| finding.check == "condition").collect();
    let states: Vec<FindingState> = conditions.iter().map(|finding| finding.state).collect();
    assert_eq!(states, [FindingState::Problem, FindingState::Warning]);
    assert!(conditions[0].what.starts_with("Degraded: StorageUnreachable: because"), "{conditions:?}");
    assert!(conditions[0].remedy.contains("docs/operations.md#reasons-of-degraded"), "{conditions:?}");
    assert_eq!(problems(&all), 1);
}
