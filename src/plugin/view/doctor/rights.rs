//! Findings about rights.

use super::facts::{DoctorFacts, Right, RightFact, RightHolder};
use super::finding::DoctorFinding;
use crate::api::names::{self, JOB_MANAGER, service_account};

/// The person's: what they may not do is no fault of the cluster.
pub fn of_person(facts: &DoctorFacts) -> DoctorFinding {
    let check = "your rights";
    match missing(facts, RightHolder::Person) {
        Err(why) => DoctorFinding::not_checked(check, why),
        Ok(missing) if missing.is_empty() => DoctorFinding::good(check, "you may use every command"),
        Ok(missing) => {
            let told: Vec<String> =
                missing.iter().map(|fact| format!("{} ({})", fact.right.told(), fact.right.wanted_for)).collect();
            DoctorFinding::warning(check, format!("you may not {}", told.join(", ")))
                .why("commands that need it fail, or show less")
                .remedy("docs/plugin.md#rights lists what each command needs; a Role in this namespace grants it")
        }
    }
}

pub fn of_operator(facts: &DoctorFacts) -> DoctorFinding {
    let remedy = "upgrade the chart, whose Role has all of them (templates/rbac.yaml), or with rbac.create: false \
                  grant them (docs/rbac.md)";
    of_account(facts, RightHolder::Operator, ("operator's rights", "the operator"), remedy)
}

pub fn of_gateways(facts: &DoctorFacts) -> DoctorFinding {
    let account = service_account(&facts.report.name, JOB_MANAGER);
    let remedy = format!(
        "the operator makes Role and RoleBinding {account} of this resource, and makes them again when they are edited: \
         see its conditions, and that it runs"
    );
    of_account(facts, RightHolder::JobManagers, ("gateways' rights", "the JobManagers' ServiceAccount"), &remedy)
}

fn of_account(
    facts: &DoctorFacts,
    holder: RightHolder,
    (check, who): (&'static str, &str),
    remedy: &str,
) -> DoctorFinding {
    match missing(facts, holder) {
        Err(why) => DoctorFinding::not_checked(check, why),
        Ok(missing) if missing.is_empty() => DoctorFinding::good(check, format!("{who} has them")),
        Ok(missing) => {
            let told: Vec<String> = missing.iter().map(|fact| fact.right.told()).collect();
            let mut stops: Vec<&str> = missing.iter().map(|fact| fact.right.wanted_for).collect();
            stops.dedup();
            DoctorFinding::problem(check, format!("{who} may not {}", told.join(", ")))
                .why(format!("it needs this for: {}", stops.join("; ")))
                .remedy(remedy)
        }
    }
}

/// Rights that are not there; an error if nothing is known of any of them.
fn missing(facts: &DoctorFacts, holder: RightHolder) -> Result<Vec<&RightFact>, String> {
    let of_holder: Vec<&RightFact> = facts.rights.iter().filter(|fact| fact.right.holder == holder).collect();
    if of_holder.is_empty() {
        return Err("it is not known whose rights to ask for".to_owned());
    }
    match of_holder.iter().find_map(|fact| fact.allowed.as_ref().err()) {
        Some(why) if of_holder.iter().all(|fact| fact.allowed.is_err()) => Err(why.clone()),
        _ => Ok(of_holder.into_iter().filter(|fact| fact.allowed == Ok(false)).collect()),
    }
}

/// What is asked about rights. `operator`: the operator is known; `on_zookeeper`: Flink elects by a quorum.
pub fn wanted(cluster: &str, on_zookeeper: bool, operator: bool) -> Vec<Right> {
    let right = |holder, (verb, group, resource), name: Option<String>, wanted_for| Right {
        holder,
        verb,
        group,
        resource,
        name,
        wanted_for,
    };
    let person = PERSON.map(|(rule, wanted_for)| right(RightHolder::Person, rule, None, wanted_for));
    let of_operator = OPERATOR.iter().filter(|_| operator);
    let of_operator = of_operator.map(|(rule, wanted_for)| right(RightHolder::Operator, *rule, None, wanted_for));
    let ledger = Some(names::ledger(cluster));
    let mut gateways = vec![
        (("patch", "", "configmaps"), ledger, "the ledger, without which nothing of jobs is known"),
        (("patch", "discovery.k8s.io", "endpointslices"), Some(names::rest(cluster)), "the leader's REST address"),
    ];
    if !on_zookeeper {
        gateways.extend([
            (("patch", "coordination.k8s.io", "leases"), Some(names::lease(cluster)), "the election"),
            (("list", "", "configmaps"), None, "HA data"),
            (("create", "", "configmaps"), None, "HA data"),
            (("update", "", "configmaps"), None, "checkpoint pointers"),
        ]);
    }
    let gateways = gateways.into_iter().map(|(rule, name, wanted)| right(RightHolder::JobManagers, rule, name, wanted));
    person.into_iter().chain(of_operator).chain(gateways).collect()
}

type Rule = (&'static str, &'static str, &'static str);

/// Verb, group and resource that commands need, and the commands.
const PERSON: [(Rule, &str); 12] = [
    (("get", "flinkha.dev", "flinkhaclusters"), "all commands"),
    (("list", "flinkha.dev", "flinkhaclusters"), "status"),
    (("patch", "flinkha.dev", "flinkhaclusters"), "switchover, restart, suspend, resume, savepoint, pause, unpause"),
    (("get", "coordination.k8s.io", "leases"), "status, switchover"),
    (("list", "", "pods"), "status, logs, doctor"),
    (("get", "", "pods/log"), "logs, report"),
    (("list", "", "configmaps"), "inspect"),
    (("get", "", "configmaps"), "status, inspect"),
    (("list", "events.k8s.io", "events"), "history"),
    (("get", "", "pods/exec"), "gc, doctor, files of inspect"),
    (("create", "", "pods/exec"), "gc, doctor, files of inspect"),
    (("create", "", "pods/portforward"), "rest"),
];

/// What the operator does all the time.
const OPERATOR: [(Rule, &str); 10] = [
    (("list", "flinkha.dev", "flinkhaclusters"), "seeing resources"),
    (("patch", "flinkha.dev", "flinkhaclusters"), "the finalizer"),
    (("patch", "flinkha.dev", "flinkhaclusters/status"), "the status"),
    (("create", "apps", "deployments"), "pods"),
    (("patch", "apps", "deployments"), "pods"),
    (("list", "", "pods"), "seeing why pods do not start"),
    (("patch", "", "configmaps"), "Flink's configuration"),
    (("patch", "coordination.k8s.io", "leases"), "switchovers and savepoints"),
    (("patch", "rbac.authorization.k8s.io", "roles"), "the JobManagers' rights"),
    (("patch", "networking.k8s.io", "networkpolicies"), "NetworkPolicies"),
];
