//! What stops a cluster, or will: facts that were read become findings, each with what was found, why it matters and
//! the remedy.

pub mod facts;
pub mod finding;
mod objects;
mod reached;
pub mod rights;
#[cfg(test)]
mod tests;

use self::facts::DoctorFacts;
use self::finding::DoctorFinding;

/// All findings, in the order in which they are shown.
pub fn findings(facts: &DoctorFacts) -> Vec<DoctorFinding> {
    let mut found = vec![
        objects::kubernetes(facts),
        objects::definition(facts),
        objects::operator(facts),
        rights::of_operator(facts),
        rights::of_gateways(facts),
        rights::of_person(facts),
        objects::leader(facts),
        objects::candidates(facts),
        objects::nodes(facts),
        objects::budget(facts),
        objects::images(facts),
        reached::storage(facts),
        reached::pointers(facts),
        reached::peers(facts),
        reached::api_server(facts),
        reached::clock_of_person(facts),
        reached::clock_of_pod(facts),
        objects::versions(facts),
    ];
    found.extend(objects::conditions(facts));
    found
}
