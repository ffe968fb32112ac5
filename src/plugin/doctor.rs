//! `doctor`: reads what may stop a cluster, and shows what was found. What is wrong is decided in [`view::doctor`].

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::CustomResourceExt as _;
use kube::api::ListParams;
use kube::client::Body;
use serde_json::{Value, json};

use super::access::PluginAccess;
use super::arguments::ReadArguments;
use super::clusters::read_cluster;
use super::exec::{ask, leading_pod};
use super::failure::{Failure, said};
use super::output::Output;
use super::view::candidates::PlacedPod;
use super::view::cluster::ClusterReport;
use super::view::doctor::facts::{DoctorFacts, Right, RightFact, RightHolder, TimedAnswer};
use super::view::doctor::finding::{DoctorFinding, problems, screen};
use super::view::doctor::findings;
use super::view::doctor::rights::wanted;
use crate::api::FlinkHaCluster;
use crate::api::names::{
    CLUSTER_LABEL, JOB_MANAGER, MANAGED_BY, MANAGED_BY_LABEL, PROBE_PORT, RPC_PORT, job_manager, service_account,
};
use crate::ledger::asked::{ADDRESSES, ExaminedGateway, GatewayAnswer, GatewayQuestion};

/// Requests whose time is measured, one after another.
const MEASURED: usize = 5;
/// Limit for the answer of the leading gateway; each part of it has a limit of its own.
const GATEWAY: Duration = Duration::from_secs(40);

/// Examines a cluster.
///
/// # Errors
/// When the resource cannot be read, when problems were found, and when the output cannot be written.
pub async fn doctor(access: &PluginAccess, arguments: &ReadArguments, output: Output) -> Result<(), Failure> {
    let found = examine(access, &arguments.name).await?;
    output.report(arguments.output.format, &found, |has_colours| screen(&found, has_colours))?;
    match problems(&found) {
        0 => Ok(()),
        1 => Err(Failure::Problems(format!("a problem of {} was found", arguments.name))),
        several => Err(Failure::Problems(format!("{several} problems of {} were found", arguments.name))),
    }
}

/// Reads and decides.
///
/// # Errors
/// When the resource cannot be read.
pub async fn examine(access: &PluginAccess, name: &str) -> Result<Vec<DoctorFinding>, Failure> {
    let sources = read_cluster(access, name).await?;
    let now = Timestamp::now();
    let report = ClusterReport::of(&sources, now);
    let data = sources.ledger.as_ref().ok().and_then(Option::as_ref).and_then(|ledger| ledger.data.ha_data.as_ref());
    let flink_version = data.and_then(|data| data.flink_version.clone());
    let (operator_pod, account) = operator(access, &report).await;
    let labels = format!("{MANAGED_BY_LABEL}={MANAGED_BY},{CLUSTER_LABEL}={name}");
    let namespace = access.namespace.as_str();
    let definition = format!("{DEFINITIONS}/{}", FlinkHaCluster::crd_name());
    let (of_cluster, budget) = (ListParams::default().labels(&labels), job_manager(name));
    let (server, pods, definition, budget, rights, answers) = tokio::join!(
        access.client.apiserver_version(),
        access.list::<Pod>(Some(namespace), &of_cluster),
        access.read(&definition),
        access.get::<PodDisruptionBudget>(namespace, &budget),
        rights(access, &report, account),
        measured(access),
    );
    let told = |error: kube::Error| said(&error);
    let is_own = |pod: &Value| PlacedPod::read(pod).is_some_and(|pod| pod.is_job_manager(name));
    let pods = pods.map_err(told).map(|pods| pods.into_iter().filter(is_own).collect::<Vec<_>>());
    let begin = Timestamp::now();
    let gateway = gateway(access, &report, pods.as_deref().unwrap_or_default()).await;
    let facts = DoctorFacts {
        resource: sources.resource,
        report,
        server: server.map_err(told),
        pods,
        definition: definition.map_err(told),
        operator_pod,
        budget: budget.map_err(told),
        rights,
        gateway,
        gateway_asked: (begin, Timestamp::now()),
        answers,
        flink_version,
    };
    Ok(findings(&facts))
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The pod that holds the operators' Lease, with its ServiceAccount.
async fn operator(
    access: &PluginAccess,
    report: &ClusterReport,
) -> (Result<Option<Value>, String>, Option<(String, String)>) {
    let Some(operator) = &report.operator else { return (Ok(None), None) };
    // The namespace was checked when the Lease was read.
    let Some((namespace, _)) = operator.lease.split_once('/') else { return (Ok(None), None) };
    if super::parsers::resource_name(&operator.pod).is_err() {
        return (Ok(None), None);
    }
    let pod = access.get::<Pod>(namespace, &operator.pod).await.map_err(|error| said(&error));
    let account = pod.as_ref().ok().and_then(Option::as_ref);
    let account = account.and_then(|pod| pod["spec"]["serviceAccountName"].as_str().map(str::to_owned));
    let account = account.map(|account| (namespace.to_owned(), account));
    (pod, account)
}

const SELF_REVIEW: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const REVIEW: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// Asks for the rights of the person, and if the person may ask that, for those of the ServiceAccounts.
async fn rights(access: &PluginAccess, report: &ClusterReport, operator: Option<(String, String)>) -> Vec<RightFact> {
    let gateways = (access.namespace.clone(), service_account(&report.name, JOB_MANAGER));
    let wanted = wanted(&report.name, report.is_on_zookeeper(), operator.is_some());
    let asked = wanted.into_iter().map(async |right: Right| {
        let account = match right.holder {
            RightHolder::Person => None,
            RightHolder::Operator => operator.as_ref(),
            RightHolder::JobManagers => Some(&gateways),
        };
        let path = if account.is_some() { REVIEW } else { SELF_REVIEW };
        let answer = access.post(path, &review(&access.namespace, &right, account)).await;
        let allowed = answer.map(|answer| answer["status"]["allowed"] == true).map_err(|error| said(&error));
        RightFact { right, allowed }
    });
    join_all(asked).await
}

fn review(namespace: &str, right: &Right, account: Option<&(String, String)>) -> Value {
    let (resource, subresource) = right.resource.split_once('/').unwrap_or((right.resource, ""));
    let attributes = json!({
        "namespace": namespace, "verb": right.verb, "group": right.group, "resource": resource,
        "subresource": subresource, "name": right.name.as_deref().unwrap_or_default(),
    });
    let mut spec = json!({ "resourceAttributes": attributes });
    if let Some((namespace, account)) = account {
        spec["user"] = json!(format!("system:serviceaccount:{namespace}:{account}"));
        let of_namespace = format!("system:serviceaccounts:{namespace}");
        spec["groups"] = json!(["system:serviceaccounts", of_namespace, "system:authenticated"]);
    }
    let kind = if account.is_some() { "SubjectAccessReview" } else { "SelfSubjectAccessReview" };
    json!({ "apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec })
}

/// Asks the API server for its version some times.
async fn measured(access: &PluginAccess) -> Vec<Result<TimedAnswer, String>> {
    let mut answers = Vec::new();
    for _ in 0..MEASURED {
        let begin = Timestamp::now();
        let answer = match http::Request::get("/version").body(Body::empty()) {
            Ok(request) => access.client.send(request).await,
            Err(error) => Err(kube::Error::HttpError(error)),
        };
        let end = Timestamp::now();
        answers.push(answer.map_err(|error| said(&error)).map(|answer| {
            let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
            TimedAnswer { begin, end, date: date.and_then(|date| rfc2822::parse(date).ok()).map(|at| at.timestamp()) }
        }));
    }
    answers
}

/// Asks the leading gateway what it reaches, among it the other JobManagers that are ready.
async fn gateway(access: &PluginAccess, report: &ClusterReport, pods: &[Value]) -> Result<ExaminedGateway, String> {
    let leader = leading_pod(report)?;
    let is_ready = |name: &str| report.candidates.iter().any(|one| one.pod == name && one.ready);
    let others =
        pods.iter().filter(|pod| pod["metadata"]["name"].as_str().is_some_and(|name| name != leader && is_ready(name)));
    let addresses: Vec<IpAddr> = others.filter_map(|pod| pod["status"]["podIP"].as_str()?.parse().ok()).collect();
    let addresses = addresses.iter().flat_map(|ip| [RPC_PORT, PROBE_PORT].map(|port| SocketAddr::new(*ip, port)));
    let question = GatewayQuestion::Examine { addresses: addresses.take(ADDRESSES).collect() };
    match ask(access, &leader, &question, GATEWAY).await? {
        GatewayAnswer::Examined(examined) => Ok(examined),
        GatewayAnswer::Refused(why) => Err(why),
        _ => Err(format!("gateway {leader} answered another question")),
    }
}
