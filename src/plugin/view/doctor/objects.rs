//! Findings about Kubernetes and objects: definition, operator, leader, candidates, nodes, disruption budget, images,
//! versions, conditions.

use std::collections::BTreeSet;

use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::facts::DoctorFacts;
use super::finding::DoctorFinding;
use crate::api::FlinkHaCluster;
use crate::api::crd::only_in;
use crate::api::names::{GATEWAY_CONTAINER, UPGRADE_GATEWAYS_ANNOTATION, UPGRADE_NOW};
use crate::cluster::kubernetes_version::{WHY_TOO_OLD, too_old};

/// Fields that a finding names.
const NAMED: usize = 5;

pub fn kubernetes(facts: &DoctorFacts) -> DoctorFinding {
    let check = "Kubernetes";
    let server = match &facts.server {
        Ok(server) => server,
        Err(why) => return DoctorFinding::not_checked(check, why),
    };
    match too_old(server) {
        Some(version) => {
            DoctorFinding::problem(check, format!("{version} is too old")).why(WHY_TOO_OLD).remedy("upgrade Kubernetes")
        }
        None => DoctorFinding::good(check, &server.git_version),
    }
}

pub fn definition(facts: &DoctorFacts) -> DoctorFinding {
    let check = "CustomResourceDefinition";
    let installed = match &facts.definition {
        Ok(Some(installed)) => &installed["spec"],
        Ok(None) => {
            return DoctorFinding::problem(check, "it is not installed")
                .why("the operator cannot see any FlinkHaCluster")
                .remedy("kubectl apply --server-side --filename the file of charts/flinkha/crds");
        }
        Err(why) => return DoctorFinding::not_checked(check, why),
    };
    let own = json!(FlinkHaCluster::crd().spec);
    let (lacking, more) = (only_in(&own, installed), only_in(installed, &own));
    if !lacking.is_empty() {
        return DoctorFinding::warning(check, format!("the installed one lacks {}", some(&lacking)))
            .why("the operator of this version does not write these fields, and the API server drops them from resources")
            .remedy(
                "kubectl apply --server-side --force-conflicts --filename the file of charts/flinkha/crds of the operator's \
                 version",
            );
    }
    if !more.is_empty() {
        return DoctorFinding::warning(
            check,
            format!("the installed one has {}, which this plugin does not know", some(&more)),
        )
        .why("the plugin is of an earlier version, and does not show these fields")
        .remedy("take the plugin from the operator's image");
    }
    DoctorFinding::good(check, "the installed one has the fields of this version")
}

fn some(fields: &[String]) -> String {
    let named = fields[..fields.len().min(NAMED)].join(", ");
    if fields.len() > NAMED { format!("{named} and {} more", fields.len() - NAMED) } else { named }
}

pub fn operator(facts: &DoctorFacts) -> DoctorFinding {
    let check = "operator";
    let gone = facts.report.problems.iter().find(|problem| problem.reason == "OperatorGone");
    match (gone, &facts.report.operator) {
        (Some(gone), _) => DoctorFinding::problem(check, &gone.message)
            .why("nothing that is changed in the resource happens; JobManagers fail over as always")
            .remedy(
                "look at the operator's Deployment and the logs of its pods (docs/operations.md#the-operators-pods)",
            ),
        (None, Some(operator)) => {
            DoctorFinding::good(check, format!("{} holds Lease {}", operator.pod, operator.lease))
        }
        (None, None) => match facts.report.not_known.get("operator") {
            Some(why) => DoctorFinding::not_checked(check, format!("its Lease cannot be read: {why}")),
            None => DoctorFinding::problem(check, "no operator has taken the resource")
                .why("nothing happens with a resource that no operator reconciles")
                .remedy("install the operator, or let it watch this namespace (watchNamespace of the chart)"),
        },
    }
}

pub fn leader(facts: &DoctorFacts) -> DoctorFinding {
    let check = "leader";
    match &facts.report.leader {
        Some(leader) if leader.granted => DoctorFinding::good(check, format!("{} in term {}", leader.pod, leader.term)),
        Some(leader) => {
            DoctorFinding::warning(check, format!("{} is elected, and its Flink has not taken over yet", leader.pod))
                .why("until then it reads stored data and recovers jobs")
                .remedy("wait; if it stays so, kubectl flinkha logs --leader says why")
        }
        None if is_at_rest(facts) => {
            DoctorFinding::good(check, "none, because the application is suspended or has ended")
        }
        None if facts.report.not_known.contains_key("lease") => {
            DoctorFinding::not_checked(check, facts.report.not_known["lease"].as_str())
        }
        None => DoctorFinding::problem(check, "no JobManager leads")
            .why("no job runs without a leader")
            .remedy("see why candidates are not ready, here below"),
    }
}

fn is_at_rest(facts: &DoctorFacts) -> bool {
    facts.resource.status.as_ref().is_some_and(crate::plugin::view::problems::is_at_rest)
}

pub fn candidates(facts: &DoctorFacts) -> DoctorFinding {
    let check = "candidates";
    if let Some(why) = facts.report.not_known.get("pods") {
        return DoctorFinding::not_checked(check, why);
    }
    if is_at_rest(facts) {
        return DoctorFinding::good(check, "none are wanted now");
    }
    let all = &facts.report.candidates;
    let unready: Vec<String> = all
        .iter()
        .filter(|one| !one.ready)
        .map(|one| format!("{}: {}", one.pod, one.why.as_deref().unwrap_or("no reason is known")))
        .collect();
    let ready = all.len() - unready.len();
    let what = |text: String| if unready.is_empty() { text } else { format!("{text}; {}", unready.join("; ")) };
    match ready {
        0 => DoctorFinding::problem(check, what("no JobManager is ready".to_owned()))
            .why("nobody leads or could lead")
            .remedy("mend what the pods say; kubectl flinkha logs shows more"),
        1 => DoctorFinding::warning(check, what("a single JobManager is ready".to_owned()))
            .why("if it ends, nobody leads until another pod has started: a minute instead of a second")
            .remedy("set spec.jobManager.replicas to 2 or more, and mend what the other pods say"),
        _ if unready.is_empty() => DoctorFinding::good(check, format!("{ready} are ready")),
        _ => DoctorFinding::warning(check, what(format!("{ready} are ready")))
            .why("what is not ready cannot take over")
            .remedy("mend what the pods say"),
    }
}

pub fn nodes(facts: &DoctorFacts) -> DoctorFinding {
    let check = "nodes";
    if let Some(why) = facts.report.not_known.get("pods") {
        return DoctorFinding::not_checked(check, why);
    }
    let placed: Vec<&str> = facts.report.candidates.iter().filter_map(|one| one.node.as_deref()).collect();
    let nodes: BTreeSet<&str> = placed.iter().copied().collect();
    match (placed.len(), nodes.len()) {
        (0 | 1, _) => DoctorFinding::not_checked(check, "fewer than two JobManagers run"),
        (_, 1) => DoctorFinding::warning(check, format!("all {} JobManagers run on node {}", placed.len(), placed[0]))
            .why("they end together with the node")
            .remedy(
                "give the cluster more nodes on which JobManagers may run, then kubectl flinkha restart; they spread where \
                 they can",
            ),
        (pods, nodes) => DoctorFinding::good(check, format!("{pods} JobManagers on {nodes} nodes")),
    }
}

pub fn budget(facts: &DoctorFacts) -> DoctorFinding {
    let check = "disruption budget";
    let budget = match &facts.budget {
        Ok(Some(budget)) => budget,
        Ok(None) => {
            return DoctorFinding::warning(check, "the JobManagers have none")
                .why("a drain of nodes may take all of them at the same time")
                .remedy("the operator makes it; see that it runs and may (operator's rights)");
        }
        Err(why) => return DoctorFinding::not_checked(check, why),
    };
    let number = |field: &str| budget["status"][field].as_i64();
    match (number("disruptionsAllowed"), number("currentHealthy"), number("desiredHealthy")) {
        (Some(0), Some(healthy), Some(desired)) if healthy < desired || healthy > 0 && !is_at_rest(facts) => {
            DoctorFinding::warning(
                check,
                format!("no JobManager may be evicted now: {healthy} are healthy, {desired} must be"),
            )
            .why("a drain of their nodes waits")
            .remedy("mend the candidates that are not ready")
        }
        (Some(allowed), Some(healthy), _) => {
            DoctorFinding::good(check, format!("{allowed} of {healthy} JobManagers may be evicted now"))
        }
        _ => DoctorFinding::not_checked(check, "Kubernetes has not counted its pods yet"),
    }
}

/// Reasons of the kubelet for an image that it does not get.
const NO_IMAGE: [&str; 5] =
    ["ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable"];

pub fn images(facts: &DoctorFacts) -> DoctorFinding {
    let check = "images";
    let pods = match &facts.pods {
        Ok(pods) => pods,
        Err(why) => return DoctorFinding::not_checked(check, why),
    };
    let containers = |pod: &Value| -> Vec<Value> {
        let lists = ["initContainerStatuses", "containerStatuses"];
        lists.iter().flat_map(|list| pod["status"][list].as_array().cloned().unwrap_or_default()).collect()
    };
    let mut gone = Vec::new();
    for pod in pods {
        for container in containers(pod) {
            let reason = container["state"]["waiting"]["reason"].as_str().unwrap_or_default();
            if NO_IMAGE.contains(&reason) {
                let image = container["image"].as_str().unwrap_or_default();
                gone.push(format!("{}: {reason} of {image}", name(pod)));
            }
        }
    }
    if !gone.is_empty() {
        return DoctorFinding::problem(check, gone.join("; "))
            .why("the pod does not start; neither does any other on a node without the image")
            .remedy(format!(
                "push the image, or set spec.image; for the gateway's: kubectl annotate fhc {} \
                 {UPGRADE_GATEWAYS_ANNOTATION}={UPGRADE_NOW} takes the operator's",
                facts.report.name
            ));
    }
    let wanted = facts.operator_pod.as_ref().ok().and_then(Option::as_ref).and_then(gateway_image_of_operator);
    let other: BTreeSet<String> = pods.iter().filter_map(gateway_image).collect();
    match wanted {
        Some(wanted) if other.iter().any(|image| *image != wanted) => {
            let other: Vec<&str> = other.iter().map(String::as_str).filter(|image| *image != wanted).collect();
            DoctorFinding::warning(check, format!("gateways run {}, and the operator has {wanted}", other.join(", ")))
                .why(
                    "an upgrade of the operator restarts no JobManager: the image stays until pods are replaced anyway, so \
                     registries must keep it",
                )
                .remedy(format!(
                    "kubectl annotate fhc {} {UPGRADE_GATEWAYS_ANNOTATION}={UPGRADE_NOW} replaces JobManagers one by one, the \
                     leader last",
                    facts.report.name
                ))
        }
        Some(wanted) if other.contains(&wanted) => {
            DoctorFinding::good(check, format!("gateways run the operator's {wanted}"))
        }
        _ => DoctorFinding::good(check, "no pod waits for an image"),
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn gateway_image(pod: &Value) -> Option<String> {
    let containers = ["initContainers", "containers"].iter().flat_map(|list| pod["spec"][list].as_array());
    let gateway = containers.flatten().find(|container| container["name"] == GATEWAY_CONTAINER)?;
    gateway["image"].as_str().map(str::to_owned)
}

fn gateway_image_of_operator(pod: &Value) -> Option<String> {
    let variables = pod["spec"]["containers"].as_array()?.iter().filter_map(|container| container["env"].as_array());
    let image = variables.flatten().find(|variable| variable["name"] == "GATEWAY_IMAGE")?;
    image["value"].as_str().map(str::to_owned)
}

pub fn versions(facts: &DoctorFacts) -> DoctorFinding {
    let check = "versions";
    let own = env!("CARGO_PKG_VERSION");
    let operator = facts.operator_pod.as_ref().ok().and_then(Option::as_ref);
    let operator = operator.and_then(|pod| pod["metadata"]["labels"]["app.kubernetes.io/version"].as_str());
    let gateway = facts.gateway.as_ref().ok().map(|gateway| gateway.version.as_str());
    let told = |who: &str, version: Option<&str>| format!("{who} {}", version.unwrap_or("not known"));
    let flink = told("Flink", facts.flink_version.as_deref());
    let what = [told("plugin", Some(own)), told("operator", operator), told("gateway", gateway), flink].join(", ");
    // The chart of a working tree has a word in place of a version.
    let is_number = |version: &&str| version.starts_with(|c: char| c.is_ascii_digit());
    let differs = [operator, gateway].into_iter().flatten().filter(is_number).any(|version| version != own);
    match differs {
        true => DoctorFinding::warning(check, what)
            .why("plugin, operator and gateways of one version know the same fields and answers")
            .remedy("take the plugin from the operator's image, and let gateways take the operator's image (images)"),
        false => DoctorFinding::good(check, what),
    }
}

/// A finding for each condition that is not as it should be.
pub fn conditions(facts: &DoctorFacts) -> Vec<DoctorFinding> {
    let told = facts.report.problems.iter().filter(|problem| problem.reason != "OperatorGone");
    let told: Vec<DoctorFinding> = told
        .map(|problem| {
            let what = format!("{}: {}: {}", problem.conditions.join(", "), problem.reason, problem.message);
            let finding = match problem.is_expected {
                true => DoctorFinding::warning("condition", what),
                false => DoctorFinding::problem("condition", what),
            };
            finding.remedy(format!("the message names it; see {}", problem.see))
        })
        .collect();
    if told.is_empty() {
        return vec![DoctorFinding::good("conditions", "all are as they should be")];
    }
    told
}
