//! What each value does, and which values are rejected.

use serde_json::{Value, json};

use crate::helm::{CHART, Rendered, helm, objects, render, upgrade};

/// Values, the object in which they show, where in it (a path, or a variable of the operator), and what is there then.
fn cases() -> Vec<(Value, (&'static str, &'static str), &'static str, Value)> {
    const OPERATOR: (&str, &str) = ("Deployment", "flinkha-operator");
    const ACCOUNT: (&str, &str) = ("ServiceAccount", "flinkha-operator");
    const BUDGET: (&str, &str) = ("PodDisruptionBudget", "flinkha-operator");
    const POLICY: (&str, &str) = ("NetworkPolicy", "flinkha-operator");
    const POD: &str = "/spec/template/spec";
    let container = |at: &str| -> &'static str { format!("{POD}/containers/0/{at}").leak() };
    let pod = |at: &str| -> &'static str { format!("{POD}/{at}").leak() };
    let digest = format!("sha256:{}", "1".repeat(64));
    let spread = json!([{ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway" }]);
    let taint = json!([{ "operator": "Exists" }]);
    let volume = json!([{ "name": "ca", "secret": { "secretName": "ca" } }]);
    vec![
        (json!({}), OPERATOR, container("image"), json!("flinkha/flinkha:dev")),
        (json!({ "image": { "tag": "1" } }), OPERATOR, container("image"), json!("flinkha/flinkha:1")),
        (
            json!({ "image": { "digest": digest, "tag": "1" }, "imageRegistry": "mirror:5000/x" }),
            OPERATOR,
            container("image"),
            json!(format!("mirror:5000/x/flinkha/flinkha@{digest}")),
        ),
        (json!({ "imageRegistry": "mirror/" }), OPERATOR, "GATEWAY_IMAGE", json!("mirror/flinkha/flinkha:dev")),
        (json!({ "image": { "pullPolicy": "Always" } }), OPERATOR, container("imagePullPolicy"), json!("Always")),
        (json!({ "imagePullSecrets": [{ "name": "s" }] }), OPERATOR, pod("imagePullSecrets"), json!([{ "name": "s" }])),
        (json!({ "replicas": 2 }), OPERATOR, "/spec/replicas", json!(2)),
        (json!({ "watchNamespace": "a" }), OPERATOR, "WATCH_NAMESPACE", json!("a")),
        (json!({ "watchNamespaces": ["a", "b", "a"] }), OPERATOR, "WATCH_NAMESPACE", json!("a,b")),
        (json!({ "labelSelector": "team in (a,b)" }), OPERATOR, "LABEL_SELECTOR", json!("team in (a,b)")),
        (
            json!({ "imagePullSecrets": [{ "name": "s" }, { "name": "t" }] }),
            OPERATOR,
            "IMAGE_PULL_SECRETS",
            json!("s,t"),
        ),
        (json!({ "leaderElection": { "enabled": true } }), OPERATOR, "LEASE_NAME", json!("flinkha-operator")),
        (json!({ "log": { "level": "debug" } }), OPERATOR, "RUST_LOG", json!("debug")),
        (
            json!({ "networkPolicy": { "enabled": true } }),
            POLICY,
            "/spec",
            json!({
                "podSelector": { "matchLabels": selector("flinkha-operator", "flinkha") },
                "policyTypes": ["Ingress"],
                "ingress": [],
            }),
        ),
        (
            json!({ "networkPolicy": { "enabled": true, "metricsFrom": [{ "podSelector": {} }] } }),
            POLICY,
            "/spec/ingress",
            json!([{ "from": [{ "podSelector": {} }], "ports": [{ "port": "metrics", "protocol": "TCP" }] }]),
        ),
        (
            json!({ "monitoring": { "podMonitor": { "enabled": true } }, "watchNamespaces": ["a", "b"] }),
            ("PodMonitor", "gateways"),
            "/spec/namespaceSelector/matchNames",
            json!(["a", "b"]),
        ),
        (json!({ "log": { "gateway": "debug" } }), OPERATOR, "GATEWAY_LOG", json!("debug")),
        (json!({ "log": { "operator": "debug" } }), OPERATOR, "RUST_LOG", json!("debug")),
        (json!({ "log": { "format": "json" } }), OPERATOR, "LOG_FORMAT", json!("json")),
        (json!({ "rollout": { "maxConcurrent": 0 } }), OPERATOR, "ROLLOUT_MAX_CONCURRENT", json!("0")),
        (json!({ "rollout": { "delay": 60 } }), OPERATOR, "ROLLOUT_DELAY", json!("60s")),
        (json!({ "serviceAccount": { "annotations": { "a": "b" } } }), ACCOUNT, "/metadata/annotations/a", json!("b")),
        (
            json!({ "serviceAccount": { "name": "mine", "create": false } }),
            OPERATOR,
            pod("serviceAccountName"),
            json!("mine"),
        ),
        (json!({ "serviceAccount": { "create": false } }), OPERATOR, pod("serviceAccountName"), json!("default")),
        (
            json!({ "serviceAccount": { "name": "mine", "create": false } }),
            ("ClusterRoleBinding", "flinkha-operator"),
            "/subjects/0/name",
            json!("mine"),
        ),
        (json!({ "commonLabels": { "team": "a" } }), OPERATOR, "/spec/template/metadata/labels/team", json!("a")),
        (json!({ "commonLabels": { "team": "a" } }), ("Role", "operator"), "/metadata/labels/team", json!("a")),
        (json!({ "commonAnnotations": { "a": "b" } }), ACCOUNT, "/metadata/annotations/a", json!("b")),
        (json!({ "commonAnnotations": { "a": "b" } }), OPERATOR, "/spec/template/metadata/annotations/a", json!(null)),
        (json!({ "podLabels": { "p": "q" } }), OPERATOR, "/spec/template/metadata/labels/p", json!("q")),
        (
            json!({ "podAnnotations": { "prometheus.io/scrape": "false" } }),
            OPERATOR,
            "/spec/template/metadata/annotations",
            json!({ "prometheus.io/scrape": "false", "prometheus.io/port": "8080" }),
        ),
        (json!({ "priorityClassName": "high" }), OPERATOR, pod("priorityClassName"), json!("high")),
        (json!({ "nodeSelector": { "a": "b" } }), OPERATOR, pod("nodeSelector"), json!({ "a": "b" })),
        (json!({ "tolerations": taint }), OPERATOR, pod("tolerations"), taint.clone()),
        (json!({ "affinity": { "nodeAffinity": {} } }), OPERATOR, pod("affinity"), json!({ "nodeAffinity": {} })),
        (json!({ "topologySpreadConstraints": spread }), OPERATOR, pod("topologySpreadConstraints"), spread.clone()),
        (
            json!({ "updateStrategy": { "type": "Recreate" } }),
            OPERATOR,
            "/spec/strategy",
            json!({ "type": "Recreate" }),
        ),
        (
            json!({ "resources": { "limits": { "memory": "1Gi" } } }),
            OPERATOR,
            container("resources/limits/memory"),
            json!("1Gi"),
        ),
        (
            json!({ "podSecurityContext": { "runAsUser": null, "runAsGroup": null } }),
            OPERATOR,
            pod("securityContext"),
            json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } }),
        ),
        (
            json!({ "securityContext": { "runAsNonRoot": true } }),
            OPERATOR,
            container("securityContext/runAsNonRoot"),
            json!(true),
        ),
        (json!({ "extraEnv": [{ "name": "HTTPS_PROXY", "value": "x" }] }), OPERATOR, "HTTPS_PROXY", json!("x")),
        (json!({ "extraArgs": ["--a"] }), OPERATOR, container("args"), json!(["operator", "--a"])),
        (json!({ "extraVolumes": volume }), OPERATOR, pod("volumes"), volume.clone()),
        (
            json!({ "extraVolumeMounts": [{ "name": "ca", "mountPath": "/ca" }] }),
            OPERATOR,
            container("volumeMounts/0/mountPath"),
            json!("/ca"),
        ),
        (json!({ "podDisruptionBudget": { "enabled": true } }), BUDGET, "/spec/maxUnavailable", json!(1)),
        (
            json!({ "podDisruptionBudget": { "enabled": true, "minAvailable": "50%" } }),
            BUDGET,
            "/spec",
            json!({ "minAvailable": "50%", "selector": { "matchLabels": selector("flinkha-operator", "flinkha") } }),
        ),
        (
            json!({ "monitoring": { "podMonitor": { "enabled": true, "labels": { "release": "p" } } } }),
            ("PodMonitor", "gateways"),
            "/metadata/labels/release",
            json!("p"),
        ),
        (
            json!({ "monitoring": { "podMonitor": { "enabled": true } }, "watchNamespace": "a" }),
            ("PodMonitor", "gateways"),
            "/spec/namespaceSelector",
            json!({ "matchNames": ["a"] }),
        ),
        (
            json!({ "monitoring": { "podMonitor": { "enabled": true, "interval": "5s" } } }),
            ("PodMonitor", "flinkha-operator"),
            "/spec/podMetricsEndpoints/0/interval",
            json!("5s"),
        ),
        (
            json!({ "monitoring": { "podMonitor": { "enabled": true } } }),
            ("PodMonitor", "gateways"),
            "/spec/podMetricsEndpoints/0/relabelings/0/targetLabel",
            json!("name"),
        ),
        (
            json!({ "monitoring": { "podMonitor": { "enabled": true } } }),
            ("PodMonitor", "flinkha-operator"),
            "/spec/podMetricsEndpoints/0/honorLabels",
            json!(true),
        ),
        (
            json!({ "monitoring": { "prometheusRule": { "enabled": true, "labels": { "release": "p" } } } }),
            ("PrometheusRule", "flinkha-operator"),
            "/metadata/labels/release",
            json!("p"),
        ),
        (
            json!({ "monitoring": { "prometheusRule": { "enabled": true, "disabled": ["FlinkHaNoLeader"] } } }),
            ("PrometheusRule", "flinkha-operator"),
            "/spec/groups/0/rules/0/alert",
            json!("FlinkHaSingleCandidate"),
        ),
        (
            json!({ "monitoring": { "dashboard": { "enabled": true, "labels": { "grafana_dashboard": null, "a": "b" } } } }),
            ("ConfigMap", "flinkha-operator-dashboard"),
            "/metadata/labels/a",
            json!("b"),
        ),
        (
            json!({ "monitoring": { "dashboard": { "enabled": true, "annotations": { "grafana_folder": "Flink" } } } }),
            ("ConfigMap", "flinkha-operator-dashboard"),
            "/metadata/annotations/grafana_folder",
            json!("Flink"),
        ),
        (
            json!({ "rbac": { "aggregateClusterRoles": true } }),
            ("ClusterRole", "view"),
            "/metadata/labels/rbac.authorization.k8s.io~1aggregate-to-view",
            json!("true"),
        ),
        (
            json!({ "admissionPolicy": { "validationActions": ["Warn", "Audit"] } }),
            ("ValidatingAdmissionPolicyBinding", "flinkha-system.flinkha.own-objects"),
            "/spec/validationActions",
            json!(["Warn", "Audit"]),
        ),
        (
            json!({ "watchNamespaces": ["a", "b"] }),
            ("ValidatingAdmissionPolicy", "flinkha-system.flinkha.own-objects"),
            "/spec/matchConstraints/namespaceSelector/matchExpressions",
            json!([{ "key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"] }]),
        ),
        (
            json!({ "serviceAccount": { "name": "mine", "create": false } }),
            ("ValidatingAdmissionPolicy", "flinkha-system.flinkha.credentials"),
            "/spec/matchConditions/0/expression",
            json!("request.userInfo.username != 'system:serviceaccount:flinkha-system:mine'"),
        ),
        (
            json!({ "commonAnnotations": { "a": "b" } }),
            ("ValidatingAdmissionPolicyBinding", "own-objects"),
            "/metadata/annotations/a",
            json!("b"),
        ),
        (
            json!({ "nameOverride": "op" }),
            ("Deployment", "flinkha-op"),
            "/spec/selector/matchLabels",
            selector("op", "flinkha"),
        ),
        (json!({ "fullnameOverride": "op" }), ("Deployment", "op"), "LEASE_NAME", json!("op")),
    ]
}

pub fn selector(name: &str, instance: &str) -> Value {
    json!({ "app.kubernetes.io/name": name, "app.kubernetes.io/instance": instance })
}

#[test]
fn every_value_does_what_it_says() {
    for (values, (kind, name), at, expected) in cases() {
        let rendered = render(&values);
        let object = rendered.one(kind, name);
        let variables = object["spec"]["template"]["spec"]["containers"][0]["env"].as_array();
        let variable = variables.into_iter().flatten().find(|variable| variable["name"] == at);
        let found = variable.map(|variable| &variable["value"]).or_else(|| object.pointer(at)).unwrap_or(&Value::Null);
        assert_eq!(*found, expected, "{values}: {at} of {kind} {name}");
    }
}

/// The chart holds few values without a case above; they show as objects that are absent.
#[test]
fn what_is_switched_off_is_absent() {
    let kinds = |rendered: &Rendered| rendered.names().into_iter().map(|(kind, ..)| kind).collect::<Vec<_>>();
    let default = kinds(&render(&json!({})));
    let expected = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Deployment"];
    for kind in expected {
        assert_eq!(default.iter().filter(|found| *found == kind).count(), 1, "{kind} of {default:?}");
    }
    let without = |values: Value, absent: &[&str]| {
        let expected: Vec<&str> = expected.iter().copied().filter(|kind| !absent.contains(kind)).collect();
        let found = kinds(&render(&values));
        for kind in absent {
            assert!(!found.iter().any(|found| found == kind), "{values}: {found:?}");
        }
        assert!(expected.iter().all(|kind| found.iter().any(|found| found == kind)), "{values}: {found:?}");
    };
    without(json!({ "rbac": { "create": false } }), &["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]);
    without(json!({ "serviceAccount": { "create": false } }), &["ServiceAccount"]);
    without(json!({ "watchNamespace": "a" }), &["ClusterRole", "ClusterRoleBinding"]);
    let rendered = render(&json!({}));
    let operator = &rendered.one("Deployment", "operator")["spec"]["template"]["spec"]["containers"][0]["env"];
    for name in ["LABEL_SELECTOR", "IMAGE_PULL_SECRETS"] {
        assert!(!operator.to_string().contains(name), "{name} would restart the operator of who does not set it");
    }
    let address = json!({ "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } });
    assert!(operator.as_array().is_some_and(|all| all.contains(&address)), "{operator}");
}

/// The same rights in each namespace, and in no other.
#[test]
fn each_watched_namespace_has_a_role() {
    let rendered = render(&json!({ "watchNamespaces": ["a", "b"] }));
    let of = |kind: &str, namespace: &str| {
        let is_it = |object: &&Value| {
            object["kind"] == kind
                && object["metadata"]["name"] == "flinkha-operator-clusters"
                && object["metadata"]["namespace"] == namespace
        };
        rendered.0.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} in {namespace}: {:?}", rendered.names()))
    };
    let everywhere = render(&json!({}));
    for namespace in ["a", "b"] {
        assert_eq!(of("Role", namespace)["rules"], everywhere.one("ClusterRole", "operator")["rules"]);
        let binding = of("RoleBinding", namespace);
        assert_eq!(binding["roleRef"]["name"], "flinkha-operator-clusters");
        assert_eq!(binding["subjects"], everywhere.one("ClusterRoleBinding", "operator")["subjects"]);
    }
    assert!(!rendered.names().iter().any(|(kind, ..)| kind.starts_with("ClusterRole")), "{:?}", rendered.names());
}

#[test]
fn what_contradicts_itself_is_refused_in_one_sentence() {
    let cases = [
        (json!({ "watchNamespace": "a", "watchNamespaces": ["b"] }), "so put that into watchNamespaces"),
        (json!({ "leaderElection": { "enabled": false } }), "leaderElection.enabled: false is not possible"),
    ];
    for (values, sentence) in cases {
        let error = helm(&["template", "flinkha", CHART], &values).expect_err(&format!("{values} is accepted"));
        assert!(error.contains(sentence), "{values}: {error}");
    }
}

/// Where a chart is shown, its icon comes from the chart itself.
#[test]
fn the_icon_is_in_the_chart() {
    let read = |name: &str| std::fs::read_to_string(format!("{CHART}/{name}")).unwrap();
    let chart: Value = serde_yaml::from_str(&read("Chart.yaml")).unwrap();
    let text = chart["icon"].as_str().unwrap().strip_prefix("data:image/svg+xml;base64,").unwrap().to_owned();
    let icon = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).unwrap();
    assert_eq!(String::from_utf8(icon).unwrap(), read("icon.svg"));
}

#[test]
fn policies_are_there_where_the_api_server_has_them_and_unless_they_are_switched_off() {
    let policies = |rendered: &Rendered| {
        let names = rendered.names().into_iter().filter(|(kind, ..)| kind.starts_with("ValidatingAdmissionPolicy"));
        names.map(|(_, _, name)| name).collect::<Vec<_>>()
    };
    let (own, credentials) = ("flinkha-system.flinkha.own-objects", "flinkha-system.flinkha.credentials");
    let mut found = policies(&render(&json!({})));
    found.sort();
    assert_eq!(found, [credentials, credentials, own, own], "policies and their bindings");
    assert!(policies(&render(&json!({ "admissionPolicy": { "enabled": false } }))).is_empty());
    let text = helm(&["template", "flinkha", CHART], &json!({})).unwrap();
    assert!(policies(&Rendered(objects(&text))).is_empty(), "an older API server");
}

fn everything_monitored() -> Value {
    let enabled = json!({ "enabled": true });
    json!({ "podMonitor": enabled, "prometheusRule": enabled, "dashboard": enabled })
}

/// What Helm renders is what the files say: templates of Prometheus and Grafana are not Helm's.
#[test]
fn rules_and_dashboard_arrive_unchanged_and_the_pod_monitors_find_the_ports() {
    let rendered = render(&json!({ "monitoring": everything_monitored() }));
    let file = |name: &str| std::fs::read_to_string(format!("{CHART}/files/{name}")).unwrap();
    let rules: Value = serde_yaml::from_str(&file("alerts.yaml")).unwrap();
    assert_eq!(rendered.one("PrometheusRule", "flinkha-operator")["spec"], rules);
    let dashboard = rendered.one("ConfigMap", "dashboard");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let text = dashboard["data"]["flinkha.json"].as_str().unwrap();
    let [found, expected]: [Value; 2] = [text, &file("dashboard.json")].map(|text| serde_json::from_str(text).unwrap());
    assert_eq!(found, expected);
    let ports = |name: &str| -> Vec<Value> {
        let endpoints = rendered.one("PodMonitor", name)["spec"]["podMetricsEndpoints"].as_array().unwrap();
        endpoints.iter().map(|endpoint| endpoint["port"].clone()).collect()
    };
    assert_eq!(ports("gateways"), ["metrics", "gateway"]);
    let operator = &rendered.one("Deployment", "operator")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(ports("flinkha-operator"), [operator["ports"][0]["name"].clone()]);
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    let every = json!({
        "rbac": { "aggregateClusterRoles": true },
        "monitoring": everything_monitored(),
        "podDisruptionBudget": { "enabled": true },
        "networkPolicy": { "enabled": true, "metricsFrom": [{ "podSelector": {} }] },
        "watchNamespaces": ["a", "b"],
        "labelSelector": "team=a",
        "imagePullSecrets": [{ "name": "s" }],
        "commonLabels": { "a": "b" },
        "commonAnnotations": { "a": "b" },
    });
    for values in [json!({}), every] {
        helm(&["lint", "--strict", CHART], &values).unwrap_or_else(|error| panic!("{values}: {error}"));
    }
}

#[test]
fn what_is_wrong_is_rejected_by_its_name() {
    let cases = [
        (json!({ "replica": 2 }), "replica"),
        (json!({ "log": { "format": "xml" } }), "format"),
        (json!({ "replicas": 0 }), "replicas"),
        (json!({ "image": { "digest": "sha256:1" } }), "digest"),
        (json!({ "image": { "tag": 1 } }), "tag"),
        (json!({ "leaderElection": { "leaseDuration": "15s" } }), "leaseDuration"),
        (json!({ "watchNamespaces": ["A"] }), "watchNamespaces"),
        (json!({ "networkPolicy": null }), "networkPolicy"),
        (json!({ "serviceAccount": { "annotation": {} } }), "annotation"),
        (json!({ "podLabels": { "a": "b c" } }), "podLabels"),
        (json!({ "podDisruptionBudget": { "minAvailable": "half" } }), "minAvailable"),
        (json!({ "monitoring": { "podMonitor": { "interval": "1" } } }), "interval"),
        (json!({ "monitoring": { "prometheusRule": { "disabled": ["NoLeader"] } } }), "disabled"),
        (json!({ "monitoring": { "dashboard": null } }), "dashboard"),
        (json!({ "updateStrategy": { "type": "Canary" } }), "updateStrategy"),
        (json!({ "extraEnv": [{ "value": "x" }] }), "extraEnv"),
        (json!({ "watchNamespace": "A" }), "watchNamespace"),
        (json!({ "imageRegistry": "a b" }), "imageRegistry"),
        // As `helm upgrade --reuse-values` leaves out what an earlier chart did not have.
        (json!({ "crds": null }), "crds"),
        (json!({ "admissionPolicy": null }), "admissionPolicy"),
        (json!({ "admissionPolicy": { "validationActions": [] } }), "validationActions"),
        (json!({ "podSecurityContext": null }), "podSecurityContext"),
    ];
    for (values, name) in cases {
        let error = helm(&["template", "flinkha", CHART], &values).expect_err(&format!("{values} is accepted"));
        assert!(error.contains(name) && error.contains("schema"), "{values}: {error}");
    }
}

/// `helm test` runs the program with the names that the operator has, and with its rights.
#[test]
fn helm_test_asks_for_the_operator_of_this_release() {
    let values =
        json!({ "fullnameOverride": "op", "watchNamespaces": ["a", "b"], "serviceAccount": { "name": "mine" } });
    let text = helm(&["template", "flinkha", CHART, "--namespace", "system"], &values).unwrap();
    let rendered = Rendered(objects(&text));
    let pod = &rendered.one("Pod", "op-test")["spec"];
    let expected = json!(["check", "--namespace=system", "--lease-name=op", "--watch-namespace=a,b"]);
    assert_eq!(pod["containers"][0]["args"], expected);
    let operator = &rendered.one("Deployment", "op")["spec"]["template"]["spec"];
    for part in ["serviceAccountName", "securityContext"] {
        assert_eq!(pod[part], operator[part], "{part}");
    }
    assert_eq!(pod["containers"][0]["image"], operator["containers"][0]["image"]);
}

#[test]
fn no_object_is_rendered_twice() {
    let every = json!({
        "rbac": { "aggregateClusterRoles": true },
        "monitoring": everything_monitored(),
        "podDisruptionBudget": { "enabled": true },
        "networkPolicy": { "enabled": true },
        "watchNamespaces": ["a", "b"],
    });
    for rendered in [render(&every), upgrade(&every)] {
        let mut names = rendered.names();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
    }
}
