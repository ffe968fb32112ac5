//! What `doctor` reads, before anything is decided.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::version::Info;
use serde_json::Value;

use crate::api::FlinkHaCluster;
use crate::ledger::asked::ExaminedGateway;
use crate::plugin::view::cluster::ClusterReport;

/// What was read. An error is a sentence that says why something is not known.
pub struct DoctorFacts {
    pub resource: FlinkHaCluster,
    pub report: ClusterReport,
    /// What the API server says of its version.
    pub server: Result<Info, String>,
    /// JobManagers, as JSON.
    pub pods: Result<Vec<Value>, String>,
    /// The installed CustomResourceDefinition.
    pub definition: Result<Option<Value>, String>,
    /// The pod that holds the operators' Lease.
    pub operator_pod: Result<Option<Value>, String>,
    /// The JobManagers' disruption budget.
    pub budget: Result<Option<Value>, String>,
    pub rights: Vec<RightFact>,
    /// What the leading gateway says.
    pub gateway: Result<ExaminedGateway, String>,
    /// When the gateway was asked, by the clock of this machine.
    pub gateway_asked: (Timestamp, Timestamp),
    /// Requests for the API server's version, with the time that it says.
    pub answers: Vec<Result<TimedAnswer, String>>,
    /// Version of Flink that the leader runs, by the ledger.
    pub flink_version: Option<String>,
}

/// An answer of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedAnswer {
    /// By the clock of this machine.
    pub begin: Timestamp,
    pub end: Timestamp,
    /// The header `Date`, in whole seconds.
    pub date: Option<Timestamp>,
}

impl TimedAnswer {
    pub fn milliseconds(&self) -> i128 {
        self.end.duration_since(self.begin).as_millis()
    }
}

/// Who would use a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RightHolder {
    Person,
    Operator,
    JobManagers,
}

/// A right that somebody needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    pub holder: RightHolder,
    pub verb: &'static str,
    pub group: &'static str,
    /// With its subresource, such as `pods/log`.
    pub resource: &'static str,
    /// Of one object.
    pub name: Option<String>,
    /// The commands that need it, or what stops without it.
    pub wanted_for: &'static str,
}

impl Right {
    /// As a rule of a Role would say it.
    pub fn told(&self) -> String {
        let Self { verb, group, resource, .. } = self;
        let name = self.name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
        let dot = if group.is_empty() { "" } else { "." };
        format!("{verb} {resource}{dot}{group}{name}")
    }
}

/// A right, and whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RightFact {
    pub right: Right,
    pub allowed: Result<bool, String>,
}
