//! Findings about what is reached from the leading pod and from this machine, and how fast; and about clocks.

use jiff::{SignedDuration, Timestamp};

use super::facts::{DoctorFacts, TimedAnswer};
use super::finding::DoctorFinding;
use crate::ledger::asked::{ExaminedGateway, TimedResult};

/// Milliseconds that a request usually takes at most: a leader renews every 2 s, and steps down after 10 s without.
const SLOW: i128 = 500;
const MUCH_TOO_SLOW: i128 = 4000;
/// The same for the storage, of which no deadline depends.
const SLOW_STORAGE: u64 = 2000;
/// Clocks that differ less agree.
const APART: SignedDuration = SignedDuration::from_secs(5);

pub fn storage(facts: &DoctorFacts) -> DoctorFinding {
    let check = "storage";
    let place = &facts.resource.spec.high_availability.storage_dir;
    let gateway = match &facts.gateway {
        Ok(gateway) => gateway,
        Err(why) => return DoctorFinding::not_checked(check, why),
    };
    let TimedResult { milliseconds, failed } = &gateway.storage;
    let what = if gateway.leads { "writes and reads its mark" } else { "reads the marks" };
    match failed {
        Some(why) => DoctorFinding::problem(check, format!("the gateway fails to use {place}: {why}"))
            .why("Flink cannot store checkpoints or recover jobs there either, and ended jobs' files stay")
            .remedy(
                "check address and credentials of the storage (spec.flinkConfiguration, spec.flinkConfigurationFrom, the \
                 environment in spec.jobManager.podTemplate), and NetworkPolicies between the pods and it",
            ),
        None if *milliseconds > SLOW_STORAGE => {
            DoctorFinding::warning(check, format!("the gateway {what} in {place} in {milliseconds} ms"))
                .why("checkpoints and recoveries wait for the storage")
                .remedy("look at the load and the place of the storage")
        }
        None => DoctorFinding::good(check, format!("the gateway {what} in {place} in {milliseconds} ms")),
    }
}

/// The store of the pointers, as the pod reaches it.
pub fn pointers(facts: &DoctorFacts) -> DoctorFinding {
    let (check, store) = match facts.report.is_on_zookeeper() {
        true => ("quorum", "ZooKeeper"),
        false => ("API server from the pod", "the API server"),
    };
    let gateway = match &facts.gateway {
        Ok(gateway) => gateway,
        Err(why) => return DoctorFinding::not_checked(check, why),
    };
    for result in [&gateway.pointers, &gateway.ledger] {
        if let Some(why) = &result.failed {
            return DoctorFinding::problem(check, format!("the gateway fails to read HA data: {why}"))
                .why("without it no new leader is elected, and no checkpoint completes")
                .remedy(format!(
                    "look at {store}, the rights of the JobManagers, and NetworkPolicies of this namespace"
                ));
        }
    }
    let (pointers, ledger) = (gateway.pointers.milliseconds, gateway.ledger.milliseconds);
    let what = format!("pointers are read in {pointers} ms, the ledger in {ledger} ms");
    slow(check, what, i128::from(ledger.max(pointers)), &format!("look at the load of {store}"))
}

fn slow(check: &'static str, what: String, milliseconds: i128, remedy: &str) -> DoctorFinding {
    let why = "a leader renews its Lease every 2 s, and steps down after 10 s without (spec.highAvailability.lease)";
    match milliseconds {
        MUCH_TOO_SLOW.. => DoctorFinding::problem(check, what).why(why).remedy(remedy),
        SLOW.. => DoctorFinding::warning(check, what).why(why).remedy(remedy),
        _ => DoctorFinding::good(check, what),
    }
}

pub fn peers(facts: &DoctorFacts) -> DoctorFinding {
    let check = "peers";
    let ExaminedGateway { addresses, .. } = match &facts.gateway {
        Ok(gateway) => gateway,
        Err(why) => return DoctorFinding::not_checked(check, why),
    };
    let lost: Vec<String> =
        addresses.iter().filter_map(|one| Some(format!("{}: {}", one.address, one.result.failed.as_ref()?))).collect();
    if !lost.is_empty() {
        return DoctorFinding::problem(check, format!("the leading pod does not reach {}", lost.join("; ")))
            .why(
                "gateways ask each other for promises, without which an outage of the API server ends the leadership; \
                 TaskManagers reach JobManagers by the same ports",
            )
            .remedy("look at those pods, and at NetworkPolicies beside the one that the operator makes");
    }
    match addresses.iter().map(|one| one.result.milliseconds).max() {
        None => DoctorFinding::not_checked(check, "there is no other JobManager with an address"),
        Some(most) => DoctorFinding::good(
            check,
            format!("{} ports of other JobManagers are reached in {most} ms", addresses.len()),
        ),
    }
}

/// The API server, as this machine reaches it.
pub fn api_server(facts: &DoctorFacts) -> DoctorFinding {
    let check = "API server from here";
    if let Some(why) = facts.answers.iter().find_map(|answer| answer.as_ref().err()) {
        return DoctorFinding::problem(check, format!("a request failed: {why}"))
            .why("whoever reaches it as you do sees and changes nothing")
            .remedy("look at the API server and the way to it");
    }
    let mut times: Vec<i128> = facts.answers.iter().flatten().map(TimedAnswer::milliseconds).collect();
    times.sort_unstable();
    match times.get(times.len() / 2) {
        None => DoctorFinding::not_checked(check, "nothing was asked"),
        Some(&median) => {
            let what = format!("it answers in {median} ms (median of {})", times.len());
            // Its distance from this machine says nothing of the cluster.
            match median {
                MUCH_TOO_SLOW.. => DoctorFinding::warning(check, what)
                    .why("the way from this machine may be slow, or the API server overloaded")
                    .remedy("compare with the time that the pod needs"),
                _ => DoctorFinding::good(check, what),
            }
        }
    }
}

/// How far a clock is ahead of one that said `at` between two moments of it: zero if nothing is known to differ.
fn ahead(at: Timestamp, resolution: SignedDuration, (begin, end): (Timestamp, Timestamp)) -> SignedDuration {
    if begin > at + resolution {
        begin.duration_since(at + resolution)
    } else if end < at {
        end.duration_since(at)
    } else {
        SignedDuration::ZERO
    }
}

/// The clock of this machine, measured by the API server's.
fn own_ahead(facts: &DoctorFacts) -> Option<SignedDuration> {
    let of = |answer: &TimedAnswer| Some(ahead(answer.date?, SignedDuration::from_secs(1), (answer.begin, answer.end)));
    facts.answers.iter().flatten().filter_map(of).min_by_key(|ahead| ahead.unsigned_abs())
}

fn told(ahead: SignedDuration) -> String {
    let seconds = ahead.unsigned_abs().as_secs_f64();
    format!("{seconds:.1} s {}", if ahead.is_negative() { "behind" } else { "ahead of" })
}

pub fn clock_of_person(facts: &DoctorFacts) -> DoctorFinding {
    let check = "your clock";
    match own_ahead(facts) {
        None => DoctorFinding::not_checked(check, "the API server does not say what time it is"),
        Some(ahead) if ahead.unsigned_abs() > APART.unsigned_abs() => {
            DoctorFinding::warning(check, format!("the clock of this machine is {} the API server's", told(ahead)))
                .why("ages that the plugin shows compare the two")
                .remedy("synchronise the clock of this machine")
        }
        Some(_) => DoctorFinding::good(check, "it agrees with the API server's"),
    }
}

pub fn clock_of_pod(facts: &DoctorFacts) -> DoctorFinding {
    let check = "the leading pod's clock";
    let at = match &facts.gateway {
        Ok(gateway) => gateway.at.parse::<Timestamp>().ok(),
        Err(why) => return DoctorFinding::not_checked(check, why),
    };
    let Some((at, own)) = at.zip(own_ahead(facts)) else {
        return DoctorFinding::not_checked(check, "one of the clocks is not known");
    };
    let behind = ahead(at, SignedDuration::ZERO, facts.gateway_asked);
    let ahead = own - behind;
    if ahead.unsigned_abs() > APART.unsigned_abs() {
        return DoctorFinding::warning(check, format!("it is {} the API server's", told(ahead)))
            .why("elections do not compare clocks, but certificates, tokens, signed requests to S3 and logs do")
            .remedy("synchronise the clock of the pod's node");
    }
    DoctorFinding::good(check, "it agrees with the API server's")
}
