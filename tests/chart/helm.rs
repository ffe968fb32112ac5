//! Helm's rendering of the chart.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/flinkha");

/// What API servers from Kubernetes 1.30 on have.
const POLICIES: &str = "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy";

/// Runs helm; what it printed on standard error is the error.
pub fn helm(arguments: &[&str], values: &Value) -> Result<String, String> {
    let program = std::env::var("HELM").expect("HELM is the path of helm: run make test-chart");
    let mut command = Command::new(&program);
    command.args(arguments).args(["--values", "-"]);
    let mut helm = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    helm.stdin.take().unwrap().write_all(values.to_string().as_bytes()).unwrap();
    let output = helm.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stdout) + &text(output.stderr)) }
}

/// The objects of a release.
pub struct Rendered(pub Vec<Value>);

impl Rendered {
    /// The only object of this kind whose name ends so.
    pub fn one(&self, kind: &str, name: &str) -> &Value {
        let is_it =
            |object: &&Value| object["kind"] == kind && object["metadata"]["name"].as_str().unwrap().ends_with(name);
        let found: Vec<&Value> = self.0.iter().filter(is_it).collect();
        assert_eq!(found.len(), 1, "{kind} {name} of {:?}", self.names());
        found[0]
    }

    /// Kind, namespace and name of all objects.
    pub fn names(&self) -> Vec<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = |object: &Value| {
            (text(&object["kind"]), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
        };
        self.0.iter().map(name).collect()
    }
}

/// Renders release `flinkha` in namespace `flinkha-system`.
pub fn render(values: &Value) -> Rendered {
    release(("flinkha", "flinkha-system"), &[], values)
}

/// The same as for an upgrade of the release, hooks included.
pub fn upgrade(values: &Value) -> Rendered {
    release(("flinkha", "flinkha-system"), &["--is-upgrade"], values)
}

pub fn release(place: (&str, &str), arguments: &[&str], values: &Value) -> Rendered {
    Rendered(objects(&release_text(place, arguments, values)))
}

/// The same as helm prints it.
pub fn release_text((name, namespace): (&str, &str), arguments: &[&str], values: &Value) -> String {
    let place = ["template", name, CHART, "--namespace", namespace, "--skip-tests", "--api-versions", POLICIES];
    let arguments = [&place, arguments].concat();
    helm(&arguments, values).unwrap_or_else(|error| panic!("{values}: {error}"))
}

/// The objects in a stream of YAML documents.
pub fn objects(text: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(text);
    let read =
        |document| <Value as serde::Deserialize>::deserialize(document).unwrap_or_else(|e| panic!("{e}: {text}"));
    documents.map(read).filter(|object| !object.is_null()).collect()
}
